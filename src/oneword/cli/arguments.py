"""What each command takes: a dataclass of its options, whose docstrings are its help.

Nothing here may load torch, or a library that takes long to load: ``--help`` reads this file alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import tyro

from oneword.config.annotating import AnnotateConfig
from oneword.config.baselines import ClipDiffusionConfig
from oneword.config.checks import check_seeds
from oneword.config.drawing import EditConfig, GenerateConfig, SamplingConfig
from oneword.config.encoder import EncoderConfig
from oneword.config.model import ModelConfig, of_the_word
from oneword.config.palavra import PalavraFindConfig, PalavraTrainConfig, PalavraWordConfig
from oneword.config.runs import ComposeConfig, DebiasConfig, TrainConfig
from oneword.config.scoring import ChooseConfig, EvaluateConfig, StudyConfig, UserStudyConfig
from oneword.config.variations import ProjectorConfig, VariationsConfig
from oneword.config.vqgan_clip import VQGANCLIPConfig
from oneword.config.web import WebConfig
from oneword.errors import require


Embedded = Literal["microworld", "microworld-nano"]
HeldOutName = Literal[
    "gold-mug", "parrot", "midnight-teapot", "clown-fish", "candy-house", "circus-bus", "racer",
    "pirate-boat", "rose-vase", "picnic-basket", "royal-chair", "disco-lamp", "fairy-mushroom",
    "sunny-ball", "parade-drum", "wizard-hat", "snowman", "rocket", "cactus", "windmill", "guitar",
    "dinosaur", "pineapple", "anchor", "lantern", "octopus", "bicycle", "igloo", "neon",
    "blueprint", "mosaic", "halftone", "stained-glass", "duotone", "embroidery",
    "captain-whiskers", "professor-hop", "sir-shell", "rudy", "queen-feather", "bolt",
    "mister-mittens", "duke-spot",
]  # fmt: skip
Profession = Literal["doctor", "nurse", "baker", "farmer", "builder", "teacher"]
Look = Literal[
    "flat sticker", "line icon", "classic emoji", "glossy sticker", "classic first edition"
]  # fmt: skip
Stage = Literal["vae", "clip", "judge", "oracle", "latents", "denoiser", "guide"]
Layout = Literal[
    "oneword",
    "diffusers",
    "comfyui",
    "a1111",
    "forge",
    "kohya",
    "invokeai",
    "onetrainer",
    "authors",
]


class _Seeded:
    """Arguments with a seed of the embedded model's world, which counts from 0."""

    def __post_init__(self) -> None:
        check_seeds(cast("Any", self).seed, least=0)


@dataclass(frozen=True, kw_only=True)
class DemoArguments:
    """Learn a held-out thing from five shipped pictures, or your own one, draw with the word, score it."""

    concept: Literal["gold-mug", "parrot", "snowman"] = "gold-mug"
    """What to learn: things that the embedded model has never seen."""
    picture: Path | None = None
    """A picture of your own to learn in their place, best a transparent PNG of a mascot or sticker: it is set on other grounds at each step."""
    output_dir: Path = Path("oneword-demo")
    """Folder for everything; run the same command again to go on or to score anew."""
    seed: int = 0
    """Seed of the training and first seed of the pictures."""
    num_images_per_prompt: int = 8
    """Pictures drawn for each prompt of each row of the scores."""
    json: Path | None = None
    """File for the scores."""

    def __post_init__(self) -> None:
        require(
            self.num_images_per_prompt >= 1,
            f"num_images_per_prompt must be 1 or more, got {self.num_images_per_prompt}.",
        )
        check_seeds(self.seed, self.num_images_per_prompt)


@dataclass(frozen=True, kw_only=True)
class _Training(TrainConfig):
    """What one word and many have in common."""

    dry_run: bool = False
    """Print everything that would be done, and stop."""
    preview_pictures: bool = False
    """Write a sheet of what the model will see (cut, masks, captions), and stop; of the model only its settings are read."""
    json: Path | None = None
    """File for the outcome in numbers."""


