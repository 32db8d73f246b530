"""How pictures are drawn and edited."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from oneword.config.checks import check_finite, seeds_drawn
from oneword.config.grid import Axis, axes_of
from oneword.config.model import ModelConfig, of_the_word
from oneword.errors import require


Emphasis = Literal["numbers", "a1111", "none"]


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplingConfig:
    """How pictures are drawn. Settings that are not given come from the model's family."""

    guidance_scale: float | None = None
    """Guidance scale (classifier-free guidance). 1 turns it off."""
    num_inference_steps: int | None = None
    """Denoising steps."""
    negative_prompt: str = ""
    """What the pictures should not show."""
    sampler: str | None = None
    """Solver by its name in diffusers, A1111 or ComfyUI ("Euler a", "DPM++ 2M Karras"), or "paper", "release" or "model" (default: as in the preset that the word was learned with). The paper's DDIM is 50 steps at timesteps 981, 961, ..., 1 with guidance scale 5. With "release" it has the authors' guidance scale: 10 on the paper's model, 7.5 elsewhere. With "model", the model's own sampler is used."""
    emphasis: Emphasis | None = None
    """Prompt weights: "numbers" (only the form (word:1.3)), "a1111" (its full syntax, where (word) is 1.1 and [word] its inverse) or "none" (default: numbers). All other brackets are plain text."""
    height: int | None = None
    """Height in pixels."""
    width: int | None = None
    """Width in pixels."""

    def __post_init__(self) -> None:
        check_finite(self)
        if self.guidance_scale is not None:
            require(
                self.guidance_scale >= 0,
                f"guidance_scale must be 0 or more, got {self.guidance_scale}.",
            )
        if self.num_inference_steps is not None:
            require(
                self.num_inference_steps >= 1,
                f"num_inference_steps must be 1 or more, got {self.num_inference_steps}.",
            )
        for name in ("height", "width"):
            value = getattr(self, name)
            require(
                value is None or (value >= 8 and value % 8 == 0),
                f"{name} must be a positive multiple of 8 px, got {value}.",
            )

    def overlaid(self, wishes: SamplingConfig | None) -> SamplingConfig:
        """These settings, with those of ``wishes`` that are set put over them."""
        if wishes is None:
            return self
        given = {f.name: getattr(wishes, f.name) for f in dataclasses.fields(wishes)}
        return dataclasses.replace(self, **{k: v for k, v in given.items() if v is not None})


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerateConfig:
    """Draw pictures: every prompt with every seed."""

    prompts: tuple[str, ...] = ()
    """Prompts, each in quotes. "{}" stands for each loaded word in turn. Also a FILE.txt with one prompt per line, or a list by name: paper:fig1, fig3, fig4, fig5, fig6, fig14, section5.1 or microworld:edits."""
    concepts: tuple[Path, ...] = ()
    """Concept files or run folders whose words the prompts may use; PATH=TOKEN renames a word."""
    output_dir: Path = Path("oneword-pictures")
    """Folder for the pictures and their contact sheet."""
    model: ModelConfig = field(default_factory=of_the_word)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    wildcard_dir: Path | None = None
    """Folder of wildcards. __animals__ in a prompt becomes a line of its animals.txt, and {red|blue} one of the two; the picture's seed decides."""
    image: Path | None = None
    """Picture to start from (default: none, start from noise)."""
    mask_image: Path | None = None
    """Mask for image: white is redrawn, black stays."""
    strength: float = 0.8
    """How much of image is redrawn, in (0, 1]."""
    num_images_per_prompt: int = 4
    """Pictures per prompt, with consecutive seeds from seed on."""
    seed: int = 0
    """First seed."""
    seeds: tuple[str, ...] = ()
    """Seeds, as numbers or ranges (1 2 3 or 0-7); replaces seed and num_images_per_prompt."""
    batch_size: int = 8
    """Pictures drawn at once. It does not change the pictures."""
    replace: bool = False
    """Allow a concept whose placeholder token is already a word of the model."""
    grid: tuple[str, ...] = ()
    """Draw every prompt once for each value of one or two settings: guidance=2,5,8 sampler='Euler a,DDIM'. Settings: guidance, steps, sampler, checkpoint (files of the word), model."""
    gallery: bool = False
    """Write a page (gallery.html) and sheets with all pictures that were drawn, unselected."""
    keep: int | None = None
    """Number of pictures to keep per prompt, out of num_images_per_prompt (16 in the paper); the others go to the folder "dropped"."""
    score: bool = False
    """Score every picture by CLIP: similarity to the training pictures, if they are known, and to the prompt (keep does so by itself)."""
    rank_by: Literal["image", "text", "mean"] | None = None
    """What keep ranks by: similarity to the training pictures, to the prompt, or the mean of both (default: mean if the training pictures are known, else text)."""
    diversity: float = 0.0
    """How much keep prefers pictures that differ, in [0, 1]. 0 keeps the highest scores."""
    train_data_dir: tuple[Path, ...] = ()
    """Training pictures to rank by, one folder per loaded word. Without it, the folders named in the run folders are used."""
    judge: str | None = None
    """CLIP that ranks: hub id or folder (default: microworld's own judge on microworld, openai/clip-vit-base-patch32 elsewhere)."""

    def __post_init__(self) -> None:
        check_finite(self)
        num = len(self.drawn_seeds)
        require(
            self.keep is None or 1 <= self.keep <= num,
            f"keep must be in 1..{num}, the number of pictures drawn per prompt, got {self.keep}; "
            "raise --num-images-per-prompt (the paper draws 16).",
        )
        require(0 <= self.diversity <= 1, f"diversity must be in [0, 1], got {self.diversity}.")
        require(
            self.keep is not None or (self.rank_by is None and not self.diversity),
            "Cannot use rank_by or diversity without --keep because they choose which pictures to "
            "keep; pass --keep.",
        )
        require(
            not self.axes or (self.keep is None and not self.gallery),
            "Cannot use --grid with --keep or --gallery because a grid keeps every picture on its "
            "own sheet; leave one of them out.",
        )
        require(0 < self.strength <= 1, f"strength must be in (0, 1], got {self.strength}.")
        require(
            self.mask_image is None or self.image is not None,
            "Cannot use --mask-image without a picture to apply it to; pass --image.",
        )
        for name in ("num_images_per_prompt", "batch_size"):
            value = getattr(self, name)
            require(value >= 1, f"{name} must be 1 or more, got {value}.")

    @property
    def axes(self) -> tuple[Axis, ...]:
        """The axes of the grid; none: there is no grid."""
        return axes_of(self.grid)

    @property
    def drawn_seeds(self) -> tuple[int, ...]:
        """The seeds of each prompt's pictures."""
        return seeds_drawn(self)


