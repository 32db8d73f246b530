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
    """How one concept is learned. What is not given is the preset's for the model's family."""

    placeholder_token: str = "S*"
    """The new word, without spaces, as it will stand in prompts."""
    initializer_token: str | None = None
    """Existing word(s) whose embedding the new word starts from; unset: common nouns are ranked by their loss on the pictures."""
    initializer_file: Path | None = None
    """File of a learned word that the new one starts from, of any tool, its run folder, or OWNER/NAME on the Hub; excludes initializer_token."""
    initializer: Literal["word", "encoder"] | None = None
    """What the new word starts from: an existing word or a learned file ("word"), or what an encoder makes of the pictures at once ("encoder")."""
    encoder: Path | None = None
    """Encoder of initializer or setup "encoder", from oneword encoder train: its folder or file; unset: the embedded model's own."""
    setup: str = "one-word"
    """Way to find the word: "one-word" is the method, the others are the paper's comparisons and later work. What is given beside it wins."""
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
    optimizer: OptimizerName = "adamw"
    """What makes the steps: AdamW, or "prodigy" (finds its own rate), "lion", "adamw8bit" or "adafactor" of other libraries."""
    learning_rate: float | None = None
    """Rate of the optimiser, absolute, in units of the embedding table's entries. Of prodigy it is a factor on what it finds."""
    relative_learning_rate: float | None = None
    """Rate in units of the standard deviation of the vocabulary's entries; excludes learning_rate."""
    learning_rate_ratio: float | None = None
    """Factor on the rate of preset and optimiser, where neither of the two rates is given."""
    scale_lr: bool | None = None
    """Multiply the rate by the batch size, as the authors' code does."""
    lr_scheduler: ScheduleName | None = None
    """Course of the rate over max_train_steps."""
    lr_warmup_steps: int | None = None
    """Steps over which the rate rises from 0 (not with "constant" and "piecewise_constant")."""
    lr_num_cycles: int = 1
    """Times that the rate falls from its full height ("cosine_with_restarts")."""
    lr_power: float = 1.0
    """Exponent of its fall ("polynomial")."""
    lr_step_rules: str = ""
    """Factors on the rate, each with the step that it holds until, and the last ("piecewise_constant"): "1:100,0.1:200,0.01"."""
    max_train_steps: int | None = None
    """Most optimiser steps; the run may end sooner. A run folder goes on where this is raised."""
    train_batch_size: int | None = None
    """Samples of this concept per step."""
    adam_beta1: float = 0.9
    """First-moment decay of AdamW, adamw8bit and prodigy, in [0, 1)."""
    adam_beta2: float = 0.999
    """Second-moment decay of AdamW, adamw8bit and prodigy, in [0, 1)."""
    adam_weight_decay: float | None = None
    """Decay of the rows towards zero; 0 in every preset but "paper" and "release"."""
    adam_epsilon: float = 1e-8
    """Epsilon of AdamW, adamw8bit and prodigy."""
    random_flip: bool | None = None
    """Mirror each picture half of the time. Turn it off for text, logos and asymmetric things."""
    fit: Fit | None = None
    """How pictures that are not square are taken. The middle square ("crop"), squashed to a square ("squash"), whole between bars that do not count ("pad"), or in sizes of the model's area that come near to their own aspect ("buckets")."""
    interpolation: Interpolation | None = None
    """How pictures are brought to the model's size."""
    backgrounds: Backgrounds | None = None
    """What pictures with transparency are set on, another ground each step: plain colours, places of the embedded model's world, both there and colours elsewhere (auto), or always white (none)."""
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
    loss_type: Literal["l2", "huber"] = "l2"
    """What a cell's error counts: its square, or "huber", by which large errors count less."""
    huber_c: float = 0.1
    """Error from which "huber" is linear, in units of the noise."""
    huber_schedule: Literal["constant", "snr"] = "snr"
    """Course of huber_c over the diffusion time: the same, or from 1 where there is no noise down to huber_c ("snr")."""
    snr_gamma: float = 0.0
    """Signal-to-noise ratio above which a sample counts less (min-SNR); 5 in its paper; 0: all count alike."""
    noise_offset: float = 0.0
    """Standard deviation of a shift of each channel of the noise as a whole, in [0, 1]; 0.05 to 0.1 elsewhere; 0: none."""
    caption_dropout_rate: float = 0.0
    """Share of the samples whose sentence is the word alone, in [0, 1]."""
    caption_tag_dropout_rate: float = 0.0
    """Share of a caption's tags, the parts between commas, that are left out each time, in [0, 1]; never the word's own."""
    shuffle_caption: bool = False
    """Put a caption's tags into another order each time."""
    keep_tokens: int = 0
    """Tags at a caption's beginning that are neither left out nor moved."""
    random_crops: int = 0
    """Random windows of each picture, at most 64, that are encoded like it; a sample shows one of them or the picture itself; 0: none."""
    crop_scale: float = 0.8
    """Least share of a picture's sides that such a window keeps, in (0, 1)."""
    evaluation_steps: int | None = None
    """Steps between two scorings of the fixed evaluation batch; unset: 10 on microworld, elsewhere so many that scoring costs at most a twentieth of the training, or an eighth where it decides when to stop."""
    num_evaluation_samples: int | None = None
    """Size of the fixed evaluation batch; unset: 16, or fewer, down to 2, in a run so short that scoring 16 before the first step and after the last would cost more than a quarter of the training, unless evaluation_steps is given."""
    seed: int = 0
    """Seed of every draw of this concept."""
    tuning: TuningConfig = field(default_factory=TuningConfig)

    def __post_init__(self) -> None:
        check_finite(self)
        check_seeds(self.seed)
        check_placeholder(
            self.placeholder_token, hint="; pass for example --placeholder-token '<my-cat>'"
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
                # each prompt is kept as it was read
                "shuffle_caption": self.shuffle_caption,
                "caption_tag_dropout_rate": self.caption_tag_dropout_rate,
            }
            require(
                not any(others.values()),
                "Vectors in the text encoders' output must stand alone, got vectors_at 'output' "
                f"with {', '.join(n for n, given in others.items() if given)}; leave one of them "
                "out.",
            )
        self._check_start()
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
            "early_stopping would end training before the last vectors come, got it with "
            "progressive; leave one of them out.",
        )
        if self.prompt_templates is not None:
            require(
                self.prompt_templates.startswith("style") == (self.learnable_property == "style"),
                f"Templates {self.prompt_templates!r} do not fit learnable_property "
                f"{self.learnable_property!r}; choose a set of the same kind.",
            )

    def _check_start(self) -> None:
        """Refuse a start from several things at once, or from one that the word cannot have.

        Raises:
            ConfigError: it is so.
        """
        encodes = "encoder" in (self.initializer, self.setup)
        require(
            self.encoder is None or encodes,
            f"An encoder must go with initializer or setup encoder, got {self.encoder} without "
            "one of them; pass --initializer encoder.",
        )
        alone = "encoder" in (self.form, self.setup)
        require(
            not alone or (encodes and self.initializer != "word"),
            "A word that is an encoder's alone must start from it, got initializer "
            f"{self.initializer}; leave it out, or pass --setup encoder alone.",
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
        what, name = "A learned file", "initializer_file"
        if encodes:
            what, name = "An encoder", f"{'initializer' if self.initializer else 'setup'} encoder"
            others = {"initializer_file": self.initializer_file is not None} | others
        require(
            not any(others.values()),
            f"{what} must be all that the new word starts from, got {name} with "
            f"{', '.join(n for n, given in others.items() if given)}; leave one of them out.",
        )

    def _check_optimizer(self) -> None:
        """Refuse settings that an optimiser of another library cannot work with.

        Raises:
            ConfigError: there is one.
        """
        require(
            self.optimizer == "adamw" or self.setup not in TUNING,
            "Setups that change the model's weights are trained with adamw, got optimizer "
            f"{self.optimizer} with setup {self.setup}; leave one of them out.",
        )
        if self.optimizer == "prodigy":
            own = {
                "relative_learning_rate": self.relative_learning_rate is not None,
                "scale_lr": bool(self.scale_lr),
            }
            require(
                not any(own.values()) and self.learning_rate != 0,
                "prodigy finds its own rate, and learning_rate is a positive factor on it, got "
                f"{', '.join(n for n, given in own.items() if given) or 'learning_rate 0'}; leave "
                "that out.",
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
                "The word must have an initializer token to start from, got none; pass "
                "--initializer-token."
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
                f"setup must be one of {', '.join(TUNING)}, which change the model's weights, got "
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