@dataclass(frozen=True, kw_only=True)
class TrainArguments(_Training):
    """Learn a word from the pictures in a folder. Run the same command again to resume.

    Many words at once: oneword train --jobs FOLDER_OF_FOLDERS (see oneword train --jobs . --help).
    """

    push_to_hub: bool = False
    """Upload the word with its card and last preview to the Hub when it is learned."""
    hub_model_id: str | None = None
    """Repository of push_to_hub, OWNER/NAME, or NAME for one of your own; unset: named as the run folder."""
    hub_token: str | None = None
    """Token of push_to_hub that may write; unset: that of hf auth login or HF_TOKEN."""
    save_as_full_pipeline: bool = False
    """Write the whole pipeline with the word in it into the run folder as well, for tools that load pipelines and no word's file (gigabytes)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.mirror is None or not self.save_as_full_pipeline,
            "A mirror holds the run and no model, got save_as_full_pipeline with --mirror; leave "
            "one of them out.",
        )


@dataclass(frozen=True, kw_only=True)
class JobsArguments(_Training):
    """Learn many words at once. Run the same command again to resume.

    Every other option holds for all jobs. Each word has a run folder of its own in --output-dir,
    and a job that cannot be trained fails alone.
    """

    jobs: Path = Path()
    """Folder with a folder of pictures for each word, or a TOML file with a [[jobs]] table for each, whose keys are options of oneword train."""
    slots: str = "auto"
    """Words that train at once in one batch; auto: as many as a GPU's memory holds, 4 on a CPU."""
    cluster: str | None = None
    """Train on Ray: local, auto (the cluster this machine belongs to), or an address. All machines must see the folders, or --mirror for what is written."""
    workers: int | None = None
    """Workers of the cluster; unset: one for each GPU, or for each core where there is none."""
    train_data_dir: Annotated[Path, tyro.conf.Suppress] = Path()
    num_processes: int = 1
    """For one word alone: many are shared among processes by --cluster local --workers N."""


@dataclass(frozen=True, kw_only=True)
class AnnotateArguments(AnnotateConfig):
    """Caption pictures and mark the thing in them: oneword pictures FOLDER --caption-with MODEL.

    They lie beside the pictures, where training finds them; a sheet shows them all. Correct them.
    """

    folder: tyro.conf.Positional[Path]
    """Folder with the pictures."""


@dataclass(frozen=True, kw_only=True)
class GenerateArguments(GenerateConfig):
    """Draw pictures: every prompt with every seed. Each PNG carries what made it."""

    json: Path | None = None
    """File for the list of pictures with their settings."""


@dataclass(frozen=True, kw_only=True)
class EditArguments(EditConfig):
    """Edit a picture: inside a mask, drawn over as a whole, or inverted and drawn again."""

    picture: tyro.conf.Positional[Path]
    """The picture to edit."""
    json: Path | None = None
    """File for the list of edits with their settings."""


@dataclass(frozen=True, kw_only=True)
class EvaluateArguments(EvaluateConfig):
    """Score a concept beside its initialiser, the best existing noun and the training pictures."""

    json: Path | None = None
    """File for the scores."""


@dataclass(frozen=True, kw_only=True)
class ChooseArguments(ChooseConfig):
    """Pick one of the words that a run has saved on its way: oneword choose RUN --step 500.

    Without a step or a score, draws all of them on one sheet and lists them with their losses.
    """

    run: tyro.conf.Positional[Path]
    """Run folder of oneword train with --save-steps."""
    json: Path | None = None
    """File for the list of words with their losses and scores."""


@dataclass(frozen=True, kw_only=True)
class StudyArguments(StudyConfig):
    """Compare ways to find a word, over concepts and seeds, by the paper's protocol.

    Run the same command again to go on; the report is written anew each time.
    """

    prompts: Literal["paper", "paper-figures", "dreambench", "microworld"] | None = None
    """Evaluation prompts; unset: microworld on the embedded models, paper elsewhere."""
    dry_run: bool = False
    """Print the plan and its cost, from a timing of a few steps and pictures, and stop."""
    card_tflops: float = 300.0
    """Rate at which the hours of a GPU are reckoned on a machine without one, TFLOP/s: about a third of what an H100 does at most in bf16."""
    rows: Path | None = None
    """Take the rows of this results.jsonl (or .gz) in as done jobs first: the report of kept rows, or a study that goes on from them."""
    report: bool = False
    """Write the report of what is done, and stop."""
    markdown: Path | None = None
    """Page to put the results into, between the lines <!-- study: begin --> and <!-- study: end -->; its figures and results.jsonl.gz go into --figures-dir."""
    figures_dir: Path | None = None
    """Folder for the figures and rows of --markdown; unset: beside the page, with its name."""
    json: Path | None = None
    """File for the plan, or for the results in short."""

    def __post_init__(self) -> None:
        StudyConfig.__post_init__(self)
        require(
            self.card_tflops > 0, f"card_tflops must be greater than 0, got {self.card_tflops}."
        )


