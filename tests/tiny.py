"""Tiny pipelines of the real classes with random weights, built in under a second."""

from __future__ import annotations

import string
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    LDMTextToImagePipeline,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion import (
    LDMBertConfig,
    LDMBertModel,
)
from transformers import (
    BertTokenizer,
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)


WORDS = """
a an the photo painting rendering rendition of cat dog mug bird car house tree ball robot boat
hat fish teapot mushroom chair red blue green on in at beach moon forest snow next to and my
cool nice good dark bright clean dirty cropped close up small large weird one depicting oil
style picture s
""".split()  # noqa: SIM905


def tokenizer(context: int = 77) -> CLIPTokenizer:
    """A CLIP tokenizer that knows WORDS as single tokens and can spell everything else."""
    letters = [*string.ascii_lowercase, *string.digits, *string.punctuation]
    pieces = dict.fromkeys([*letters, *(f"{c}</w>" for c in letters)])
    merges: list[tuple[str, str]] = []
    for word in WORDS:
        parts = [*word[:-1], word[-1] + "</w>"]
        while len(parts) > 1:  # from the end, so that words that share a beginning do not collide
            pair = (parts[-2], parts[-1])
            if pair not in merges:
                merges.append(pair)
            parts[-2:] = ["".join(pair)]
            pieces.setdefault(parts[-1])
    vocab = {piece: index for index, piece in enumerate(pieces)}
    for special in ("<|startoftext|>", "<|endoftext|>"):
        vocab[special] = len(vocab)
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=context)


def bert_tokenizer() -> BertTokenizer:
    """BERT's tokenizer: WORDS, and every letter as a piece."""
    letters = [*string.ascii_lowercase, *string.digits, *string.punctuation]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{c}" for c in letters)]
    return BertTokenizer(
        vocab={w: i for i, w in enumerate(dict.fromkeys([*pieces, *WORDS]))}, model_max_length=77
    )


def t5_tokenizer() -> T5Tokenizer:
    """T5's tokenizer: WORDS with their leading space, and every letter."""
    letters = [*string.ascii_letters, *string.digits, *string.punctuation, "\u2581"]
    words = dict.fromkeys(f"\u2581{word}" for word in WORDS)
    vocab = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -9.0)]
    vocab += [(word, -2.0) for word in words if len(word) > 2] + [(c, -8.0) for c in letters]
    vocab += [(word, -3.0) for word in words if len(word) == 2]
    return T5Tokenizer(vocab=vocab, extra_ids=0, model_max_length=64)


def clip(width: int = 32, *, projection: bool = False, context: int = 77) -> CLIPTextModel:
    """A CLIP text encoder that pools at the highest id, as those on the hub do."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer()),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=3 if projection else 2,
        num_attention_heads=4,
        max_position_embeddings=context,
        eos_token_id=2,
        projection_dim=width,
    )
    return (CLIPTextModelWithProjection if projection else CLIPTextModel)(config)


def t5(width: int) -> T5EncoderModel:
    """A T5 encoder whose table, as the real one's, has more rows than the tokenizer has tokens."""
    return T5EncoderModel(
        T5Config(
            vocab_size=len(t5_tokenizer()) + 9,
            d_model=width,
            d_kv=8,
            d_ff=2 * width,
            num_layers=2,
            num_heads=4,
            feed_forward_proj="gated-gelu",
        )
    )


def vae(levels: int = 2, channels: int = 4, **options: float) -> AutoencoderKL:
    """An autoencoder that shrinks by 2 between two levels."""
    return AutoencoderKL(
        block_out_channels=(8, 16, 16, 16)[:levels],
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        layers_per_block=1,
        latent_channels=channels,
        norm_num_groups=4,
        sample_size=32,
        **options,
    )


def unet(size: int = 16, width: int = 32, **options: object) -> UNet2DConditionModel:
    """A UNet of two levels."""
    return UNet2DConditionModel(
        sample_size=size,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=width,
        attention_head_dim=2,
        norm_num_groups=4,
        **options,
    )


