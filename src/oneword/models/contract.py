"""The contract that every model family fulfils, and the values that cross it.

How the families fit:

stable_diffusion
    Vocabulary ``clip_l`` (1.x) or ``clip_h`` (2.x). ``target`` reads ``prediction_type``.
ldm
    ``bert``. No ``encode_prompt`` in its pipeline: ids, then LDM-BERT. ``pipeline.vqvae`` is the
    autoencoder.
sdxl
    ``clip_l``, ``clip_g``. ``Conditioning.pooled``; ``predict`` is told the crops.
sd3
    ``clip_l``, ``clip_g``, ``t5xxl``. ``sample_t`` maps u through a logit-normal and the shift;
    ``target`` is noise - x0; times lie in (0, 1).
pixart
    ``t5xxl``, whose mask is in ``Conditioning.extra``. Alpha and Sigma, told apart by the pipeline.
sana
    ``gemma`` behind an instruction, masked. The autoencoder has no posterior: ``Moments.std`` is 0.
sana_sprint
    As sana. A consistency model: ``target`` is the velocity along a circle, times are angles.
lumina2
    ``gemma`` behind a system prompt, masked. The model runs from noise at 0 to the picture at 1,
    towards the picture: ``predict`` turns both round.
chroma
    ``t5xxl``. As flux, without CLIP; its mask, which leaves one token of padding, is in ``extra``.
flux
    ``clip_l``, ``t5xxl``. As sd3; latents are packed 2 x 2 inside ``predict``.
auraflow
    ``pile_t5xl``. Flow; what its mask leaves out is zero in the states.
hunyuan_dit
    ``chinese_roberta``, ``mt5xl``. ``target`` is v; states side by side as sd3's, masked; told
    size and crop until version 1.1.
cogview3
    ``t5xxl``. Told size and crop as sdxl; the schedule is shifted, and ends in noise alone.
bria
    ``t5xxl``. As flux, without CLIP; padding is zeros.
lumina
    ``gemma`` with its mask. As lumina2, without the system prompt.
kandinsky3
    ``flan_ul2`` with its mask; as cogview4, prompts of other lengths apart. The UNet predicts the
    noise; latents are not scaled, and ``Moments.std`` is 0.
deepfloyd_if
    ``t5xxl``, with its padding. Pixels are the latents; a predicted variance is left aside.
kandinsky5
    ``clip_l``, pooled only, ``qwen25_7b`` behind a template. Flow; padding is read, as cogview4's.
ernie_image
    ``ministral3_3b``, the last layer but one, masked. Flow; flux2's latents.
cogview4
    ``glm4_9b``. Flow, whose model is told times before their shift, and size and crop as SDXL;
    padding is read, so that prompts of other lengths are encoded and denoised apart.
kolors
    ``chatglm3_6b``. As sdxl, with one encoder; pooled is its last token's state.
hidream
    ``clip_l``, ``clip_g``, both pooled only, ``t5xxl``, ``llama``. Flow; states of T5 and of every
    layer of Llama behind one another; ``predict`` turns the sign round.
cosmos2
    ``t5xxl``, here the first T5 11B; padding is zeros. Flow; the pipeline counts in levels of
    noise up to 80; qwen_image's kind of latents.
prx
    ``t5gemma_2b``, whose mask is in ``extra``. Flow.
bria_fibo2
    ``qwen3vl_4b``, whose mask is in ``extra``. Flow; six bundles of three layers side by side.
nucleus_moe
    ``qwen3vl_8b`` behind an instruction, masked. Flow; ``predict`` turns the sign round;
    qwen_image's latents.
ideogram4
    ``qwen3vl_8b``, thirteen layers woven into each other, masked. Flow; ``predict`` turns time and
    sign round; flux2's latents with the channels of a patch in another order.
dreamlite
    ``qwen3vl_2b`` behind a template, with its mask. Flow, on a UNet that is told the picture's size
    and draws beside a second picture, which is empty here; ``Moments.std`` is 0.
krea2
    ``qwen3vl_4b``. Flow; layers side by side behind a template, masked; qwen_image's latents.
qwen_image21
    ``qwen3vl_8b``. Flow; a chat template whose system part is cut off the states; a mask in
    ``extra`` where prompts differ in length; latents of pictures with transparency.
ovis_image
    ``qwen3_2b``. As flux, without CLIP; a chat template, whose head is cut off the states.
qwen_image
    ``qwen25_7b``. Flow; a chat template whose head is cut off the states; a mask in ``extra``.
longcat_image
    ``qwen25_7b`` behind a template, padding included. As flux, without CLIP.
hunyuan_image
    ``qwen25_7b`` behind a template, masked. Flow. What a prompt quotes is spelled by a ByT5, in
    ``extra``, which learns nothing.
z_image
    ``qwen3_4b``. Flow; ``predict`` turns time round and the sign of the output; a mask in
    ``extra``.
flux2
    ``qwen3_4b``, ``qwen3_8b`` (klein) or ``mistral3_24b`` (dev). Flow; latents are patches of
    2 x 2 cells, scaled by the VAE's batch norm.

A word that depends on layer or time needs no second road: ``encode_prompt`` receives ``t``, and
``Conditioning.encoder_hidden_states`` may be a tuple with one tensor per cross-attention layer
(``by_layer.py``; the older families with a UNet).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from oneword._typing import Latents, Pixels, Timesteps, Uniforms
from oneword.config.drawing import SamplingConfig
from oneword.vocabulary.vocabulary import Vocabulary


if TYPE_CHECKING:
    pass


@dataclass(frozen=True, slots=True)
class Moments:
    """Mean and standard deviation of the VAE's posterior, in scaled latent units, shape as Latents.

    Caching moments rather than one sample keeps the training distribution of the paper.
    """

    mean: Latents
    std: Latents

    def sample(self, noise: Latents) -> Latents:
        """``mean + std * noise``."""
        return self.mean + self.std * noise

    def __getitem__(self, index: Any) -> Moments:
        return Moments(self.mean[index], self.std[index])


@dataclass(frozen=True, slots=True)
class Conditioning:
    """What the denoiser knows of the prompts; every tensor's first axis is the batch."""

    encoder_hidden_states: Tensor | tuple[Tensor, ...]
    """(batch, tokens, dim), or one such tensor per cross-attention layer."""
    pooled: Tensor | None = None
    """(batch, dim), for families that use one."""
    extra: dict[str, Tensor] = field(default_factory=dict)
    """Further inputs of the family's denoiser, such as masks or time ids."""

    def __getitem__(self, index: Any) -> Conditioning:
        states = self.encoder_hidden_states
        return Conditioning(
            tuple(s[index] for s in states) if isinstance(states, tuple) else states[index],
            None if self.pooled is None else self.pooled[index],
            {name: value[index] for name, value in self.extra.items()},
        )