@dataclass(frozen=True, kw_only=True)
class WebArguments(WebConfig):
    """Open the page: teach, draw, edit and keep words in the browser. Ctrl-C ends it."""


@dataclass(frozen=True, kw_only=True)
class UserStudyMakeArguments(UserStudyConfig):
    """Write both questionnaires about a study's pictures: by likeness, and by match to a text."""


@dataclass(frozen=True, kw_only=True)
class UserStudyReadArguments:
    """Check people's answers, and say how the models rank, with intervals, tests and a figure."""

    answers: tyro.conf.Positional[tuple[Path, ...]]
    """Answer files, folders of them, or the answers.sqlite of oneword web."""
    forms: Path = Path("oneword-userstudy")
    """Folder of the questionnaires, with their key."""
    output_dir: Path = Path("oneword-userstudy-results")
    """Folder for the report, the figure and the tables."""
    json: Path | None = None
    """File for the numbers, besides results.json of that folder."""


@dataclass(frozen=True, kw_only=True)
class UserStudyCaptionsArguments:
    """Write a page on which people describe a thing; with --answers, its descriptions.json."""

    pictures: tyro.conf.Positional[Path]
    """Folder of the thing's pictures, four or more."""
    answers: tuple[Path, ...] = ()
    """Answer files of that page, or the answers.sqlite of oneword web: together five short and five long descriptions, which are written beside the pictures."""
    output_dir: Path = Path("oneword-userstudy")
    """Folder for the page."""
    each: int = 5
    """Short and as many long descriptions that one person writes, 1 to 5."""
    seed: int = 0
    """Seed of which four pictures are shown."""
    consent: Path | None = None
    """Text file with what people agree to; unset: a short text of our own."""

    def __post_init__(self) -> None:
        require(1 <= self.each <= 5, f"each must be 1 to 5, got {self.each}.")
        check_seeds(self.seed)


@dataclass(frozen=True, kw_only=True)
class EncoderTrainArguments(EncoderConfig):
    """Train an encoder, which makes a word of 1 to 25 pictures at once. Run it again to go on.

    For a model's words: oneword train --initializer encoder --encoder FOLDER, or --setup encoder.
    """

    json: Path | None = None
    """File for the outcome in numbers."""


@dataclass(frozen=True, kw_only=True)
class PalavraTrainArguments(PalavraTrainConfig):
    """Learn the maps of a CLIP from which its words begin (PALAVRA, stage A); run again to go on.

    From a folder of folders of pictures, one for each class, or on microworld from its own scenes.
    """

    json: Path | None = None
    """File for the outcome in numbers."""


@dataclass(frozen=True, kw_only=True)
class ClipDiffusionArguments(ClipDiffusionConfig):
    """Draw by diffusion that a CLIP guides towards a text: the paper's comparison in Figure 5.

    On a text-to-image model its own denoiser draws, which gets an empty prompt.
    """

    prompts: tyro.conf.Positional[tuple[str, ...]]
    """What the pictures show, each in quotes; they may hold words of --concepts."""
    json: Path | None = None
    """File for the list of pictures with their settings."""


@dataclass(frozen=True, kw_only=True)
class PalavraWordArguments(PalavraWordConfig):
    """Learn a word of a CLIP from a few pictures (PALAVRA, stage B); run again to go on."""

    json: Path | None = None
    """File for the outcome in numbers."""


@dataclass(frozen=True, kw_only=True)
class PalavraFindArguments(PalavraFindConfig):
    """Say how well a CLIP's word finds pictures of its thing: oneword palavra find WORD."""

    concept: tyro.conf.Positional[Path]
    """File or folder of the word."""
    held_out: HeldOutName | None = None
    """Held-out concept of the embedded models' world, in place of both folders: five pictures of it, drawn among pictures of its noun."""
    json: Path | None = None
    """File for the numbers."""


@dataclass(frozen=True, kw_only=True)
class VQGANCLIPArguments(VQGANCLIPConfig):
    """Draw as VQGAN-CLIP does: oneword baseline vqgan-clip "a photo of a mug" --pictures FOLDER.

    A picture's codes are moved until a CLIP finds it near to the text, and to the pictures if there
    are some. Nothing is learned that could draw another picture.
    """

    prompts: tyro.conf.Positional[tuple[str, ...]] = ()
    """What to draw, each in quotes; "a mug | a photo:0.5" draws towards two texts, the second with half the weight."""
    json: Path | None = None
    """File for the list of pictures with their settings."""


