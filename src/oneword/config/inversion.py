"""One frozen dataclass per verb, and the presets.

The same dataclass is fed by the command line, a TOML file, the library and a run folder. A field
that is ``None`` is filled by :meth:`InversionConfig.resolved` from the preset of the model's family,
so that a resolved config rebuilds its run exactly. This module imports no torch.
"""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal


class UserError(ValueError):
    """A mistake of the user's: the text says what must hold, what was given, and what to do."""


class ConfigError(UserError):
    """A setting is out of its range, or contradicts another."""


def require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


EMBEDDED = ("microworld", "microworld-nano")
"""Models that ship in the package; the second is a tiny one, for tests and quick trials."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """Which base model to load, and how."""

    model: str = "microworld"
    """Base model: "microworld" or "microworld-nano" (embedded), a hub id, a local pipeline folder, or a single-file checkpoint. Also --pretrained-model-name-or-path."""
    vae: str | None = None
    """Another VAE (hub id or folder) in place of the model's own."""
    clip_skip: int | None = None
    """Layers of the CLIP text encoder to skip from its end, 0 or more; unset: the model's own habit."""
    single_file_config: str | None = None
    """Diffusers pipeline (folder or hub id) that a single-file checkpoint has the layout of; unset: found from its tensors, which asks the hub once."""
    variant: str | None = None
    """Weight variant of a hub model, such as "fp16"."""
    revision: str | None = None
    """Branch, tag or commit of a hub model."""
    dtype: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Compute type of the frozen model; the learned rows are always fp32. auto: bf16 on CUDA and, for models of 1 GB or more, on CPUs with instructions for it; fp32 elsewhere. Also --mixed-precision."""
    pool: Literal["eos", "legacy"] = "eos"
    """Where CLIP's pooled output is taken (SDXL, SD3, Flux): "eos" (the end of the prompt), "legacy" (at the new word, as stock tools do on most models)."""
    memory: Literal["auto", "low", "lowest"] = "auto"
    """How to need less memory: "auto" (the fastest way that fits what is free), "low" (recompute, and let the VAE and text encoders leave the GPU), "lowest" (the least of all ways: 4-bit weights, or layers that visit the GPU one by one). What was picked is printed with the expected peak; the next three options fix parts of it."""
    gradient_checkpointing: bool | None = None
    """Keep less for the backward pass and compute it again: less memory, about half as slow again."""
    offload: Literal["none", "vae", "text", "all"] | None = None
    """What lies in the computer's memory while it has nothing to do: the VAE; "text": the text encoders' layers too; "all": the denoiser's layers too, each of which visits the GPU in turn (slow)."""
    weights: Literal["full", "8bit", "4bit"] | None = None
    """Store the linear layers of denoiser and text encoders in fewer bits (pip install 'oneword[quant]')."""
    compile: Literal["auto", "on", "off"] = "auto"
    """Compile the denoiser for training, with CUDA graphs on a GPU; the first step then takes a minute or two. auto: on CUDA, where the layers stay and are whole."""
    device: str = "auto"
    """"auto" (CUDA, then MPS, then CPU) or a torch device such as "cuda:1"."""
    safety_checker: bool = True
    """Keep the model's safety checker, where it has one, for drawing."""

    def __post_init__(self) -> None:
        require(
            bool(self.model),
            "The model must be named, got an empty string; pass --model.",
        )
        if self.clip_skip is not None:
            require(
                self.clip_skip >= 0,
                f"clip_skip must be 0 or more, got {self.clip_skip}.",
            )
        moves = self.offload in ("text", "all")
        require(
            not moves or self.gradient_checkpointing is not False,
            f"Layers that visit the device must be computed again in the backward pass, got offload "
            f"{self.offload!r} without gradient checkpointing; leave one of them out.",
        )
        require(
            not moves or self.weights in (None, "full"),
            f"Packed weights must stay on the device, got {self.weights!r} with offload "
            f"{self.offload!r}; leave one of them out.",
        )
        require(
            self.compile != "on" or self.offload != "all",
            "A compiled denoiser must stay on the device, got compile 'on' with offload 'all'; leave "
            "one of them out.",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class TuningConfig:
    """How the setups that change the model's weights do it; the others do not look at it."""

    tuned_weights: Literal["full", "lora", "kv"] | None = None
    """What of the denoiser is tuned: "full" (every weight), "lora" (low-rank changes of its attention), "kv" (keys and values of the text)."""
    rank: int = 4
    """Rank of a LoRA."""
    tuning_steps: int | None = None
    """Steps that change weights; unset: as many as max_train_steps in pivotal, the setup's own number in the others, where max_train_steps says the same."""
    tuning_learning_rate: float | None = None
    """Rate of the weights, absolute."""
    train_word: bool | None = None
    """Let the word learn along with the weights (not in pivotal)."""
    rare_token: str | None = None
    """Existing word that stands for the thing before its class; unset: the last short one of the vocabulary (not in pivotal)."""
    prior_loss_weight: float | None = None
    """Weight of the loss on pictures of the class, which keep the model from forgetting it; 0: none."""
    num_class_images: int | None = None
    """Pictures of the class that the model draws before."""
    class_prompt: str | None = None
    """What they show; unset: "a photo of a" initializer token."""
    class_data_dir: Path | None = None
    """Folder with pictures of the class, in place of drawn ones."""

    def __post_init__(self) -> None:
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

    def resolved(self, setup: str, family: str, max_train_steps: int) -> TuningConfig:
        """Fill every unset field but the class's for a setup and a model family."""
        own = TUNING[setup]
        values: dict[str, Any] = {"tuning_steps": max_train_steps} | own.get(family, own["*"])
        weights = self.tuned_weights or values["tuned_weights"]
        rates = TUNING_RATES[weights]
        values["tuning_learning_rate"] = rates.get(family, rates["*"])
        unset = {name: value for name, value in values.items() if getattr(self, name) is None}
        return dataclasses.replace(self, **unset)


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


TemplateSet = Literal["paper27dot", "release27", "head81", "style17dot", "style19"]
PresetName = Literal["paper", "release", "default", "fast"]
Form = Literal[
    "rows",
    "progressive",
    "per-image",
    "captions-short",
    "captions-long",
    "xti",
    "neti",
    "dreamartist",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class InversionConfig:
    """How one concept is learned. What is not given is the preset's for the model's family."""

    placeholder_token: str = "S*"
    """The new word, without spaces, as it will stand in prompts."""
    initializer_token: str | None = None
    """Existing word(s) whose embedding the new word starts from; unset: common nouns are ranked by their loss on the pictures."""
    setup: str = "one-word"
    """Way to find the word, by name (SETUPS): "one-word" is the method, the others are the paper's comparisons and later work. What is given beside it wins."""
    form: Form | None = None
    """What the word is made of: "rows", or what an extension of that name makes of it."""
    num_vectors: int | None = None
    """Number of embedding rows that the word gets, 1 to 75."""
    vectors_at: Literal["input", "output"] = "input"
    """Where the word's vectors stand: in the embedding table ("input"), or in the text encoder's output, which then needs no gradient and reads each prompt once (for large encoders; such a word works in oneword alone)."""
    num_negative_vectors: int | None = None
    """Rows of the negative word, 1 to 75 (form "dreamartist")."""
    training_guidance_scale: float | None = None
    """Guidance from the negative word to the word in training (form "dreamartist")."""
    dual_prompt_probability: float | None = None
    """Share of the sentences that name the picture's own word as well, in [0, 1] (form "per-image")."""
    regularization_weight: float | None = None
    """Weight of the squared distance of the rows to their initial ones in the loss; 0: none."""
    cross_initialization: bool | None = None
    """Start from the text encoder's output for the initializer, not from its rows."""
    norm_pull: float | None = None
    """How far each step draws the rows' spread to the vocabulary's, in [0, 1]: the exponent of their ratio; 0: not at all."""
    train_encoders: tuple[str, ...] = ()
    """Text encoders whose rows are learned, such as clip_l t5xxl; none given: all. The others keep the initialiser's rows."""
    learnable_property: Literal["object", "style"] = "object"
    """What the pictures have in common."""
    preset: PresetName = "default"
    """Source of every setting that is not given: "paper" (Gal et al. 2022), "release" (the authors' code), "default", "fast" (the default, which stops when the loss has come to rest)."""
    prompt_templates: TemplateSet | None = None
    """Set of neutral sentences that the word is trained in."""
    learning_rate: float | None = None
    """Rate of the optimiser, absolute, in units of the embedding table's entries."""
    relative_learning_rate: float | None = None
    """Rate in units of the standard deviation of the vocabulary's entries; excludes learning_rate."""
    learning_rate_ratio: float | None = None
    """Factor on the preset's rate, where neither of the two rates is given."""
    scale_lr: bool | None = None
    """Multiply the rate by the batch size, as the authors' code does."""
    lr_scheduler: Literal["constant", "linear", "cosine", "constant_with_warmup"] | None = None
    """Course of the rate over max_train_steps."""
    lr_warmup_steps: int | None = None
    """Steps over which the rate rises from 0 (not with "constant")."""
    max_train_steps: int | None = None
    """Most optimiser steps; the run may end sooner."""
    train_batch_size: int | None = None
    """Samples of this concept per step."""
    adam_beta1: float = 0.9
    """First-moment decay of AdamW, in [0, 1)."""
    adam_beta2: float = 0.999
    """Second-moment decay of AdamW, in [0, 1)."""
    adam_weight_decay: float | None = None
    """Decay of the rows towards zero; 0 in every preset but "paper" and "release"."""
    adam_epsilon: float = 1e-8
    """Epsilon of AdamW."""
    random_flip: bool | None = None
    """Mirror each picture half of the time; turn it off for text, logos and asymmetric things."""
    keep: Literal["best", "last", "average"] | None = None
    """Which rows are kept: those with the lowest loss on the fixed evaluation batch, the last ones, or the average of the last ones."""
    average_decay: float = 0.98
    """What each step leaves of the average of the last rows, in [0, 1); the average is over some 1 / (1 - average_decay) steps."""
    early_stopping: bool | None = None
    """Stop when the loss on the fixed evaluation batch has come to rest; unset: as the preset says, but for progressive vectors and setups that train weights, which run to their end."""
    stop_window: int = 10
    """Scorings of that batch, evaluation_steps apart, whose variance is compared with that of all; 2 or more."""
    stop_threshold: float | None = None
    """Share of the whole variance below which training stops, in (0, 1)."""
    stratified_timesteps: bool | None = None
    """Spread a step's samples evenly over the diffusion time."""
    timestep_bias: float | None = None
    """Preference for noisy times, in [0, 1]; 0: none."""
    timestep_power: float | None = None
    """Times are 1 - u^power of even draws u; 1: even times, 3: cubic sampling, where nearly half lie in the noisiest tenth and decide the colour of large areas; 1 or more."""
    evaluation_steps: int | None = None
    """Steps between two scorings of the fixed evaluation batch; unset: 10 on microworld, elsewhere so many that scoring costs at most a twentieth of the training, or an eighth where it decides when to stop."""
    num_evaluation_samples: int = 16
    """Size of the fixed evaluation batch."""
    seed: int = 0
    """Seed of every draw of this concept."""
    tuning: TuningConfig = field(default_factory=TuningConfig)

    def __post_init__(self) -> None:
        require(
            bool(self.placeholder_token) and not any(c.isspace() for c in self.placeholder_token),
            "The placeholder token must be non-empty and without spaces, got "
            f"{self.placeholder_token!r}; pass for example --placeholder-token '<my-cat>'.",
        )
        require(
            "{}" not in self.placeholder_token,
            f"The placeholder token must not contain '{{}}', got {self.placeholder_token!r}.",
        )
        require(
            not (self.norm_pull and self.form == "neti"),
            "norm_pull draws rows, got it with form neti, whose tensors are a network's weights.",
        )
        if self.vectors_at == "output":
            others = {
                f"setup {self.setup}": self.setup in TUNING,
                f"form {self.form}": self.form not in (None, "rows"),
                "cross_initialization": self.cross_initialization,
                "norm_pull": self.norm_pull,
            }
            require(
                not any(others.values()),
                "Vectors in the text encoders' output must stand alone, got vectors_at 'output' "
                f"with {', '.join(n for n, given in others.items() if given)}; leave one of them "
                "out.",
            )
        if self.initializer_token is not None:
            require(
                bool(self.initializer_token.strip()),
                "The initializer token must be a word, got an empty string; leave it out to have "
                "one chosen.",
            )
        require(
            self.setup in SETUPS,
            f"setup must be one of {', '.join(SETUPS)}, got {self.setup!r}.",
        )
        for name in ("num_vectors", "num_negative_vectors"):
            value = getattr(self, name)
            require(value is None or 1 <= value <= 75, f"{name} must be in 1..75, got {value}.")
        for name in ("dual_prompt_probability", "norm_pull", "timestep_bias"):
            value = getattr(self, name)
            require(value is None or 0 <= value <= 1, f"{name} must be in [0, 1], got {value}.")
        require(
            not (self.cross_initialization and self.norm_pull),
            "Only one of cross_initialization and norm_pull may be given, got both: the text "
            "encoder's output is many times longer than the vocabulary's rows.",
        )
        require(
            self.learning_rate is None or self.relative_learning_rate is None,
            "Only one of learning_rate and relative_learning_rate may be given, got both.",
        )
        for name in ("learning_rate", "relative_learning_rate", "learning_rate_ratio"):
            rate = getattr(self, name)
            require(rate is None or rate >= 0, f"{name} must be 0 or more, got {rate}.")
        names = (
            "max_train_steps",
            "train_batch_size",
            "evaluation_steps",
            "num_evaluation_samples",
        )
        for name in names:
            value = getattr(self, name)
            require(value is None or value >= 1, f"{name} must be 1 or more, got {value}.")
        for name in ("adam_beta1", "adam_beta2", "average_decay"):
            value = getattr(self, name)
            require(0 <= value < 1, f"{name} must be in [0, 1), got {value}.")
        require(self.stop_window >= 2, f"stop_window must be 2 or more, got {self.stop_window}.")
        require(
            self.stop_threshold is None or 0 < self.stop_threshold < 1,
            f"stop_threshold must be in (0, 1), got {self.stop_threshold}.",
        )
        require(
            self.timestep_power is None or self.timestep_power >= 1,
            f"timestep_power must be 1 or more, got {self.timestep_power}.",
        )
        require(
            self.adam_epsilon > 0,
            f"adam_epsilon must be positive, got {self.adam_epsilon}.",
        )
        for name in (
            "adam_weight_decay",
            "lr_warmup_steps",
            "regularization_weight",
            "training_guidance_scale",
        ):
            value = getattr(self, name)
            require(value is None or value >= 0, f"{name} must be 0 or more, got {value}.")
        require(
            not (self.early_stopping and "progressive" in (self.form, self.setup)),
            "early_stopping would end training before the last vectors come, got it with "
            "progressive; leave one of them out.",
        )
        if self.prompt_templates is not None:
            require(
                self.prompt_templates.startswith("style") == (self.learnable_property == "style"),
                f"Templates {self.prompt_templates!r} do not fit learnable_property "
                f"{self.learnable_property!r}; choose a set of the same kind.",
            )

    def resolved(self, family: str) -> InversionConfig:
        """Fill every unset field from the setup, then from the preset for a model family.

        ``initializer_token`` alone may stay ``None`` (it is then chosen on the pictures), and of the
        two rates the one that was not given. A second call changes nothing.
        """
        preset = preset_for(self.preset, family) | SETUPS[self.setup]
        if "learning_rate" in SETUPS[self.setup]:
            preset.pop("relative_learning_rate", None)
        values: dict[str, Any] = {
            name: value for name, value in preset.items() if getattr(self, name, None) is None
        }
        if self.learning_rate is not None or self.relative_learning_rate is not None:
            values.pop("learning_rate", None)
            values.pop("relative_learning_rate", None)
        else:
            ratio = self.learning_rate_ratio
            ratio = preset["learning_rate_ratio"] if ratio is None else ratio
            for name in values.keys() & {"learning_rate", "relative_learning_rate"}:
                values[name] *= ratio
        runs_to_its_end = self.setup in TUNING or (self.form or preset["form"]) == "progressive"
        if self.early_stopping is None and runs_to_its_end:
            values["early_stopping"] = False
        if self.prompt_templates is None:
            values["prompt_templates"] = preset["prompt_templates"][self.learnable_property]
        resolved = dataclasses.replace(self, **values)
        if self.setup in TUNING:
            resolved = resolved._with_tuning(family, self.max_train_steps)
        if resolved.evaluation_steps is None:
            # a sample costs a third of what it does in training, where it has a backward pass
            assert resolved.train_batch_size is not None
            share = 1 / 8 if resolved.early_stopping else 1 / 20
            cost = resolved.num_evaluation_samples / (3 * resolved.train_batch_size)
            steps = 10 * math.ceil(cost / share / 10)
            resolved = dataclasses.replace(resolved, evaluation_steps=steps)
        return resolved

    def _with_tuning(self, family: str, wished_steps: int | None) -> InversionConfig:
        """Fill ``tuning``; where there is no stage before it, its steps are the run's."""
        tuning, alone = self.tuning, self.setup != "pivotal"
        if alone and tuning.tuning_steps is None:
            tuning = dataclasses.replace(tuning, tuning_steps=wished_steps)
        assert self.max_train_steps is not None
        tuning = tuning.resolved(self.setup, family, self.max_train_steps)
        steps = tuning.tuning_steps if alone else self.max_train_steps
        return dataclasses.replace(self, tuning=tuning, max_train_steps=steps)


_PAPER_TEMPLATES = {"object": "paper27dot", "style": "style17dot"}
_RELEASE_TEMPLATES = {"object": "release27", "style": "style19"}
_COMMON: dict[str, Any] = {
    "form": "rows",
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
        **dict.fromkeys(
            (
                *("pixart", "sana", "lumina2", "chroma", "qwen_image", "z_image", "flux2"),
                "sana_sprint",
                # more Qwen
                "krea2",
                "qwen_image21",
                "ovis_image",
                "hunyuan_image",
                "kandinsky5",
                "ernie_image",
                "ideogram4",
                "longcat_image",
                # more T5, Gemma and GLM
                "lumina",
                "bria",
                "bria_fibo2",
                "dreamlite",
                "nucleus_moe",
                "hunyuan_dit",
                "hidream",
                "cogview3",
                "auraflow",
                "cogview4",
                "cosmos2",
                "kolors",
                "deepfloyd_if",
                "prx",
                "kandinsky3",
            ),
            _COMMON
            | {"relative_learning_rate": 0.14, "train_batch_size": 4, "max_train_steps": 3000},
        ),
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
"""Presets by name, then by model family ("*": every other family)."""
# Voronov et al. 2023, arXiv:2302.04841: most words have come to rest long before the last step.
_STOPPING = {"early_stopping": True, "stop_threshold": 0.15}
PRESETS["fast"] = {family: values | _STOPPING for family, values in PRESETS["default"].items()}


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
    by_family = PRESETS[name]
    return by_family.get(family, by_family["*"])


def is_validated(name: str, family: str) -> bool:
    """Whether a preset's values were chosen by measurement on this family here."""
    return (name, family) == ("default", "microworld")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """Learn a word from the pictures in a folder."""

    train_data_dir: Path
    """Folder with three to five pictures of one thing (captions in .txt files beside them, or in metadata.jsonl, are used)."""
    output_dir: Path = Path("oneword-run")
    """Run folder; run the same command again to resume."""
    model: ModelConfig = field(default_factory=ModelConfig)
    inversion: InversionConfig = field(default_factory=InversionConfig)
    resolution: int | None = None
    """Picture size in pixels; unset: the model's own."""
    center_crop: bool = True
    """Crop the middle square; otherwise the picture is squashed to a square."""
    masks: bool = True
    """Count only what masks mark, where there are any: in mask_dir, as NAME.mask.png beside NAME.jpg, or a picture's own transparency."""
    mask_dir: Path | None = None
    """Folder with masks under the pictures' names, white where the thing is."""
    prefix_captions: bool = False
    """Put the placeholder in front of captions that lack it; otherwise they are an error."""
    replace: bool = False
    """Allow a placeholder that is already a word of the model."""
    validation_prompt: str | None = None
    """Prompt of the previews, with the placeholder; unset: "a photo of" it."""
    num_validation_images: int = 4
    """Previews drawn each time."""
    validation_steps: int | None = None
    """Steps between previews; 0: none; unset: a quarter of max_train_steps."""
    checkpointing_steps: int = 50
    """Steps between two writings of the resumable state."""
    mirror: str | None = None
    """fsspec URL of a folder, such as s3://bucket/run, to which the run folder is copied with every writing of the state, and from which another machine takes it up."""

    def __post_init__(self) -> None:
        if self.resolution is not None:
            require(
                self.resolution >= 8 and self.resolution % 8 == 0,
                f"resolution must be a positive multiple of 8 px, got {self.resolution}.",
            )
        require(
            self.checkpointing_steps >= 1,
            f"checkpointing_steps must be 1 or more, got {self.checkpointing_steps}.",
        )
        require(
            self.num_validation_images >= 1,
            f"num_validation_images must be 1 or more, got {self.num_validation_images}.",
        )
        require(
            self.validation_steps is None or self.validation_steps >= 0,
            f"validation_steps must be 0 or more, got {self.validation_steps}.",
        )
        if self.validation_prompt is not None:
            require(
                self.inversion.placeholder_token in self.validation_prompt,
                f"The validation prompt must contain {self.inversion.placeholder_token!r}, got "
                f"{self.validation_prompt!r}.",
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplingConfig:
    """How pictures are drawn. What is not given is the family's default."""

    guidance_scale: float | None = None
    """Classifier-free guidance; 1 turns it off."""
    num_inference_steps: int | None = None
    """Denoising steps."""
    negative_prompt: str = ""
    """What the pictures should not show."""
    height: int | None = None
    """Height in pixels."""
    width: int | None = None
    """Width in pixels."""

    def __post_init__(self) -> None:
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
    model: ModelConfig = field(default_factory=ModelConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    image: Path | None = None
    """Picture to start from, which is drawn over; none: pictures are drawn from noise."""
    mask_image: Path | None = None
    """What of image to draw anew: white; the black rest stays."""
    strength: float = 0.8
    """How much of image is drawn over, in (0, 1]."""
    num_images_per_prompt: int = 4
    """Pictures per prompt, with seeds seed, seed + 1, ..."""
    seed: int = 0
    """First seed."""
    batch_size: int = 8
    """Pictures drawn at once; it does not change them."""
    replace: bool = False
    """Allow a concept whose placeholder is already a word of the model."""
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
        require(
            self.keep is None or 1 <= self.keep <= self.num_images_per_prompt,
            f"keep must be in 1..{self.num_images_per_prompt}, the pictures drawn of each prompt, "
            f"got {self.keep}; raise --num-images-per-prompt (the paper draws 16).",
        )
        require(0 <= self.diversity <= 1, f"diversity must be in [0, 1], got {self.diversity}.")
        require(
            self.keep is not None or (self.rank_by is None and not self.diversity),
            "rank_by and diversity choose among candidates, got them without --keep.",
        )
        require(0 < self.strength <= 1, f"strength must be in (0, 1], got {self.strength}.")
        require(
            self.mask_image is None or self.image is not None,
            "A mask goes with the picture that it is of, got --mask-image without --image.",
        )
        for name in ("num_images_per_prompt", "batch_size"):
            value = getattr(self, name)
            require(value >= 1, f"{name} must be 1 or more, got {value}.")


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
    background: Literal["paste", "optimize", "blend"] = "paste"
    """How the rest comes back: "paste" (its own pixels, bit for bit), "optimize" (through a decoder that is tuned to it, so that no seam shows; slow), "blend" (as the autoencoder gives it back, with a soft edge inside the mask)."""
    mask_growth: int | None = None
    """Cells of the latents by which the mask is wider at the first step, shrinking to itself over the first half; unset: what a thin mask lacks."""
    strength: float = 1.0
    """How much of the picture is drawn over, in (0, 1]; 1 starts from noise, of which only a mask lets something of the picture remain."""
    invert: str | None = None
    """What the picture shows, in words, learned ones too: it is traced back to its noise under this sentence by DDIM, and drawn again from there under the prompt."""
    concepts: tuple[Path, ...] = ()
    """Concept files, or run folders, whose words the prompt may use; PATH=TOKEN renames one."""
    output_dir: Path = Path("oneword-edits")
    """Folder for the edits and a sheet of picture, mask and edits."""
    model: ModelConfig = field(default_factory=ModelConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    num_images_per_prompt: int = 4
    """Candidates, with seeds seed, seed + 1, ...; an inverted picture has one."""
    keep: int | None = None
    """Keep so many candidates, those that CLIP finds nearest to the prompt inside the mask; unset: all, unranked."""
    judge: str | None = None
    """CLIP that ranks: hub id or folder; unset: microworld's own judge on microworld, openai/clip-vit-base-patch32 elsewhere."""
    seed: int = 0
    """First seed."""
    batch_size: int = 8
    """Candidates drawn at once; it does not change them."""
    replace: bool = False
    """Allow a concept whose placeholder is already a word of the model."""

    def __post_init__(self) -> None:
        require(bool(self.prompt.strip()), "The prompt must say what the result shows, got none.")
        check_way(mask=self.mask is not None, strength=self.strength, invert=self.invert)
        require(
            self.mask_growth is None or self.mask_growth >= 0,
            f"mask_growth must be 0 or more, got {self.mask_growth}.",
        )
        for name in ("num_images_per_prompt", "batch_size"):
            value = getattr(self, name)
            require(value >= 1, f"{name} must be 1 or more, got {value}.")
        require(
            self.keep is None or 1 <= self.keep <= self.num_images_per_prompt,
            f"keep must be in 1..{self.num_images_per_prompt}, the number of candidates, got "
            f"{self.keep}.",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluateConfig:
    """Score a concept: image similarity, text similarity, and their references."""

    concept: Path
    """Concept file or run folder."""
    train_data_dir: Path
    """The pictures it was learned from."""
    output_dir: Path = Path("oneword-scores")
    """Folder for the table and the contact sheet."""
    model: ModelConfig = field(default_factory=ModelConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    prompts: tuple[str, ...] = ()
    """Edit prompts with the placeholder; none: the paper's kinds (place, style, composition)."""
    num_images_per_prompt: int = 16
    """Pictures per prompt (64 in the paper)."""
    seed: int = 0
    """First seed."""
    batch_size: int = 16
    """Pictures drawn at once."""
    judge: str | None = None
    """CLIP that scores: hub id or folder; unset: microworld's own judge on microworld, openai/clip-vit-base-patch32 elsewhere."""
    plain_dir: Path | None = None
    """Pictures of the thing alone on a plain background, for a score without backgrounds."""
    replace: bool = False
    """Allow a placeholder that is already a word of the model."""

    def __post_init__(self) -> None:
        for name in ("num_images_per_prompt", "batch_size"):
            value = getattr(self, name)
            require(value >= 1, f"{name} must be 1 or more, got {value}.")


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyConfig:
    """Compare ways to find a word: every concept with every setup and seed, scored alike."""

    output_dir: Path = Path("oneword-study")
    """Folder of the study; run the same command again to go on, or with more concepts, setups or seeds to widen it. Also --out."""
    concepts: tuple[str, ...] = ()
    """Folders of pictures, folders of such folders (as DreamBench has them), or on the embedded models held-out concepts by name, or a half of them: test, development."""
    setups: tuple[str, ...] = ("paper",)
    """Setups to compare; "paper" and "all" stand for several. NAME:SETTING=VALUE,... changes settings of training, such as one-word:learning_rate=0.001; such a row goes by its whole text."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of training and drawing, each a run of its own; microworld draws other training pictures for each."""
    model: ModelConfig = field(default_factory=ModelConfig)
    inversion: InversionConfig = field(default_factory=InversionConfig)
    sampling: SamplingConfig = field(
        default_factory=lambda: SamplingConfig(guidance_scale=5.0, num_inference_steps=50)
    )
    prompts: str | None = None
    """Evaluation prompts: paper, paper-figures, dreambench or microworld; unset: microworld on the embedded models, paper elsewhere."""
    num_images_per_prompt: int = 64
    """Pictures per prompt."""
    batch_size: int = 16
    """Pictures drawn at once."""
    judge: str | None = None
    """CLIP that scores: hub id or folder; unset: microworld's own judge on microworld, openai/clip-vit-base-patch32 elsewhere."""
    dino: str | None = None
    """DINO for a second image similarity: hub id or folder; unset: none on microworld, facebook/dino-vits16 elsewhere; "none": none."""
    set_sizes: tuple[int, ...] = ()
    """Also learn from so many pictures, with the setup one-word: 1 2 3 5 10 15 25 in the paper."""
    set_size_concepts: tuple[str, ...] = ()
    """Concepts of that sweep; none: the first of the study."""
    guidance_scales: tuple[float, ...] = ()
    """Also draw with these guidance scales."""
    guidance_setups: tuple[str, ...] = ("one-word", "pivotal", "bipartite")
    """Setups that are drawn with them."""
    slots: int | None = None
    """Words that one process trains at once; unset: as many as a GPU's memory holds, 4 on a CPU."""
    num_processes: int = 1
    """Processes on this machine that share the jobs."""
    cluster: str | None = None
    """Run on Ray: local, auto (the cluster this machine belongs to), or an address. All machines must see the folder."""
    workers: int | None = None
    """Workers of the cluster; unset: one for each GPU, or for each core where there is none."""
    retry_failed: bool = False
    """Try jobs again that failed before."""

    def __post_init__(self) -> None:
        for name in ("num_images_per_prompt", "batch_size", "num_processes", "slots", "workers"):
            value = getattr(self, name)
            require(value is None or value >= 1, f"{name} must be 1 or more, got {value}.")
        for name in ("concepts", "setups", "seeds", "set_sizes", "guidance_scales"):
            value = getattr(self, name)
            twice = sorted({str(v) for v in value if value.count(v) > 1})
            require(
                not twice, f"The {name} must differ from each other, got {', '.join(twice)} twice."
            )
        require(bool(self.setups), "There must be a setup, got none; pass --setups.")
        require(bool(self.seeds), "There must be a seed, got none; pass --seeds.")
        require(
            all(size >= 1 for size in self.set_sizes),
            f"set_sizes must be 1 or more each, got {list(self.set_sizes)}.",
        )
        require(
            self.workers is None or self.cluster is not None,
            f"--workers goes with --cluster, got {self.workers} without it.",
        )
        require(
            self.cluster is None or self.num_processes == 1,
            "Jobs run on --cluster or in --num-processes, got both.",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class DebiasConfig:
    """Learn a fairer word from a small diverse set, and compare what it and the old word draw."""

    word: str
    """Existing word whose pictures are one-sided, such as "doctor"; the new word starts from it."""
    images: Path
    """Folder with a small, diverse set of pictures of it."""
    output_dir: Path = Path("oneword-fair")
    """Folder for the run, the pictures and the report; run the same command again to resume."""
    model: ModelConfig = field(default_factory=ModelConfig)
    inversion: InversionConfig = field(
        default_factory=lambda: InversionConfig(placeholder_token="<fair>")
    )
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    prompt: str = "a photo of a {}"
    """What is drawn with each word in place of {}."""
    num_images: int = 64
    """Pictures drawn with each word, with the same seeds."""
    batch_size: int = 16
    """Pictures drawn at once."""
    attributes: tuple[str, ...] = ()
    """What to read, each NAME=TEXT|TEXT|..., by the CLIP that judges; none: the oracle's skin and hair on microworld, gender presentation, skin tone and age elsewhere."""
    judge: str | None = None
    """CLIP that reads attributes: hub id or folder; unset: as for evaluate."""

    def __post_init__(self) -> None:
        require(bool(self.word.strip()), "The word to be made fairer must be given, got none.")
        require(
            "{}" in self.prompt,
            f"The prompt must hold {{}} where the word stands, got {self.prompt!r}.",
        )
        require(
            self.inversion.learnable_property == "object",
            "A fairer word is one for things or people, got learnable_property 'style'.",
        )
        for name, least in (("num_images", 2), ("batch_size", 1)):
            value = getattr(self, name)
            require(value >= least, f"{name} must be {least} or more, got {value}.")
        for text in self.attributes:
            name, _, values = text.partition("=")
            texts = [value.strip() for value in values.split("|")]
            require(
                bool(name.strip())
                and len(texts) > 1
                and all(texts)
                and len({*texts}) == len(texts),
                "An attribute must be NAME=TEXT|TEXT with two or more different texts, got "
                f"{text!r}.",
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class ComposeConfig:
    """Learn several words together, so that they can stand in one picture."""

    images: tuple[Path, ...]
    """Folders with pictures, one for each word."""
    placeholder_tokens: tuple[str, ...]
    """The new words, in the order of the folders."""
    initializer_tokens: tuple[str, ...]
    """Existing words that they start from, in the same order."""
    together: Path | None = None
    """Folder with pictures that show several of the things, each with a caption that names their new words."""
    paste: float = 0.1
    """Share of the samples in which a picture of one thing is pasted into one of another, in [0, 1); 0: none."""
    output_dir: Path = Path("oneword-composition")
    """Run folder; run the same command again to resume. All words are in its one file."""
    model: ModelConfig = field(default_factory=ModelConfig)
    inversion: InversionConfig = field(default_factory=InversionConfig)
    """Settings that all words share; its own placeholder and initialiser are not used."""
    checkpointing_steps: int = 50
    """Steps between two writings of the resumable state."""

    def __post_init__(self) -> None:
        counts = [len(x) for x in (self.images, self.placeholder_tokens, self.initializer_tokens)]
        require(
            len(set(counts)) == 1 and counts[0] >= 2,
            "Words that are learned together need a folder, a placeholder and an initializer each, "
            f"for two or more words, got {counts[0]} folders, {counts[1]} placeholders and "
            f"{counts[2]} initializers.",
        )
        require(
            len({token.lower() for token in self.placeholder_tokens}) == counts[1],
            f"The placeholder tokens must differ, got {' '.join(self.placeholder_tokens)}.",
        )
        require(0 <= self.paste < 1, f"paste must be in [0, 1), got {self.paste}.")
        require(
            self.checkpointing_steps >= 1,
            f"checkpointing_steps must be 1 or more, got {self.checkpointing_steps}.",
        )


def plain_settings(config: InversionConfig | TrainConfig | ComposeConfig) -> dict[str, Any]:
    """The settings as JSON has them."""
    return json.loads(json.dumps(dataclasses.asdict(config), default=str))
