"""AuraFlow: straight flow, with a T5 trained on the Pile as the text encoder."""

from __future__ import annotations

from typing import Any

from diffusers import AuraFlowPipeline

from oneword._typing import Latents, Timesteps
from oneword.config.drawing import SamplingConfig
from oneword.config.model import ModelConfig
from oneword.models.assembly import load_pipeline
from oneword.models.autoencoders import Plain
from oneword.models.contract import Conditioning
from oneword.models.noise import Flow
from oneword.models.reading import OneEncoder, refuse_clip_skip


# the defaults of diffusers' pipeline
DEFAULTS = SamplingConfig(guidance_scale=3.5, num_inference_steps=50)
T5_TOKENS = 256
SIDE = 128  # side of a picture in latent cells: the pipeline's own 1024 px


def load(config: ModelConfig) -> AuraFlow:
    """Load a pipeline of this family.

    Raises:
        ModelError: it cannot be loaded.
    """
    refuse_clip_skip(config, "AuraFlow")
    return AuraFlow(load_pipeline(config, AuraFlowPipeline, config.model), config)


class AuraFlow(OneEncoder):
    """A frozen AuraFlow pipeline behind the contract of ``models.contract``."""

    mask_at = None  # masked states are zero, and the transformer takes no mask

    def __init__(self, pipeline: Any, config: ModelConfig) -> None:
        super().__init__(
            pipeline,
            config,
            family="auraflow",
            denoiser=pipeline.transformer,
            autoencoder=Plain(pipeline.vae, config.model),
            encoders={"pile_t5xl": ("tokenizer", pipeline.text_encoder, T5_TOKENS)},
            noise=Flow(pipeline.scheduler),
            resolution=SIDE * pipeline.vae_scale_factor,
            sampling=DEFAULTS,
        )
        self.prompt_options = {"max_sequence_length": T5_TOKENS}

    def _denoise(self, x_t: Latents, t: Timesteps, cond: Conditioning) -> Latents:
        """The transformer's own velocity, float32; its times are noise levels, in (0, 1)."""
        # times stay float32: between 0.5 and 1 bf16 has 128 values, the model 500 times
        output = self.denoiser(
            x_t.to(self.dtype),
            encoder_hidden_states=self._states(cond),
            timestep=t,
        )
        return output.sample.float()
