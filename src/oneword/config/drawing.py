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
    """How pictures are drawn. What is not given is the family's default."""

    guidance_scale: float | None = None
    """Classifier-free guidance; 1 turns it off."""
    num_inference_steps: int | None = None
    """Denoising steps."""
    negative_prompt: str = ""
    """What the pictures should not show."""
    sampler: str | None = None
    """How noise becomes a picture: a solver by the name that diffusers, A1111 or ComfyUI has for it ("Euler a", "DPM++ 2M Karras"), or "paper" (the paper's DDIM: 50 steps at the times 981, 961, ..., 1, guidance 5), "release" (the same with the authors' guidance: 10 on the paper's model, 7.5 elsewhere), "model" (the model's own); unset: as the preset that the word was learned with."""
    emphasis: Emphasis | None = None
    """What in a prompt is a weight: "numbers" ((word:1.3) alone; other brackets are text), "a1111" (all of its syntax: (word) is 1.1, [word] its inverse), "none" (nothing; all brackets are text); unset: numbers."""
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
    """Prompts, each in quotes; "{}" is filled with every loaded word; paper:fig1, fig3, fig4, fig5, fig6, fig14, section5.1 and microworld:edits are lists of them, and so is a FILE.txt with one a line."""
    concepts: tuple[Path, ...] = ()
    """Concept files, or run folders, whose words the prompts may use; PATH=TOKEN renames one."""
    output_dir: Path = Path("oneword-pictures")
    """Folder for the pictures and their contact sheet."""
    model: ModelConfig = field(default_factory=of_the_word)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    wildcard_dir: Path | None = None
    """Folder of wildcards: __animals__ in a prompt stands for a line of its animals.txt, and {red|blue} for one of the two, chosen by each picture's seed."""
    image: Path | None = None
    """Picture to start from, which is drawn over; none: pictures are drawn from noise."""
    mask_image: Path | None = None
    """What of image to draw anew: white; the black rest stays."""
    strength: float = 0.8
    """How much of image is drawn over, in (0, 1]."""
    num_images_per_prompt: int = 4
    """Pictures per prompt, with the seeds from seed on."""
    seed: int = 0
    """First seed."""
    seeds: tuple[str, ...] = ()
    """Seeds one by one or as ranges, 1 2 3 or 0-7, in place of seed and num_images_per_prompt."""
    batch_size: int = 8
    """Pictures drawn at once; it does not change them."""
    replace: bool = False
    """Allow a concept whose placeholder is already a word of the model."""
    grid: tuple[str, ...] = ()
    """Draw everything once for each value of one or two settings, guidance=2,5,8 sampler='Euler a,DDIM'; of guidance, steps, sampler, checkpoint (files of the word) and model."""
    gallery: bool = False
    """Write everything that was drawn, not chosen, as one page (gallery.html) and as sheets."""
    keep: int | None = None
    """Pictures kept of the num_images_per_prompt drawn of each prompt (16 in the paper); the others go to the folder "dropped"."""
    rank_by: Literal["image", "text", "mean"] | None = None
    """What keep ranks by: similarity to the training pictures, to the prompt, or the mean of the two; unset: the mean where training pictures are known, else text."""
    diversity: float = 0.0
    """Keep pictures that differ, in [0, 1]; 0: those with the highest scores."""
    train_data_dir: tuple[Path, ...] = ()
    """Training pictures of each word to rank by, one folder for each loaded word; none: those that their run folders name."""
    judge: str | None = None
    """CLIP that ranks: hub id or folder; unset: microworld's own judge on microworld, openai/clip-vit-base-patch32 elsewhere."""

    def __post_init__(self) -> None:
        check_finite(self)
        num = len(self.drawn_seeds)
        require(
            self.keep is None or 1 <= self.keep <= num,
            f"keep must be in 1..{num}, the pictures drawn of each prompt, "
            f"got {self.keep}; raise --num-images-per-prompt (the paper draws 16).",
        )
        require(0 <= self.diversity <= 1, f"diversity must be in [0, 1], got {self.diversity}.")
        require(
            self.keep is not None or (self.rank_by is None and not self.diversity),
            "rank_by and diversity choose among candidates, got them without --keep.",
        )
        require(
            not self.axes or (self.keep is None and not self.gallery),
            "A grid has a sheet of its own and keeps everything, got --grid with --keep or "
            "--gallery; leave one out.",
        )
        require(0 < self.strength <= 1, f"strength must be in (0, 1], got {self.strength}.")
        require(
            self.mask_image is None or self.image is not None,
            "A mask goes with the picture that it is of, got --mask-image without --image.",
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
        "An edit needs a mask, a strength below 1 or a sentence to invert under, got none of them: "
        "nothing of the picture would be left; pass --mask, --strength or --invert.",
    )
    require(
        invert is None or (not mask and strength == 1),
        "An inverted picture is drawn again as a whole, got --invert with --mask or --strength; "
        "leave one out.",
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class EditConfig:
    """Edit a picture: inside a mask, drawn over as a whole, or inverted and drawn again."""

    picture: Path
    """The picture to edit."""
    prompt: str
    """What the result shows, learned words too."""
    mask: Path | None = None
    """Picture of the same aspect, white where the picture is to change; the rest stays."""
    background: Literal["paste", "optimize", "poisson", "blend"] = "paste"
    """How the rest comes back: "paste" (its own pixels, bit for bit), "optimize" (through a decoder that is tuned to it, so that no seam shows; slow), "poisson" (its own pixels, with the edit's colours shifted until they meet them), "blend" (as the autoencoder gives it back, with a soft edge inside the mask)."""
    pixel_blending: float = 0.0
    """Share of the denoising steps, the last ones, in which picture and edit are blended as pixels rather than latents, in [0, 1]; it keeps more of the picture near the mask, and takes an encoding and a decoding a step."""
    mask_growth: int | None = None
    """Cells of the latents by which the mask is wider at the first step, shrinking to itself cell by cell; unset: what a thin mask lacks."""
    strength: float = 1.0
    """How much of the picture is drawn over, in (0, 1]; 1 starts from noise, of which only a mask lets something of the picture remain."""
    invert: str | None = None
    """What the picture shows, in words, learned ones too: it is traced back to its noise under this sentence by DDIM, and drawn again from there under the prompt, both in 250 steps unless num_inference_steps says otherwise."""
    concepts: tuple[Path, ...] = ()
    """Concept files, or run folders, whose words the prompt may use; PATH=TOKEN renames one."""
    output_dir: Path = Path("oneword-edits")
    """Folder for the edits and a sheet of picture, mask and edits."""
    model: ModelConfig = field(default_factory=of_the_word)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    num_images_per_prompt: int = 4
    """Candidates, with the seeds from seed on; an inverted picture has one."""
    keep: int | None = None
    """Keep so many candidates, those that CLIP finds nearest to the prompt inside the mask; unset: all, unranked."""
    judge: str | None = None
    """CLIP that ranks: hub id or folder; unset: microworld's own judge on microworld, openai/clip-vit-base-patch32 elsewhere."""
    seed: int = 0
    """First seed."""
    seeds: tuple[str, ...] = ()
    """Seeds one by one or as ranges, 1 2 3 or 0-7, in place of seed and num_images_per_prompt."""
    batch_size: int = 8
    """Candidates drawn at once; it does not change them."""
    replace: bool = False
    """Allow a concept whose placeholder is already a word of the model."""

    def __post_init__(self) -> None:
        check_finite(self)
        num = len(self.drawn_seeds[: None if self.invert is None else 1])
        require(bool(self.prompt.strip()), "The prompt must say what the result shows, got none.")
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
            f"pixel_blending goes with a mask, got {self.pixel_blending} without --mask.",
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
