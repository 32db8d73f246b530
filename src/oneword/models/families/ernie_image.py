"""ERNIE-Image and ERNIE-Image-Turbo: Ministral 3 as the text encoder, and Flux.2's autoencoder.

There is no paper; this follows diffusers' pipeline.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLFlux2, ErnieImagePipeline
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from oneword._devices import sent
from oneword._typing import Latents, Timesteps
from oneword.config.drawing import SamplingConfig
from oneword.config.model import ModelConfig
from oneword.models.assembly import load_pipeline
from oneword.models.autoencoders import Patch
from oneword.models.contract import Conditioning
from oneword.models.drawing import FamilyPipeline
from oneword.models.noise import Flow
from oneword.models.reading import key_of, refuse_clip_skip


# the defaults of diffusers' pipeline and, for Turbo, those of its page
DEFAULTS = SamplingConfig(guidance_scale=4.0, num_inference_steps=50)
FEW_STEPS = SamplingConfig(guidance_scale=1.0, num_inference_steps=8)
RESOLUTION = 1024
TRAINED_EPS = 1e-5  # of the batch norm; the pipeline uses it instead of the published setting
_TEXT_ENCODERS = {3072: "ministral3_3b"}


def load(config: ModelConfig) -> ErnieImage:
    """Load a pipeline of this family, without the language model that would rewrite prompts.

    Raises:
        ModelError: it cannot be loaded, or a setting applies only to CLIP.
    """
    refuse_clip_skip(config, "ERNIE-Image")
    pipeline = load_pipeline(
        config,
        ErnieImagePipeline,
        config.model,
        autoencoder=AutoencoderKLFlux2,
        pe=None,
        pe_tokenizer=None,
    )
    return ErnieImage(pipeline, config)


class ErnieImage(FamilyPipeline):
    """A frozen ERNIE-Image pipeline behind the contract of ``models.contract``."""

    def __init__(self, pipeline: Any, config: ModelConfig) -> None:
        encoder = pipeline.text_encoder
        key = key_of(encoder, _TEXT_ENCODERS, "ministral3")
        longest = encoder.config.get_text_config().max_position_embeddings
        pipeline.vae.register_to_config(batch_norm_eps=TRAINED_EPS)
        # nothing in its configuration distinguishes the distilled model
        turbo = "turbo" in Path(config.model).name.lower()
        super().__init__(
            pipeline,
            config,
            family="ernie_image",
            denoiser=pipeline.transformer,
            autoencoder=Patch(pipeline.vae, config.model),
            encoders={
                key: ("tokenizer", encoder, min(longest, pipeline.tokenizer.model_max_length))
            },
            noise=Flow(pipeline.scheduler),
            resolution=RESOLUTION,
            sampling=FEW_STEPS if turbo else DEFAULTS,
        )
        pipeline.encode_prompt = self._apart
        self.draw_options = {"use_pe": False}

    def _read(self, prompts: Sequence[str]) -> Conditioning:
        """States of the last layer but one, and a mask of those that belong to a prompt.

        The pipeline's own method blocks gradients and reads one prompt at a time.
        """
        (vocabulary,) = self.vocabularies.values()
        tokenizer = vocabulary.tokenizer
        read = tokenizer(list(prompts), truncation=True, max_length=vocabulary.max_length).input_ids
        nothing = [tokenizer.bos_token_id or 0]
        tokens = [torch.tensor(ids or nothing) for ids in read]
        mask = pad_sequence([torch.ones_like(ids) for ids in tokens], batch_first=True)
        mask = sent(mask, self.device)
        found = self.pipeline.text_encoder(
            input_ids=sent(pad_sequence(tokens, batch_first=True), self.device),
            attention_mask=mask,
            output_hidden_states=True,
        )
        return Conditioning(found.hidden_states[-2], extra={"mask": mask})

    def _apart(self, prompt: Sequence[str], *_: Any) -> list[Tensor]:
        """The states of each prompt, as the pipeline's own ``encode_prompt`` returns them."""
        found = self._read(prompt)
        states, lengths = found.encoder_hidden_states, found.extra["mask"].sum(1).tolist()
        return [own[:length] for own, length in zip(states, lengths, strict=True)]

    def _denoise(self, x_t: Latents, t: Timesteps, cond: Conditioning) -> Latents:
        """The transformer's own velocity, float32."""
        velocity = self.denoiser(
            hidden_states=x_t.to(self.dtype),
            timestep=t * self.pipeline.scheduler.config.num_train_timesteps,
            text_bth=self._states(cond),
            text_lens=cond.extra["mask"].sum(1),
        ).sample
        return velocity.float()
