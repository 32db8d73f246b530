"""A tiny pipeline of Bria Fibo 2."""

from __future__ import annotations

import torch
from diffusers import (
    BriaFibo2Pipeline,
    BriaFibo2Transformer2DModel,
    FlowMatchEulerDiscreteScheduler,
)
from transformers import Qwen3VLForConditionalGeneration

from tiny.encoders import qwen3vl
from tiny.parts import flux2_vae, seeded
from tiny.registry import register
from tiny.tokenizers import qwen_processor


@register("bria_fibo2", own_latents=True)
def pipeline(seed: int = 0) -> BriaFibo2Pipeline:
    """Qwen3-VL of width 32, with as many layers as the pipeline looks for; six blocks."""
    with seeded(seed):
        processor = qwen_processor(128)
        settings = {"num_hidden_layers": 36, "initializer_range": 0.6 / 36}
        transformer = BriaFibo2Transformer2DModel(
            in_channels=4,
            dim=32,
            n_layers=6,
            n_refiner_layers=1,
            n_heads=2,
            cap_feat_dim=96,
            injection_layer_ids=(0, 1, 2, 3, 4),
            perceiver_num_layers=1,
            min_num_gist_tokens=4,
            max_num_gist_tokens=8,
            gist_step=2,
            gist_min_text_len=8,
            gist_max_text_len=64,
            axes_dims=(4, 6, 6),
            axes_lens=(64, 32, 32),
        )
        for block in transformer.layers[:5]:
            torch.nn.init.ones_(block.cross_attn_gate)  # closed before training
        return BriaFibo2Pipeline(
            processor=processor,
            text_encoder=qwen3vl(
                Qwen3VLForConditionalGeneration,
                vocab_size=len(processor.tokenizer) + 9,
                **settings,
            ),
            vae=flux2_vae(),
            transformer=transformer,
            scheduler=FlowMatchEulerDiscreteScheduler(
                use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15
            ),
        )
