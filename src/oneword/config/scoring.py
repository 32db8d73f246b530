"""How words are scored and compared."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from oneword.config.checks import check_finite, check_seeds, seeds_of
from oneword.config.drawing import SamplingConfig
from oneword.config.inversion import InversionConfig
from oneword.config.model import ModelConfig, of_the_word
from oneword.config.presets import (
    INVERSION_STEPS,
    PROTOCOLS,
    Fit,
    Interpolation,
    ProtocolName,
    sampler_of,
)
from oneword.errors import require


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluateConfig:
    """Score a concept: image similarity, text similarity, and their references."""

    concept: Path
    """Concept file or run folder."""
    train_data_dir: Path
    """The pictures it was learned from."""
    output_dir: Path = Path("oneword-scores")
    """Folder for the table and the contact sheet."""
    model: ModelConfig = field(default_factory=of_the_word)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    preset: ProtocolName = "default"
    """Source of every setting that is not given: "paper" (the protocol of Gal et al. 2022: 64 pictures per prompt, its DDIM in 50 steps, guidance 5, its prompts, pictures squashed to squares), or "default", which is quicker."""
    prompts: tuple[str, ...] = ()
    """Edit prompts with the placeholder, or with {} in its place; lists of them and files as in oneword generate, such as paper:fig6; none: the preset's, which are of the paper's kinds (place, style, composition)."""
    num_images_per_prompt: int | None = None
    """Pictures per prompt; unset: 16, or 64 with the preset paper."""
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
            require(value is None or value >= 1, f"{name} must be 1 or more, got {value}.")
        num = self.num_images_per_prompt or PROTOCOLS[self.preset]["num_images_per_prompt"]
        check_seeds(self.seed, num)

    def resolved(self, family: str) -> ResolvedEvaluateConfig:
        """Fill every unset setting from the preset, for a model family."""
        given = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        own = PROTOCOLS[self.preset]
        sampling = SamplingConfig(**own["sampling"])
        if self.preset == "paper":
            sampling = dataclasses.replace(sampling, sampler=sampler_of("paper", family))
        known = {
            "sampling": sampling.overlaid(self.sampling),
            "num_images_per_prompt": self.num_images_per_prompt or own["num_images_per_prompt"],
            "fit": own["fit"],
            "interpolation": own["interpolation"],
        }
        return ResolvedEvaluateConfig(**given | known)


@dataclass(frozen=True, kw_only=True, slots=True)
class ResolvedEvaluateConfig(EvaluateConfig):
    """An ``EvaluateConfig`` whose every setting is known; made by :meth:`EvaluateConfig.resolved`.

    Of its sampling, what is unset is the family's, or that of the preset the word was learned with.
    """

    num_images_per_prompt: int = field()
    fit: Fit
    """How training pictures are brought to a square."""
    interpolation: Interpolation
    """How training pictures are brought to the model's size."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ChooseConfig:
    """Pick one of the words that a run has saved, and make it the run's word."""

    run: Path
    """Run folder of oneword train with --save-steps."""
    step: int | None = None
    """Step whose word becomes the run's."""
    by: Literal["loss", "clip", "training"] | None = None
    """Let a score choose: "loss" (the lowest on the fixed batch, among the steps that were scored), "clip" (what each word draws, by the judge); or "training": take back the word that training kept."""
    rank_by: Literal["image", "text", "mean"] | None = None
    """What clip ranks by: similarity to the training pictures, to the prompts, or the mean of the two; unset: the mean where the training pictures are there, else text."""
    prompts: tuple[str, ...] = ()
    """Prompts of the sheet and of the judge, as for oneword generate; none: those of the run's previews."""
    seeds: tuple[str, ...] = ()
    """Seeds, one by one or as ranges, 1 2 3 or 0-7; none: those of the run's previews."""
    batch_size: int = 8
    """Pictures drawn at once; it does not change them."""
    judge: str | None = None
    """CLIP that ranks: hub id or folder; unset: microworld's own judge on microworld, openai/clip-vit-base-patch32 elsewhere."""
    model: ModelConfig = field(default_factory=of_the_word)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)

    def __post_init__(self) -> None:
        require(
            self.step is None or self.by is None,
            f"A word is chosen by its step or by a score, got step {self.step} and by "
            f"{self.by!r}; leave one of them out.",
        )
        require(
            self.rank_by is None or self.by == "clip",
            f"rank_by goes with --by clip, got {self.rank_by!r} without it.",
        )
        require(self.batch_size >= 1, f"batch_size must be 1 or more, got {self.batch_size}.")
        seeds_of(self.seeds)


