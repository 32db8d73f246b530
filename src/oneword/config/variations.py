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
    """Pictures to vary."""
    model: str = "karlo"
    """Model that varies them: karlo (unCLIP), sd-unclip or sd-variations (published), microworld or microworld-nano, or a folder of oneword baseline projector. Also a folder or hub id of a pipeline of the same class as a published one."""
    prompt: str | None = None
    """Prompt for the variations, with "{}" for the picture (default: the picture alone). Only sd-unclip and projectors read a prompt."""
    candidates: int = VARIATION_CANDIDATES
    """Number of variations of each picture, with consecutive seeds from seed on."""
    seed: int = 0
    """First seed."""
    guidance_scale: float | None = None
    """Guidance scale (default: the model's published one). 1 turns guidance off."""
    num_inference_steps: int | None = None
    """Number of denoising steps (default: the model's published number)."""
    noise_level: int | None = None
    """Noise level for the picture's embedding, 0 to 999 (default: 0). Only for sd-unclip."""
    output_dir: Path = Path("oneword-variations")
    """Folder for the variations and their contact sheet."""
    revision: str | None = None
    """Branch, tag or commit of a hub model (default: the published one)."""
    dtype: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Data type. "auto" is bf16 where it is fast, and fp32 elsewhere."""
    device: str = "auto"
    """Device: "auto" (CUDA, then MPS, then CPU) or a torch device such as "cuda:1"."""
    safety_checker: bool = True
    """Keep the model's safety checker, if it has one."""
    batch_size: int = 8
    """Variations drawn at once, if the model can. It does not change them."""

    def __post_init__(self) -> None:
        check_finite(self)
        require(bool(self.pictures), "pictures must name a picture, got none.")
        require(bool(self.model), "model must be a name, got an empty string; pass --model.")
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
            f"noise_level must be in 0..999, got {self.noise_level}.",
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
    """Folder for the projector. Run the same command again to resume."""
    train_data_dir: Path | None = None
    """Folder with training pictures (default: pictures drawn by the embedded model's world, without its held-out concepts)."""
    model: ModelConfig = field(default_factory=ModelConfig)
    guide: str | None = None
    """CLIP whose picture features are projected: hub id or folder (default: the embedded model's own guide, openai/clip-vit-base-patch16 elsewhere)."""
    judge: str | None = None
    """CLIP that will score; it must be a different one (default: the one that scores by default)."""
    allow_same_clip: bool = False
    """Allow the same CLIP as guide and judge. Its scores then say little."""
    num_vectors: int = 4
    """Number of conditioning vectors that a picture becomes."""
    num_pictures: int = 4096
    """Number of training pictures that the embedded model's world draws."""
    num_samples: int = 50_000
    """Total number of noised pictures to train on."""
    train_batch_size: int = 16
    """Batch size: noised pictures per step."""
    learning_rate: float = 1e-3
    """Peak learning rate of AdamW. It rises in the first steps, then falls to zero along a cosine."""
    seed: int = 0
    """Random seed of the network, the drawn pictures and every step."""

    def __post_init__(self) -> None:
        check_finite(self)
        for name in ("num_vectors", "num_pictures", "num_samples", "train_batch_size"):
            value = getattr(self, name)
            require(value >= 1, f"{name} must be 1 or more, got {value}.")
        require(self.learning_rate > 0, f"learning_rate must be above 0, got {self.learning_rate}.")
        check_seeds(self.seed, least=0)
        require(
            self.train_data_dir is not None or is_embedded(self.model.model),
            f"Cannot train a projector of {self.model.model} without pictures because only the "
            "embedded models can draw their own; pass --train-data-dir.",
        )

    @property
    def num_steps(self) -> int:
        """Optimiser steps in all."""
        return max(1, self.num_samples // self.train_batch_size)