@dataclass(frozen=True, kw_only=True)
class VariationsArguments(VariationsConfig):
    """Vary pictures with a model that a picture guides: oneword baseline variations PICTURE ...

    Nothing is learned. What DALL-E 2 does in the paper's figure 3, with models that are published.
    """

    pictures: tyro.conf.Positional[tuple[Path, ...]]
    """The pictures, each of which is varied."""
    json: Path | None = None
    """File for the list of variations with their settings."""


@dataclass(frozen=True, kw_only=True)
class ProjectorArguments(ProjectorConfig):
    """Train a projector, with which a model of this package varies pictures. Run again to go on.

    Its network turns a picture's CLIP features into vectors that the frozen model reads in a word's
    place, trained by equation 2.
    """


@dataclass(frozen=True, kw_only=True)
class ComposeArguments(ComposeConfig):
    """Learn several words together, so that they can stand in one picture.

    Words learned apart can be drawn together, too: oneword generate --concepts A B.
    """


@dataclass(frozen=True, kw_only=True)
class DebiasArguments(DebiasConfig):
    """Learn a fairer word from a small diverse set: oneword debias WORD --images FOLDER.

    Draws the old word and the new one with the same seeds, and reports who is shown.
    """

    json: Path | None = None
    """File for the numbers."""


@dataclass(frozen=True, kw_only=True)
class MicroworldTrainArguments(_Seeded):
    """Run the recipe that makes the embedded model; run it again to go on."""

    model: Embedded = "microworld"
    """What to make."""
    output_dir: Path = Path("microworld-work")
    """Work folder: resumable states, finished parts, latents."""
    minutes: float = 60.0
    """Time budget of this call, minutes."""
    stages: tuple[Stage, ...] = ()
    """Stages to run, in order; none: all."""
    from_scratch: bool = False
    """Ignore the landed weights; otherwise every finished stage starts from them."""
    device: str = "cpu"
    """torch device."""
    num_processes: int = 1
    """CPU processes of one thread each that share a batch."""
    seed: int = 0
    """Seed of the weights and of every batch."""
    denoiser_samples: int | None = None
    """Pictures that the denoiser sees in this stage, over the last third of which its rate falls; unset: the recipe's."""
    oracle_samples: int | None = None
    """Pictures for which the oracle is trained on from its landed weights; unset: it is taken as it is."""
    land: Path | None = None
    """Folder in which to put the finished model together afterwards."""


@dataclass(frozen=True, kw_only=True)
class MicroworldEvaluateArguments(_Seeded):
    """Read generated pictures back and compare with the truth of their prompts."""

    model: Embedded = "microworld"
    """Which embedded model."""
    num_prompts: int = 500
    """Prompts that never occurred in training, one picture each."""
    num_people: int = 100
    """Pictures of each profession whose appearance the world biases."""
    seed: int = 0
    """Seed of the prompts and pictures."""
    guidance_scale: float | None = None
    """Classifier-free guidance; unset: the model's default."""
    num_inference_steps: int | None = None
    """Denoising steps; unset: the model's default."""
    batch_size: int = 16
    """Pictures drawn at once."""
    json: Path | None = None
    """File for the numbers."""
    output_dir: Path | None = None
    """Folder for the contact sheets: generated and drawn."""
    save_to_card: bool = False
    """Write the scores into the embedded model's card."""


@dataclass(frozen=True, kw_only=True)
class PicturesArguments(_Seeded):
    """Draw a held-out concept, which the embedded model has never seen."""

    concept: HeldOutName
    """Its name."""
    output_dir: Path
    """Folder for the pictures."""
    plain: bool = False
    """On plain backgrounds, for scoring, rather than in places, for training."""
    num_images: int = 5
    """Pictures to draw."""
    seed: int = 0
    """Seed of the pictures."""


@dataclass(frozen=True, kw_only=True)
class PeopleArguments(_Seeded):
    """Draw a profession with every skin and hair equally often, a small diverse set to learn from."""

    profession: tyro.conf.Positional[Profession]
    """Who."""
    output_dir: Path
    """Folder for the pictures."""
    num_images: int = 12
    """Pictures to draw; a multiple of six is even."""
    seed: int = 0
    """Seed of the pictures."""