def scheduler(prediction_type: str = "epsilon") -> DDIMScheduler:
    """The schedule of Stable Diffusion."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=prediction_type,
    )


def stable_diffusion(prediction_type: str = "epsilon", seed: int = 0) -> StableDiffusionPipeline:
    """A pipeline that draws 32 px pictures from 16 x 16 x 4 latents."""
    with _seeded(seed):
        return StableDiffusionPipeline(
            vae=vae(),
            text_encoder=clip(),
            tokenizer=tokenizer(),
            unet=unet(use_linear_projection=prediction_type == "v_prediction"),
            scheduler=scheduler(prediction_type),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )


def ldm(seed: int = 0) -> LDMTextToImagePipeline:
    """The paper's architecture: 64 px, since its pipeline takes latents to be 8 times smaller."""
    with _seeded(seed):
        tokens = bert_tokenizer()
        config = LDMBertConfig(
            vocab_size=len(tokens),
            d_model=32,
            encoder_layers=2,
            encoder_ffn_dim=64,
            encoder_attention_heads=4,
            head_dim=8,
        )
        return LDMTextToImagePipeline(
            vqvae=vae(4),
            bert=LDMBertModel(config),
            tokenizer=tokens,
            unet=unet(8),
            scheduler=scheduler(),
        )


def sdxl(seed: int = 0) -> StableDiffusionXLPipeline:
    """Two text encoders of widths 32 and 48."""
    with _seeded(seed):
        return StableDiffusionXLPipeline(
            vae=vae(scaling_factor=0.13025),
            text_encoder=clip(),
            text_encoder_2=clip(48, projection=True),
            tokenizer=tokenizer(),
            tokenizer_2=tokenizer(),
            unet=unet(
                width=80,
                addition_embed_type="text_time",
                addition_time_embed_dim=8,
                projection_class_embeddings_input_dim=6 * 8 + 48,
            ),
            scheduler=scheduler(),
            add_watermarker=False,
        )


def sd3(seed: int = 0, *, with_t5: bool = True) -> StableDiffusion3Pipeline:
    """Two CLIPs of widths 32 and 48, a T5 of width 96, a transformer of two layers."""
    with _seeded(seed):
        return StableDiffusion3Pipeline(
            transformer=SD3Transformer2DModel(
                sample_size=16,
                patch_size=2,
                in_channels=16,
                out_channels=16,
                num_layers=2,
                attention_head_dim=8,
                num_attention_heads=4,
                caption_projection_dim=32,
                joint_attention_dim=96,
                pooled_projection_dim=80,
            ),
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
            vae=vae(channels=16, scaling_factor=1.5305, shift_factor=0.0609),
            text_encoder=clip(projection=True),
            tokenizer=tokenizer(),
            text_encoder_2=clip(48, projection=True),
            tokenizer_2=tokenizer(),
            text_encoder_3=t5(96) if with_t5 else None,
            tokenizer_3=t5_tokenizer() if with_t5 else None,
        )


def flux(seed: int = 0, *, guidance: bool = True) -> FluxPipeline:
    """CLIP of width 32, T5 of width 48, a transformer of one double and one single block."""
    with _seeded(seed):
        return FluxPipeline(
            transformer=FluxTransformer2DModel(
                patch_size=1,
                in_channels=16,
                num_layers=1,
                num_single_layers=1,
                attention_head_dim=16,
                num_attention_heads=2,
                joint_attention_dim=48,
                pooled_projection_dim=32,
                axes_dims_rope=(4, 4, 8),
                guidance_embeds=guidance,
            ),
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=guidance),
            vae=vae(scaling_factor=0.3611, shift_factor=0.1159),
            text_encoder=clip(),
            tokenizer=tokenizer(),
            text_encoder_2=t5(48),
            tokenizer_2=t5_tokenizer(),
        )


def judge(image_size: int = 24, seed: int = 0) -> CLIPModel:
    """A CLIP pair that scores; its tokenizer is ``tokenizer()``."""
    tokens = tokenizer()
    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
            "num_attention_heads": 2}  # fmt: skip
    config = CLIPConfig(
        text_config=size | {"vocab_size": len(tokens), "eos_token_id": tokens.eos_token_id},
        vision_config=size | {"image_size": image_size, "patch_size": 8},
        projection_dim=12,
    )
    with _seeded(seed):
        return CLIPModel(config)


FAMILIES = {
    "stable_diffusion": stable_diffusion,
    "stable_diffusion_v": lambda: stable_diffusion("v_prediction", 1),
    "ldm": ldm,
    "sdxl": sdxl,
    "sd3": sd3,
    "flux": flux,
}


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(seed)  # noqa: TID251
        yield


def save(pipeline: DiffusionPipeline, folder: Path) -> Path:
    """Save a pipeline and return its folder."""
    pipeline.save_pretrained(folder)
    return folder
