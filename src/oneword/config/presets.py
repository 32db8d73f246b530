"""Presets and setups: values of settings by name, then by what a model family takes."""

from __future__ import annotations

from typing import Any, Literal

from oneword.catalog import FAMILIES
from oneword.errors import require


TemplateSet = Literal["paper27dot", "release27", "head81", "style19dot", "style19"]


Interpolation = Literal["lanczos", "bicubic"]


Fit = Literal["crop", "squash", "pad", "buckets"]


Backgrounds = Literal["auto", "plain", "world", "none"]


SamplerName = Literal["paper", "release", "model"]


ProtocolName = Literal["paper", "default"]


PresetName = Literal["paper", "release", "default", "fast"]


OptimizerName = Literal["adamw", "prodigy", "lion", "adamw8bit", "adafactor"]


ScheduleName = Literal[
    "constant", "constant_with_warmup", "linear", "cosine", "cosine_with_restarts", "polynomial",
    "piecewise_constant",
]  # fmt: skip


_PAPER_TEMPLATES = {"object": "paper27dot", "style": "style19dot"}


_RELEASE_TEMPLATES = {"object": "release27", "style": "style19"}


_COMMON: dict[str, Any] = {
    "form": "rows",
    "initializer": "word",
    "num_vectors": 1,
    "num_negative_vectors": 1,
    "training_guidance_scale": 5.0,
    "dual_prompt_probability": 0.25,
    "regularization_weight": 0.0,
    "cross_initialization": False,
    "norm_pull": 0.0,
    "learning_rate_ratio": 1.0,
    "scale_lr": False,
    "lr_scheduler": "constant",
    "lr_warmup_steps": 0,
    "adam_weight_decay": 0.0,
    "random_flip": True,
    "fit": "crop",
    "interpolation": "lanczos",
    "backgrounds": "auto",
    "keep": "best",
    "early_stopping": False,
    "stop_threshold": 0.15,
    "stratified_timesteps": False,
    "timestep_bias": 0.0,
    "timestep_power": 1.0,
    "prompt_templates": _RELEASE_TEMPLATES,
}


_PUBLISHED: dict[str, Any] = {
    "scale_lr": True,
    "adam_weight_decay": 1e-2,
    "fit": "squash",
    "interpolation": "bicubic",
    "backgrounds": "none",
    "keep": "last",
}


PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    # Gal et al. 2022, section 3: base rate 5e-3 times 2 GPUs times batch 4, 5,000 steps.
    "paper": {
        "*": _COMMON
        | _PUBLISHED
        | {
            "learning_rate": 5e-3,
            "train_batch_size": 8,
            "max_train_steps": 5000,
            "prompt_templates": _PAPER_TEMPLATES,
        },
    },
    # The authors' configuration files: v1-finetune.yaml for Stable Diffusion (batch 2) and
    # txt2img-1p4B-finetune.yaml for the paper's model (batch 4 on one GPU).
    "release": {
        "*": _COMMON
        | _PUBLISHED
        | {
            "learning_rate": 5e-3,
            "train_batch_size": 2,
            "max_train_steps": 6100,
            "prompt_templates": {"object": "head81", "style": "style19"},
        },
        "ldm": _COMMON
        | _PUBLISHED
        | {
            "learning_rate": 5e-3,
            "train_batch_size": 4,
            "max_train_steps": 6100,
            "prompt_templates": {"object": "head81", "style": "style19"},
        },
    },
    "default": {
        # No recipe is published for words of T5 alone or of language models. The rate is the one
        # below in units of Stable Diffusion's table, since theirs lie on another scale. Not
        # validated here.
        "relative": _COMMON
        | {"relative_learning_rate": 0.14, "train_batch_size": 4, "max_train_steps": 3000},
        # diffusers' textual-inversion README: 5e-4 scaled by batch 1 x accumulation 4, 3,000 steps.
        # Not validated here.
        "*": _COMMON | {"learning_rate": 2e-3, "train_batch_size": 4, "max_train_steps": 3000},
        "microworld": _COMMON
        | {
            "learning_rate": 1.5e-2,
            "train_batch_size": 8,
            "max_train_steps": 250,
            # the colour of large areas is decided at the noisiest times alone
            "timestep_power": 3.0,
            "evaluation_steps": 10,
            "early_stopping": True,
            "stop_threshold": 0.05,
        },
    },
}
"""Presets by name, then by a family's ``recipe`` ("*": every other)."""


RATE_FACTORS: dict[str, float] = {
    "adamw": 1.0,
    "adamw8bit": 1.0,
    # Chen et al. 2023, arXiv:2302.06675, section 5: a third to a tenth; its library advises a third
    "lion": 0.3,
    # without scaling by the rows' size, its steps are in AdamW's units
    "adafactor": 1.0,
}
"""What each optimiser's rate is of a preset's, which is AdamW's; "prodigy" has its own."""


