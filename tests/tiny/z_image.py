"""A tiny pipeline of Z-Image."""

from __future__ import annotations

from typing import Any

from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    ZImageOmniPipeline,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from transformers import (
    Qwen3Config,
    Qwen3Model,
    Siglip2ImageProcessor,
    Siglip2VisionConfig,
    Siglip2VisionModel,
)

from tiny.encoders import language_model
from tiny.parts import seeded, vae
from tiny.registry import register
from tiny.tokenizers import qwen_tokenizer


@register("z_image", unguided=0.0)
def pipeline(seed: int = 0) -> ZImagePipeline:
    """Qwen3 of width 32 and three layers, a transformer of one layer with its refiners."""
    with seeded(seed):
        return ZImagePipeline(**_z_image_parts())


@register("z_image", "omni", unguided=0.0, draws=("from noise",))
def omni(seed: int = 0) -> ZImageOmniPipeline:
    """The same beside a Siglip of one layer, which is asked about no picture."""
    with seeded(seed):
        reader = Siglip2VisionConfig(
            hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
            num_patches=16, patch_size=4,
        )  # fmt: skip
        return ZImageOmniPipeline(
            **_z_image_parts(siglip_feat_dim=16),
            siglip=Siglip2VisionModel(reader),
            siglip_processor=Siglip2ImageProcessor(patch_size=4, max_num_patches=16),
        )


def _z_image_parts(**options: object) -> dict[str, Any]:
    return {
        "transformer": ZImageTransformer2DModel(
            in_channels=4,
            dim=32,
            n_layers=1,
            n_refiner_layers=1,
            n_heads=2,
            n_kv_heads=2,
            cap_feat_dim=32,
            axes_dims=[4, 6, 6],
            axes_lens=[256, 64, 64],
            **options,
        ),
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=3.0),
        "vae": vae(scaling_factor=0.3611, shift_factor=0.1159),
        "text_encoder": Qwen3Model(Qwen3Config(**language_model(32, 3))),
        "tokenizer": qwen_tokenizer(),
    }
