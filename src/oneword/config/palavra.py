"""PALAVRA, a word in the space of a CLIP: its published constants, and what its commands take.

Source:
    Cohen et al. 2022, arXiv:2204.01694, and the code that its authors published with it.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from oneword.config.checks import check_finite, check_placeholder, check_seeds
from oneword.config.model import EMBEDDED, is_embedded
from oneword.errors import require


Mode = Literal["coarse", "distance", "batch"]


PALAVRA: dict[str, dict[str, Any]] = {
    # the command of the authors' README; "item" is its code's own default
    "*": {
        "hidden": 4096,
        "dropout": 0.25,
        "set_size": 5,
        "batch_size": 256,
        "epochs": 300,
        "learning_rate": 1e-4,
        "rate_factor": 0.2,
        "rate_passes": 200,
        "contrastive_weight": 1.0,
        "row_weight": 512.0,
        "temperature": 0.25,
    },
    # a small CLIP needs no large network; tried, not tuned
    "microworld": {
        "hidden": 512,
        "dropout": 0.25,
        "set_size": 5,
        "batch_size": 64,
        "epochs": 300,
        "learning_rate": 1e-3,
        "rate_factor": 0.2,
        "rate_passes": 300,
        "contrastive_weight": 1.0,
        "row_weight": 512.0,
        "temperature": 0.25,
    },
}
"""What the networks of stage A are, and how they learn; "microworld": on an embedded model's own
guide."""


LAYERS = 3
"""Of the network over sets, before its mean."""


PASSES = 3
"""Passes over the classes in an epoch, as the rate counts them: pictures, texts, and the test."""


HELD_BACK = 5
"""Of each class every such picture is held back from learning, from the first on, to test on."""


PROMPTS = (
    "This is a photo of a *", "This photo contains a *", "A photo of a *",
    "This is an illustrations of a *", "This illustrations contains a *", "An illustrations of a *",
    "This is a sketch of a *", "This sketch contains a *", "A sketch of a *",
    "This is a diagram of a *", "This diagram contains a *", "A diagram of a *",
    "A *", "We see a *", "*",
    "We see an * in this photo", "We see an * in this image", "We see an * in this illustration",
    "We see a * photo", "We see a * image", "We see a * illustration",
    "* photo", "* image", "* illustration",
)  # fmt: skip
"""Sentences in which words are learned, "*" for the word; spelled as they are published."""


TEST_PROMPT = "This is a photo of a *"
"""In which stage A is tested."""


WORD_PROMPT = "*"
"""In which stage B learns a word: nothing but itself."""


COARSE = "item"
"""What stage B holds a word apart from."""


FOUND_PROMPT = "a photo of a *"
"""With which pictures are found; "*" for what is looked for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PalavraTrainConfig:
    """Learn the two maps that begin every word: from pictures to a row, from texts to pictures."""

    train_data_dir: Path | None = None
    """Folder with a folder of pictures for each class, named as the class is; captions beside the pictures are used. Unset: scenes of the embedded model's world, with exact captions."""
    words_file: Path | None = None
    """JSON file of further words for classes, {"dog": ["poodle", ...]}, which stand in the class's place in its captions."""
    clip: str = EMBEDDED[0]
    """CLIP whose words are learned: hub id or folder, such as openai/clip-vit-base-patch32; or microworld or microworld-nano, for the guide of that embedded model."""
    judge: str | None = None
    """CLIP that will score, which must be another one; unset: microworld's own judge on microworld, openai/clip-vit-base-patch32 elsewhere."""
    allow_same_clip: bool = False
    """Let the CLIP be the one that scores; its scores say little then."""
    output_dir: Path = Path("oneword-palavra")
    """Folder for the maps; run the same command again to go on, or with more epochs."""
    num_pictures: int = 100
    """Most pictures that are taken of each class, the first ones by name; every fifth is held back for the test."""
    epochs: int | None = None
    """Epochs: a pass over the classes by their pictures, and one by texts about them; unset: 300."""
    batch_size: int | None = None
    """Classes of one step; unset: 256, or 64 on an embedded model's guide."""
    set_size: int | None = None
    """Pictures of a set, drawn from the class's own each time; unset: 5."""
    hidden: int | None = None
    """Width of the network over sets; unset: 4096, or 512 on an embedded model's guide."""
    dropout: float | None = None
    """Share of values that are zeroed before each of its last two layers, in [0, 1); unset: 0.25."""
    learning_rate: float | None = None
    """Rate of Adam at the start; unset: 1e-4, or 1e-3 on an embedded model's guide."""
    seed: int = 0
    """Seed of the weights, of every batch, and of the drawn scenes."""
    device: str = "auto"
    """"auto" (CUDA, then MPS, then CPU) or a torch device such as "cuda:1"."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "set_size", "hidden"):
            value = getattr(self, name)
            require(value is None or value >= 1, f"{name} must be 1 or more, got {value}.")
        require(
            self.num_pictures >= 2,
            f"num_pictures must be 2 or more, one of which is held back, got {self.num_pictures}.",
        )
        check_finite(self)
        require(
            self.dropout is None or 0 <= self.dropout < 1,
            f"dropout must be in [0, 1), got {self.dropout}.",
        )
        require(
            self.learning_rate is None or self.learning_rate > 0,
            f"learning_rate must be above 0, got {self.learning_rate}.",
        )
        check_seeds(self.seed, least=0)
        require(
            is_embedded(self.clip) or self.train_data_dir is not None,
            f"A CLIP of photographs must have pictures of classes to learn from, got clip "
            f"{self.clip!r} without train_data_dir; name a folder of them.",
        )
        require(
            self.words_file is None or self.train_data_dir is not None,
            "words_file goes with train_data_dir, got it alone.",
        )

    def resolved(self) -> ResolvedPalavra:
        """Fill every unset setting of the networks and their learning."""
        own = PALAVRA["microworld" if is_embedded(self.clip) else "*"]
        given = {name: getattr(self, name, None) for name in own}
        known = {name: own[name] if value is None else value for name, value in given.items()}
        return ResolvedPalavra(**known, seed=self.seed)


@dataclass(frozen=True, kw_only=True, slots=True)
class ResolvedPalavra:
    """What the networks of stage A are, and how they learn; names are those of ``PALAVRA``."""

    hidden: int
    dropout: float
    set_size: int
    batch_size: int
    epochs: int
    learning_rate: float
    rate_factor: float
    """What the rate is multiplied by,"""
    rate_passes: int
    """after so many passes each."""
    contrastive_weight: float
    """Weight of the loss between sentences with the word and with the row."""
    row_weight: float
    """Weight of the distance between the word's own row and the learned one."""
    temperature: float
    seed: int = 0

    def rate(self, passes: int) -> float:
        """The rate after so many passes over the classes, of ``PASSES`` in each epoch."""
        return self.learning_rate * self.rate_factor ** (passes // self.rate_passes)

    def plain(self) -> dict[str, Any]:
        """What must stay as it is where training goes on."""
        return {k: v for k, v in dataclasses.asdict(self).items() if k != "epochs"}


@dataclass(frozen=True, kw_only=True, slots=True)
class PalavraWordConfig:
    """Learn a word of a CLIP from a few pictures, beginning at what the maps make of them."""

    train_data_dir: Path
    """Folder with a few pictures of one thing."""
    maps: Path = Path("oneword-palavra")
    """Folder or file of oneword palavra train, on the same CLIP."""
    clip: str | None = None
    """CLIP whose word it is, as of oneword palavra train; unset: the one of the maps."""
    judge: str | None = None
    """CLIP that will score, which must be another one; unset: microworld's own judge on microworld, openai/clip-vit-base-patch32 elsewhere."""
    allow_same_clip: bool = False
    """Let the CLIP be the one that scores; its scores say little then."""
    placeholder_token: str = "S*"
    """The new word, without spaces, as it will stand in prompts."""
    initializer_token: str | None = None
    """Noun of the thing, which stands before the word in prompts that are to find or draw it."""
    mode: Mode = "coarse"
    """What the word is drawn to and held apart from: the mean of the pictures and a coarse phrase ("coarse"), the mean alone ("distance"), or the mean and the things of beside ("batch")."""
    coarse: str | None = None
    """Phrase that the word is held apart from with mode coarse; unset: "item", or the initializer_token on an embedded model's guide, which knows no such word (a published variant elsewhere, too)."""
    beside: tuple[Path, ...] = ()
    """Folders of pictures of other things, whose words are learned along with mode batch, and dropped."""
    max_train_steps: int = 30
    """Steps; the same command goes on where this is raised."""
    learning_rate: float = 1e-2
    """Rate of Adam, absolute."""
    temperature: float = 0.25
    """Of the contrastive loss."""
    output_dir: Path = Path("oneword-palavra-word")
    """Folder for the word and its state."""
    device: str = "auto"
    """"auto" (CUDA, then MPS, then CPU) or a torch device such as "cuda:1"."""

    def __post_init__(self) -> None:
        check_placeholder(self.placeholder_token)
        require(
            self.max_train_steps >= 0,
            f"max_train_steps must be 0 or more, got {self.max_train_steps}.",
        )
        check_finite(self)
        for name in ("learning_rate", "temperature"):
            value = getattr(self, name)
            require(value > 0, f"{name} must be above 0, got {value}.")
        require(
            self.coarse is None or bool(self.coarse.strip()),
            "coarse must be a word or phrase, got an empty one; pass --mode distance for none.",
        )
        require(
            (self.mode == "batch") == bool(self.beside),
            f"Folders of other things go with mode batch, which needs them, got mode {self.mode} "
            f"with {len(self.beside)} of them.",
        )

    def apart_from(self, clip: str) -> str:
        """The coarse phrase on a CLIP, by its name.

        Raises:
            ConfigError: it is an embedded model's guide, and neither phrase nor noun is given.
        """
        if self.coarse is not None:
            return self.coarse
        if not is_embedded(clip) or self.mode != "coarse":
            return COARSE
        require(
            self.initializer_token is not None,
            f'The guide of {clip} knows no word "{COARSE}" to hold the new word apart from; pass '
            "--initializer-token or --coarse.",
        )
        return str(self.initializer_token)


@dataclass(frozen=True, kw_only=True, slots=True)
class PalavraFindConfig:
    """Say how well a CLIP's word finds pictures of its thing among others."""

    concept: Path
    """File or folder of the word."""
    clip: str | None = None
    """CLIP whose word it is, as of oneword palavra train; unset: the one that the word's file names."""
    pictures: Path | None = None
    """Folder with pictures of the thing that the word was not learned from."""
    among: Path | None = None
    """Folder with other pictures, such as of other things of its noun, among which each must be found."""
    held_out: str | None = None
    """Held-out concept of the embedded models' world, in place of both folders: five pictures of it, drawn among pictures of its noun."""
    num_others: int = 40
    """Pictures of its noun that are drawn."""
    seed: int = 1
    """Seed of the drawn pictures; the training pictures of oneword microworld pictures have 0."""
    initializer_token: str | None = None
    """Noun of the thing; unset: the one that the word's file names."""
    prompt: str = FOUND_PROMPT
    """Sentence that finds, "*" for what is looked for."""
    device: str = "auto"
    """"auto" (CUDA, then MPS, then CPU) or a torch device such as "cuda:1"."""

    def __post_init__(self) -> None:
        drawn = self.held_out is not None
        require(
            drawn == (self.pictures is None) == (self.among is None),
            "Pictures are found in two folders, --pictures among --among, or drawn by --held-out, "
            f"got {self.pictures}, {self.among} and {self.held_out}; give both folders or a name.",
        )
        require("*" in self.prompt, f'prompt must hold "*", got {self.prompt!r}.')
        require(self.num_others >= 1, f"num_others must be 1 or more, got {self.num_others}.")
        check_seeds(self.seed, least=0)