OnLatents = Callable[[Latents, float | None], Latents]
"""``on_latents(latents, t)``: what to go on with, at the family's time t; ``None``: finished."""


@runtime_checkable
class Backbone(Protocol):
    """A frozen text-to-image model: everything that differs between families hides here."""

    family: str
    """Name in the registry; "microworld" for the embedded models, whose presets are their own."""
    name: str
    """What the user called the model: hub id, folder or file."""
    pipeline: Any
    """The loaded diffusers pipeline, for drawing."""
    vocabularies: dict[str, Vocabulary]
    """One per text encoder, by the name of its key in concept files."""
    pool: str
    """Where CLIP's pooled output is taken: "eos", or "legacy" as stock tools do."""
    resolution: int
    """Side of the model's pictures, px."""
    sampling: SamplingConfig
    """The family's default for drawing; no field but height and width is None."""
    memory: str
    """How memory is saved, and the expected peak, in words; empty where nothing was asked."""

    @property
    def device(self) -> torch.device: ...

    @property
    def dtype(self) -> torch.dtype:
        """Compute type of the denoiser."""
        ...

    def encode_image(self, pixels: Pixels) -> Moments:
        """Posterior of the VAE, float32, scaled; pixels are float32 in [-1, 1]."""
        ...

    def decode_latents(self, latents: Latents) -> Pixels:
        """Pictures of scaled latents, clamped to [-1, 1]."""
        ...

    def encode_prompt(self, prompts: Sequence[str], t: Timesteps | None = None) -> Conditioning:
        """Conditioning of prompts through the family's own road; differentiable.

        Inside ``injected`` the prompts may hold placeholders.
        """
        ...

    def sample_t(self, u: Uniforms, latent_size: tuple[int, int]) -> Timesteps:
        """Map draws of U[0, 1) to the family's training distribution of timesteps.

        Some families shift it with the size of the picture, here (h, w) in latent cells.
        """
        ...

    def add_noise(self, x0: Latents, noise: Latents, t: Timesteps) -> Latents: ...

    def target(self, x0: Latents, noise: Latents, t: Timesteps) -> Latents:
        """What ``predict`` should return: noise, v or flow, as the model was trained."""
        ...

    def predict(
        self, x_t: Latents, t: Timesteps, cond: Conditioning, crops: Tensor | None = None
    ) -> Latents:
        """The denoiser's own prediction, float32.

        Args:
            x_t: Noised latents.
            t: Their times.
            cond: Conditioning of as many prompts.
            crops: (batch, 4) original height and width, and top and left of the crop in the
                resized picture, px, for families that are told; ``None``: the whole picture.
        """
        ...

    def draw(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        sampling: SamplingConfig | None = None,
        *,
        image: Pixels | None = None,
        mask: Tensor | None = None,
        strength: float = 0.8,
        latents: Latents | None = None,
        on_latents: OnLatents | None = None,
        on_step: Callable[[int, int], None] | None = None,
    ) -> Pixels:
        """Draw one picture per (prompt, seed) pair through the family's pipeline.

        A picture depends on its own prompt and seed only, not on the batch.

        Args:
            prompts: May hold placeholders inside ``injected``.
            seeds: As many.
            sampling: Unset fields take the family's default.
            image: Pictures to start from, as many, in the size that is drawn.
            mask: (batch, 1, height, width) in [0, 1]; what is 1 is drawn anew, the rest of
                ``image`` stays.
            strength: How much of ``image`` is drawn over, in (0, 1].
            latents: What to denoise, at the first step's noise, in place of the seeds' noise.
            on_latents: May change what goes into every step but an ``image``'s first, and the
                finished latents.
            on_step: ``on_step(done, total)`` reports denoising steps.

        Raises:
            ModelError: the family has no such pipeline.
        """
        ...
