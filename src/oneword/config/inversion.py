"""One frozen dataclass per verb, and the presets.

The same dataclass is fed by the command line, a TOML file, the library and a run folder. A field
that is ``None`` is filled by :meth:`InversionConfig.resolved` from the preset of the model's family,
so that a resolved config rebuilds its run exactly. This module imports no torch.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from oneword.config.checks import check_finite, check_placeholder, check_seeds, check_step_rules
from oneword.config.presets import (
    PRODIGY_RATE,
    RATE_FACTORS,
    SETUPS,
    Backgrounds,
    Fit,
    Interpolation,
    OptimizerName,
    PresetName,
    ScheduleName,
    TemplateSet,
    preset_for,
)
from oneword.config.tuning import TUNING, ResolvedTuning, TuningConfig
from oneword.errors import ConfigError, require


Form = Literal[
    "rows",
    "progressive",
    "per-image",
    "captions-short",
    "captions-long",
    "xti",
    "neti",
    "dreamartist",
    "encoder",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class InversionConfig:
    """Settings for learning one word. Those that are not given come from the preset, for the model's family."""

    placeholder_token: str = "S*"
    """The new word, without spaces, as you will write it in prompts."""
    initializer_token: str | None = None
    """Existing word(s) to start from (default: chosen among common nouns by their loss on the pictures)."""
    initializer_file: Path | None = None
    """Learned word to start from: a file of any tool, a run folder, or OWNER/NAME on the Hub. Cannot be combined with initializer_token."""
    initializer: Literal["word", "encoder"] | None = None
    """What to start from: "word" (an existing word or a learned file) or "encoder" (the word that an encoder makes of the pictures)."""
    encoder: Path | None = None
    """Encoder for initializer or setup "encoder": file or folder from oneword encoder train (default: the embedded model's own)."""
    setup: str = "one-word"
    """Method for learning the word. The paper's own is "one-word"; the others are its comparisons and later work. Explicit options override the setup's."""
    form: Form | None = None
    """What the word is made of: "rows" of the embedding table, or a form of its own from later work."""
    num_vectors: int | None = None
    """Number of embedding vectors for the word, 1 to 75."""
    vectors_at: Literal["input", "output"] = "input"
    """Where the vectors live: "input" (in the embedding table) or "output" (in the text encoder's output). "output" saves time with large text encoders: no gradient through them, and each prompt is encoded once. Such a word works only in oneword."""
    num_negative_vectors: int | None = None
    """Number of vectors of the negative word, 1 to 75 (form "dreamartist")."""
    training_guidance_scale: float | None = None
    """Guidance scale in training, from the negative word to the word (form "dreamartist")."""
    dual_prompt_probability: float | None = None
    """Share of the prompts that also contain the picture's own word, in [0, 1] (form "per-image")."""
    regularization_weight: float | None = None
    """Weight of the regularisation loss: squared distance of the vectors from their start. 0 turns it off."""
    cross_initialization: bool | None = None
    """Start from the text encoder's output for the initializer instead of its embeddings."""
    norm_pull: float | None = None
    """How strongly each step pulls the vectors' spread to the vocabulary's, in [0, 1]. It is the exponent of their ratio; 0 turns it off."""
    train_encoders: tuple[str, ...] = ()
    """Text encoders whose embeddings are learned, such as clip_l t5xxl. Without it, all are. The others keep the initializer's embeddings."""
    learnable_property: Literal["object", "style"] = "object"
    """What the pictures have in common."""
    preset: PresetName = "default"
    """Source of all settings that are not given: "paper" (Gal et al. 2022), "release" (the authors' code), "default", or "fast" (default with early stopping)."""
    prompt_templates: TemplateSet | None = None
    """Set of neutral prompts to train the word in."""
    optimizer: OptimizerName = "adamw"
    """Optimiser: "adamw", "prodigy" (finds its own learning rate), "lion", "adamw8bit" or "adafactor". All but "adamw" need another library."""
    learning_rate: float | None = None
    """Learning rate, absolute, in units of the embedding table's entries. With prodigy it is a factor on the rate that prodigy finds."""
    relative_learning_rate: float | None = None
    """Learning rate in units of the standard deviation of the vocabulary's entries. Cannot be combined with learning_rate."""
    learning_rate_ratio: float | None = None
    """Factor on the learning rate of the preset and optimiser. It applies only if no learning rate is given."""
    scale_lr: bool | None = None
    """Multiply the learning rate by the batch size, as the authors' code does."""
    lr_scheduler: ScheduleName | None = None
    """Learning rate schedule over max_train_steps."""
    lr_warmup_steps: int | None = None
    """Number of warmup steps, from learning rate 0. Not used by "constant" and "piecewise_constant"."""
    lr_num_cycles: int = 1
    """Number of cycles in which the learning rate falls from its full height ("cosine_with_restarts")."""
    lr_power: float = 1.0
    """Exponent of the decay ("polynomial")."""
    lr_step_rules: str = ""
    """Factors on the learning rate, each with the step at which it ends, then a last factor ("piecewise_constant"): "1:100,0.1:200,0.01"."""
    max_train_steps: int | None = None
    """Maximum number of training steps; the run may stop earlier. To continue a finished run, raise it."""
    train_batch_size: int | None = None
    """Batch size: samples of this word per step."""
    adam_beta1: float = 0.9
    """First-moment decay (beta 1) of AdamW, adamw8bit and prodigy, in [0, 1)."""
    adam_beta2: float = 0.999
    """Second-moment decay (beta 2) of AdamW, adamw8bit and prodigy, in [0, 1)."""
    adam_weight_decay: float | None = None
    """Weight decay of the vectors. 0 in every preset but "paper" and "release"."""
    adam_epsilon: float = 1e-8
    """Epsilon of AdamW, adamw8bit and prodigy."""
    random_flip: bool | None = None
    """Flip each picture with probability 1/2. Turn it off for text, logos and asymmetric things."""
    fit: Fit | None = None
    """How to fit pictures that are not square. With "crop", the middle square is used; with "squash", the picture is squeezed to a square. With "pad", bars are added, which the loss ignores. With "buckets", the aspect ratio is kept, at about the model's area."""
    interpolation: Interpolation | None = None
    """Resampling filter for bringing pictures to the model's size."""
    backgrounds: Backgrounds | None = None
    """Backgrounds for pictures with transparency, a new one each step. "plain": colours. "world": places of the embedded model's world. "auto": both there, colours elsewhere. "none": always white."""
    keep: Literal["best", "last", "average"] | None = None
    """Which vectors to keep: those with the lowest loss on the fixed evaluation batch, the last ones, or the average of the last ones."""
    average_decay: float = 0.98
    """Decay of the running average of the vectors, in [0, 1). It averages over about 1 / (1 - average_decay) steps."""
    early_stopping: bool | None = None
    """Stop once the loss on the fixed evaluation batch no longer changes. By default it is off for form progressive and for setups that train weights."""
    stop_window: int = 10
    """Number of recent evaluations, 2 or more, whose variance is compared with that of all evaluations. They are evaluation_steps apart."""
    stop_threshold: float | None = None
    """Early stopping threshold, in (0, 1): training stops when the variance falls below this share of the whole."""
    stratified_timesteps: bool | None = None
    """Spread each step's samples evenly over the diffusion timesteps."""
    timestep_bias: float | None = None
    """Preference for noisy timesteps, in [0, 1]. 0 turns it off."""
    timestep_power: float | None = None
    """Exponent of the timestep distribution, 1 or more: timesteps are 1 - u^power with u uniform in [0, 1]. 1 is uniform. 3 is cubic sampling: nearly half of the samples are in the noisiest tenth, which decides the colour of large areas."""
    loss_type: Literal["l2", "huber"] = "l2"
    """Loss: "l2" (squared error) or "huber", which gives large errors less weight."""
    huber_c: float = 0.1
    """Error above which "huber" is linear, in units of the noise."""
    huber_schedule: Literal["constant", "snr"] = "snr"
    """Schedule of huber_c over the timesteps: "constant", or "snr" (from 1 without noise down to huber_c)."""
    snr_gamma: float = 0.0
    """Signal-to-noise ratio above which a sample counts less (min-SNR). The paper uses 5; 0 turns it off."""
    noise_offset: float = 0.0
    """Noise offset: standard deviation of a shift of each noise channel, in [0, 1]. Other tools use 0.05 to 0.1; 0 turns it off."""
    caption_dropout_rate: float = 0.0
    """Share of the samples whose prompt is the new word alone, in [0, 1]."""
    caption_tag_dropout_rate: float = 0.0
    """Share of a caption's tags (the parts between commas) to drop each time, in [0, 1]. The tag with the new word stays."""
    shuffle_caption: bool = False
    """Shuffle a caption's tags each time."""
    keep_tokens: int = 0
    """Number of tags at the start of a caption that are never dropped or moved."""
    random_crops: int = 0
    """Number of random crops of each picture, 0 to 64. A sample shows one of them or the whole picture; 0 turns it off."""
    crop_scale: float = 0.8
    """Smallest side of a random crop, as a share of the picture's side, in (0, 1)."""
    evaluation_steps: int | None = None
    """Steps between evaluations on the fixed evaluation batch (default: 10 on microworld). Elsewhere the default keeps their cost below 1/20 of the training, or 1/8 with early stopping."""
    num_evaluation_samples: int | None = None
    """Size of the fixed evaluation batch (default: 16, or down to 2 in very short runs). A run is very short if evaluating 16 samples twice would cost more than a quarter of its training. With evaluation_steps given, the default is 16."""
    seed: int = 0
    """Random seed for everything drawn for this word."""
    tuning: TuningConfig = field(default_factory=TuningConfig)

    def __post_init__(self) -> None:
        check_finite(self)
        check_seeds(self.seed)
        check_placeholder(
            self.placeholder_token, hint="; for example, pass --placeholder-token '<my-cat>'"
        )
        require(
            not (self.norm_pull and self.form == "neti"),
            "Cannot use norm_pull with form neti because neti learns the weights of a network, "
            "not embedding vectors; leave one of them out.",
        )
        if self.vectors_at == "output":
            others = {
                f"setup {self.setup}": self.setup in TUNING,
                f"form {self.form}": self.form not in (None, "rows"),
                "cross_initialization": self.cross_initialization,
                "norm_pull": self.norm_pull,
                # each prompt is kept as it was read
                "shuffle_caption": self.shuffle_caption,
                "caption_tag_dropout_rate": self.caption_tag_dropout_rate,
            }
            require(
                not any(others.values()),
                "Cannot use vectors_at 'output' with "
                f"{', '.join(n for n, given in others.items() if given)}; leave one of them out.",
            )
        self._check_start()
        if self.initializer_token is not None:
            require(
                bool(self.initializer_token.strip()),
                "initializer_token must be a word, got an empty string; leave it out to have one "
                "chosen.",
            )
        require(
            self.setup in SETUPS,
            f"setup must be one of {', '.join(SETUPS)}, got {self.setup!r}.",
        )
        for name in ("num_vectors", "num_negative_vectors"):
            value = getattr(self, name)
            require(value is None or 1 <= value <= 75, f"{name} must be in 1..75, got {value}.")
        for name in (
            "dual_prompt_probability",
            "norm_pull",
            "timestep_bias",
            "noise_offset",
            "caption_dropout_rate",
            "caption_tag_dropout_rate",
        ):
            value = getattr(self, name)
            require(value is None or 0 <= value <= 1, f"{name} must be in [0, 1], got {value}.")
        require(
            not (self.cross_initialization and self.norm_pull),
            "Cannot use cross_initialization with norm_pull because the text encoder's output is "
            "many times longer than the vocabulary's embeddings; leave one of them out.",
        )
        require(
            self.learning_rate is None or self.relative_learning_rate is None,
            "Cannot use learning_rate with relative_learning_rate because both set the learning "
            "rate; leave one of them out.",
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
        require(
            self.lr_num_cycles >= 1, f"lr_num_cycles must be 1 or more, got {self.lr_num_cycles}."
        )
        require(self.lr_power > 0, f"lr_power must be positive, got {self.lr_power}.")
        check_step_rules(self.lr_scheduler, self.lr_step_rules)
        for name in ("adam_beta1", "adam_beta2", "average_decay"):
            value = getattr(self, name)
            require(0 <= value < 1, f"{name} must be in [0, 1), got {value}.")
        self._check_optimizer()
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
            0 <= self.random_crops <= 64,
            f"random_crops must be in 0..64, got {self.random_crops}.",
        )
        require(0 < self.crop_scale < 1, f"crop_scale must be in (0, 1), got {self.crop_scale}.")
        require(self.huber_c > 0, f"huber_c must be positive, got {self.huber_c}.")
        require(
            self.adam_epsilon > 0,
            f"adam_epsilon must be positive, got {self.adam_epsilon}.",
        )
        for name in (
            "adam_weight_decay",
            "lr_warmup_steps",
            "regularization_weight",
            "training_guidance_scale",
            "snr_gamma",
            "keep_tokens",
        ):
            value = getattr(self, name)
            require(value is None or value >= 0, f"{name} must be 0 or more, got {value}.")
        require(
            not (self.early_stopping and "progressive" in (self.form, self.setup)),
            "Cannot use early_stopping with progressive because training would stop before the "
            "last vectors are added; leave one of them out.",
        )
        if self.prompt_templates is not None:
            require(
                self.prompt_templates.startswith("style") == (self.learnable_property == "style"),
                f"prompt_templates must fit learnable_property {self.learnable_property!r}, got "
                f"{self.prompt_templates!r}; choose a set for it.",
            )

    def _check_start(self) -> None:
        """Refuse a start from several things at once, or from one that the word cannot have.

        Raises:
            ConfigError: it is so.
        """
        encodes = "encoder" in (self.initializer, self.setup)
        require(
            self.encoder is None or encodes,
            f"Cannot use the encoder {self.encoder} without initializer or setup encoder; pass "
            "--initializer encoder.",
        )
        alone = "encoder" in (self.form, self.setup)
        require(
            not alone or (encodes and self.initializer != "word"),
            f"Cannot use form or setup encoder with initializer {self.initializer} because such a "
            "word must start from an encoder; pass --setup encoder without --initializer.",
        )
        if self.initializer_file is None and not encodes:
            return
        described = {"captions-short", "captions-long"} & {self.form, self.setup}
        others = {
            "initializer_token": self.initializer_token is not None,
            "cross_initialization": self.cross_initialization,
            "vectors_at 'output'": self.vectors_at == "output",
            f"setup {self.setup}": self.setup in TUNING and self.setup != "pivotal",
            f"form {min(described, default='')}": described,
        }
        what, name = "a learned file", "initializer_file"
        if encodes:
            what, name = "an encoder", f"{'initializer' if self.initializer else 'setup'} encoder"
            others = {"initializer_file": self.initializer_file is not None} | others
        require(
            not any(others.values()),
            f"Cannot use {name} with {', '.join(n for n, given in others.items() if given)} "
            f"because {what} must be the only start of the new word; leave one of them out.",
        )

    def _check_optimizer(self) -> None:
        """Refuse settings that an optimiser of another library cannot work with.

        Raises:
            ConfigError: there is one.
        """
        require(
            self.optimizer == "adamw" or self.setup not in TUNING,
            f"Cannot use optimizer {self.optimizer} with setup {self.setup} because setups that "
            "change the model's weights need adamw; leave one of them out.",
        )
        if self.optimizer == "prodigy":
            own = {
                "relative_learning_rate": self.relative_learning_rate is not None,
                "scale_lr": bool(self.scale_lr),
            }
            require(
                not any(own.values()) and self.learning_rate != 0,
                "Cannot use "
                f"{', '.join(n for n, given in own.items() if given) or 'learning_rate 0'} with "
                "prodigy because it finds its own learning rate; leave it out. A positive "
                "learning_rate is a factor on that rate.",
            )

    def resolved(self, family: str) -> ResolvedConfig:
        """Fill every unset field from the setup, then from the preset for a model family.

        ``initializer_token`` may stay ``None`` (it is then chosen on the pictures), the files to start
        from, and of the two rates the one that was not given. A second call changes nothing.
        """
        preset = preset_for(self.preset, family) | SETUPS[self.setup]
        if "learning_rate" in SETUPS[self.setup]:
            preset.pop("relative_learning_rate", None)
        given = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        values: dict[str, Any] = {
            name: value for name, value in preset.items() if given.get(name) is None
        }
        if self.learning_rate is not None or self.relative_learning_rate is not None:
            values.pop("learning_rate", None)
            values.pop("relative_learning_rate", None)
        else:
            ratio = self.learning_rate_ratio
            ratio = preset["learning_rate_ratio"] if ratio is None else ratio
            if self.optimizer == "prodigy":
                values.pop("relative_learning_rate", None)
                values["learning_rate"] = PRODIGY_RATE
            else:
                ratio *= RATE_FACTORS[self.optimizer]
            for name in values.keys() & {"learning_rate", "relative_learning_rate"}:
                values[name] *= ratio
        if self.optimizer == "prodigy":
            values["scale_lr"] = False
        runs_to_its_end = self.setup in TUNING or (self.form or preset["form"]) == "progressive"
        if self.early_stopping is None and runs_to_its_end:
            values["early_stopping"] = False
        if self.prompt_templates is None:
            values["prompt_templates"] = preset["prompt_templates"][self.learnable_property]
        settings = given | values
        if self.setup in TUNING:
            settings |= self._with_tuning(family, settings["max_train_steps"])
        # a sample costs a third of what it does in training, where it has a backward pass
        if settings["num_evaluation_samples"] is None:
            trained = 3 * settings["max_train_steps"] * settings["train_batch_size"]
            fewest = 2 if self.evaluation_steps is None else 16
            settings["num_evaluation_samples"] = min(16, max(fewest, trained // 8))
        if settings["evaluation_steps"] is None:
            share = 1 / 8 if settings["early_stopping"] else 1 / 20
            cost = settings["num_evaluation_samples"] / (3 * settings["train_batch_size"])
            settings["evaluation_steps"] = 10 * math.ceil(cost / share / 10)
        return ResolvedConfig(**settings)

    def _with_tuning(self, family: str, max_train_steps: int) -> dict[str, Any]:
        """``tuning``, filled; where there is no stage before it, its steps are the run's."""
        tuning, alone = self.tuning, self.setup != "pivotal"
        if alone and tuning.tuning_steps is None:
            tuning = dataclasses.replace(tuning, tuning_steps=self.max_train_steps)
        resolved = tuning.resolved(self.setup, family, max_train_steps)
        steps = resolved.tuning_steps if alone else max_train_steps
        return {"tuning": resolved, "max_train_steps": steps}


@dataclass(frozen=True, kw_only=True, slots=True)
class ResolvedConfig(InversionConfig):
    """An ``InversionConfig`` whose every setting is known, as training sees it.

    Made by :meth:`InversionConfig.resolved`. Some settings may still be unset: ``initializer_token``
    until one is chosen, ``initializer_file``, ``encoder``, and one of the two rates.
    """

    form: Form = field()  # here as below: no default, it must be known
    initializer: Literal["word", "encoder"] = field()
    num_vectors: int = field()
    num_negative_vectors: int = field()
    training_guidance_scale: float = field()
    dual_prompt_probability: float = field()
    regularization_weight: float = field()
    cross_initialization: bool = field()
    norm_pull: float = field()
    prompt_templates: TemplateSet = field()
    learning_rate_ratio: float = field()
    scale_lr: bool = field()
    lr_scheduler: ScheduleName = field()
    lr_warmup_steps: int = field()
    max_train_steps: int = field()
    train_batch_size: int = field()
    adam_weight_decay: float = field()
    random_flip: bool = field()
    fit: Fit = field()
    interpolation: Interpolation = field()
    backgrounds: Backgrounds = field()
    keep: Literal["best", "last", "average"] = field()
    early_stopping: bool = field()
    stop_threshold: float = field()
    stratified_timesteps: bool = field()
    timestep_bias: float = field()
    timestep_power: float = field()
    evaluation_steps: int = field()
    num_evaluation_samples: int = field()

    def resolved(self, family: str) -> ResolvedConfig:  # noqa: ARG002  (nothing is left to fill)
        """These settings themselves."""
        return self

    @property
    def square_fit(self) -> Fit:
        """``fit``, or "crop" where all pictures have to be squares without bars."""
        return self.fit if self.fit == "squash" else "crop"

    @property
    def wants_initializer(self) -> bool:
        """Whether nothing was given to start from, so that a word has to be chosen."""
        given = self.initializer_token is not None or self.initializer_file is not None
        return self.initializer == "word" and not given

    @property
    def initial_word(self) -> str:
        """``initializer_token``, where a word cannot do without one.

        Raises:
            ConfigError: none was given, and none has been chosen.
        """
        if self.initializer_token is None:
            raise ConfigError(
                "Cannot start the word without an initializer token; pass --initializer-token."
            )
        return self.initializer_token

    def absolute_rate(self, spread: float) -> float:
        """The rate for entries whose standard deviation is ``spread``, by whichever is set."""
        if self.learning_rate is not None:
            return self.learning_rate
        return (self.relative_learning_rate or 0.0) * spread

    @property
    def resolved_tuning(self) -> ResolvedTuning:
        """``tuning``, of a setup that changes the model's weights.

        Raises:
            ConfigError: the setup changes none.
        """
        if not isinstance(self.tuning, ResolvedTuning):
            raise ConfigError(
                f"setup must be one that changes the model's weights ({', '.join(TUNING)}), got "
                f"{self.setup!r}."
            )
        return self.tuning

    @property
    def total_steps(self) -> int:
        """Optimiser steps of all stages together; 0 of a word that an encoder makes at once."""
        if self.form == "encoder":
            return 0
        more = self.resolved_tuning.tuning_steps if self.setup == "pivotal" else 0
        return self.max_train_steps + more
