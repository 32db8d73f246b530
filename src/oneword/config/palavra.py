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
    """Train the two maps from which every word starts: pictures to an embedding, and texts to pictures."""

    train_data_dir: Path | None = None
    """Folder with one subfolder of pictures per class, named after the class (default: scenes of the embedded model's world, with exact captions). Captions are picked up if they sit next to the pictures."""
    words_file: Path | None = None
    """JSON file with more words for the classes, {"dog": ["poodle", ...]}. They replace the class name in its captions."""
    clip: str = EMBEDDED[0]
    """CLIP whose words are learned: hub id or folder, such as openai/clip-vit-base-patch32, or microworld or microworld-nano for that model's guide."""
    judge: str | None = None
    """CLIP that will score; it must be a different one (default: microworld's own judge on microworld, openai/clip-vit-base-patch32 elsewhere)."""
    allow_same_clip: bool = False
    """Allow the CLIP that scores as the CLIP that learns. Its scores then say little."""
    output_dir: Path = Path("oneword-palavra")
    """Folder for the maps. Run the same command again to resume, or with more epochs to continue."""
    num_pictures: int = 100
    """Maximum number of pictures per class, taken in order of file name. Every fifth is held back for the test."""
    epochs: int | None = None
    """Number of epochs (default: 300). An epoch is one pass over the classes by their pictures and one by texts about them."""
    batch_size: int | None = None
    """Batch size, in classes (default: 256, or 64 on an embedded model's guide)."""
    set_size: int | None = None
    """Number of pictures per set, drawn at random from the class each time (default: 5)."""
    hidden: int | None = None
    """Width of the set network (default: 4096, or 512 on an embedded model's guide)."""
    dropout: float | None = None
    """Dropout before each of the set network's last two layers, in [0, 1) (default: 0.25)."""
    learning_rate: float | None = None
    """Initial learning rate of Adam (default: 1e-4, or 1e-3 on an embedded model's guide)."""
    seed: int = 0
    """Random seed of the weights, the batches and the drawn scenes."""
    device: str = "auto"
    """Device: "auto" (CUDA, then MPS, then CPU) or a torch device such as "cuda:1"."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "set_size", "hidden"):
            value = getattr(self, name)
            require(value is None or value >= 1, f"{name} must be 1 or more, got {value}.")
        require(
            self.num_pictures >= 2,
            f"num_pictures must be 2 or more because one is held back, got {self.num_pictures}.",
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
            f"Cannot train on clip {self.clip!r} without pictures because only the embedded "
            "models can draw their own; pass --train-data-dir with one subfolder per class.",
        )
        require(
            self.words_file is None or self.train_data_dir is not None,
            "Cannot use words_file without train_data_dir; pass --train-data-dir.",
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
    """Learn a word of a CLIP from a few pictures, starting from the maps' guess."""

    train_data_dir: Path
    """Folder with a few pictures of one thing."""
    maps: Path = Path("oneword-palavra")
    """Maps from oneword palavra train for the same CLIP: file or folder."""
    clip: str | None = None
    """CLIP whose word is learned: same values as in oneword palavra train (default: the CLIP of the maps)."""
    judge: str | None = None
    """CLIP that will score; it must be a different one (default: microworld's own judge on microworld, openai/clip-vit-base-patch32 elsewhere)."""
    allow_same_clip: bool = False
    """Allow the CLIP that scores as the CLIP that learns. Its scores then say little."""
    placeholder_token: str = "S*"
    """The new word, without spaces, as you will write it in prompts."""
    initializer_token: str | None = None
    """Noun for the thing. It goes before the word in prompts that find or draw the thing."""
    mode: Mode = "coarse"
    """Loss of the word: pull it to the mean of the pictures and push it away from a coarse phrase ("coarse"), from the things in beside ("batch") or from nothing ("distance")."""
    coarse: str | None = None
    """Phrase to push the word away from, in mode coarse (default: "item"; on an embedded model's guide the initializer_token, because it does not know "item"). Elsewhere the noun is a published variant."""
    beside: tuple[Path, ...] = ()
    """Folders with pictures of other things, for mode batch. Their words are learned too and then discarded."""
    max_train_steps: int = 30
    """Number of steps. To continue, raise it and run the same command again."""
    learning_rate: float = 1e-2
    """Learning rate of Adam, absolute."""
    temperature: float = 0.25
    """Temperature of the contrastive loss."""
    output_dir: Path = Path("oneword-palavra-word")
    """Folder for the word and its training state."""
    device: str = "auto"
    """Device: "auto" (CUDA, then MPS, then CPU) or a torch device such as "cuda:1"."""

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
            "coarse must be a word or phrase, got an empty one; for none, pass --mode distance.",
        )
        require(
            (self.mode == "batch") == bool(self.beside),
            f"Cannot use mode {self.mode} with {len(self.beside)} folders in beside because mode "
            "batch needs them and the others have no use for them; pass both or neither.",
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
            f'Cannot use the default phrase "{COARSE}" with the guide of {clip} because it does '
            "not know this word; pass --initializer-token or --coarse.",
        )
        return str(self.initializer_token)


@dataclass(frozen=True, kw_only=True, slots=True)
class PalavraFindConfig:
    """Measure how well a CLIP's word finds pictures of its thing among others."""

    concept: Path
    """File or folder of the word."""
    clip: str | None = None
    """CLIP whose word it is: same values as in oneword palavra train (default: the CLIP named in the word's file)."""
    pictures: Path | None = None
    """Folder with new pictures of the thing, not used for learning the word."""
    among: Path | None = None
    """Folder with other pictures, for example of the same noun, among which each picture must be found."""
    held_out: str | None = None
    """Held-out concept of the embedded models' world to use instead of both folders. Draws five pictures of it among pictures of its noun."""
    num_others: int = 40
    """Number of pictures to draw of its noun."""
    seed: int = 1
    """Seed of the drawn pictures. Pictures from oneword microworld pictures have seed 0."""
    initializer_token: str | None = None
    """Noun for the thing (default: the one named in the word's file)."""
    prompt: str = FOUND_PROMPT
    """Search prompt, with "*" for the thing."""
    device: str = "auto"
    """Device: "auto" (CUDA, then MPS, then CPU) or a torch device such as "cuda:1"."""

    def __post_init__(self) -> None:
        drawn = self.held_out is not None
        require(
            drawn == (self.pictures is None) == (self.among is None),
            "--pictures and --among must be two folders, or --held-out a name, got "
            f"{self.pictures}, {self.among} and {self.held_out}; pass both folders, or only a "
            "name.",
        )
        require("*" in self.prompt, f'prompt must contain "*", got {self.prompt!r}.')
        require(self.num_others >= 1, f"num_others must be 1 or more, got {self.num_others}.")
        check_seeds(self.seed, least=0)
