"""Ideogram 4: thirteen layers of Qwen3-VL; a second transformer without text gives guidance.

There is no paper; this follows diffusers' pipeline.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import AutoencoderKLFlux2, Ideogram4Pipeline
from diffusers.models.transformers.transformer_ideogram4 import (
    IMAGE_POSITION_OFFSET,
    LLM_TOKEN_INDICATOR,
    OUTPUT_IMAGE_INDICATOR,
    SEQUENCE_PADDING_INDICATOR,
)
from diffusers.pipelines.ideogram4.pipeline_ideogram4 import (
    QWEN3_VL_ACTIVATION_LAYERS,
    _logit_normal_sigmas,
    _resolution_aware_mu,
)
from torch import Tensor, nn

from oneword._typing import Latents, Timesteps, Uniforms
from oneword.config.drawing import SamplingConfig
from oneword.config.model import ModelConfig
from oneword.errors import ModelError
from oneword.models.assembly import load_pipeline
from oneword.models.autoencoders import CELLS_IN_ROW, Patch
from oneword.models.contract import Conditioning
from oneword.models.drawing import FamilyPipeline
from oneword.models.noise import Flow
from oneword.models.reading import chat_tokens, key_of, refuse_clip_skip, refuse_negative_prompt
from oneword.vocabulary.tokenizer import truncated


# the defaults of diffusers' pipeline, whose guidance falls to 3 in the last three of its steps
DEFAULTS = SamplingConfig(guidance_scale=7.0, num_inference_steps=48)
POLISHING = 3.0, 3 / 48
SPREAD = 1.5  # of the logit of the noise level
TOKENS = 2048
PATCH = 2
SIDE = 128  # side of a picture in patches: the pipeline's own 2048 px
_TEXT_ENCODERS = {4096: "qwen3vl_8b"}
_MESSAGES = [{"role": "user", "content": [{"type": "text", "text": ""}]}]


def load(config: ModelConfig) -> Ideogram4:
    """Load a pipeline of this family, without the part that would rewrite prompts.

    Raises:
        ModelError: it cannot be loaded, or a setting applies only to CLIP.
    """
    refuse_clip_skip(config, "Ideogram 4")
    pipeline = load_pipeline(
        config,
        Ideogram4Pipeline,
        config.model,
        autoencoder=AutoencoderKLFlux2,
        prompt_enhancer_head=None,
    )
    return Ideogram4(pipeline, config)


class WideFlow(Flow):
    """Straight flow with logit-normal noise levels: spread wider, and lower for small pictures."""

    def __init__(self, scheduler: Any, cell: int) -> None:
        """Take the family's scheduler and the width of a latent cell, px."""
        super().__init__(scheduler)
        self._cell = cell

    def sample_t(self, u: Uniforms, latent_size: tuple[int, int]) -> Timesteps:
        """The noise levels of the pipeline's steps for pictures of this size."""
        height, width = (side * self._cell for side in latent_size)
        u = u.double().clamp(1e-6, 1 - 1e-6)
        mean = _resolution_aware_mu(height, width, 0.0)
        return (mean + SPREAD * torch.special.ndtri(u)).sigmoid().float()

    def first(self, _scheduler: Any, num_inference_steps: int) -> float:
        """Noise level of the first of this many steps, at any size."""
        return float(_logit_normal_sigmas(num_inference_steps, 0.0, SPREAD)[0])


