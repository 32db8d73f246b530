"""Autoencoders, a UNet, a schedule and a judge that several families share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLFlux2,
    AutoencoderKLQwenImage,
    DDIMScheduler,
    ModelMixin,
    UNet2DConditionModel,
)
from transformers import CLIPConfig, CLIPModel

from tiny.tokenizers import tokenizer


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(seed)  # noqa: TID251
        yield


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


def film_vae() -> AutoencoderKLQwenImage:
    """A VAE for films whose latents are scaled by channel."""
    return AutoencoderKLQwenImage(
        base_dim=8,
        z_dim=4,
        dim_mult=[1, 2],
        num_res_blocks=1,
        temperal_downsample=[False],
        latents_mean=[-0.7571, 0.1075, 1.5508, 0.4134],
        latents_std=[2.8184, 1.4541, 0.7708, 1.6052],
    )


def flux2_vae() -> AutoencoderKLFlux2:
    autoencoder = AutoencoderKLFlux2(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=32,
    )
    autoencoder.bn.running_mean.normal_()
    autoencoder.bn.running_var.uniform_(0.5, 2.0)
    return autoencoder


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


def listening(transformer: ModelMixin, *parts: str, factor: float = 3.0) -> ModelMixin:
    """Scale what lets prompts through: random gates of the usual size hardly do.

    On such a transformer the loss of a few steps would tell of chance alone.
    """
    for name, weight in transformer.named_parameters():
        if any(part in name for part in parts):
            weight.data *= factor
    return transformer


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
    with seeded(seed):
        return CLIPModel(config)
