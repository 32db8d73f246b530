"""Tiny pipelines of the published models that vary a picture, of the real classes."""

from __future__ import annotations

from typing import Any

from diffusers import (
    DDPMScheduler,
    PriorTransformer,
    StableDiffusionImageVariationPipeline,
    StableUnCLIPImg2ImgPipeline,
    UnCLIPImageVariationPipeline,
    UnCLIPPipeline,
    UnCLIPScheduler,
    UNet2DConditionModel,
    UNet2DModel,
)
from diffusers.pipelines.deprecated.unclip.text_proj import UnCLIPTextProjModel
from diffusers.pipelines.stable_diffusion.stable_unclip_image_normalizer import (
    StableUnCLIPImageNormalizer,
)
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

from tiny.encoders import clip
from tiny.parts import scheduler, seeded, unet, vae
from tiny.tokenizers import tokenizer


_DIM = 32


def _processor() -> CLIPImageProcessor:
    return CLIPImageProcessor(crop_size={"height": 24, "width": 24}, size={"shortest_edge": 24})


def _vision() -> CLIPVisionModelWithProjection:
    return CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=_DIM,
            intermediate_size=2 * _DIM,
            num_hidden_layers=1,
            num_attention_heads=4,
            image_size=24,
            patch_size=8,
            projection_dim=_DIM,
        )
    )


def _unclip(kind: Any, **more: Any) -> Any:
    def enlarging() -> UNet2DModel:
        return UNet2DModel(
            sample_size=32,
            layers_per_block=1,
            down_block_types=("ResnetDownsampleBlock2D",) * 2,
            up_block_types=("ResnetUpsampleBlock2D",) * 2,
            block_out_channels=(8, 16),
            in_channels=6,
            out_channels=3,
            norm_num_groups=4,
        )

    decoder = UNet2DConditionModel(
        sample_size=16,
        in_channels=3,
        out_channels=6,
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        block_out_channels=(8, 16),
        layers_per_block=1,
        cross_attention_dim=20,
        attention_head_dim=4,
        resnet_time_scale_shift="scale_shift",
        class_embed_type="identity",
        norm_num_groups=4,
    )
    noise = {"prediction_type": "epsilon", "num_train_timesteps": 1000}
    return kind(
        decoder=decoder,
        text_encoder=clip(_DIM, projection=True),
        tokenizer=tokenizer(),
        text_proj=UnCLIPTextProjModel(
            clip_embeddings_dim=_DIM, time_embed_dim=32, cross_attention_dim=20
        ),
        super_res_first=enlarging(),
        super_res_last=enlarging(),
        decoder_scheduler=UnCLIPScheduler(variance_type="learned_range", **noise),
        super_res_scheduler=UnCLIPScheduler(variance_type="fixed_small_log", **noise),
        **more,
    )


def karlo() -> UnCLIPImageVariationPipeline:
    """Karlo's variations: a 16 px decoder, enlarged to 32 px."""
    with seeded(0):
        return _unclip(
            UnCLIPImageVariationPipeline,
            feature_extractor=_processor(),
            image_encoder=_vision(),
        )


def karlo_text() -> UnCLIPPipeline:
    """Karlo from text, with its prior."""
    with seeded(0):
        prior = PriorTransformer(
            num_attention_heads=2, attention_head_dim=12, embedding_dim=_DIM, num_layers=1
        )
        return _unclip(
            UnCLIPPipeline,
            prior=prior,
            prior_scheduler=UnCLIPScheduler(
                variance_type="fixed_small_log",
                prediction_type="sample",
                num_train_timesteps=1000,
                clip_sample_range=5.0,
            ),
        )


def sd_unclip() -> StableUnCLIPImg2ImgPipeline:
    """Stable Diffusion that reads a picture's embedding beside the text; 32 px."""
    with seeded(0):
        return StableUnCLIPImg2ImgPipeline(
            feature_extractor=_processor(),
            image_encoder=_vision(),
            image_normalizer=StableUnCLIPImageNormalizer(embedding_dim=_DIM),
            image_noising_scheduler=DDPMScheduler(beta_schedule="squaredcos_cap_v2"),
            tokenizer=tokenizer(),
            text_encoder=clip(),
            unet=unet(
                class_embed_type="projection", projection_class_embeddings_input_dim=2 * _DIM
            ),
            scheduler=scheduler("v_prediction"),
            vae=vae(),
        )


def sd_variations() -> StableDiffusionImageVariationPipeline:
    """Stable Diffusion that reads a picture's embedding in place of the text; 32 px."""
    with seeded(0):
        return StableDiffusionImageVariationPipeline(
            vae=vae(),
            image_encoder=_vision(),
            unet=unet(),
            scheduler=scheduler(),
            safety_checker=None,
            feature_extractor=_processor(),
            requires_safety_checker=False,
        )