class Ideogram4(FamilyPipeline):
    """A frozen Ideogram 4 pipeline behind the contract of ``models.contract``."""

    def __init__(self, pipeline: Any, config: ModelConfig) -> None:
        encoder = pipeline.text_encoder
        key = key_of(encoder, _TEXT_ENCODERS, "qwen3vl")
        template = chat_tokens(
            pipeline.tokenizer, config.model, _MESSAGES, add_generation_prompt=True
        )
        self.tokens = min(TOKENS, pipeline.tokenizer.model_max_length)
        # the last layer is read before the norm, which the encoder's own call would apply
        encoder.language_model.norm = nn.Identity()
        pipeline._get_text_encoder_hidden_states = _layers_of
        super().__init__(
            pipeline,
            config,
            family="ideogram4",
            denoiser=pipeline.transformer,
            autoencoder=Patch(pipeline.vae, config.model, CELLS_IN_ROW, _patchified, _unpatchified),
            encoders={key: ("tokenizer", encoder, max(1, self.tokens - template))},
            noise=WideFlow(pipeline.scheduler, PATCH * pipeline.vae_scale_factor),
            resolution=SIDE * PATCH * pipeline.vae_scale_factor,
            sampling=DEFAULTS,
        )

    def _read(self, prompts: Sequence[str]) -> Conditioning:
        """Thirteen layers of Qwen3-VL, interleaved, and a mask of the prompts' tokens.

        Prompts are padded to the longest of them; the padding has no effect.
        """
        length = self._longest(prompts)
        states, _, _, roles = self.pipeline.encode_prompt(
            list(prompts), grid_h=1, grid_w=1, max_sequence_length=length, device=self.device
        )
        return Conditioning(
            states[:, :length], extra={"mask": roles[:, :length] == LLM_TOKEN_INDICATOR}
        )

    def _longest(self, prompts: Sequence[str]) -> int:
        """Tokens of the longest prompt with its template.

        Raises:
            PlaceholderError: a prompt is so long that its word would be cut off.
            ModelError: another prompt is too long.
        """
        tokenizer = self.pipeline.tokenizer
        filled = [
            tokenizer.apply_chat_template(
                [{"role": "user", "content": [{"type": "text", "text": text}]}],
                add_generation_prompt=True,
                tokenize=False,
            )
            for text in prompts
        ]
        read = tokenizer(filled, add_special_tokens=False).input_ids
        for text, ids in zip(prompts, read, strict=True):
            if len(ids) > self.tokens:
                truncated(tokenizer, ids, self.tokens, text)
                raise ModelError(
                    f"A prompt of Ideogram 4 must fit into {self.tokens} tokens with its template, "
                    f"got {len(ids)} for {text!r}; shorten it."
                )
        return max(map(len, read))

    def _denoise(self, x_t: Latents, t: Timesteps, cond: Conditioning) -> Latents:
        """The velocity from data to noise, float32: the transformer's own runs the other way."""
        states, mask = self._states(cond), cond.extra["mask"]
        height, width = x_t.shape[-2:]
        picture = self.autoencoder.pack(x_t.to(self.dtype))
        length = mask.shape[1]
        places, segments, roles = self._layout(mask, (height, width))
        velocity = self.denoiser(
            hidden_states=nn.functional.pad(picture, (0, 0, length, 0)),
            timestep=(1 - t).to(self.dtype),
            encoder_hidden_states=nn.functional.pad(states, (0, 0, 0, height * width)),
            position_ids=places,
            segment_ids=segments,
            indicator=roles,
        ).sample
        return -self.autoencoder.unpack(velocity[:, length:], (height, width)).float()

    def _layout(self, mask: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
        """Positions, segments and roles of a prompt's tokens, followed by those of a picture.

        As the pipeline's ``_prepare_ids``, which works on the CPU.
        """
        count = len(mask)
        words = ((mask.cumsum(1) - 1) * mask)[..., None].expand(-1, -1, 3)
        rows, columns = (torch.arange(side, device=mask.device) for side in size)
        cells = torch.cartesian_prod(torch.zeros(1, device=mask.device).long(), rows, columns)
        cells = (cells + IMAGE_POSITION_OFFSET).expand(count, -1, -1)
        ones = torch.ones(count, cells.shape[1], dtype=torch.long, device=mask.device)
        segments = torch.where(mask, 1, SEQUENCE_PADDING_INDICATOR)
        return (
            torch.cat([words, cells], dim=1),
            torch.cat([segments, ones], dim=1),
            torch.cat([mask * LLM_TOKEN_INDICATOR, ones * OUTPUT_IMAGE_INDICATOR], dim=1),
        )

    def _draw_options(self, sampling: SamplingConfig) -> dict[str, Any]:
        refuse_negative_prompt(sampling, "Ideogram 4")
        steps, scale = sampling.num_inference_steps or 0, sampling.guidance_scale or 0.0
        weak, share = POLISHING
        last = round(share * steps)
        guidance = [scale] * (steps - last) + [min(weak, scale)] * last
        return {"guidance_scale": None, "guidance_schedule": guidance}

    def _run(self, pipeline: Any, options: dict[str, Any]) -> Tensor:
        """Draw with the pipeline; at other times the second transformer is off the device."""
        whole = self.config.offload != "all" and self.config.weights in (None, "full")
        guide = [pipeline.unconditional_transformer] if whole else []
        with self._present(*guide):
            return super()._run(
                pipeline, options | {"max_sequence_length": self._longest(options["prompt"])}
            )


def _layers_of(encoder: Any, ids: Tensor, mask: Tensor, places: Tensor) -> list[Tensor]:
    """The layers' outputs from one call of the encoder; the pipeline calls each layer itself."""
    found = encoder(
        input_ids=ids,
        attention_mask=mask,
        position_ids=places.expand(4, -1, -1),
        output_hidden_states=True,
    ).hidden_states
    return [found[layer + 1] for layer in QWEN3_VL_ACTIVATION_LAYERS]


def _patchified(latents: Tensor) -> Tensor:
    """Patches of 2 x 2 cells, ordered by the position in the patch, then by channel."""
    found = nn.functional.pixel_unshuffle(latents, PATCH).unflatten(1, (-1, PATCH**2))
    return found.transpose(1, 2).flatten(1, 2)


def _unpatchified(latents: Tensor) -> Tensor:
    found = latents.unflatten(1, (PATCH**2, -1)).transpose(1, 2).flatten(1, 2)
    return nn.functional.pixel_shuffle(found, PATCH)
