"""DeepFloyd IF, stage I: T5 reads the prompt, and a UNet draws 64 x 64 pixels.

There is no paper; this follows diffusers' pipeline.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from diffusers import DDIMScheduler, IFPipeline

from oneword._typing import Latents, Pixels, Timesteps
from oneword.config.drawing import SamplingConfig
from oneword.config.model import ModelConfig
from oneword.errors import ModelError
from oneword.models.assembly import load_pipeline, reschedule
from oneword.models.autoencoders import NoAutoencoder
from oneword.models.contract import Conditioning
from oneword.models.drawing import FamilyPipeline, Request
from oneword.models.noise import Diffusion
from oneword.models.reading import refuse_clip_skip, spare_words


# the defaults of diffusers' pipeline
DEFAULTS = SamplingConfig(guidance_scale=7.0, num_inference_steps=100)
T5_TOKENS = 77


def load(config: ModelConfig) -> DeepFloydIF:
    """Load a pipeline of this family.

    Raises:
        ModelError: it cannot be loaded, or another autoencoder is asked for.
    """
    refuse_clip_skip(config, "DeepFloyd IF")
    if config.vae is not None:
        raise ModelError(
            f"Cannot use --vae {config.vae} with DeepFloyd IF because it draws pixels and has no "
            "autoencoder; leave it out."
        )
    options: dict[str, Any] = {"watermarker": None}
    if not config.safety_checker:
        options |= {"safety_checker": None, "requires_safety_checker": False}
    return DeepFloydIF(load_pipeline(config, IFPipeline, config.model, **options), config)


class DeepFloydIF(FamilyPipeline):
    """A frozen first stage of DeepFloyd IF behind the contract of ``models.contract``."""

    scales_latents: ClassVar[bool] = False

    def __init__(self, pipeline: Any, config: ModelConfig) -> None:
        spare_words(pipeline)
        # the family's own solver adds noise in every step, with a variance that the UNet predicts
        reschedule(pipeline, DDIMScheduler)
        pipeline.scheduler.register_to_config(variance_type="fixed_small")  # so that it is left out
        super().__init__(
            pipeline,
            config,
            family="deepfloyd_if",
            denoiser=pipeline.unet,
            autoencoder=NoAutoencoder(pipeline.unet.config.in_channels, pipeline.unet.device),
            encoders={"t5xxl": ("tokenizer", pipeline.text_encoder, T5_TOKENS)},
            noise=Diffusion(pipeline.scheduler, pipeline.unet.device),
            resolution=pipeline.unet.config.sample_size,
            sampling=DEFAULTS,
        )
        # lower-cased, but text that looks like HTML is kept
        self.draw_options = {"clean_caption": False, "output_type": "pt"}

    def _read(self, prompts: Sequence[str]) -> Conditioning:
        """Last hidden states of T5, including the padding, which the UNet also reads."""
        # bypasses the decorator that turns gradients off
        encode = type(self.pipeline).encode_prompt.__wrapped__
        states, _ = encode(
            self.pipeline, list(prompts), do_classifier_free_guidance=False, device=self.device
        )
        return Conditioning(states)

    def _denoise(self, x_t: Latents, t: Timesteps, cond: Conditioning) -> Latents:
        """The noise that the UNet predicts, float32, without the variance that it also predicts."""
        output = self.denoiser(x_t.to(self.dtype), t, encoder_hidden_states=self._states(cond))
        return output.sample[:, : x_t.shape[1]].float()

    def _checked(self, drawn: Pixels) -> Pixels:
        if self.pipeline.safety_checker is None:
            return drawn
        with self._present(self.pipeline.safety_checker):
            checked, *flags = self.pipeline.run_safety_checker(
                ((drawn + 1) / 2).permute(0, 2, 3, 1).cpu().numpy(), self.device, self.dtype
            )
        found = torch.as_tensor(checked).permute(0, 3, 1, 2)
        return self._blackened(drawn, found, [any(kinds) for kinds in zip(*flags, strict=True)])

    def _start(self, request: Request, size: tuple[int, int]) -> Latents:
        start = super()._start(request, size)
        # the pipeline does not accept noise but generates its own
        self.pipeline.prepare_intermediate_images = lambda *_: start
        return start

    def _image_pipeline(self, inpaints: bool) -> Any:
        pipeline = super()._image_pipeline(inpaints)
        spare_words(pipeline)
        read = pipeline.preprocess_image  # it leaves tensors unchanged
        pipeline.preprocess_image = lambda image: read(image * 2 - 1)
        return pipeline
