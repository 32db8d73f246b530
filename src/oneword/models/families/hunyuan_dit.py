"""Hunyuan-DiT: a bilingual CLIP's BERT and an mT5 read the prompt, each with its own mask.

Li et al. 2024, arXiv:2405.08748.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler, HunyuanDiTPipeline
from diffusers.models.embeddings import get_2d_rotary_pos_embed
from diffusers.pipelines.hunyuandit.pipeline_hunyuandit import get_resize_crop_region_for_grid

from oneword._typing import Latents, Timesteps
from oneword.config.drawing import SamplingConfig
from oneword.config.model import ModelConfig
from oneword.models.assembly import load_pipeline, reschedule
from oneword.models.autoencoders import Plain
from oneword.models.contract import Conditioning
from oneword.models.drawing import FamilyPipeline
from oneword.models.noise import Diffusion
from oneword.models.reading import refuse_clip_skip


# the defaults of diffusers' pipeline
DEFAULTS = SamplingConfig(guidance_scale=5.0, num_inference_steps=50)
BERT_TOKENS, T5_TOKENS = 77, 256
BASE_SIDE = 64  # latent cells across which positions are counted at any size: 512 px
DRAWN_FROM = (1024, 1024)  # the original size, px, that the pipeline passes when it draws


def load(config: ModelConfig) -> HunyuanDiT:
    """Load a pipeline of this family.

    Raises:
        ModelError: it cannot be loaded, or its prediction type is not the family's.
    """
    refuse_clip_skip(config, "Hunyuan-DiT")
    absent = {"safety_checker": None, "requires_safety_checker": False}
    return HunyuanDiT(load_pipeline(config, HunyuanDiTPipeline, config.model, **absent), config)


class HunyuanDiT(FamilyPipeline):
    """A frozen Hunyuan-DiT pipeline behind the contract of ``models.contract``."""

    tells_sizes = True
    original_px = DRAWN_FROM

    def __init__(self, pipeline: Any, config: ModelConfig) -> None:
        # the solver that it comes with adds noise in every step
        reschedule(pipeline, DDIMScheduler)
        super().__init__(
            pipeline,
            config,
            family="hunyuan_dit",
            denoiser=pipeline.transformer,
            autoencoder=Plain(pipeline.vae, config.model),
            encoders={
                "chinese_roberta": ("tokenizer", pipeline.text_encoder, BERT_TOKENS),
                "mt5xl": ("tokenizer_2", pipeline.text_encoder_2, T5_TOKENS),
            },
            noise=Diffusion(pipeline.scheduler, pipeline.transformer.device),
            resolution=pipeline.transformer.config.sample_size * pipeline.vae_scale_factor,
            sampling=DEFAULTS,
        )
        self._widths = [v.text_encoder.config.hidden_size for v in self.vocabularies.values()]

    def _read(self, prompts: Sequence[str]) -> Conditioning:
        """Hidden states of BERT, then of mT5, at the larger width, and the mask of both."""
        read = [
            self.pipeline.encode_prompt(
                list(prompts),
                device=self.device,
                dtype=self.dtype,
                do_classifier_free_guidance=False,
                max_sequence_length=tokens,
                text_encoder_index=index,
            )
            for index, tokens in enumerate((BERT_TOKENS, T5_TOKENS))
        ]
        widest = max(self._widths)
        states = [F.pad(found[0], (0, widest - found[0].shape[2])) for found in read]
        mask = torch.cat([found[2] for found in read], dim=1)
        return Conditioning(torch.cat(states, dim=1), extra={"mask": mask})

    def _denoise(self, x_t: Latents, t: Timesteps, cond: Conditioning) -> Latents:
        """The transformer's own v, float32, without the variance that it also predicts.

        Up to version 1.1 it is given the size and the crop's position; without ``crops``, what the
        stock pipeline gives it for an original of 1024 x 1024 px.
        """
        # as trained, widths come first
        original, corner, size = cond.extra["sizes"].split(2, dim=1)
        bert, t5 = self._states(cond).split((BERT_TOKENS, T5_TOKENS), dim=1)
        bert_mask, t5_mask = cond.extra["mask"].split((BERT_TOKENS, T5_TOKENS), dim=1)
        output = self.denoiser(
            x_t.to(self.dtype),
            t.to(self.dtype),
            encoder_hidden_states=bert[..., : self._widths[0]],
            text_embedding_mask=bert_mask,
            encoder_hidden_states_t5=t5[..., : self._widths[1]].contiguous(),
            text_embedding_mask_t5=t5_mask,
            image_meta_size=torch.cat([part.flip(1) for part in (original, size, corner)], dim=1),
            style=torch.zeros(len(x_t), dtype=torch.long, device=self.device),
            image_rotary_emb=self._positions(x_t),
        ).sample
        return output[:, : x_t.shape[1]].float()

    def _positions(self, x_t: Latents) -> Any:
        """Rotations of the patches, with positions scaled to the base side."""
        patch = self.denoiser.config.patch_size
        grid = x_t.shape[2] // patch, x_t.shape[3] // patch
        return get_2d_rotary_pos_embed(
            self.denoiser.config.attention_head_dim,
            get_resize_crop_region_for_grid(grid, BASE_SIDE // patch),
            grid,
            device=self.device,
            output_type="pt",
        )

    def _draw_options(self, sampling: SamplingConfig) -> dict[str, Any]:
        # the pipeline passes heights first, the authors' training code widths
        told = {"original_size": DRAWN_FROM, "target_size": (sampling.width, sampling.height)}
        return told | {"use_resolution_binning": False}