PRODIGY_RATE = 1.0
"""A factor on the steps that Prodigy finds by itself.

Source:
    The library's own default, beside Mishchenko and Defazio 2023, arXiv:2306.06101.
"""


# Voronov et al. 2023, arXiv:2302.04841: most words have come to rest long before the last step.
_STOPPING = {"early_stopping": True, "stop_threshold": 0.15}


PRESETS["fast"] = {recipe: values | _STOPPING for recipe, values in PRESETS["default"].items()}


SAMPLERS: dict[str, dict[str, dict[str, Any]]] = {
    # Gal et al. 2022, section 5.1, and evaluation/clip_eval.py of their code
    "paper": {"*": {"guidance_scale": 5.0, "num_inference_steps": 50}},
    # the commands of their README, for the paper's model and for Stable Diffusion
    "release": {
        "ldm": {"guidance_scale": 10.0, "num_inference_steps": 50},
        "*": {"guidance_scale": 7.5, "num_inference_steps": 50},
    },
    # the family's own settings
    "model": {"*": {}},
}
"""Ways of drawing by name, then by model family ("*": every other): what holds unless it is given."""


PUBLISHED_DDIM: dict[str, Any] = {
    "timestep_spacing": "leading",
    "steps_offset": 1,
    "set_alpha_to_one": False,
    "clip_sample": False,
    "thresholding": False,
}
"""The authors' DDIM in diffusers' terms: 50 steps are at the times 981, 961, ..., 1, and the last
one leads to the noise of time 0."""


PROTOCOLS: dict[str, dict[str, Any]] = {
    # Gal et al. 2022, section 5.1; how pictures are read is as in their code, which squashes them
    "paper": {
        "num_images_per_prompt": 64,
        "sampling": {"guidance_scale": 5.0, "num_inference_steps": 50},
        "fit": "squash",
        "interpolation": "bicubic",
    },
    # quick
    "default": {
        "num_images_per_prompt": 16,
        "sampling": {},
        "fit": "crop",
        "interpolation": "lanczos",
    },
}
"""How words are scored, by name; the prompts are ``EDIT_PROMPTS`` and ``PHOTO_PROMPTS``."""


INVERSION_STEPS = 250
"""Of bipartite inversion, both ways: those of the authors' code."""


SETUPS: dict[str, dict[str, Any]] = {
    "one-word": {},
    # Gal et al. 2022, section 5.2
    "two-words": {"num_vectors": 2},
    "three-words": {"num_vectors": 3},
    "progressive": {"form": "progressive", "num_vectors": 3},
    # the paper does not tell its weight
    "regularized": {"regularization_weight": 1e-2},
    "per-image": {"form": "per-image"},
    # 2e-2 and 1e-4 where the method has 5e-3
    "high-lr": {"learning_rate_ratio": 4.0},
    "low-lr": {"learning_rate_ratio": 0.02},
    # the description is the word: nothing is trained
    "captions-short": {"form": "captions-short"},
    "captions-long": {"form": "captions-long"},
    # Voynov et al. 2023, arXiv:2303.09522
    "xti": {"form": "xti"},
    # Alaluf et al. 2023, arXiv:2305.15391; the rate is that of a network's weights
    "neti": {"form": "neti", "learning_rate": 8e-3, "scale_lr": False},
    # Pang et al. 2023, arXiv:2312.15905
    "cross-init": {"cross_initialization": True},
    # Dong et al. 2022, arXiv:2211.11337
    "dreamartist": {"form": "dreamartist", "num_vectors": 3, "num_negative_vectors": 3},
    # Gal et al. 2022, section 6 (hoped for); nothing is trained, the word is what an encoder says
    "encoder": {"form": "encoder", "initializer": "encoder"},
    # they change the model's weights: see TuningConfig and TUNING
    "pivotal": {},
    "lora-dreambooth": {},
    "custom-diffusion": {},
}
"""Ways to find a word, by name: the settings in which each differs from the method itself."""


def preset_for(name: str, family: str) -> dict[str, Any]:
    """Settings of a preset for a model family.

    Raises:
        ConfigError: there is no such preset.
    """
    require(name in PRESETS, f"preset must be one of {', '.join(PRESETS)}, got {name!r}.")
    by_recipe = PRESETS[name]
    record = FAMILIES.get(family)
    return by_recipe.get(record.recipe if record else "*", by_recipe["*"])


def sampler_of(preset: str | None, family: str) -> SamplerName:
    """How words that were learned with a preset are drawn, where nothing else is asked for."""
    record = FAMILIES.get(family)
    if record is None or not record.inverts:
        return "model"
    return "paper" if preset == "paper" else "release" if preset == "release" else "model"


def is_validated(name: str, family: str) -> bool:
    """Whether a preset's values were chosen by measurement on this family here."""
    return (name, family) == ("default", "microworld")
