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
    """Score a word: image similarity, text similarity, and their references."""

    concept: Path
    """Concept file or run folder."""
    train_data_dir: Path
    """The pictures that the word was learned from."""
    output_dir: Path = Path("oneword-scores")
    """Folder for the table and the contact sheet."""
    model: ModelConfig = field(default_factory=of_the_word)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    preset: ProtocolName = "default"
    """Source of all settings that are not given: "paper" (the protocol of Gal et al. 2022) or "default" (quicker). "paper" draws the paper's prompts with its DDIM, 64 pictures per prompt, 50 steps and guidance scale 5, and squashes training pictures to squares."""
    prompts: tuple[str, ...] = ()
    """Edit prompts, with the placeholder token or {} for it; lists and files work as in oneword generate, such as paper:fig6. Without it: the preset's, of the paper's kinds (place, style, composition)."""
    num_images_per_prompt: int | None = None
    """Pictures per prompt (default: 16, or 64 with preset paper)."""
    seed: int = 0
    """First seed."""
    batch_size: int = 16
    """Pictures drawn at once. It does not change the pictures."""
    judge: str | None = None
    """CLIP that scores: hub id or folder (default: microworld's own judge on microworld, openai/clip-vit-base-patch32 elsewhere)."""
    plain_dir: Path | None = None
    """Folder with pictures of the thing alone on a plain background, for a score without backgrounds."""
    replace: bool = False
    """Allow a placeholder token that is already a word of the model."""

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
    """Pick one of the words that a run saved, and make it the run's word."""

    run: Path
    """Run folder of oneword train with --save-steps."""
    step: int | None = None
    """Step whose word becomes the run's word."""
    by: Literal["loss", "clip", "training"] | None = None
    """Choose by a score: "loss" (lowest on the fixed batch, among the steps that were evaluated), "clip" (the judge scores each word's pictures), or "training" (go back to the word that training kept)."""
    rank_by: Literal["image", "text", "mean"] | None = None
    """What clip ranks by: similarity to the training pictures, to the prompts, or the mean of both (default: mean if the training pictures are there, else text)."""
    prompts: tuple[str, ...] = ()
    """Prompts for the sheet and the judge, as in oneword generate. Without it: the run's preview prompts."""
    seeds: tuple[str, ...] = ()
    """Seeds, as numbers or ranges (1 2 3 or 0-7). Without it: the seeds of the run's previews."""
    batch_size: int = 8
    """Pictures drawn at once. It does not change the pictures."""
    judge: str | None = None
    """CLIP that ranks: hub id or folder (default: microworld's own judge on microworld, openai/clip-vit-base-patch32 elsewhere)."""
    model: ModelConfig = field(default_factory=of_the_word)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)

    def __post_init__(self) -> None:
        require(
            self.step is None or self.by is None,
            f"Cannot use --step {self.step} with --by {self.by} because each chooses a word; "
            "leave one of them out.",
        )
        require(
            self.rank_by is None or self.by == "clip",
            f"Cannot use rank_by {self.rank_by!r} without --by clip; pass --by clip.",
        )
        require(self.batch_size >= 1, f"batch_size must be 1 or more, got {self.batch_size}.")
        seeds_of(self.seeds)


