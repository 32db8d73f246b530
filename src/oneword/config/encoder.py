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
    """Train an encoder, which turns pictures of a thing into its word at once."""

    data: Path | None = None
    """Folder with one subfolder of pictures per thing, at least two pictures in each (default: pictures drawn by the embedded model's world, without its held-out concepts)."""
    output_dir: Path = Path("oneword-encoder")
    """Folder for the encoder. Run the same command again to resume."""
    model: ModelConfig = field(default_factory=ModelConfig)
    guide: str | None = None
    """What the encoder reads: the features of a CLIP (hub id or folder), or "latents" for the model's own autoencoder (default: microworld's own guide on microworld, openai/clip-vit-base-patch16 elsewhere)."""
    allow_same_clip: bool = False
    """Allow the CLIP that scores as guide. Its scores then say little."""
    num_vectors: int = 1
    """Number of vectors per word, 1 to 75. Three were better than one after a few steps of learning."""
    learnable_property: Literal["object", "style"] = "object"
    """What the pictures in a folder have in common. The drawn world contains both."""
    num_things: int = 2000
    """Number of things to draw, if there is no data folder."""
    pictures_per_thing: int = 8
    """Number of pictures to draw per thing, 2 or more."""
    most_pictures: int = 25
    """Largest number of pictures the encoder reads at once in training; each set has 1 or more."""
    width: int = 512
    """Width of the network's layers."""
    random_flip: bool = True
    """Flip each picture with probability 1/2. Turn it off for text, logos and asymmetric things."""
    learning_rate: float = 1e-3
    """Learning rate of AdamW for the network's weights. It falls to zero over the last 30 % of the steps."""
    train_batch_size: int = 16
    """Batch size, in things. One picture of each is denoised, with the word made from its other pictures."""
    max_train_steps: int = 12_500
    """Number of training steps."""
    evaluation_steps: int = 100
    """Steps between evaluations on held-out things."""
    checkpointing_steps: int = 200
    """Steps between resumable checkpoints."""
    seed: int = 0
    """Random seed of the network, the drawn pictures and every step."""
    land: Path | None = None
    """Folder of an embedded model's weights to copy the finished encoder into; its entry is added to the model card."""

    def __post_init__(self) -> None:
        check_finite(self)
        check_seeds(self.seed, least=0)
        require(
            self.data is not None or is_embedded(self.model.model),
            f"Cannot train an encoder for {self.model.model} without pictures because only the "
            "embedded models can draw their own; pass --data with one subfolder per thing.",
        )
        require(
            self.guide != "",
            "guide must be a name, got an empty string; leave it out for the default.",
        )
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