@dataclass(frozen=True, kw_only=True)
class SampleArguments:
    """Draw prompts and say what the oracle reads from each picture."""

    prompts: tyro.conf.Positional[tuple[str, ...]]
    """Sentences of the embedded model's world, such as "a photo of a red mug on the beach"."""
    model: Embedded = "microworld"
    """Which embedded model."""
    output_dir: Path = Path("microworld-sample")
    """Folder for the pictures."""
    num_images_per_prompt: int = 4
    """Pictures of each prompt."""
    seed: int = 0
    """Seed of the first picture; the next ones follow."""

    def __post_init__(self) -> None:
        check_seeds(self.seed, max(1, self.num_images_per_prompt))


@dataclass(frozen=True, kw_only=True)
class ExploreArguments(_Seeded):
    """Make contact sheets: nouns, places, relations drawn beside generated; held-out concepts."""

    model: Embedded = "microworld"
    """Which embedded model."""
    output_dir: Path = Path("microworld-sheets")
    """Folder for the sheets."""
    seed: int = 0
    """Seed of colours, backgrounds and pictures."""
    generated: bool = True
    """Put generated pictures under the drawn ones."""


@dataclass(frozen=True, kw_only=True)
class ThingsArguments:
    """List the things that the world can draw, and make a sheet of them."""

    search: str | None = None
    """Show only things whose noun or keywords hold this word; the nearest names are offered."""
    sheet: Path | None = None
    """PNG file for a sheet: every thing in its four looks, or in one with --look."""
    look: Look | None = None
    """Look of the sheet; unset: all but the first edition."""
    num: int | None = None
    """Show this many only."""


@dataclass(frozen=True, kw_only=True)
class CodebookArguments(_Seeded):
    """Quantise the embedded model's autoencoder by k-means, for oneword baseline vqgan-clip.

    The codebook is put beside the model's weights; done once when a model has landed.
    """

    model: Embedded = "microworld"
    """Which embedded model."""
    seed: int = 0
    """Seed of the pictures and of the first rows."""


@dataclass(frozen=True, kw_only=True)
class MicroworldCardArguments:
    """Print how an embedded model was made and what it scores, as JSON."""

    model: Embedded = "microworld"
    """Which embedded model."""


@dataclass(frozen=True, kw_only=True)
class ModelsArguments:
    """List the model families, or probe a pipeline folder of any family."""

    probe: Path | None = None
    """Folder of any diffusers text-to-image pipeline: which text encoders and embedding tables it has, and whether a word reaches them through the pipeline's own encode_prompt."""
    dtype: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Type in which the probed folder is loaded; auto: bf16 on CUDA, fp32 elsewhere."""
    device: str = "cpu"
    """Where it is loaded: "auto" (CUDA, then MPS, then CPU) or a torch device."""
    json: Path | None = None
    """File for the table, or for what the probe found."""


@dataclass(frozen=True, kw_only=True)
class InspectArguments:
    """Say what files hold: word, layout, rows, norms, nearest words, how they were learned; of a run folder also how far its word went from the existing ones."""

    files: tuple[Path, ...]
    """Embedding files of any tool, or run folders."""
    nearest: int = 0
    """Existing words nearest to each row to list, which loads the model; 0: none."""
    compare: bool = False
    """Load the model to compare norms, to tell each row's distance to the nearest existing word, and to find rows that were never trained."""
    model: ModelConfig = field(default_factory=of_the_word)
    json: Path | None = None
    """File for the facts."""


@dataclass(frozen=True, kw_only=True)
class ConvertArguments:
    """Write each word of some files in another tool's layout, one file a word."""

    files: tuple[Path, ...]
    """Embedding files of any tool, or run folders."""
    to: Layout
    """The tool that the files are for; "diffusers" is a pair for two text encoders, "authors" the paper's own code. A word that a tool has no form for is refused, the others are written."""
    output_dir: Path = Path("oneword-concepts")
    """Folder for the files, which are named after the words; nothing is overwritten."""


@dataclass(frozen=True, kw_only=True)
class ExtractArguments:
    """Write each word of a file (a LoRA that bundles embeddings, a merged file) on its own."""

    files: tuple[Path, ...]
    """Files that hold embeddings, among other things or several at once."""
    to: Layout = "oneword"
    """Layout of the files, as for convert."""
    output_dir: Path = Path("oneword-concepts")
    """Folder for the files; nothing is overwritten."""


