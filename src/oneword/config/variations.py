"""How pictures are varied: the published models with their constants, and the projector."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from oneword.config.checks import check_finite, check_seeds
from oneword.config.model import ModelConfig, is_embedded
from oneword.errors import require


VARIATIONS: dict[str, dict[str, Any]] = {
    "karlo": {
        "source": "kakaobrain/karlo-v1-alpha-image-variations",
        "guidance_scale": 8.0,
        "num_inference_steps": 25,
        "super_res_steps": 7,
    },
    "sd-unclip": {
        "source": "stabilityai/stable-diffusion-2-1-unclip",
        "guidance_scale": 10.0,
        "num_inference_steps": 20,
        "noise_level": 0,
    },
    "sd-variations": {
        "source": "lambdalabs/sd-image-variations-diffusers",
        "revision": "v2.0",
        "guidance_scale": 3.0,
        "num_inference_steps": 50,
    },
}
"""Models that vary a picture, by name: where they are published, and how they are drawn with."""
KARLO_TEXT: dict[str, Any] = {
    "source": "kakaobrain/karlo-v1-alpha",
    "prior_guidance_scale": 4.0,
    "prior_steps": 25,
    "guidance_scale": 8.0,
    "num_inference_steps": 25,
    "super_res_steps": 7,
}
"""Karlo's own way from text, over its prior: what stands for DALL-E 2 with a caption."""
CANDIDATES, VARIATION_CANDIDATES = 16, 6
"""Pictures of a prompt of which the best is shown, and those of models that vary a picture."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VariationsConfig:
    """Vary pictures with a model that is guided by a picture, as DALL-E 2 is in the paper's figure 3.

    Source:
        Gal et al. 2022, arXiv:2208.01618, sections 4.1 and 4.7.
    """

    pictures: tuple[Path, ...]
    """The pictures, each of which is varied."""
    model: str = "karlo"
    """What varies them: karlo (unCLIP), sd-unclip or sd-variations (published models), a folder or hub id of a pipeline of one of their classes, microworld or microworld-nano, or the folder of oneword baseline projector."""
    prompt: str | None = None
    """What the variations show, with "{}" for the picture; sd-unclip and projectors read one, the other models read none. Unset: the picture alone."""
    candidates: int = VARIATION_CANDIDATES
    """Variations of each picture, with the seeds from seed on."""
    seed: int = 0
    """First seed."""
    guidance_scale: float | None = None
    """Classifier-free guidance; 1 turns it off. Unset: the model's published one."""
    num_inference_steps: int | None = None
    """Denoising steps; unset: the model's published number."""
    noise_level: int | None = None
    """Noise on the picture's embedding, 0 to 999; sd-unclip alone. Unset: 0."""
    output_dir: Path = Path("oneword-variations")
    """Folder for the variations and their contact sheet."""
    revision: str | None = None
    """Branch, tag or commit of a hub model; unset: the published one."""
    dtype: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Compute type: auto is bf16 where that is fast, and fp32 elsewhere."""
    device: str = "auto"
    """"auto" (CUDA, then MPS, then CPU) or a torch device such as "cuda:1"."""
    safety_checker: bool = True
    """Keep the model's safety checker, where it has one."""
    batch_size: int = 8
    """Variations drawn at once, where the model can; it does not change them."""

    def __post_init__(self) -> None:
        check_finite(self)
        require(bool(self.pictures), "There must be a picture, got none; name one or more.")
        require(bool(self.model), "The model must be named, got an empty string; pass --model.")
        for name in ("candidates", "batch_size"):
            value = getattr(self, name)
            require(value >= 1, f"{name} must be 1 or more, got {value}.")
        check_seeds(self.seed, self.candidates)
        require(
            self.guidance_scale is None or self.guidance_scale >= 0,
            f"guidance_scale must be 0 or more, got {self.guidance_scale}.",
        )
        require(
            self.num_inference_steps is None or self.num_inference_steps >= 1,
            f"num_inference_steps must be 1 or more, got {self.num_inference_steps}.",
        )
        require(
            self.noise_level is None or 0 <= self.noise_level <= 999,
            f"noise_level must be 0 to 999, got {self.noise_level}.",
        )

    @property
    def drawn_seeds(self) -> tuple[int, ...]:
        """The seeds of each picture's variations."""
        return tuple(range(self.seed, self.seed + self.candidates))


@dataclass(frozen=True, kw_only=True, slots=True)
class ProjectorConfig:
    """Train a projector: from a picture's CLIP features to vectors that a frozen model reads.

    It is what varies pictures on the embedded models, which have no unCLIP. It is ours, and not the
    paper's.
    """

    output_dir: Path = Path("oneword-projector")
    """Folder for the projector; run the same command again to go on."""
    train_data_dir: Path | None = None
    """Pictures to train on; unset: on the embedded models what their world draws, held-out things left out."""
    model: ModelConfig = field(default_factory=ModelConfig)
    guide: str | None = None
    """CLIP whose picture features are projected: hub id or folder; unset: the embedded model's own guide, openai/clip-vit-base-patch16 elsewhere."""
    judge: str | None = None
    """CLIP that will score, which must be another; unset: the one that scores by default."""
    allow_same_clip: bool = False
    """Let guide and judge be one CLIP; its scores say little then."""
    num_vectors: int = 4
    """Vectors of the denoiser's conditioning that a picture becomes."""
    num_pictures: int = 4096
    """Pictures that the embedded model's world draws to train on."""
    num_samples: int = 50_000
    """Noised pictures seen in all."""
    train_batch_size: int = 16
    """Of them in a step."""
    learning_rate: float = 1e-3
    """Of AdamW, which rises for the first steps and falls to zero along a cosine."""
    seed: int = 0
    """Seed of the network, of the drawn pictures and of every step."""

    def __post_init__(self) -> None:
        check_finite(self)
        for name in ("num_vectors", "num_pictures", "num_samples", "train_batch_size"):
            value = getattr(self, name)
            require(value >= 1, f"{name} must be 1 or more, got {value}.")
        require(self.learning_rate > 0, f"learning_rate must be above 0, got {self.learning_rate}.")
        check_seeds(self.seed, least=0)
        require(
            self.train_data_dir is not None or is_embedded(self.model.model),
            f"A projector of {self.model.model} needs pictures to train on, got none; pass "
            "--train-data-dir.",
        )

    @property
    def num_steps(self) -> int:
        """Optimiser steps in all."""
        return max(1, self.num_samples // self.train_batch_size)
