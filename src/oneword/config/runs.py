"""What a run is asked for: one word, several together, or a fairer one."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from oneword.config.checks import check_placeholder, check_seeds, seeds_of
from oneword.config.drawing import SamplingConfig
from oneword.config.inversion import InversionConfig, ResolvedConfig
from oneword.config.model import ModelConfig
from oneword.errors import require


TrackerName = Literal[
    "tensorboard", "csv", "wandb", "trackio", "mlflow", "comet_ml", "aim", "clearml", "dvclive",
    "swanlab",
]  # fmt: skip


_PREVIEWS = 4  # of each prompt, where nothing is said


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """Learn a word from the pictures in a folder."""

    train_data_dir: Path
    """Folder with three to five pictures of one thing; captions are picked up if they sit next to the pictures. They are .txt files or a metadata.jsonl."""
    output_dir: Path = Path("oneword-run")
    """Run folder. Run the same command again to resume."""
    model: ModelConfig = field(default_factory=ModelConfig)
    inversion: InversionConfig = field(default_factory=InversionConfig)
    resolution: int | None = None
    """Picture size in pixels (default: the model's own)."""
    bucket_step: int | None = None
    """Step between bucket sizes in pixels, for fit "buckets" (default: the smallest that the model allows, at least 1/16 of the resolution)."""
    masks: bool = True
    """Apply the loss only inside the masks, if there are any. Masks come from mask_dir, from NAME.mask.png next to NAME.jpg, or from a picture's transparency."""
    mask_dir: Path | None = None
    """Folder with masks named like the pictures; white marks the thing."""
    caption_dir: Path | None = None
    """Folder with captions as .txt files named like the pictures. They override captions next to the pictures."""
    prefix_captions: bool = False
    """Put the placeholder token in front of captions that lack it. Otherwise they are an error."""
    replace: bool = False
    """Allow a placeholder token that is already a word of the model."""
    validation_prompts: tuple[str, ...] = ()
    """Prompts for the previews, with the placeholder token or {} for it, or a FILE.txt with one prompt per line. Lists by name work as in oneword generate, such as paper:fig4. Without it: "a photo of a" and the word. Also --validation-prompt."""
    validation_negative_prompt: str = ""
    """Negative prompt for the previews."""
    num_validation_images: int = _PREVIEWS
    """Number of previews per prompt each time, with consecutive seeds from seed on."""
    validation_seeds: tuple[str, ...] = ()
    """Seeds of the previews, as numbers or ranges (1 2 3 or 0-7). Replaces num_validation_images."""
    validation_height: int | None = None
    """Height of the previews in pixels (default: the model's own)."""
    validation_width: int | None = None
    """Width of the previews in pixels (default: the model's own)."""
    validation_steps: int | None = None
    """Steps between previews (default: save_steps, or a quarter of the run; none with setup encoder). 0 turns them off."""
    save_steps: int = 0
    """Steps between words to save for oneword choose; 0 saves none. They go into the run folder as learned_embeds-steps-500.safetensors and so on."""
    num_processes: int = 1
    """Number of processes that share each step's batch, one GPU each."""
    checkpointing_steps: int = 50
    """Steps between resumable checkpoints."""
    report_to: tuple[TrackerName, ...] = ()
    """Trackers for curves and previews: accelerate's names, or csv. Trackers that write files write them to tracking/ in the run folder."""
    mirror: str | None = None
    """Folder to copy the run folder to at every checkpoint, as an fsspec URL such as s3://bucket/run. Another machine can resume from it."""

    def __post_init__(self) -> None:
        if self.resolution is not None:
            require(
                self.resolution >= 8 and self.resolution % 8 == 0,
                f"resolution must be a positive multiple of 8 px, got {self.resolution}.",
            )
        buckets = self.inversion.fit == "buckets"
        require(
            self.bucket_step is None or (buckets and self.bucket_step >= 8),
            "bucket_step must be 8 px or more and used with fit 'buckets', got "
            f"{self.bucket_step} with {self.inversion.fit!r}.",
        )
        require(
            self.checkpointing_steps >= 1,
            f"checkpointing_steps must be 1 or more, got {self.checkpointing_steps}.",
        )
        require(
            self.num_processes >= 1, f"num_processes must be 1 or more, got {self.num_processes}."
        )
        require(
            self.num_validation_images >= 1,
            f"num_validation_images must be 1 or more, got {self.num_validation_images}.",
        )
        if self.validation_steps != 0 or self.validation_seeds:
            _ = self.preview_seeds
        for name in ("validation_height", "validation_width"):
            value = getattr(self, name)
            require(
                value is None or (value >= 8 and value % 8 == 0),
                f"{name} must be a positive multiple of 8 px, got {value}.",
            )
        for name in ("validation_steps", "save_steps"):
            value = getattr(self, name)
            require(value is None or value >= 0, f"{name} must be 0 or more, got {value}.")

    @property
    def preview_seeds(self) -> tuple[int, ...]:
        """Seeds of the previews.

        Raises:
            ConfigError: one cannot be used, or both they and their number are given.
        """
        first, num = self.inversion.seed, self.num_validation_images
        if not self.validation_seeds:
            check_seeds(first, num)
            return tuple(range(first, first + num))
        seeds = seeds_of(self.validation_seeds)
        require(
            num in (_PREVIEWS, len(seeds)),
            f"Cannot use --validation-seeds with --num-validation-images {num} because each sets "
            "the number of previews; leave one of them out.",
        )
        return seeds

    def resolved(self, family: str, resolution: int) -> ResolvedTrainConfig:
        """Fill every unset setting of the run and of its training, for a model.

        Args:
            family: The model's.
            resolution: The model's own, px.
        """
        inversion = self.inversion.resolved(family)
        given = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        prompts = self.validation_prompts or (f"a photo of a {inversion.placeholder_token}",)
        every = self.validation_steps
        if every is None:
            every = self.save_steps or max(1, inversion.total_steps // 4)
            if inversion.form == "encoder":  # there is no course, and drawing takes longest
                every = 0
        known = {
            "inversion": inversion,
            "resolution": self.resolution or resolution,
            "validation_prompts": prompts,
            "validation_steps": every,
        }
        return ResolvedTrainConfig(**given | known)


@dataclass(frozen=True, kw_only=True, slots=True)
class ResolvedTrainConfig(TrainConfig):
    """A ``TrainConfig`` whose every setting is known; made by :meth:`TrainConfig.resolved`."""

    inversion: ResolvedConfig = field()
    resolution: int = field()
    validation_prompts: tuple[str, ...] = field()
    validation_steps: int = field()


@dataclass(frozen=True, kw_only=True, slots=True)
class DebiasConfig:
    """Learn a fairer word from a small diverse set of pictures, and compare it with the old word."""

    word: str
    """Existing word with one-sided pictures, such as "doctor". The new word starts from it."""
    images: Path
    """Folder with a small, diverse set of pictures of it."""
    output_dir: Path = Path("oneword-fair")
    """Folder for the run, the pictures and the report. Run the same command again to resume."""
    model: ModelConfig = field(default_factory=ModelConfig)
    inversion: InversionConfig = field(
        default_factory=lambda: InversionConfig(placeholder_token="<fair>")
    )
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    prompt: str = "a photo of a {}"
    """Prompt to draw with each word in place of {}."""
    num_images: int = 64
    """Number of pictures to draw with each word, with the same seeds."""
    batch_size: int = 16
    """Pictures drawn at once."""
    attributes: tuple[str, ...] = ()
    """Attributes that the judge reads, each as NAME=TEXT|TEXT (two or more texts). Without it: skin and hair by the oracle on microworld; gender presentation, skin tone and age elsewhere."""
    judge: str | None = None
    """CLIP that reads attributes: hub id or folder (default: as in oneword evaluate)."""
    replace: bool = False
    """Allow a placeholder token that is already a word of the model."""

    def __post_init__(self) -> None:
        require(bool(self.word.strip()), "word must be the word to make fairer, got an empty one.")
        require(
            "{}" in self.prompt,
            f"prompt must contain {{}} in place of the word, got {self.prompt!r}.",
        )
        require(
            self.inversion.learnable_property == "object",
            "learnable_property must be 'object' for a fairer word, got 'style'.",
        )
        _require_own_start(self.inversion, "a fairer word must start from the word itself")
        for name, least in (("num_images", 2), ("batch_size", 1)):
            value = getattr(self, name)
            require(value >= least, f"{name} must be {least} or more, got {value}.")
        check_seeds(self.inversion.seed, self.num_images)
        for text in self.attributes:
            name, _, values = text.partition("=")
            texts = [value.strip() for value in values.split("|")]
            require(
                bool(name.strip())
                and len(texts) > 1
                and all(texts)
                and len({*texts}) == len(texts),
                "attributes must be NAME=TEXT|TEXT with two or more different texts, got "
                f"{text!r}.",
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class ComposeConfig:
    """Learn several words together, so that they can appear in one picture."""

    images: tuple[Path, ...]
    """Folders with pictures, one per word."""
    placeholder_tokens: tuple[str, ...]
    """The new words, in the order of the folders."""
    initializer_tokens: tuple[str, ...]
    """Existing words to start from, in the same order."""
    together: Path | None = None
    """Folder with pictures that show several of the things. Each needs a caption with their new words."""
    paste: float = 0.1
    """Share of the samples that paste a picture of one thing into a picture of another, in [0, 1). 0 turns it off."""
    output_dir: Path = Path("oneword-composition")
    """Run folder. Run the same command again to resume. One file in it holds all words."""
    model: ModelConfig = field(default_factory=ModelConfig)
    inversion: InversionConfig = field(default_factory=InversionConfig)
    """Settings shared by all words. Its own placeholder and initializer tokens are ignored."""
    replace: bool = False
    """Allow placeholder tokens that are already words of the model."""
    checkpointing_steps: int = 50
    """Steps between resumable checkpoints."""

    def __post_init__(self) -> None:
        counts = [len(x) for x in (self.images, self.placeholder_tokens, self.initializer_tokens)]
        require(
            len(set(counts)) == 1 and counts[0] >= 2,
            "images, placeholder_tokens and initializer_tokens must have one entry per word, for "
            f"two or more words, got {counts[0]} folders, {counts[1]} placeholder tokens and "
            f"{counts[2]} initializer tokens.",
        )
        require(
            len({token.lower() for token in self.placeholder_tokens}) == counts[1],
            f"placeholder_tokens must differ, got {' '.join(self.placeholder_tokens)}.",
        )
        for token in self.placeholder_tokens:
            check_placeholder(token)
        _require_own_start(
            self.inversion,
            "words learned together must start from their initializer_tokens",
        )
        require(
            self.inversion.fit in (None, "crop", "squash"),
            "fit must be crop or squash for words that are learned together, got "
            f"{self.inversion.fit!r}.",
        )
        require(0 <= self.paste < 1, f"paste must be in [0, 1), got {self.paste}.")
        require(
            self.checkpointing_steps >= 1,
            f"checkpointing_steps must be 1 or more, got {self.checkpointing_steps}.",
        )


def _require_own_start(inversion: InversionConfig, must: str) -> None:
    """Refuse a learned file or an encoder for words that start from existing ones."""
    setup = inversion.setup if inversion.setup == "encoder" else None
    given = {
        "initializer_file": inversion.initializer_file,
        "initializer": inversion.initializer if inversion.initializer == "encoder" else None,
        "setup": setup,
    }
    found = [f"{name} {value}" for name, value in given.items() if value is not None]
    require(not found, f"Cannot use {' and '.join(found)} because {must}; leave it out.")


def plain_settings(config: InversionConfig | TrainConfig | ComposeConfig) -> dict[str, Any]:
    """The settings as JSON has them."""
    return json.loads(json.dumps(dataclasses.asdict(config), default=str))


def fits_of_old(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a record by their flat names, with ``fit`` where older ones had ``center_crop``."""
    return {
        name.replace("center_crop", "fit"): {True: "crop", False: "squash"}.get(value is True)
        if name.endswith("center_crop") and value is not None
        else value
        for name, value in settings.items()
    }
