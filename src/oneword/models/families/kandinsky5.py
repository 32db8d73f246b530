"""Kandinsky 5 text-to-image: Qwen2.5-VL reads the prompt in a template, CLIP pools it.

Arkhipkin et al. 2025, arXiv:2511.14993.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import Kandinsky5T2IPipeline
from diffusers.pipelines.kandinsky5.pipeline_kandinsky_t2i import prompt_clean
from torch import Tensor, nn

from oneword._typing import Latents, Timesteps
from oneword.config.drawing import SamplingConfig
from oneword.config.model import ModelConfig
from oneword.models.assembly import load_pipeline
from oneword.models.autoencoders import Plain
from oneword.models.contract import Conditioning
from oneword.models.noise import Flow
from oneword.models.reading import OneLength, key_of, refuse_clip_skip, sparing


# the defaults of diffusers' pipeline
DEFAULTS = SamplingConfig(guidance_scale=3.5, num_inference_steps=50)
TOKENS = 512
RESOLUTION = 1024
_TEXT_ENCODERS = {3584: "qwen25_7b"}


def load(config: ModelConfig) -> Kandinsky5:
    """Load a pipeline of this family.

    Raises:
        ModelError: it cannot be loaded, or a setting applies only to CLIP's states.
    """
    refuse_clip_skip(config, "Kandinsky 5", pools=True)
    return Kandinsky5(load_pipeline(config, Kandinsky5T2IPipeline, config.model), config)


class OneFrame:
    """Handles latents as a film of one frame, with channels last."""

    def pack(self, latents: Latents) -> Tensor:
        """Add the frame axis."""
        return latents.permute(0, 2, 3, 1)[:, None]

    def unpack(self, packed: Tensor, _size: tuple[int, int]) -> Latents:
        """Take the single frame."""
        return packed[:, 0].permute(0, 3, 1, 2)


class Kandinsky5(OneLength):
    """A frozen Kandinsky 5 pipeline behind the contract of ``models.contract``.

    Neither the language model nor the denoiser knows which tokens are padding.
    """

    def __init__(self, pipeline: Any, config: ModelConfig) -> None:
        encoder = pipeline.text_encoder
        key = key_of(encoder, _TEXT_ENCODERS, "qwen25")
        template = len(pipeline.tokenizer.tokenizer(pipeline.prompt_template.format("")).input_ids)
        self._room = TOKENS + pipeline.prompt_template_encode_start_idx
        # the pipeline omits the shift of Flux's autoencoder
        pipeline.vae.register_to_config(shift_factor=0.0)
        for part in pipeline.transformer.modules():
            if isinstance(part, nn.RMSNorm):  # it is given float32, and warns about another type
                part.float()
        super().__init__(
            pipeline,
            config,
            family="kandinsky5",
            denoiser=pipeline.transformer,
            autoencoder=Plain(pipeline.vae, config.model, packing=OneFrame()),
            encoders={
                "clip_l": ("tokenizer_2", pipeline.text_encoder_2, None),
                key: ("tokenizer.tokenizer", encoder, max(1, self._room - template)),
            },
            noise=Flow(pipeline.scheduler),
            resolution=RESOLUTION,
            sampling=DEFAULTS,
        )
        self._clean = sparing(pipeline, prompt_clean)
        pipeline.encode_prompt = self._through_pipeline

    def _read_alike(self, prompts: Sequence[str]) -> Conditioning:
        """Last hidden states of Qwen2.5-VL after the template's head, and CLIP's pooled output."""
        states, pooled, _ = self._through_pipeline(prompts)
        return Conditioning(states, pooled)

    def _through_pipeline(
        self,
        prompt: Sequence[str],
        dtype: torch.dtype | None = None,
        **_: Any,  # other arguments of the pipeline
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Like the pipeline's own ``encode_prompt``, but placeholders are left as they are.

        The pipeline's also cleans placeholders. From a prompt that is too long it cuts as many
        letters as the excess tokens have, whatever the prompt ends with. Here tokens are cut off.

        Returns:
            States, pooled outputs, and the bounds of each prompt in the concatenation of all.
        """
        cleaned = [self._clean(text) for text in prompt]
        ids = self._tokens(cleaned, padding=True, return_tensors="pt").to(self.device)
        found = self.pipeline.text_encoder(
            input_ids=ids, output_hidden_states=True, return_dict=True
        ).hidden_states[-1]
        states = found[:, self.pipeline.prompt_template_encode_start_idx :]
        pooled = self.pipeline._encode_prompt_clip(cleaned, device=self.device, dtype=dtype)
        ends = torch.arange(len(cleaned) + 1, device=self.device) * states.shape[1]
        return states if dtype is None else states.to(dtype), pooled, ends

    def _tokens(self, cleaned: Sequence[str], **options: Any) -> Any:
        """Token ids of prompts in the template, cut to what fits."""
        filled = [self.pipeline.prompt_template.format(text) for text in cleaned]
        return self.pipeline.tokenizer.tokenizer(
            filled, max_length=self._room, truncation=True, **options
        ).input_ids

    def _lengths(self, prompts: Sequence[str]) -> list[int]:
        """Tokens of each cleaned prompt, with its template."""
        return [len(ids) for ids in self._tokens([self._clean(text) for text in prompts])]

    def _denoise_alike(self, x_t: Latents, t: Timesteps, cond: Conditioning) -> Latents:
        """The transformer's own velocity, float32."""
        states = self._states(cond)
        sides = (1, *(side // 2 for side in x_t.shape[-2:]))  # in patches of 2 x 2 cells
        output = self.denoiser(
            hidden_states=self.autoencoder.pack(x_t.to(self.dtype)),
            encoder_hidden_states=states,
            pooled_projections=self._pooled(cond),
            timestep=t * self.pipeline.scheduler.config.num_train_timesteps,
            visual_rope_pos=[torch.arange(side, device=self.device) for side in sides],
            text_rope_pos=torch.arange(states.shape[1], device=self.device),
        )
        return self.autoencoder.unpack(output.sample, (x_t.shape[-2], x_t.shape[-1])).float()

    def _draw_options(self, sampling: SamplingConfig) -> dict[str, Any]:
        # otherwise the pipeline would draw at the nearest size in its list
        self.pipeline.resolutions = [(sampling.width, sampling.height)]
        return {"max_sequence_length": TOKENS}