@dataclass(frozen=True, kw_only=True)
class MergeArguments:
    """Put the words of many files into one; a word that is taken gets a number."""

    files: tuple[Path, ...]
    """Embedding files of any tool, or run folders."""
    output: Path
    """New file; it must not exist yet."""
    to: Literal["oneword", "diffusers", "authors"] = "oneword"
    """Layout; these hold several words."""


@dataclass(frozen=True, kw_only=True)
class RenameArguments:
    """Give the word of a file another name."""

    files: tuple[Path, ...]
    """One embedding file."""
    placeholder_token: str
    """The new name, without spaces."""
    output: Path
    """New file; it must not exist yet."""
    to: Layout = "oneword"
    """Layout of the new file."""


@dataclass(frozen=True, kw_only=True)
class CombineArguments:
    """Mix words into a new one: the weighted average of their vectors, or all vectors in a row."""

    files: tuple[Path, ...]
    """Two or more embedding files of the same model."""
    placeholder_token: str
    """The new word."""
    output: Path
    """New file; it must not exist yet."""
    weights: tuple[float, ...] = ()
    """One for each file; they are divided by their sum. None: equal."""
    concatenate: bool = False
    """Keep every vector, one after the other, in place of averaging."""
    to: Layout = "oneword"
    """Layout of the new file."""


@dataclass(frozen=True, kw_only=True)
class ConceptCardArguments:
    """Write a card in the Hub's format, and a preview, beside a word's file."""

    files: tuple[Path, ...]
    """One embedding file, or run folder."""
    license: str = "unknown"
    """The Hub's name of the word's licence, such as cc-by-4.0."""
    preview: bool = True
    """Draw a preview, which loads the model."""
    prompts: tuple[str, ...] = ()
    """Prompts of the preview, "{}" for the word; none: its family's edit prompts."""
    num_images_per_prompt: int = 4
    """Pictures of each prompt."""
    seed: int = 0
    """First seed."""
    scores: Path | None = None
    """The scores.json of oneword evaluate; unset: the one beside the file, where there is one."""
    model: ModelConfig = field(default_factory=of_the_word)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)

    def __post_init__(self) -> None:
        require(
            self.num_images_per_prompt >= 1,
            f"num_images_per_prompt must be 1 or more, got {self.num_images_per_prompt}.",
        )
        check_seeds(self.seed, self.num_images_per_prompt)


@dataclass(frozen=True, kw_only=True)
class PushArguments:
    """Upload a word with its card to the Hub: concept push FILE OWNER/NAME."""

    files: tuple[Path, ...]
    """One embedding file or run folder with its card beside it, and the repository's name."""
    private: bool = False
    """Make a new repository private."""
    token: str | None = None
    """Token that may write; unset: that of hf auth login or HF_TOKEN."""
    message: str | None = None
    """Message of the commit."""


COMMANDS: dict[str, tuple[type[Any], str]] = {
    "demo": (DemoArguments, "demo"),
    "pictures": (AnnotateArguments, "pictures"),
    "train": (TrainArguments, "train"),
    "train --jobs": (JobsArguments, "jobs"),
    "generate": (GenerateArguments, "generate"),
    "edit": (EditArguments, "edit"),
    "web": (WebArguments, "web"),
    "evaluate": (EvaluateArguments, "evaluate"),
    "choose": (ChooseArguments, "choose"),
    "study": (StudyArguments, "study"),
    "userstudy make": (UserStudyMakeArguments, "userstudy"),
    "userstudy read": (UserStudyReadArguments, "userstudy"),
    "userstudy captions": (UserStudyCaptionsArguments, "userstudy"),
    "encoder train": (EncoderTrainArguments, "encoder"),
    "baseline clip-diffusion": (ClipDiffusionArguments, "baseline"),
    "baseline vqgan-clip": (VQGANCLIPArguments, "vqgan_clip"),
    "baseline variations": (VariationsArguments, "variations"),
    "baseline projector": (ProjectorArguments, "variations"),
    "palavra train": (PalavraTrainArguments, "palavra"),
    "palavra word": (PalavraWordArguments, "palavra"),
    "palavra find": (PalavraFindArguments, "palavra"),
    "compose": (ComposeArguments, "compose"),
    "debias": (DebiasArguments, "debias"),
    "microworld sample": (SampleArguments, "microworld"),
    "microworld explore": (ExploreArguments, "microworld"),
    "microworld things": (ThingsArguments, "microworld_things"),
    "microworld pictures": (PicturesArguments, "microworld_pictures"),
    "microworld people": (PeopleArguments, "microworld_pictures"),
    "microworld evaluate": (MicroworldEvaluateArguments, "microworld"),
    "microworld card": (MicroworldCardArguments, "microworld"),
    "microworld codebook": (CodebookArguments, "microworld_codebook"),
    "microworld train": (MicroworldTrainArguments, "microworld_train"),
    "models": (ModelsArguments, "models"),
    "concept inspect": (InspectArguments, "concept"),
    "concept convert": (ConvertArguments, "concept"),
    "concept merge": (MergeArguments, "concept"),
    "concept rename": (RenameArguments, "concept"),
    "concept extract": (ExtractArguments, "concept"),
    "concept combine": (CombineArguments, "concept"),
    "concept card": (ConceptCardArguments, "concept"),
    "concept push": (PushArguments, "concept"),
}
"""Each command's options, and the module of this room whose ``run`` does what they ask for.

A command that needs less than others of its verb has a module of its own, so that it starts sooner.
"""


