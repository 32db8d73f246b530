"""How an encoder is trained, which maps pictures of a thing to its word at once."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from oneword.config.checks import check_finite, check_seeds
from oneword.config.model import ModelConfig, is_embedded
from oneword.errors import require


LATENTS = "latents"
"""In a CLIP's place: the features of a picture are what the model's own autoencoder makes of it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderConfig:
    """Train an encoder, which maps pictures of a thing to its word at once."""

    data: Path | None = None
    """Folder with a folder of pictures for each thing, two or more in each; unset: what the embedded model's world draws, which holds nothing that is held out."""
    output_dir: Path = Path("oneword-encoder")
    """Folder for the encoder; run the same command again to go on."""
    model: ModelConfig = field(default_factory=ModelConfig)
    guide: str | None = None
    """CLIP whose features of the pictures the encoder reads (hub id or folder), or "latents" for what the model's own autoencoder makes of them; unset: microworld's own guide on microworld, openai/clip-vit-base-patch16 elsewhere."""
    allow_same_clip: bool = False
    """Let it be the CLIP that scores; its scores say little then."""
    num_vectors: int = 1
    """Rows that the encoder gives to a word, 1 to 75; three were better than one after a few steps of learning."""
    learnable_property: Literal["object", "style"] = "object"
    """What the pictures of a folder have in common; a world that is drawn has both."""
    num_things: int = 2000
    """Things that the embedded model's world draws, where there is no folder."""
    pictures_per_thing: int = 8
    """Pictures that it draws of each, 2 or more."""
    most_pictures: int = 25
    """Most pictures of a set that the encoder reads in training; there are one or more."""
    width: int = 512
    """Width of the network's layers."""
    random_flip: bool = True
    """Mirror each picture half of the time. Turn it off for text, logos and asymmetric things."""
    learning_rate: float = 1e-3
    """Rate of AdamW on the network's weights; it falls to zero over the last 30 % of the steps."""
    train_batch_size: int = 16
    """Things of a step; of each one picture is denoised, with the word of others of its pictures."""
    max_train_steps: int = 12_500
    """Steps in all."""
    evaluation_steps: int = 100
    """Steps between two scorings of things that are kept out of the training."""
    checkpointing_steps: int = 200
    """Steps between two writings of the resumable state."""
    seed: int = 0
    """Seed of the network, of the drawn pictures and of every step."""
    land: Path | None = None
    """Folder of an embedded model's weights into which the finished encoder is put, with its line in the card."""

    def __post_init__(self) -> None:
        check_finite(self)
        check_seeds(self.seed, least=0)
        require(
            self.data is not None or is_embedded(self.model.model),
            "The pictures must lie in a folder with a folder for each thing, got none for "
            f"{self.model.model}; pass --data. Only the embedded models' world draws its own.",
        )
        require(self.guide != "", "The guide must be named, got an empty string; leave it out.")
        for name, least, most in (
            ("num_vectors", 1, 75),
            ("num_things", 2, 1_000_000),
            ("pictures_per_thing", 2, 1000),
            ("most_pictures", 1, 1000),
            ("width", 1, 65_536),
        ):
            value = getattr(self, name)
            require(least <= value <= most, f"{name} must be in {least}..{most}, got {value}.")
        counts = ("train_batch_size", "max_train_steps", "evaluation_steps", "checkpointing_steps")
        for name in counts:
            value = getattr(self, name)
            require(value >= 1, f"{name} must be 1 or more, got {value}.")
        require(
            self.learning_rate > 0, f"learning_rate must be positive, got {self.learning_rate}."
        )

    def plain(self) -> dict[str, Any]:
        """The settings as JSON has them."""
        return json.loads(json.dumps(dataclasses.asdict(self), default=str))
