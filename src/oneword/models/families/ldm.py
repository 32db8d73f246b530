"""The paper's own model: latent diffusion (LDM, 1.4B) with a BERT that was trained with it.

Rombach et al. 2021, arXiv:2112.10752; on the Hub as CompVis/ldm-text2im-large-256, or from the
single file that its authors published.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from diffusers import DDIMScheduler, LDMTextToImagePipeline
from torch import Tensor

from oneword._typing import Latents, Pixels, Timesteps
from oneword.config.drawing import SamplingConfig
from oneword.config.model import ModelConfig
from oneword.errors import ModelError
from oneword.models.assembly import load_pipeline, refuse_vae, reschedule
from oneword.models.autoencoders import Plain
from oneword.models.contract import Conditioning
from oneword.models.drawing import FamilyPipeline
from oneword.models.ldm_checkpoint import PublishedLDM
from oneword.models.noise import Diffusion


CONTEXT = 77
# Gal et al. 2022 score at guidance 5 with 50 steps of DDIM (evaluation/clip_eval.py of their code)
DEFAULTS = SamplingConfig(guidance_scale=5.0, num_inference_steps=50)


def load(config: ModelConfig) -> LatentDiffusion:
    """Load a pipeline of this family.

    Raises:
        ModelError: it cannot be loaded, or its prediction type is not the family's.
    """
    refuse_vae(config)
    kind = PublishedLDM if Path(config.model).is_file() else LDMTextToImagePipeline
    return LatentDiffusion(load_pipeline(config, kind, config.model), config)


class LatentDiffusion(FamilyPipeline):
    """A frozen latent diffusion pipeline behind the contract of ``models.contract``."""

    scales_latents: ClassVar[bool] = False

    def __init__(self, pipeline: Any, config: ModelConfig) -> None:
        reschedule(pipeline, DDIMScheduler)
        super().__init__(
            pipeline,
            config,
            family="ldm",
            denoiser=pipeline.unet,
            autoencoder=Plain(pipeline.vqvae, config.model),
            encoders={"bert": ("tokenizer", pipeline.bert, CONTEXT)},
            noise=Diffusion(pipeline.scheduler, pipeline.unet.device),
            resolution=pipeline.unet.config.sample_size * pipeline.vae_scale_factor,
            sampling=DEFAULTS,
        )
        self._check_channels()

    def _read(self, prompts: Sequence[str]) -> Conditioning:
        """Last hidden states of BERT, padding included as in the paper's code; differentiable."""
        ids = self.pipeline.tokenizer(
            list(prompts),
            padding="max_length",
            max_length=CONTEXT,
            truncation=True,
            return_tensors="pt",
        ).input_ids
        return Conditioning(self.pipeline.bert(ids.to(self.device))[0])

    def _denoise(self, x_t: Latents, t: Timesteps, cond: Conditioning) -> Latents:
        """The UNet's own prediction, float32."""
        output = self.denoiser(x_t.to(self.dtype), t, encoder_hidden_states=self._states(cond))
        return output.sample.float()

    def _picture_and_mask(
        self, image: Pixels | None, mask: Tensor | None
    ) -> tuple[Pixels | None, Tensor | None]:
        if image is not None or mask is not None:
            raise ModelError(
                "The paper's model can draw only from noise, not from a picture, because "
                "diffusers has no such pipeline for it; use another model."
            )
        return image, mask

    def _draw_options(self, sampling: SamplingConfig) -> dict[str, Any]:
        if sampling.negative_prompt:
            raise ModelError(
                f"Cannot use the negative prompt {sampling.negative_prompt!r} with the paper's "
                "model because it takes none; leave it out."
            )
        return {"output_type": "pt"}

    def _pictures(self, returned: Tensor, _size: tuple[int, int]) -> Pixels:
        return returned.float() * 2 - 1  # the pipeline has decoded them