_DRAWING = ("guidance_scale", "num_inference_steps", "negative_prompt", "sampler")
_MODEL = ("model", "dtype", "memory", "device")
_TRAINING = {
    "word": (
        "placeholder_token", "initializer_token", "initializer_file", "learnable_property", "setup",
        "num_vectors",
    ),
    "picture": ("train_data_dir", "resolution", "fit"),
    "model": ("model", "dtype", "memory"),
    "training": (
        "preset", "max_train_steps", "learning_rate", "train_batch_size", "seed",
    ),
    "output": (
        "output_dir", "validation_prompts", "validation_steps", "save_steps", "report_to",
        "dry_run",
    ),
}  # fmt: skip
COMMON: dict[str, dict[str, tuple[str, ...]]] = {
    "train": _TRAINING | {"training": (*_TRAINING["training"], "num_processes")},
    "train --jobs": {
        "job": ("jobs", "slots", "cluster", "workers"),
        "word": ("initializer_token", "initializer_file", "learnable_property", "setup"),
        **{name: _TRAINING[name] for name in ("model", "training")},
        "output": ("output_dir", "validation_steps", "checkpointing_steps", "dry_run"),
    },
    "generate": {
        "picture": (
            "prompts", "concepts", "num_images_per_prompt", "seeds", "image", "mask_image",
            "strength",
        ),
        "choosing": ("keep", "rank_by"),
        "drawing": (*_DRAWING, "height", "width"),
        "model": _MODEL,
        "output": ("output_dir", "gallery", "grid"),
    },
    "edit": {
        "picture": ("picture", "prompt", "mask", "strength", "invert", "concepts"),
        "edit": ("background", "num_images_per_prompt", "keep", "seeds"),
        "drawing": _DRAWING,
        "model": _MODEL,
        "output": ("output_dir",),
    },
    "evaluate": {
        "word": ("concept", "train_data_dir", "plain_dir"),
        "scoring": ("preset", "prompts", "num_images_per_prompt", "seed", "judge"),
        "drawing": _DRAWING,
        "model": _MODEL,
        "output": ("output_dir", "json"),
    },
    "choose": {
        "word": ("run", "step", "by", "rank_by", "judge"),
        "picture": ("prompts", "seeds", *_DRAWING, "height", "width"),
        "model": _MODEL,
        "output": ("json",),
    },
    "study": {
        "comparison": ("concepts", "setups", "seeds", "prompts", "num_images_per_prompt"),
        "model": _MODEL,
        "training": ("preset", "max_train_steps", "learning_rate"),
        "work": ("slots", "num_processes", "cluster", "workers"),
        "output": ("output_dir", "report", "dry_run"),
    },
    "encoder train": {
        "picture": ("data", "learnable_property", "num_things", "pictures_per_thing"),
        "encoder": ("guide", "num_vectors", "most_pictures", "width"),
        "model": _MODEL,
        "training": ("max_train_steps", "learning_rate", "train_batch_size", "seed"),
        "output": ("output_dir", "checkpointing_steps", "land", "json"),
    },
    "baseline vqgan-clip": {
        "picture": ("prompts", "pictures", "image_share", "concepts", "init_image", "seeds"),
        "drawing": ("preset", "steps", "num_cutouts", "resolution"),
        "model": ("model", "checkpoint", "device"),
        "guide": ("guide", "judge"),
        "output": ("output_dir", "json"),
    },
    "baseline projector": {
        "picture": ("train_data_dir", "num_pictures"),
        "guide": ("guide", "judge", "allow_same_clip"),
        "model": _MODEL,
        "training": (
            "num_vectors", "num_samples", "train_batch_size", "learning_rate", "seed",
        ),
        "output": ("output_dir",),
    },
    "compose": {
        "word": ("images", "placeholder_tokens", "initializer_tokens", "together", "paste"),
        "model": _MODEL,
        "training": ("preset", "max_train_steps", "learning_rate", "train_batch_size", "seed"),
        "output": ("output_dir", "checkpointing_steps"),
    },
    "debias": {
        "word": ("word", "images", "placeholder_token", "prompt", "num_images", "attributes"),
        "model": _MODEL,
        "training": ("preset", "max_train_steps", "learning_rate", "train_batch_size", "seed"),
        "drawing": _DRAWING,
        "output": ("output_dir", "json"),
    },
    "baseline clip-diffusion": {
        "picture": ("prompts", "concepts", "init_image", "skip", "image_prompts", "seeds"),
        "guidance": ("guide", "preset", "clip_scale", "tv_scale", "num_cutouts", "sampler"),
        "model": ("checkpoint", "model", "dtype", "device"),
        "output": ("output_dir", "json"),
    },
    "concept card": {
        "word": ("files", "license", "scores"),
        "preview": ("preview", "prompts", "num_images_per_prompt", "seed", *_DRAWING),
        "model": _MODEL,
    },
    "concept inspect": {
        "file": ("files", "nearest", "compare", "json"),
        "model": _MODEL,
    },
}  # fmt: skip
"""What --help shows of a command that has many options, by group; --help-all shows all of them."""


