"""A tiny pipeline of DeepFloyd IF (stage I)."""

from __future__ import annotations

from diffusers import DDPMScheduler, IFPipeline, UNet2DConditionModel

from tiny.encoders import t5
from tiny.parts import seeded
from tiny.registry import register
from tiny.tokenizers import t5_tokenizer


@register("deepfloyd_if")
def pipeline(seed: int = 0, **parts: object) -> IFPipeline:
    """A T5 of width 32, a UNet that predicts a variance besides, thresholds and all."""
    with seeded(seed):
        return IFPipeline(
            tokenizer=t5_tokenizer(),
            text_encoder=t5(32),
            unet=UNet2DConditionModel(
                sample_size=64,
                in_channels=3,
                out_channels=6,
                block_out_channels=(8, 16),
                layers_per_block=1,
                down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
                mid_block_type="UNetMidBlock2DSimpleCrossAttn",
                up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
                cross_attention_dim=32,
                encoder_hid_dim=32,
                attention_head_dim=8,
                addition_embed_type="text",
                addition_embed_type_num_heads=2,
                cross_attention_norm="group_norm",
                resnet_time_scale_shift="scale_shift",
                act_fn="gelu",
                norm_num_groups=4,
            ),
            scheduler=DDPMScheduler(
                beta_schedule="squaredcos_cap_v2",
                thresholding=True,
                dynamic_thresholding_ratio=0.95,
                sample_max_value=1.5,
                variance_type="learned_range",
            ),
            **{"safety_checker": None, "feature_extractor": None, "watermarker": None} | parts,
            requires_safety_checker=False,
        )
