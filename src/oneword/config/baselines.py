"""The methods that the paper compares with: what can be set, and the published constants."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from oneword.config.checks import check_finite, seeds_drawn
from oneword.config.model import ModelConfig
from oneword.errors import require


# --- diffusion that a CLIP guides


CLIP_DIFFUSION: dict[str, dict[str, Any]] = {
    "hq": {
        "num_inference_steps": 1000,
        "sampler": "ddpm",
        "clip_scale": 1000.0,
        "tv_scale": 150.0,
        "range_scale": 50.0,
        "num_cutouts": 16,
        "cut_power": 1.0,
    },
    "plain": {
        "num_inference_steps": 500,
        "sampler": "ddpm",
        "clip_scale": 2750.0,
        "tv_scale": 0.0,
        "range_scale": 0.0,
        "num_cutouts": 1,
        "cut_power": 1.0,
    },
    "latent": {
        "num_inference_steps": 50,
        "sampler": "ddpm",
        "clip_scale": 1000.0,
        "tv_scale": 150.0,
        "range_scale": 50.0,
        "num_cutouts": 16,
        "cut_power": 1.0,
    },
}
"""Settings of each preset of CLIP-guided diffusion: the published notebook's for 256 px ("hq"), its
older script's ("plain"), and ours for models of latents ("latent")."""
INIT_SKIP = 300
"""Of the 1,000 times those that are left out above a picture; the notebook says "200 to 500"."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipDiffusionConfig:
    """Draw by diffusion that a CLIP guides towards a text: the paper's comparison in Figure 5.

    On a text-to-image model its own denoiser draws, which gets an empty prompt.
    """

    prompts: tuple[str, ...]
    """Prompts, each in quotes. They may contain words from --concepts."""
    concepts: tuple[Path, ...] = ()
    """Files of words for the guide's text encoder, such as PALAVRA's. PATH=TOKEN renames a word."""
    init_image: Path | None = None
    """Picture to start from, with noise added (default: start from pure noise)."""
    skip: int | None = None
    """Number of the 1,000 diffusion steps to skip before init_image, 0 to 999 (default: 300). Higher keeps more of the picture."""
    image_prompts: tuple[Path, ...] = ()
    """Pictures that also guide the drawing, each with the same weight as the text."""
    output_dir: Path = Path("oneword-clip-diffusion")
    """Folder for the pictures and their contact sheet."""
    checkpoint: Path | None = None
    """File of the published unconditional pixel model, 256x256_diffusion_uncond.pt (default: none; the text-to-image model draws in its latents)."""
    model: ModelConfig = field(default_factory=ModelConfig)
    preset: Literal["hq", "plain", "latent"] | None = None
    """Settings to start from: "hq" (the published notebook for 256 px), "plain" (its older script) or "latent" (our own, for latent models). Default: hq with --checkpoint, else latent."""
    guide: str | None = None
    """CLIP that guides: hub id or folder (default: microworld's own guide on microworld, openai/clip-vit-base-patch16 elsewhere)."""
    judge: str | None = None
    """CLIP that will score the pictures; it must differ from the guide (default: microworld's own judge on microworld, openai/clip-vit-base-patch32 elsewhere)."""
    allow_same_clip: bool = False
    """Allow the same CLIP as guide and judge. Its scores then say little."""
    sampler: Literal["ddpm", "ddim"] | None = None
    """How the gradient changes a step: "ddpm" (shifts the mean, scaled by the variance) or "ddim" (shifts the predicted noise, adds no new noise). Default: the preset's."""
    num_inference_steps: int | None = None
    """Number of steps for the full diffusion (default: the preset's)."""
    clip_scale: float | None = None
    """Weight of the distance between CLIP features (default: the preset's). 0 turns guidance off."""
    tv_scale: float | None = None
    """Weight of the total variation loss, which smooths the picture (default: the preset's)."""
    range_scale: float | None = None
    """Weight of the penalty on values outside black to white (default: the preset's)."""
    num_cutouts: int | None = None
    """Number of cutouts that CLIP sees in each step (default: the preset's)."""
    cut_power: float | None = None
    """Distribution of cutout sizes (default: the preset's). Above 1, small cutouts are more frequent."""
    num_images_per_prompt: int = 1
    """Pictures per prompt, with consecutive seeds from seed on."""
    seed: int = 0
    """First seed."""
    seeds: tuple[str, ...] = ()
    """Seeds, as numbers or ranges (1 2 3 or 0-7). Replaces seed and num_images_per_prompt."""
    batch_size: int = 4
    """Pictures drawn at once. It does not change the pictures."""

    def __post_init__(self) -> None:
        check_finite(self)
        require(
            bool(self.prompts) and all(prompt.strip() for prompt in self.prompts),
            "prompts must contain a prompt, got none or an empty one.",
        )
        require(
            self.skip is None or 0 <= self.skip <= 999, f"skip must be in 0..999, got {self.skip}."
        )
        require(
            not self.skip or self.init_image is not None,
            f"Cannot use skip {self.skip} without a picture to start from; pass --init-image.",
        )
        require(
            self.num_inference_steps is None or 1 <= self.num_inference_steps <= 1000,
            f"num_inference_steps must be in 1..1000, got {self.num_inference_steps}.",
        )
        for name in ("clip_scale", "tv_scale", "range_scale"):
            value = getattr(self, name)
            require(value is None or value >= 0, f"{name} must be 0 or more, got {value}.")
        for name in ("num_cutouts", "num_images_per_prompt", "batch_size"):
            value = getattr(self, name)
            require(value is None or value >= 1, f"{name} must be 1 or more, got {value}.")
        require(
            self.cut_power is None or self.cut_power > 0,
            f"cut_power must be above 0, got {self.cut_power}.",
        )
        require(
            self.checkpoint is None or self.preset != "latent",
            "Cannot use the preset latent with --checkpoint because it is for latent models and "
            "the checkpoint is a pixel model; use hq or plain.",
        )
        require(
            self.checkpoint is not None or self.preset != "plain",
            "Cannot use the preset plain without --checkpoint because it guides by noised pixels; "
            "pass a pixel model, or use latent.",
        )

    @property
    def drawn_seeds(self) -> tuple[int, ...]:
        """The seeds of each prompt's pictures."""
        return seeds_drawn(self)

    @property
    def preset_name(self) -> str:
        """The preset, by the kind of model where none is named."""
        return self.preset or ("latent" if self.checkpoint is None else "hq")

    def settled(self, name: str) -> Any:
        """A setting, or the preset's where it is unset."""
        value = getattr(self, name)
        return CLIP_DIFFUSION[self.preset_name][name] if value is None else value