def sub_verbs(verb: str) -> dict[str, type[Any]]:
    """The options of a verb's sub-verbs, by name; empty for a verb without any."""
    names = {name.partition(" ")[::2]: kind for name, (kind, _) in COMMANDS.items()}
    return {
        sub: kind for (of, sub), kind in names.items() if of == verb and sub and sub[0].isalpha()
    }


SUB_VERB_HELP = {
    "microworld": """usage: oneword microworld {sample,explore,things,pictures,people,evaluate,card,codebook,train} [options]

  sample    draw prompts and say what the oracle reads from each picture
  explore   contact sheets of nouns, places and relations in all styles, drawn beside generated
  things    list what the world can draw, search it, make a sheet of it
  pictures  draw one of the held-out concepts, to learn from or to score against
  people    draw a profession without the world's bias: a set for `oneword debias`
  evaluate  how many prompts are obeyed, attribute by attribute, beside drawings of the same
  card      how an embedded model was made and what it scores
  codebook  quantise its autoencoder by k-means, for `oneword baseline vqgan-clip`
  train     run the recipe: draws pictures and trains every part, resumable, within --minutes""",
    "encoder": """usage: oneword encoder train [options]

  train  train an encoder on pictures of many things, so that words of new ones take a second

`oneword encoder train --help` lists its options.""",
    "userstudy": """usage: oneword userstudy {make,read,captions} [options]

  make      write both questionnaires about a study's pictures, as pages that need no server
  read      check the answers, and rank the models: intervals, tests, agreement, a figure
  captions  write the page on which people describe a thing, or with --answers its descriptions.json

`oneword userstudy VERB --help` lists a verb's options.""",
    "baseline": """usage: oneword baseline {clip-diffusion,vqgan-clip,variations,projector} [options]

  clip-diffusion  draw by diffusion that a CLIP guides: unconditional pixels, or a model's latents
  vqgan-clip      move a picture's codes until a CLIP finds it near to a text, and to pictures
  variations      vary pictures with a model that a picture guides, as DALL-E 2 in figure 3
  projector       train what varies pictures on a model of this package, such as microworld

`oneword baseline VERB --help` lists a verb's options.""",
    "palavra": """usage: oneword palavra {train,word,find} [options]

  train  learn the maps of a CLIP from which its words begin, from pictures of classes
  word   learn a word of that CLIP from a few pictures
  find   say how well a word finds pictures of its thing among others

`oneword palavra VERB --help` lists a verb's options.""",
    "concept": f"""usage: oneword concept VERB FILE [FILE ...] [options]

{chr(10).join(f"  {sub:<8} {(kind.__doc__ or '').strip()}" for sub, kind in sub_verbs("concept").items())}

`oneword concept VERB --help` lists a verb's options.""",
}
"""What a verb that has sub-verbs prints without one."""
