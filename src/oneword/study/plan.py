"""The grid of a study: its setups, its jobs, and what they cost."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

from oneword._files import FormError, parsed
from oneword.config.checks import check_seeds
from oneword.config.inversion import InversionConfig
from oneword.config.model import is_embedded
from oneword.config.presets import SETUPS
from oneword.config.scoring import StudyConfig
from oneword.config.tuning import TUNING, TuningConfig
from oneword.config.variations import CANDIDATES, VARIATION_CANDIDATES
from oneword.errors import ConfigError
from oneword.generation.generate import check_negative_prompt
from oneword.prompts import PLAIN_PROMPT
from oneword.study import subjects
from oneword.study.prompt_sets import PLAIN, PROMPT_SETS, prompts_for
from oneword.study.subjects import Subject


BASE = "one-word"
"""The method; all other setups are compared with it."""
BIPARTITE = "bipartite"
"""The method's word, with which its training pictures are inverted and drawn again."""
CAPTIONS = ("captions-short", "captions-long")
REFERENCES = ("image-only", "prompt-only", "initializer", *CAPTIONS)
"""Rows without training."""
VARIED = ("variations-captions", "variations")
"""A model guided by a picture: given a caption, and shown a training picture."""
GUIDED = ("palavra-vqgan-clip", "palavra-clip-diffusion", "vqgan-clip", "clip-diffusion")
"""Drawn towards a CLIP that never scores: PALAVRA's word, then text with pictures."""
BASELINES = (*GUIDED, *VARIED)
"""Other people's systems, implemented in ``methods.METHODS``."""
UNTRAINED = (*REFERENCES, *BASELINES)
"""Setups that learn no word of the study's model."""
PAPER = (
    BASE, "two-words", "three-words", "progressive", "regularized", "per-image", "high-lr",
    "low-lr", *CAPTIONS, "image-only", "prompt-only",
)  # fmt: skip
"""Rows of figure 10 of Gal et al. 2022, arXiv:2208.01618."""
FIGURE_3, FIGURE_5 = "fig3", "fig5"
"""Groups of setups whose pictures are shown side by side, as in the paper's figures 3 and 5."""
GROUPS = {
    "paper": PAPER,
    FIGURE_3: ("image-only", BASE, *CAPTIONS, *VARIED),
    FIGURE_5: ("image-only", "prompt-only", *GUIDED, "variations", BASE),
    "all": tuple(dict.fromkeys((*SETUPS, BIPARTITE, *REFERENCES))),
    "regularization-weights": tuple(
        "regularized"
        if weight == SETUPS["regularized"]["regularization_weight"]
        else f"regularized:regularization_weight={weight:g}"
        for weight in (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
    ),
}
"""Names that stand for several setups."""
_OWN = (
    "setup", "seed", "initializer_token", "initializer_file", "learnable_property",
    "placeholder_token",
)  # fmt: skip
_TUNED = {f.name for f in dataclasses.fields(TuningConfig)}
_PATHS = {
    name
    for kind in (InversionConfig, TuningConfig)
    for name, hint in get_type_hints(kind).items()
    if Path in (hint, *get_args(hint))
}


@dataclass(frozen=True, slots=True)
class Arm:
    """A setup in a study."""

    label: str
    """As the user wrote it; it identifies rows."""
    setup: str
    changes: tuple[tuple[str, Any], ...] = ()
    """Training settings that override the setup's own."""

    @property
    def trains(self) -> bool:
        return self.setup not in UNTRAINED


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """One job: a concept learned by a setup with a seed, drawn and scored."""

    concept: str
    setup: str
    """Label of its arm."""
    seed: int
    num_pictures: int | None = None
    """Number of pictures in the set-size sweep; ``None``: the concept's own number."""

    @property
    def name(self) -> str:
        """Name of its files."""
        parts = [self.concept, slug(self.setup), f"seed{self.seed}"]
        return "--".join(parts + ([f"n{self.num_pictures}"] if self.num_pictures else []))

    @property
    def run(self) -> str:
        """Name of its training run; setups that only use a word share the word's."""
        word = dataclasses.replace(self, setup=BASE) if self.setup == BIPARTITE else self
        return word.name


def slug(label: str) -> str:
    """A setup's label as part of a file name."""
    return re.sub(r"[^A-Za-z0-9.+-]+", "_", label)


def arm(label: str) -> Arm:
    """Read ``NAME`` or ``NAME:SETTING=VALUE,...``.

    Raises:
        ConfigError: there is no such setup or setting, or a reference has settings.
    """
    setup, _, settings = label.partition(":")
    known = (*SETUPS, BIPARTITE, *(n for n in UNTRAINED if n not in SETUPS))
    if setup not in known:
        raise ConfigError(f"A setup must be one of {', '.join(known)}, got {setup!r}.")
    names = {f.name for f in dataclasses.fields(InversionConfig)} - {*_OWN, "tuning"}
    if setup in TUNING:
        names |= _TUNED
    changes = []
    for item in settings.split(",") if settings else []:
        name, equals, text = item.partition("=")
        name = name.strip().replace("-", "_")
        if name not in names or not equals or setup in (*UNTRAINED, BIPARTITE):
            raise ConfigError(
                "A setup's changes must be training settings, such as "
                f"one-word:learning_rate=0.001, got {label!r}."
            )
        changes.append((name, Path(text.strip()) if name in _PATHS else _value(text.strip())))
    found = Arm(label, setup, tuple(changes))
    if found.setup in SETUPS:  # the settings' own checks
        _changed(InversionConfig(setup=setup), found.changes)
    return found


def _changed(config: InversionConfig, changes: Sequence[tuple[str, Any]]) -> InversionConfig:
    """Apply a setup's changes to settings; those about weights are in a separate part."""
    own = {name: value for name, value in changes if name not in _TUNED}
    tuned = {name: value for name, value in changes if name in _TUNED}
    return dataclasses.replace(config, tuning=dataclasses.replace(config.tuning, **tuned), **own)


def _rates(given: InversionConfig) -> dict[str, float | None]:
    """The study's rate is the method's; setups keep their ratio to it, or their own rate."""
    own = SETUPS[given.setup]
    names = ("learning_rate", "relative_learning_rate")
    rates = {n: rate for n in names if (rate := getattr(given, n)) is not None}
    if "learning_rate" in own:
        return dict.fromkeys(rates)
    ratio = own.get("learning_rate_ratio", 1.0) if given.learning_rate_ratio is None else 1.0
    return {name: ratio * rate for name, rate in rates.items()}


def _value(text: str) -> Any:
    try:
        return parsed(text)
    except FormError:
        return text


class Study:
    """A study's plan, made from its settings.

    Args:
        config: The settings.

    Raises:
        ConfigError: a concept, a setup or the prompt set does not exist, or a setting is given that
            the study sets itself.
        PromptError: the negative prompt names a word that is not loaded.
    """

    def __init__(self, config: StudyConfig) -> None:
        self.config = config
        name = config.model.model
        self.prompt_set = config.prompts or ("microworld" if is_embedded(name) else "paper")
        if self.prompt_set not in PROMPT_SETS:
            raise ConfigError(
                f"prompts must be one of {', '.join(PROMPT_SETS)}, got {self.prompt_set!r}."
            )
        own = (*_OWN, "initializer")
        given = [n for n in own if getattr(config.inversion, n) != getattr(InversionConfig(), n)]
        if given:
            raise ConfigError(
                f"Cannot set {', '.join(given)} because the study sets it for each job; leave it "
                "out (--setups and --seeds take several)."
            )
        scale, steps = config.sampling.guidance_scale, config.sampling.num_inference_steps
        if scale is None or steps is None:
            raise ConfigError(
                "Cannot run a study without one guidance scale and one number of steps, got "
                f"guidance_scale {scale} and num_inference_steps {steps}; pass both."
            )
        self.guidance_scale, self.num_inference_steps = scale, steps
        # references are drawn without the word
        check_negative_prompt(
            config.sampling.negative_prompt, absent=[config.inversion.placeholder_token]
        )
        labels = [n for label in config.setups for n in GROUPS.get(label, (label,))]
        self.arms = {label: arm(label) for label in labels}
        if len({slug(label) for label in self.arms}) < len(self.arms):
            raise ConfigError(f"setups must differ in their names, got {', '.join(self.arms)}.")
        self.subjects = {
            s.name: s for s in subjects.find(config.concepts, name, config.num_pictures)
        }
        if any(s.held_out is not None for s in self.subjects.values()):
            for seed in config.seeds:  # the world's pictures are drawn by numbers from 0 on
                check_seeds(seed, least=0)
        self.specs, self.notes = self._specs()

    @property
    def folder(self) -> Path:
        return self.config.output_dir

    @property
    def wants_pictures(self) -> bool:
        """Whether pictures are shown side by side on a page."""
        return bool(self.figures)

    @property
    def figures(self) -> tuple[str, ...]:
        """The requested figures of the paper; each has a page."""
        return tuple(name for name in (FIGURE_3, FIGURE_5) if name in self.config.setups)

    @property
    def baselines(self) -> tuple[str, ...]:
        """Labels of the setups that are other people's systems."""
        return tuple(label for label, arm in self.arms.items() if arm.setup in BASELINES)

    def candidates(self, setup: str) -> int:
        """Number of pictures per prompt among which the best is shown, for a setup's label.

        Source:
            Gal et al. 2022, arXiv:2208.01618, section 4.7: 16, and 6 of DALL-E 2.
        """
        most = VARIATION_CANDIDATES if self.arms[setup].setup in VARIED else CANDIDATES
        return min(self.config.num_images_per_prompt, most)

    def _specs(self) -> tuple[list[Spec], list[str]]:
        """All jobs, ordered by seed so that partial results are comparable, and those left out."""
        config, notes = self.config, []
        specs = [
            Spec(concept=concept, setup=label, seed=seed)
            for seed in config.seeds
            for label in self.arms
            for concept, subject in self.subjects.items()
            if self.arms[label].setup not in subject.left_out
        ]
        for setup in dict.fromkeys(arm.setup for arm in self.arms.values()):
            silent = [name for name, own in self.subjects.items() if setup in own.left_out]
            if silent:
                notes.append(
                    f"The setup {setup} is left out for artists' things, which have neither noun "
                    f"nor descriptions: {', '.join(silent)}."
                )
        swept = config.set_size_concepts or tuple(self.subjects)[:1]
        swept = tuple(self.subjects) if swept == ("all",) else swept
        for concept in swept if config.set_sizes else ():
            if concept not in self.subjects:
                raise ConfigError(
                    f"set_size_concepts must be concepts of the study, got {concept!r}; the study "
                    f"has {', '.join(self.subjects)}."
                )
            sizes = [n for n in config.set_sizes if self.subjects[concept].most(n)]
            if len(sizes) < len(config.set_sizes):
                missing = ", ".join(str(n) for n in config.set_sizes if n not in sizes)
                notes.append(
                    f"{concept} has {self.subjects[concept].num_pictures} pictures; the set sizes "
                    f"{missing} are left out."
                )
            specs += [
                Spec(concept=concept, setup=label, seed=seed, num_pictures=size)
                for seed in config.seeds
                for label in (BASE, *(a for a in _SWEPT_REFERENCES if a in self.arms))
                if label not in self.subjects[concept].left_out
                for size in (sizes if label == BASE else sizes[-1:])
            ]
        if config.set_sizes:
            self.arms.setdefault(BASE, arm(BASE))
        return specs, notes

    def most_pictures(self, subject: Subject) -> int:
        """The largest set of the sweep, which its image similarity is measured against."""
        return max((n for n in self.config.set_sizes if subject.most(n)), default=0)

    def arm(self, spec: Spec) -> Arm:
        """The setup of a job."""
        return self.arms[spec.setup]

    def drawing_seeds(self, seed: int) -> list[int]:
        """Seeds of the pictures of each prompt, for a seed of training."""
        return [1000 * seed + i for i in range(self.config.num_images_per_prompt)]

    def guidance_scales(self, spec: Spec) -> tuple[float, ...]:
        """The protocol's scale, then those of the sweep if the job's setup takes part."""
        main = self.guidance_scale
        setup = self.arm(spec).setup
        swept = setup in self.config.guidance_setups and not spec.num_pictures
        swept = swept and setup not in BASELINES  # each has its own scale
        more = self.config.guidance_scales if swept else ()
        return (main, *(scale for scale in more if scale != main))

    def templates(self, subject: Subject) -> dict[str, str]:
        """Templates that are drawn for a subject, with their kinds."""
        found = prompts_for(self.prompt_set, subject.kind).kinds
        plain = subject.held_out is not None and not subject.held_out.is_style
        return found | ({PLAIN_PROMPT: PLAIN} if plain else {})

    def inversion(self, spec: Spec) -> InversionConfig:
        """Training settings of a job."""
        subject, found = self.subjects[spec.concept], self.arm(spec)
        encodes = found.setup == "encoder" or ("initializer", "encoder") in found.changes
        given = dataclasses.replace(
            self.config.inversion,
            setup=found.setup if found.setup in SETUPS else BASE,
            seed=spec.seed,
            initializer_token=None if encodes else subject.noun,
            learnable_property=subject.learnable_property,
        )
        return _changed(dataclasses.replace(given, **_rates(given)), found.changes)

    def chunks(self, specs: Sequence[Spec], hands: int) -> list[list[Spec]]:
        """Groups of jobs for one process, each of the same setup so that they can share batches.

        Args:
            specs: The jobs left to do.
            hands: Number of processes or workers.
        """
        slots = self.config.slots or _SLOTS
        size = max(1, min(-(-len(specs) // hands), _ROUNDS * slots))
        groups: dict[Any, list[Spec]] = {}
        for spec in specs:
            setup = BASE if self.arm(spec).setup == BIPARTITE else spec.setup
            groups.setdefault((spec.seed, setup, bool(spec.num_pictures)), []).append(spec)
        found: list[list[Spec]] = []
        for group in groups.values():
            by_run: dict[str, list[Spec]] = {}
            for spec in group:
                by_run.setdefault(spec.run, []).append(spec)
            chunk: list[Spec] = []
            for sharing in by_run.values():  # jobs that share a word stay together
                if chunk and len(chunk) + len(sharing) > size:
                    found.append(chunk)
                    chunk = []
                chunk = chunk + sharing
            found.append(chunk)
        return found

    # --- cost

    def training_passes(self, spec: Spec, family: str) -> float:
        """Cost of a job's training, in forward passes of one sample through the denoiser.

        A backward pass counts as two forward passes. Class pictures are counted with the protocol's
        sampling, whatever the family uses.
        """
        if not self.arm(spec).trains:
            return 0.0
        config = self.inversion(spec).resolved(family)
        steps, extra = config.total_steps, 0.0
        if config.setup in TUNING:
            tuning = config.resolved_tuning
            if tuning.prior_loss_weight:  # as many class pictures in each step
                extra += 3.0 * steps * config.train_batch_size
                drawn = 0 if tuning.class_data_dir else tuning.num_class_images
                extra += 2.0 * drawn * self.num_inference_steps
        if config.form == "dreamartist":  # each sample with the negative word too
            extra += 3.0 * steps * config.train_batch_size
        scorings = 1 + steps // config.evaluation_steps
        return (
            3.0 * steps * config.train_batch_size + extra + scorings * config.num_evaluation_samples
        )

    def pictures(self, spec: Spec) -> int:
        """Number of pictures that a job draws."""
        if self.arm(spec).setup == "image-only":
            return 0
        templates = len(self.templates(self.subjects[spec.concept]))
        return self.config.num_images_per_prompt * templates * len(self.guidance_scales(spec))

    def drawing_passes(self, spec: Spec) -> float:
        """As ``training_passes``, for a job's drawing; guidance takes two passes per step."""
        if self.arm(spec).setup != BIPARTITE:
            return self.num_inference_steps * 2.0 * self.pictures(spec)
        pictures = min(self.config.num_images_per_prompt, spec.num_pictures
                       or self.subjects[spec.concept].num_pictures)  # fmt: skip
        inverted = pictures * len(self.guidance_scales(spec))
        return self.config.num_inversion_steps * (2.0 * self.pictures(spec) + inverted)


_SWEPT_REFERENCES = ("image-only", "prompt-only", *CAPTIONS)
_SLOTS = 4  # words that share a batch where nothing is said
_ROUNDS = 4  # a chunk's length in slots: long enough that batches stay full, short enough to share
