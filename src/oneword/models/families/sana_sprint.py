"""Sana-Sprint: Sana distilled to a consistency model of one to four steps, with guidance as input.

Chen et al. 2025, arXiv:2503.09641.
"""

from __future__ import annotations

import inspect
from typing import Any, ClassVar

import torch
from diffusers import SanaSprintImg2ImgPipeline, SanaSprintPipeline, SCMScheduler
from torch import Tensor

from oneword._typing import Latents, Timesteps
from oneword.config.drawing import SamplingConfig
from oneword.config.model import ModelConfig
from oneword.models.assembly import load_pipeline, refuse_vae, reschedule
from oneword.models.autoencoders import Plain
from oneword.models.contract import Conditioning
from oneword.models.noise import TrigFlow
from oneword.models.reading import OneEncoder, refuse_clip_skip, refuse_negative_prompt, spare_words


# the defaults of diffusers' pipeline, which puts its instruction before every prompt
DEFAULTS = SamplingConfig(guidance_scale=4.5, num_inference_steps=2)
INSTRUCTION: list[str] = (
    inspect.signature(SanaSprintPipeline.__call__).parameters["complex_human_instruction"].default
)
GEMMA_TOKENS = 300


def load(config: ModelConfig) -> SanaSprint:
    """Load a pipeline of this family.

    Raises:
        ModelError: it cannot be loaded.
    """
    refuse_clip_skip(config, "Sana-Sprint")
    refuse_vae(config)
    return SanaSprint(load_pipeline(config, SanaSprintPipeline, config.model), config)


class KeepingNoise(SCMScheduler):
    """The family's solver, except that the latents keep their noise between steps.

    The original draws new noise, which would not come from the picture's seed.

    Source:
        Lu and Song 2024, arXiv:2410.11081, section 3 (DDIM as a rotation along the circle).
    """

    def step(
        self,
        model_output: Tensor,
        timestep: Any,
        sample: Tensor,
        generator: Any = None,  # noqa: ARG002  (pipelines look for it)
        return_dict: bool = True,
    ) -> Any:
        """Rotate latents to the next time, and to the picture."""
        if self.step_index is None:
            self._init_step_index(timestep)
        now, then = self.timesteps[self.step_index : self.step_index + 2]
        turned, picture = (
            torch.cos(now - to) * sample - torch.sin(now - to) * model_output
            for to in (then, torch.zeros_like(then))
        )
        self._step_index = (self.step_index or 0) + 1
        assert not return_dict  # as the family's pipelines call it
        return turned, picture


class SanaSprint(OneEncoder):
    """A frozen Sana-Sprint pipeline behind the contract of ``models.contract``.

    Its solver's latents are the contract's, multiplied by ``sigma_data``.
    """

    unguided: ClassVar[dict[str, Any]] = {}

    def __init__(self, pipeline: Any, config: ModelConfig) -> None:
        spare_words(pipeline)
        reschedule(pipeline, KeepingNoise)
        super().__init__(
            pipeline,
            config,
            family="sana_sprint",
            denoiser=pipeline.transformer,
            autoencoder=Plain(pipeline.vae, config.model, pipeline.vae_scale_factor),
            # one of the tokens that the pipeline keeps is the last of the instruction
            encoders={"gemma": ("tokenizer", pipeline.text_encoder, GEMMA_TOKENS - 1)},
            noise=TrigFlow(pipeline.scheduler),
            resolution=pipeline.transformer.config.sample_size * pipeline.vae_scale_factor,
            sampling=DEFAULTS,
        )
        self.prompt_options = {
            "clean_caption": False,
            "max_sequence_length": GEMMA_TOKENS,
            "complex_human_instruction": INSTRUCTION,
        }
        self.draw_options = {"use_resolution_binning": False}

    def _denoise(self, x_t: Latents, t: Timesteps, cond: Conditioning) -> Latents:
        """The velocity along the arc, float32, at the guidance that pictures are drawn with.

        The transformer itself still works in straight flow: noise and picture with shares ``s`` and
        ``1 - s``, and their difference.

        Source:
            Chen et al. 2025, arXiv:2503.09641, section 3.1.
        """
        s = torch.sin(t) / (torch.cos(t) + torch.sin(t))
        share = s[:, None, None, None]
        power = share**2 + (1 - share) ** 2
        straight = x_t * power.sqrt()
        scale = self.sampling.guidance_scale or 0.0
        guidance = torch.full((len(x_t),), scale, device=self.device, dtype=self.dtype)
        output = self.denoiser(
            straight.to(self.dtype),
            encoder_hidden_states=self._states(cond),
            encoder_attention_mask=cond.extra["mask"],
            guidance=guidance * self.denoiser.config.guidance_embeds_scale,
            timestep=s,
        ).sample
        return ((1 - 2 * share) * straight + power * output.float()) / power.sqrt()

    def _in_step(self, latents: Latents) -> Tensor:
        return latents * self.pipeline.scheduler.config.sigma_data

    def _from_step(self, latents: Tensor, _size: tuple[int, int]) -> Latents:
        return latents / self.pipeline.scheduler.config.sigma_data

    def _image_pipeline(self, inpaints: bool) -> Any:
        if inpaints:
            return super()._image_pipeline(inpaints)  # the family has no such pipeline
        pipeline = SanaSprintImg2ImgPipeline(**self.pipeline.components)
        pipeline.set_progress_bar_config(disable=True)
        spare_words(pipeline)
        return pipeline

    def _draw_options(self, sampling: SamplingConfig) -> dict[str, Any]:
        refuse_negative_prompt(sampling, "Sana-Sprint")
        # for two steps the pipeline sets the time in between
        return {} if sampling.num_inference_steps == 2 else {"intermediate_timesteps": None}
