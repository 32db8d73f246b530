"""A tiny pipeline of Sana-Sprint."""

from __future__ import annotations

from diffusers import SanaSprintPipeline, SCMScheduler

from tiny.registry import register
from tiny.sana import sana_parts


@register("sana_sprint", unguided=None)
def pipeline(seed: int = 0) -> SanaSprintPipeline:
    """The same with a transformer that is told the guidance."""
    parts = sana_parts(seed, guidance_embeds=True, qk_norm="rms_norm_across_heads")
    return SanaSprintPipeline(**parts, scheduler=SCMScheduler())