@dataclass(frozen=True, kw_only=True, slots=True)
class BaselinesConfig:
    """What draws the rows of figures 3 and 5 that are other people's systems."""

    guide: str | None = None
    """CLIP that guides the rows of figure 5, which must not be the judge: hub id or folder; unset: the embedded model's own guide, openai/clip-vit-base-patch16 elsewhere."""
    variations: str | None = None
    """What varies pictures, as --model of oneword baseline variations; unset: the embedded model's projector, karlo elsewhere."""
    palavra: Path | None = None
    """Maps of oneword palavra train, on the CLIP that guides; unset: PALAVRA's rows are not available."""
    vqgan: Path | None = None
    """File of a published VQGAN for VQGAN-CLIP, such as vqgan_imagenet_f16_16384.ckpt; unset: the embedded model's autoencoder, quantised (ours)."""
    vqgan_steps: int | None = None
    """Steps of a picture of VQGAN-CLIP; unset: as of oneword baseline vqgan-clip."""
    unconditional: Path | None = None
    """File of the published unconditional model of pixels for CLIP-guided diffusion, 256x256_diffusion_uncond.pt; unset: the study's model, in its latents (ours)."""
    diffusion_steps: int | None = None
    """Steps of a picture of CLIP-guided diffusion; unset: as of oneword baseline clip-diffusion."""

    def __post_init__(self) -> None:
        for name in ("vqgan_steps", "diffusion_steps"):
            value = getattr(self, name)
            require(value is None or value >= 1, f"{name} must be 1 or more, got {value}.")


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyConfig:
    """Compare ways to find a word: every concept with every setup and seed, scored alike."""

    output_dir: Path = Path("oneword-study")
    """Folder of the study; run the same command again to go on, or with more concepts, setups or seeds to widen it. Also --out."""
    concepts: tuple[str, ...] = ()
    """Folders of pictures, folders of such folders (as DreamBench has them), or on the embedded models held-out concepts by name, or a half of them: test, development."""
    setups: tuple[str, ...] = ("paper",)
    """Setups to compare: names of --setup, bipartite (the word's pictures inverted and drawn anew), or image-only, prompt-only and initializer (references that learn nothing); paper, all, regularization-weights, fig3 and fig5 stand for several at once. The group fig3 (the word beside descriptions and variations of a picture: captions-short, captions-long, variations-captions, variations) also writes pictures.html, a row for each setup and a column for each kind of prompt; fig5 (beside palavra-vqgan-clip, palavra-clip-diffusion, vqgan-clip, clip-diffusion and variations) figure5.html, with a column for each prompt. NAME:SETTING=VALUE,... changes settings of training, such as one-word:learning_rate=0.001; such a row goes by its whole text."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of training and drawing, each a run of its own; microworld draws other training pictures for each."""
    num_pictures: int | None = None
    """Pictures that each concept is learned from, the first ones of its folder; unset: all of them, and five of what the embedded models' world draws."""
    model: ModelConfig = field(default_factory=ModelConfig)
    inversion: InversionConfig = field(default_factory=InversionConfig)
    sampling: SamplingConfig = field(
        default_factory=lambda: SamplingConfig(**PROTOCOLS["paper"]["sampling"])
    )
    baselines: BaselinesConfig = field(default_factory=BaselinesConfig)
    num_inversion_steps: int = INVERSION_STEPS
    """Steps of the setup bipartite, to the noise and back."""
    prompts: str | None = None
    """Evaluation prompts: paper, paper-figures, dreambench or microworld; unset: microworld on the embedded models, paper elsewhere."""
    num_images_per_prompt: int = PROTOCOLS["paper"]["num_images_per_prompt"]
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
    """Concepts of that sweep, or all; none: the first of the study."""
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
        counts = ("num_images_per_prompt", "num_inversion_steps", "batch_size", "num_processes")
        for name in (*counts, "num_pictures", "slots", "workers"):
            value = getattr(self, name)
            require(value is None or value >= 1, f"{name} must be 1 or more, got {value}.")
        for name in ("concepts", "setups", "seeds", "set_sizes", "guidance_scales"):
            value = getattr(self, name)
            twice = sorted({str(v) for v in value if value.count(v) > 1})
            require(
                not twice, f"The {name} must differ from each other, got {', '.join(twice)} twice."
            )
        check_finite(self)
        for seed in self.seeds:  # of training; that of the first picture is a thousand times it
            check_seeds(seed)
            check_seeds(1000 * seed, self.num_images_per_prompt)
        require(
            all(scale >= 0 for scale in self.guidance_scales),
            f"guidance_scales must be 0 or more each, got {list(self.guidance_scales)}.",
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
class UserStudyConfig:
    """Ask people: which pictures of a study are like the training pictures, and which fit a text.

    Source:
        Gal et al. 2022, arXiv:2208.01618, section 5.4.
    """

    study: Path = Path("oneword-study")
    """Folder of a study, as oneword study wrote it."""
    output_dir: Path = Path("oneword-userstudy")
    """Folder for the questionnaires and their key."""
    models: tuple[str, ...] = ()
    """Setups of the study whose pictures are ranked, 3 to 9 (five in the paper); none: all that have pictures of prompts."""
    concepts: tuple[str, ...] = ()
    """Concepts of the study to show; none: all."""
    kinds: tuple[str, ...] = ()
    """Kinds of prompts to show: background, style, composition, property, accessory, photo or plain; none: all but the last two."""
    per_form: int = 10
    """Pages with rankings of each form."""
    forms: int = 60
    """Forms of each of the two questionnaires."""
    checks: int = 1
    """Attention checks of each form, 0 to 3: a copy of a training picture that must come first, or a picture of another text that must come last."""
    seed: int = 0
    """Seed of what is shown where: the same seed makes the same forms."""
    consent: Path | None = None
    """Text file with what people agree to; blank lines part paragraphs. Unset: a short text of our own."""
    url: str | None = None
    """Address of the folder that the forms will be put in on a server, for tasks.csv; unset: their file names."""

    def __post_init__(self) -> None:
        named = len(self.models)
        require(not named or 3 <= named <= 9, f"models must be 3 to 9 setups, got {named}.")
        require(
            len(set(self.models)) == named,
            f"models must name each setup once, got {', '.join(self.models)}.",
        )
        for name, most in (("per_form", 50), ("forms", 1000)):
            value = getattr(self, name)
            require(1 <= value <= most, f"{name} must be 1 to {most}, got {value}.")
        require(0 <= self.checks <= 3, f"checks must be 0 to 3, got {self.checks}.")
        check_seeds(self.seed)
