"""The parts of the embedded model, built from the stock classes at small size.

Sizes follow measurements on two CPU cores: an autoencoder that shrinks by 8, a denoiser that
attends at 8 x 8 and 4 x 4 cells only, and a text encoder of context 77 so that prompts of any
length work as they do on the big models.
"""

# The libraries' own annotations are narrower than what they take and return.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportOptionalMemberAccess=false, reportOptionalSubscript=false, reportOperatorIssue=false

from __future__ import annotations

from typing import Any

from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch import nn
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
)

from oneword.microworld.making import spelling
from oneword.microworld.making.sizes import Sizes
from oneword.microworld.world import captions


CONTEXT = 77


def tokenizer() -> CLIPTokenizer:
    """The tokenizer of the first world's captions."""
    return spelling.tokenizer(captions.vocabulary(), CONTEXT)


def autoencoder(sizes: Sizes) -> AutoencoderKL:
    """VAE from pixels to latents; residual branches start at zero."""
    depth = len(sizes.vae_channels)
    vae = AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * depth,
        up_block_types=("UpDecoderBlock2D",) * depth,
        block_out_channels=sizes.vae_channels,
        layers_per_block=1,
        latent_channels=sizes.latent_channels,
        norm_num_groups=8,
        sample_size=sizes.size_px,
        scaling_factor=1.0,
        mid_block_add_attention=False,
    )
    for name, module in vae.named_modules():
        if name.endswith("conv2") and isinstance(module, nn.Conv2d):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)
    return vae


def clip(tokens: CLIPTokenizer, sizes: Sizes, *, judge: bool) -> CLIPModel:
    """A CLIP pair on pictures in 8 x 8 patches: the text encoder's teacher, or the judge."""
    width, layers, text_layers = (
        (sizes.judge_width, sizes.judge_layers, 2)
        if judge
        else (sizes.clip_width, sizes.clip_layers, sizes.text_layers)
    )
    text: dict[str, Any] = text_config(tokens, sizes, text_layers).to_dict()
    vision = {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": width // 32,
        "image_size": sizes.size_px,
        "patch_size": sizes.size_px // 8,
        "projection_dim": sizes.text_dim,
    }
    return CLIPModel(
        CLIPConfig(text_config=text, vision_config=vision, projection_dim=sizes.text_dim)
    )


def text_config(tokens: CLIPTokenizer, sizes: Sizes, layers: int) -> CLIPTextConfig:
    """Configuration of the text towers; the true end-of-text id makes pooling right."""
    return CLIPTextConfig(
        vocab_size=len(tokens),
        hidden_size=sizes.text_dim,
        intermediate_size=4 * sizes.text_dim,
        num_hidden_layers=layers,
        num_attention_heads=max(1, sizes.text_dim // 32),
        max_position_embeddings=CONTEXT,
        projection_dim=sizes.text_dim,
        eos_token_id=tokens.eos_token_id,
        bos_token_id=tokens.bos_token_id,
        pad_token_id=tokens.pad_token_id,
    )


def text_encoder_of(pair: CLIPModel) -> CLIPTextModel:
    """The text tower of a CLIP pair as a model of its own."""
    encoder = CLIPTextModel(pair.config.text_config)
    prefix = "text_model."
    state = {k.removeprefix(prefix): v for k, v in pair.state_dict().items() if prefix in k}
    encoder.load_state_dict(state)
    return encoder


def denoiser(sizes: Sizes) -> UNet2DConditionModel:
    """UNet on latents; only its second level and its middle attend, since the first costs most."""
    below = len(sizes.unet_channels) - 2
    return UNet2DConditionModel(
        sample_size=sizes.latent_size,
        in_channels=sizes.latent_channels,
        out_channels=sizes.latent_channels,
        block_out_channels=sizes.unet_channels,
        layers_per_block=1,
        # attention at 16 x 16 would double the time of a step
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", *("DownBlock2D",) * below),
        up_block_types=(*("UpBlock2D",) * below, "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=sizes.text_dim,
        attention_head_dim=4,  # diffusers' name for the NUMBER of heads
        norm_num_groups=16,
    )


def scheduler() -> DDIMScheduler:
    """Stable Diffusion's noise schedule with v-prediction."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
