"""A tiny pipeline of Kandinsky 5."""

from __future__ import annotations

from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    Kandinsky5T2IPipeline,
    Kandinsky5Transformer3DModel,
)
from transformers import CLIPImageProcessorPil, LlavaProcessor

from tiny.encoders import clip, qwen25_vl
from tiny.parts import seeded, vae
from tiny.registry import register
from tiny.tokenizers import qwen_tokenizer, tokenizer


@register("kandinsky5")
def pipeline(seed: int = 0) -> Kandinsky5T2IPipeline:
    """Qwen2.5-VL of width 32 and a CLIP, a transformer of one block for each side.

    Its own processor class wants torchvision; this one handles text by the same code.
    """
    with seeded(seed):
        transformer = Kandinsky5Transformer3DModel(
            in_visual_dim=4,
            in_text_dim=32,
            in_text_dim2=32,
            time_dim=16,
            out_visual_dim=4,
            model_dim=32,
            ff_dim=64,
            num_text_blocks=1,
            num_visual_blocks=1,
            axes_dims=(4, 6, 6),
        )
        for name, weight in transformer.named_parameters():
            if "modulation" in name:  # zero, so that neither prompt nor picture would count
                weight.data.normal_(0, 0.3)
        marks = ["<|image_pad|>", " prompt", " engineer", " Describe"]
        return Kandinsky5T2IPipeline(
            transformer=transformer,
            vae=vae(4, scaling_factor=0.3611, shift_factor=0.1159),
            text_encoder=qwen25_vl(2),
            tokenizer=LlavaProcessor(
                image_processor=CLIPImageProcessorPil(),
                tokenizer=qwen_tokenizer(131072, marks),
                image_token=marks[0],
            ),
            text_encoder_2=clip(),
            tokenizer_2=tokenizer(),
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        )