@dataclass(frozen=True, kw_only=True, slots=True)
class BaselinesConfig:
    """Models for the rows of figures 3 and 5 that are other people's systems."""

    guide: str | None = None
    """CLIP that guides the rows of figure 5: hub id or folder (default: the embedded model's own guide, openai/clip-vit-base-patch16 elsewhere). It must differ from the judge."""
    variations: str | None = None
    """Model for picture variations, as --model of oneword baseline variations (default: the embedded model's projector; elsewhere karlo, only if its weights are on this machine)."""
    palavra: Path | None = None
    """Maps from oneword palavra train for the guide's CLIP (default: none, which leaves out PALAVRA's rows)."""
    vqgan: Path | None = None
    """File of a published VQGAN for VQGAN-CLIP, such as vqgan_imagenet_f16_16384.ckpt (default: the embedded model's autoencoder, quantised; ours)."""
    vqgan_steps: int | None = None
    """Steps per picture for VQGAN-CLIP (default: as in oneword baseline vqgan-clip)."""
    unconditional: Path | None = None
    """File of the published unconditional pixel model for CLIP-guided diffusion, 256x256_diffusion_uncond.pt (default: the study's model, in its latents; ours)."""
    diffusion_steps: int | None = None
    """Steps per picture for CLIP-guided diffusion (default: as in oneword baseline clip-diffusion)."""

    def __post_init__(self) -> None:
        for name in ("vqgan_steps", "diffusion_steps"):
            value = getattr(self, name)
            require(value is None or value >= 1, f"{name} must be 1 or more, got {value}.")


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyConfig:
    """Compare ways to learn a word: every concept with every setup and seed, all scored alike."""

    output_dir: Path = Path("oneword-study")
    """Folder of the study. Run the same command again to resume, or with more concepts, setups or seeds to extend it. Also --out."""
    concepts: tuple[str, ...] = ()
    """Folders of pictures, or folders of such folders (as in DreamBench). On the embedded models also held-out concepts by name, or one half of them: test or development."""
    setups: tuple[str, ...] = ("paper",)
    """Setups to compare, by name or by group: paper, all, regularization-weights, fig3 or fig5. Names are those of --setup, and bipartite (the word's pictures inverted and redrawn), image-only, prompt-only and initializer (references that learn nothing). fig3 compares the word with captions-short, captions-long, variations-captions and variations, and writes pictures.html: a row per setup, a column per kind of prompt. fig5 compares it with palavra-vqgan-clip, palavra-clip-diffusion, vqgan-clip, clip-diffusion and variations, and writes figure5.html: a column per prompt. NAME:SETTING=VALUE,... changes training settings, such as one-word:learning_rate=0.001. Its row is named by the whole text."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds for training and drawing; each is a run of its own. On microworld each also draws its own training pictures."""
    num_pictures: int | None = None
    """Number of training pictures per concept, taken from the start of its folder (default: all, or five drawn ones for the embedded models' concepts)."""
    model: ModelConfig = field(default_factory=ModelConfig)
    inversion: InversionConfig = field(default_factory=InversionConfig)
    sampling: SamplingConfig = field(
        default_factory=lambda: SamplingConfig(**PROTOCOLS["paper"]["sampling"])
    )
    baselines: BaselinesConfig = field(default_factory=BaselinesConfig)
    num_inversion_steps: int = INVERSION_STEPS
    """Steps of the setup bipartite, to the noise and back."""
    prompts: str | None = None
    """Evaluation prompts: paper, paper-figures, dreambench or microworld (default: microworld on the embedded models, paper elsewhere)."""
    num_images_per_prompt: int = PROTOCOLS["paper"]["num_images_per_prompt"]
    """Pictures per prompt."""
    batch_size: int = 16
    """Pictures drawn at once. It does not change the pictures."""
    judge: str | None = None
    """CLIP that scores: hub id or folder (default: microworld's own judge on microworld, openai/clip-vit-base-patch32 elsewhere)."""
    dino: str | None = None
    """DINO for a second image similarity: hub id, folder or "none" (default: none on microworld, facebook/dino-vits16 elsewhere)."""
    set_sizes: tuple[int, ...] = ()
    """Also learn from sets of these sizes, with the setup one-word. The paper has 1 2 3 5 10 15 25."""
    set_size_concepts: tuple[str, ...] = ()
    """Concepts for the set sizes, or all. Without it: the first one of the study."""
    guidance_scales: tuple[float, ...] = ()
    """Also draw with these guidance scales."""
    guidance_setups: tuple[str, ...] = ("one-word", "pivotal", "bipartite")
    """Setups to draw with these guidance scales."""
    slots: int | None = None
    """Number of words that one process trains at once (default: as many as fit into the GPU's memory, 4 on a CPU)."""
    num_processes: int = 1
    """Number of processes on this machine that share the jobs."""
    cluster: str | None = None
    """Run on Ray: local, auto (the cluster this machine belongs to) or an address. All machines must see the folder."""
    workers: int | None = None
    """Number of workers of the cluster (default: one per GPU, or one per core without GPUs)."""
    retry_failed: bool = False
    """Retry jobs that failed before."""

    def __post_init__(self) -> None:
        counts = ("num_images_per_prompt", "num_inversion_steps", "batch_size", "num_processes")
        for name in (*counts, "num_pictures", "slots", "workers"):
            value = getattr(self, name)
            require(value is None or value >= 1, f"{name} must be 1 or more, got {value}.")
        for name in ("concepts", "setups", "seeds", "set_sizes", "guidance_scales"):
            value = getattr(self, name)
            twice = sorted({str(v) for v in value if value.count(v) > 1})
            require(not twice, f"{name} must differ from each other, got {', '.join(twice)} twice.")
        check_finite(self)
        for seed in self.seeds:  # of training; that of the first picture is a thousand times it
            check_seeds(seed)
            check_seeds(1000 * seed, self.num_images_per_prompt)
        require(
            all(scale >= 0 for scale in self.guidance_scales),
            f"guidance_scales must be 0 or more each, got {list(self.guidance_scales)}.",
        )
        require(bool(self.setups), "setups must name a setup, got none; pass --setups.")
        require(bool(self.seeds), "seeds must name a seed, got none; pass --seeds.")
        require(
            all(size >= 1 for size in self.set_sizes),
            f"set_sizes must be 1 or more each, got {list(self.set_sizes)}.",
        )
        require(
            self.workers is None or self.cluster is not None,
            f"Cannot use --workers {self.workers} without --cluster; pass --cluster.",
        )
        require(
            self.cluster is None or self.num_processes == 1,
            "Cannot use --cluster with --num-processes because each shares out the jobs; leave "
            "one of them out.",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class UserStudyConfig:
    """Ask people: which pictures of a study are like the training pictures, and which fit a text.

    Source:
        Gal et al. 2022, arXiv:2208.01618, section 5.4.
    """

    study: Path = Path("oneword-study")
    """Folder of a study, written by oneword study."""
    output_dir: Path = Path("oneword-userstudy")
    """Folder for the questionnaires and their answer key."""
    models: tuple[str, ...] = ()
    """Setups of the study to rank, 3 to 9 (five in the paper). Without it: all that have pictures of prompts."""
    concepts: tuple[str, ...] = ()
    """Concepts of the study to show. Without it: all."""
    kinds: tuple[str, ...] = ()
    """Kinds of prompts to show: background, style, composition, property, accessory, photo or plain. Without it: all but photo and plain."""
    per_form: int = 10
    """Number of ranking pages per form."""
    forms: int = 60
    """Number of forms for each of the two questionnaires."""
    checks: int = 1
    """Number of attention checks per form, 0 to 3. A check shows a copy of a training picture that must come first, or a picture of another text that must come last."""
    seed: int = 0
    """Random seed of what is shown where. The same seed makes the same forms."""
    consent: Path | None = None
    """Text file with the consent text (default: a short text of our own). Blank lines separate paragraphs."""
    url: str | None = None
    """URL of the folder on a server that will hold the forms, for tasks.csv (default: none, only file names)."""

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
