"""How a model's weights are changed, by the setups that do so."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from oneword.config.checks import check_finite
from oneword.errors import require


@dataclass(frozen=True, kw_only=True, slots=True)
class TuningConfig:
    """Settings of the setups that change the model's weights. Other setups ignore them."""

    tuned_weights: Literal["full", "lora", "kv"] | None = None
    """Weights of the denoiser to train: "full" (all), "lora" (a LoRA on the attention layers) or "kv" (keys and values of the text)."""
    rank: int = 4
    """Rank of a LoRA."""
    tuning_steps: int | None = None
    """Steps that train weights (default: max_train_steps; if that is not given, the setup's own number)."""
    tuning_learning_rate: float | None = None
    """Learning rate of the weights, absolute."""
    train_word: bool | None = None
    """Train the word together with the weights (not in pivotal)."""
    rare_token: str | None = None
    """Existing word to put in front of the class noun (default: the last short one in the vocabulary). Not in pivotal."""
    prior_loss_weight: float | None = None
    """Weight of the prior preservation loss, on pictures of the class. It keeps the model from forgetting the class; 0 turns it off."""
    num_class_images: int | None = None
    """Number of class pictures that the model draws before training."""
    class_prompt: str | None = None
    """Prompt for the class pictures (default: "a photo of a" and the initializer token)."""
    class_data_dir: Path | None = None
    """Folder with pictures of the class, to use instead of drawn ones."""

    def __post_init__(self) -> None:
        check_finite(self)
        for name in ("rank", "tuning_steps", "num_class_images"):
            value = getattr(self, name)
            require(value is None or value >= 1, f"{name} must be 1 or more, got {value}.")
        for name in ("tuning_learning_rate", "prior_loss_weight"):
            value = getattr(self, name)
            require(value is None or value >= 0, f"{name} must be 0 or more, got {value}.")
        require(
            self.rare_token is None or len(self.rare_token.split()) == 1,
            f"rare_token must be one word, got {self.rare_token!r}.",
        )

    def resolved(self, setup: str, family: str, max_train_steps: int) -> ResolvedTuning:
        """Fill every unset field but the class's for a setup and a model family."""
        own = TUNING[setup]
        values: dict[str, Any] = {"tuning_steps": max_train_steps} | own.get(family, own["*"])
        weights = self.tuned_weights or values["tuned_weights"]
        rates = TUNING_RATES[weights]
        values["tuning_learning_rate"] = rates.get(family, rates["*"])
        given = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        unset = {name: value for name, value in values.items() if given[name] is None}
        return ResolvedTuning(**given | unset)


@dataclass(frozen=True, kw_only=True, slots=True)
class ResolvedTuning(TuningConfig):
    """A ``TuningConfig`` in which only what names the class may be unset."""

    tuned_weights: Literal["full", "lora", "kv"] = field()
    tuning_steps: int = field()
    tuning_learning_rate: float = field()
    train_word: bool = field()
    prior_loss_weight: float = field()
    num_class_images: int = field()


TUNING_RATES: dict[str, dict[str, float]] = {
    # the authors' public pivotal tuning of Stable Diffusion, as they advise it in its threads
    "full": {"*": 1e-6, "microworld": 1e-4},
    # diffusers' README of LoRA DreamBooth
    "lora": {"*": 1e-4, "microworld": 1e-3},
    # Kumari et al. 2022, arXiv:2212.04488, appendix: 1e-5 times a batch of 8
    "kv": {"*": 8e-5, "microworld": 1e-3},
}
"""Rates of weights by what is tuned, then by model family; other families' are not validated here."""


_PRIOR = {"prior_loss_weight": 1.0, "num_class_images": 100}


TUNING: dict[str, dict[str, dict[str, Any]]] = {
    "pivotal": {
        "*": {
            "tuned_weights": "full",
            "train_word": False,
            "prior_loss_weight": 0.0,
            "num_class_images": 100,
        },
    },
    # Ruiz et al. 2022, arXiv:2208.12242, with the numbers of diffusers' script
    "lora-dreambooth": {
        "*": {"tuned_weights": "lora", "train_word": False, "tuning_steps": 500} | _PRIOR,
        "microworld": {"tuned_weights": "lora", "train_word": False, "tuning_steps": 150}
        | _PRIOR
        | {"num_class_images": 24},
    },
    # Kumari et al. 2022, arXiv:2212.04488, section 4
    "custom-diffusion": {
        "*": {"tuned_weights": "kv", "train_word": True, "tuning_steps": 250}
        | _PRIOR
        | {"num_class_images": 200},
        "microworld": {"tuned_weights": "kv", "train_word": True, "tuning_steps": 150}
        | _PRIOR
        | {"num_class_images": 24},
    },
}
"""What is unset in ``TuningConfig``, by setup, then by model family ("*": every other family)."""