def check_way(*, mask: bool, strength: float, invert: str | None) -> None:
    """Refuse an edit that has no way to be made, or two that exclude each other.

    Raises:
        ConfigError: it is so, or the strength is out of its range.
    """
    require(0 < strength <= 1, f"strength must be in (0, 1], got {strength}.")
    require(
        mask or invert is not None or strength < 1,
        "Cannot edit without --mask, --strength below 1 or --invert because nothing of the "
        "picture would remain; pass one of them.",
    )
    require(
        invert is None or (not mask and strength == 1),
        "Cannot use --invert with --mask or --strength because an inverted picture is redrawn as "
        "a whole; leave one of them out.",
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class EditConfig:
    """Edit a picture: inside a mask, as a whole, or by DDIM inversion."""

    picture: Path
    """The picture to edit."""
    prompt: str
    """What the result shows. It may contain learned words."""
    mask: Path | None = None
    """Mask of the same aspect ratio: white is redrawn, black stays."""
    background: Literal["paste", "optimize", "poisson", "blend"] = "paste"
    """How the rest is restored: "paste", "optimize", "poisson" or "blend". "paste" copies the original pixels, bit for bit. "optimize" tunes the decoder to the picture so that no seam shows (slow). "poisson" copies the original pixels and shifts the edit's colours to meet them. "blend" uses the autoencoder's output, with a soft edge inside the mask."""
    pixel_blending: float = 0.0
    """Share of the denoising steps, counted from the end, that blend picture and edit as pixels, in [0, 1]. The other steps blend latents. It keeps more of the picture near the mask, but each such step needs a decoding and an encoding."""
    mask_growth: int | None = None
    """How much wider the mask is at the first step, in latent cells. It then shrinks back cell by cell (default: enough for a thin mask, else 0)."""
    strength: float = 1.0
    """How much of the picture is redrawn, in (0, 1]. 1 starts from noise; only a mask then keeps part of the picture."""
    invert: str | None = None
    """Prompt that describes the picture, for DDIM inversion. It may contain learned words. The picture is traced back to noise under this prompt, then redrawn under the edit prompt. Each pass takes num_inference_steps (default: 250)."""
    concepts: tuple[Path, ...] = ()
    """Concept files or run folders whose words the prompt may use; PATH=TOKEN renames a word."""
    output_dir: Path = Path("oneword-edits")
    """Folder for the edits and a sheet of picture, mask and edits."""
    model: ModelConfig = field(default_factory=of_the_word)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    num_images_per_prompt: int = 4
    """Number of candidates, with consecutive seeds from seed on. An inverted picture has one."""
    keep: int | None = None
    """Number of candidates to keep, ranked by CLIP similarity to the prompt inside the mask (default: all, unranked)."""
    judge: str | None = None
    """CLIP that ranks: hub id or folder (default: microworld's own judge on microworld, openai/clip-vit-base-patch32 elsewhere)."""
    seed: int = 0
    """First seed."""
    seeds: tuple[str, ...] = ()
    """Seeds, as numbers or ranges (1 2 3 or 0-7); replaces seed and num_images_per_prompt."""
    batch_size: int = 8
    """Candidates drawn at once. It does not change them."""
    replace: bool = False
    """Allow a concept whose placeholder token is already a word of the model."""

    def __post_init__(self) -> None:
        check_finite(self)
        num = len(self.drawn_seeds[: None if self.invert is None else 1])
        require(
            bool(self.prompt.strip()), "prompt must say what the result shows, got an empty one."
        )
        check_way(mask=self.mask is not None, strength=self.strength, invert=self.invert)
        require(
            self.mask_growth is None or self.mask_growth >= 0,
            f"mask_growth must be 0 or more, got {self.mask_growth}.",
        )
        require(
            0 <= self.pixel_blending <= 1,
            f"pixel_blending must be in [0, 1], got {self.pixel_blending}.",
        )
        require(
            not self.pixel_blending or self.mask is not None,
            f"Cannot use pixel_blending {self.pixel_blending} without a mask; pass --mask.",
        )
        for name in ("num_images_per_prompt", "batch_size"):
            value = getattr(self, name)
            require(value >= 1, f"{name} must be 1 or more, got {value}.")
        require(
            self.keep is None or 1 <= self.keep <= num,
            f"keep must be in 1..{num}, the number of candidates, got {self.keep}.",
        )

    @property
    def drawn_seeds(self) -> tuple[int, ...]:
        """The seeds of the candidates."""
        return seeds_drawn(self)
