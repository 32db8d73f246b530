"""LongCat-Image: Qwen2.5-VL reads the prompt in a template, with quotations letter by letter.

Meituan LongCat Team 2025, arXiv:2512.07584.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from diffusers import LongCatImagePipeline
from diffusers.pipelines.longcat_image.pipeline_longcat_image import prepare_pos_ids
from torch import Tensor

from oneword._devices import sent
from oneword._typing import Latents, Timesteps
from oneword.config.drawing import SamplingConfig
from oneword.config.model import ModelConfig
from oneword.models.assembly import load_pipeline
from oneword.models.autoencoders import PATCHES_IN_ROW, Plain
from oneword.models.contract import Conditioning
from oneword.models.drawing import FamilyPipeline
from oneword.models.noise import Flow
from oneword.models.reading import key_of, refuse_clip_skip
from oneword.vocabulary.tokenizer import apart, truncated


# the defaults of diffusers' pipeline
DEFAULTS = SamplingConfig(guidance_scale=4.5, num_inference_steps=50)
_TEXT_ENCODERS = {3584: "qwen25_7b"}
_QUOTED = re.compile("'[^']*'|\"[^\"]*\"|\u2018[^\u2018\u2019]*\u2019|\u201c[^\u201c\u201d]*\u201d")
_APOSTROPHE = re.compile(r"(?<=[a-zA-Z])'(?=[a-zA-Z])")


def load(config: ModelConfig) -> LongCatImage:
    """Load a pipeline of this family, without the processor that would rewrite prompts.

    Raises:
        ModelError: it cannot be loaded, or a setting applies only to CLIP.
    """
    refuse_clip_skip(config, "LongCat-Image")
    pipeline = load_pipeline(config, LongCatImagePipeline, config.model, text_processor=None)
    return LongCatImage(pipeline, config)


class LongCatImage(FamilyPipeline):
    """A frozen LongCat-Image pipeline behind the contract of ``models.contract``."""

    def __init__(self, pipeline: Any, config: ModelConfig) -> None:
        encoder = pipeline.text_encoder
        key = key_of(encoder, _TEXT_ENCODERS, "qwen25")
        pipeline.tokenizer_max_length = min(
            pipeline.tokenizer_max_length, pipeline.tokenizer.model_max_length
        )
        super().__init__(
            pipeline,
            config,
            family="longcat_image",
            denoiser=pipeline.transformer,
            autoencoder=Plain(pipeline.vae, config.model, packing=PATCHES_IN_ROW),
            encoders={key: ("tokenizer", encoder, pipeline.tokenizer_max_length)},
            noise=Flow(pipeline.scheduler),
            resolution=pipeline.default_sample_size * pipeline.vae_scale_factor,
            sampling=DEFAULTS,
        )
        pipeline._encode_prompt = self._through_pipeline

    def _read(self, prompts: Sequence[str]) -> Conditioning:
        """Last hidden states of Qwen2.5-VL after the template's head, padding included."""
        return Conditioning(self._through_pipeline(prompts))

    def _through_pipeline(self, prompts: Sequence[str]) -> Tensor:
        """Like the pipeline's own ``_encode_prompt``, whose states have no gradient.

        The pipeline's puts the end of the template after the padding, where it affects no state
        that is used. If two words have an apostrophe, it mistakes the second for the first.
        """
        tokenizer, longest = self.pipeline.tokenizer, self.pipeline.tokenizer_max_length
        prefix = tokenizer(self.pipeline.prompt_template_encode_prefix, add_special_tokens=False)
        ids = [truncated(tokenizer, self._ids(text), longest, text) for text in prompts]
        padded = tokenizer.pad(
            {"input_ids": ids}, max_length=longest, padding="max_length", return_tensors="pt"
        )
        head = torch.tensor([prefix.input_ids] * len(ids))
        mask = torch.cat([torch.ones_like(head), padded.attention_mask], dim=1)
        found = self.pipeline.text_encoder(
            input_ids=sent(torch.cat([head, padded.input_ids], dim=1), self.device),
            attention_mask=sent(mask, self.device),
            output_hidden_states=True,
            logits_to_keep=1,
        )
        return found.hidden_states[-1][:, head.shape[1] :]

    def _ids(self, text: str) -> list[int]:
        tokenizer = self.pipeline.tokenizer
        pieces = self._pieces(text)
        return [i for p in pieces for i in tokenizer(p, add_special_tokens=False).input_ids]

    def _pieces(self, text: str) -> Iterator[str]:
        """The pieces that are tokenised separately: quoted letters, learned words, and the rest."""
        tokenizer = self.pipeline.tokenizer
        parts = apart(tokenizer, text)
        # a learned word may contain a quote; a quote between letters is an apostrophe
        plain = "".join("x" * len(part) if i % 2 else part for i, part in enumerate(parts))
        end = 0
        for quoted in _QUOTED.finditer(_APOSTROPHE.sub("x", plain)):
            yield text[end : quoted.start()]
            end = quoted.end()
            for i, part in enumerate(apart(tokenizer, text[quoted.start() : end])):
                yield from [part] if i % 2 else part
        yield text[end:]

    def _denoise(self, x_t: Latents, t: Timesteps, cond: Conditioning) -> Latents:
        """The transformer's own velocity, float32."""
        states = self._states(cond)
        height, width = x_t.shape[-2:]
        longest = self.pipeline.tokenizer_max_length
        places = prepare_pos_ids(
            1, "image", start=(longest, longest), height=height // 2, width=width // 2
        )
        velocity = self.denoiser(
            hidden_states=self.autoencoder.pack(x_t.to(self.dtype)),
            timestep=t,
            encoder_hidden_states=states,
            txt_ids=sent(prepare_pos_ids(num_token=states.shape[1]), self.device),
            img_ids=sent(places, self.device),
        ).sample
        return self.autoencoder.unpack(velocity, (height, width)).float()

    def _draw_options(self, sampling: SamplingConfig) -> dict[str, Any]:
        return {"negative_prompt": sampling.negative_prompt or "", "enable_prompt_rewrite": False}
