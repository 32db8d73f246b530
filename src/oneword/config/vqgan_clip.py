"""Settings of the systems that the paper compares with."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from oneword.config.checks import check_finite, seeds_drawn
from oneword.errors import require


VQGANPreset = Literal["crowson", "nerdyrodent"]


@dataclass(frozen=True, kw_only=True, slots=True)
class VQGANConstants:
    """How VQGAN-CLIP draws one picture."""

    num_steps: int
    learning_rate: float
    weight_decay: float
    """AdamW's; 0 is Adam."""
    num_cutouts: int
    """Cutouts that the guide sees in each step."""
    resolution: int
    """Side of the picture, px."""
    start: Literal["codebook", "uniform"]
    """What codes start from: rows of the codebook, or numbers from U[0, 2)."""
    cutouts: Literal["cropped", "augmented"]
    """Squares of random sizes and places, or the whole picture bent, recoloured, partly erased and
    with noise."""


VQGAN_CLIP: dict[VQGANPreset, VQGANConstants] = {
    # Crowson 2021, the notebook "VQGAN+CLIP (z+quantize method)", which runs until it is stopped
    "crowson": VQGANConstants(
        num_steps=500,
        learning_rate=0.05,
        weight_decay=0.0,
        num_cutouts=64,
        resolution=480,
        start="codebook",
        cutouts="cropped",
    ),
    # nerdyrodent/VQGAN-CLIP at 07a2489
    "nerdyrodent": VQGANConstants(
        num_steps=500,
        learning_rate=0.1,
        weight_decay=0.01,
        num_cutouts=32,
        resolution=512,
        start="uniform",
        cutouts="augmented",
    ),
}
"""The published constants, of which the paper names none."""
VQGAN_CLIP_EMBEDDED: dict[str, int] = {"num_steps": 200, "num_cutouts": 16}
"""What is less on the embedded models, so that a picture takes minutes on a laptop."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VQGANCLIPConfig:
    """VQGAN-CLIP: a picture's codes are moved until a CLIP finds the picture near to a text.

    Source:
        Crowson et al. 2022, arXiv:2204.08583; as a baseline: Gal et al. 2022, arXiv:2208.01618,
        section 5.1 and figure 5.
    """

    prompts: tuple[str, ...] = ()
    """Prompts, each in quotes. "a mug | a photo:0.5" draws towards two texts, the second with half the weight. "a mug:1:0.6" ignores distances below 0.6."""
    pictures: Path | None = None
    """Folder with 1 to 25 pictures that the drawing is also pulled towards."""
    image_share: float = 0.5
    """Weight of the pictures in the loss, as a share in (0, 1)."""
    concepts: tuple[Path, ...] = ()
    """Files of words for the guide's text encoder, such as PALAVRA's, that the prompts may use. PATH=TOKEN renames a word."""
    preset: VQGANPreset = "crowson"
    """Source of the constants: crowson (the first notebook) or nerdyrodent (the script, with its augmentations)."""
    model: Literal["microworld", "microworld-nano"] = "microworld"
    """Embedded model that draws with its quantised autoencoder, if there is no checkpoint. This is our own; it is not a VQGAN."""
    checkpoint: Path | None = None
    """File of a published VQGAN, such as vqgan_imagenet_f16_16384.ckpt."""
    checkpoint_config: Path | None = None
    """The model.yaml of the checkpoint, to compare with. It is optional."""
    guide: str | None = None
    """CLIP that guides: hub id or folder (default: the embedded model's own guide, openai/clip-vit-base-patch16 with a checkpoint)."""
    judge: str | None = None
    """CLIP that will score the pictures; it must differ from the guide (default: microworld's own judge, openai/clip-vit-base-patch32 with a checkpoint)."""
    allow_same_clip: bool = False
    """Allow the same CLIP as guide and judge. Its scores then say little."""
    steps: int | None = None
    """Number of steps per picture (default: the preset's, 200 on the embedded models)."""
    learning_rate: float | None = None
    """Learning rate of Adam (default: the preset's)."""
    num_cutouts: int | None = None
    """Number of cutouts that the guide sees in each step (default: the preset's, 16 on the embedded models)."""
    resolution: int | None = None
    """Side of the pictures in pixels, a multiple of the side of one code (default: the model's own, or the preset's with a checkpoint)."""
    init_image: Path | None = None
    """Picture to start from (default: none, random codes)."""
    init_weight: float = 0.0
    """Weight of the distance from the starting codes."""
    num_images_per_prompt: int = 1
    """Pictures per prompt, with consecutive seeds from seed on."""
    seed: int = 0
    """First seed."""
    seeds: tuple[str, ...] = ()
    """Seeds, as numbers or ranges (1 2 3 or 0-7). Replaces seed and num_images_per_prompt."""
    device: str = "auto"
    """Device: "auto" (CUDA, then MPS, then CPU) or a torch device."""
    output_dir: Path = Path("oneword-vqgan-clip")
    """Folder for the pictures and their contact sheet."""

    def __post_init__(self) -> None:
        check_finite(self)
        require(
            bool(self.prompts),
            'prompts must name a prompt, got none; pass one, such as "a photo of a mug".',
        )
        require(0 < self.image_share < 1, f"image_share must be in (0, 1), got {self.image_share}.")
        require(
            self.pictures is not None or self.image_share == 0.5,
            f"Cannot use image_share {self.image_share} without pictures; pass --pictures.",
        )
        require(
            self.checkpoint is not None or self.checkpoint_config is None,
            "Cannot use --checkpoint-config without --checkpoint; pass --checkpoint.",
        )
        for name in ("steps", "num_cutouts", "resolution", "num_images_per_prompt"):
            value = getattr(self, name)
            require(value is None or value >= 1, f"{name} must be 1 or more, got {value}.")
        require(
            self.learning_rate is None or self.learning_rate > 0,
            f"learning_rate must be above 0, got {self.learning_rate}.",
        )
        require(self.init_weight >= 0, f"init_weight must be 0 or more, got {self.init_weight}.")
        _ = self.drawn_seeds

    @property
    def drawn_seeds(self) -> tuple[int, ...]:
        """The seeds of each prompt's pictures."""
        return seeds_drawn(self)

    def constants(self, own_resolution: int | None = None) -> VQGANConstants:
        """The preset's constants, those of the embedded models, and what is set here.

        Args:
            own_resolution: Side of the pictures of an embedded model, px; ``None``: a checkpoint
                draws.
        """
        found = VQGAN_CLIP[self.preset]
        if own_resolution is not None:
            found = replace(found, resolution=own_resolution, **VQGAN_CLIP_EMBEDDED)
        given = {
            "num_steps": self.steps,
            "learning_rate": self.learning_rate,
            "num_cutouts": self.num_cutouts,
            "resolution": self.resolution,
        }
        return replace(found, **{n: v for n, v in given.items() if v is not None})
