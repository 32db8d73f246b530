"""HunyuanImage 2.1: Qwen2.5-VL reads the prompt, and ByT5 the text to be written in the picture.

There is no paper; this follows diffusers' pipeline.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from diffusers import AutoencoderKLHunyuanImage, HunyuanImagePipeline
from diffusers.pipelines.hunyuan_image.pipeline_hunyuanimage import extract_glyph_text
from torch import Tensor

from oneword._typing import Latents, Timesteps
from oneword.config.drawing import SamplingConfig
from oneword.config.model import ModelConfig
from oneword.models.assembly import load_pipeline
from oneword.models.autoencoders import Plain
from oneword.models.contract import Conditioning
from oneword.models.drawing import FamilyPipeline
from oneword.models.noise import Flow
from oneword.models.reading import key_of, refuse_clip_skip


# the defaults of diffusers' pipeline and its guider; for the distilled model, those of its page
DEFAULTS = SamplingConfig(guidance_scale=3.5, num_inference_steps=50)
FEW_STEPS = SamplingConfig(guidance_scale=3.25, num_inference_steps=8)
_TEXT_ENCODERS = {3584: "qwen25_7b"}


def load(config: ModelConfig) -> HunyuanImage:
    """Load a pipeline of this family.

    Raises:
        ModelError: it cannot be loaded, or a setting applies only to CLIP.
    """
    refuse_clip_skip(config, "HunyuanImage")
    pipeline = load_pipeline(
        config, HunyuanImagePipeline, config.model, autoencoder=AutoencoderKLHunyuanImage
    )
    return HunyuanImage(pipeline, config)


class HunyuanImage(FamilyPipeline):
    """A frozen HunyuanImage 2.1 pipeline behind the contract of ``models.contract``."""

    alike = "that all quote something, or none of which does,"

    def __init__(self, pipeline: Any, config: ModelConfig) -> None:
        # its own fails: diffusers passes by name arguments that it takes by position
        pipeline.transformer._supports_gradient_checkpointing = False
        encoder = pipeline.text_encoder
        key = key_of(encoder, _TEXT_ENCODERS, "qwen25")
        # the pipeline counts the longest prompt after the template's head
        template = len(pipeline.tokenizer(pipeline.prompt_template_encode.format("")).input_ids)
        longest = pipeline.tokenizer_max_length + pipeline.prompt_template_encode_start_idx
        sampling = FEW_STEPS if pipeline.transformer.config.guidance_embeds else DEFAULTS
        super().__init__(
            pipeline,
            config,
            family="hunyuan_image",
            denoiser=pipeline.transformer,
            autoencoder=Plain(pipeline.vae, config.model, pipeline.vae_scale_factor),
            encoders={key: ("tokenizer", encoder, max(1, longest - template))},
            noise=Flow(pipeline.scheduler),
            resolution=pipeline.default_sample_size * pipeline.vae_scale_factor,
            sampling=sampling,
        )
        pipeline.text_encoder_2.requires_grad_(False)  # it only spells and learns no words
        pipeline._get_qwen_prompt_embeds = partial(_unpadded, pipeline._get_qwen_prompt_embeds)

    def _read(self, prompts: Sequence[str]) -> Conditioning:
        """Hidden states of Qwen2.5-VL, two layers before its last, and its mask in ``extra``.

        If a prompt quotes something, ByT5's states of the quotation are in ``extra``, too.
        """
        states, mask, glyphs, glyphs_mask = self.pipeline.encode_prompt(
            list(prompts), device=self.device, batch_size=len(prompts)
        )
        extra = {"mask": mask}
        if any(extract_glyph_text(prompt) for prompt in prompts):
            extra |= {"glyphs": glyphs, "glyphs_mask": glyphs_mask}
        return Conditioning(states, extra=extra)

    def _denoise(self, x_t: Latents, t: Timesteps, cond: Conditioning) -> Latents:
        """The transformer's own velocity, float32; the distilled model's at a single time."""
        scale = self.pipeline.scheduler.config.num_train_timesteps
        config, time = self.denoiser.config, (t * scale).to(self.dtype)
        glyphs, guidance = cond.extra.get("glyphs"), None
        if config.guidance_embeds:
            guidance = torch.full_like(time, scale * (self.sampling.guidance_scale or 0.0))
        output = self.denoiser(
            hidden_states=x_t.to(self.dtype),
            timestep=time,
            # the distilled model predicts the mean velocity between two times, which are equal here
            timestep_r=time if config.use_meanflow else None,
            guidance=guidance,
            encoder_hidden_states=self._states(cond),
            encoder_attention_mask=cond.extra["mask"],
            encoder_hidden_states_2=None if glyphs is None else glyphs.to(self.dtype),
            encoder_attention_mask_2=cond.extra.get("glyphs_mask"),
        )
        return output.sample.float()

    def _alike(self, prompts: Sequence[str]) -> list[list[int]]:
        """Indices of the prompts without and with quotations, which are guided separately."""
        quoting = [extract_glyph_text(prompt) is not None for prompt in prompts]
        kinds = [[i for i, own in enumerate(quoting) if own == kind] for kind in (False, True)]
        return [places for places in kinds if places]

    def _draw_options(self, sampling: SamplingConfig) -> dict[str, Any]:
        for guider in (self.pipeline.guider, self.pipeline.ocr_guider):
            if guider is not None:
                guider.guidance_scale = sampling.guidance_scale
        return {"distilled_guidance_scale": sampling.guidance_scale}


def _unpadded(
    encode: Callable[..., tuple[Tensor, Tensor]],
    *,
    tokenizer: Any,
    prompt: Sequence[str],
    template: str,
    drop_idx: int,
    tokenizer_max_length: int,
    **options: Any,
) -> tuple[Tensor, Tensor]:
    """States and mask, cut to the longest prompt: the pipeline's padding has no effect."""
    filled = [template.format(text) for text in prompt]
    longest = tokenizer_max_length + drop_idx
    ids = tokenizer(filled, max_length=longest, truncation=True).input_ids
    return encode(
        tokenizer=tokenizer,
        prompt=prompt,
        template=template,
        drop_idx=drop_idx,
        tokenizer_max_length=max(map(len, ids)) - drop_idx,
        **options,
    )
