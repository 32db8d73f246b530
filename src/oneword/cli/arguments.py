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
EmbeddedOrFolder = Embedded | Path
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
    """Learn a thing from five pictures that come with the package, or from a picture of your own, then draw with the word and score it."""

    concept: Literal["gold-mug", "parrot", "snowman"] | None = None
    """What to learn (default: gold-mug, or with a model of the second world the rocket that artists drew). The embedded model has never seen these things."""
    thing: str | None = None
    """Any other held-out thing of the model's world, such as windmill. Its pictures are drawn first."""
    picture: Path | None = None
    """Picture of your own to learn instead, ideally a transparent PNG of a mascot or sticker. Each step puts it on another background."""
    model: EmbeddedOrFolder = "microworld"
    """Embedded model, or the folder of one."""
    output_dir: Path = Path("oneword-demo")
    """Folder for all results. Run the same command again to resume, or to score again."""
    seed: int = 0
    """Random seed of the training, and first seed of the pictures."""
    num_images_per_prompt: int = 8
    """Number of pictures for each prompt in each row of the scores."""
    json: Path | None = None
    """JSON file for the scores."""

    def __post_init__(self) -> None:
        require(
            self.num_images_per_prompt >= 1,
            f"num_images_per_prompt must be 1 or more, got {self.num_images_per_prompt}.",
        )
        given = [n for n in ("concept", "thing", "picture") if getattr(self, n) is not None]
        require(
            len(given) <= 1,
            f"The demo learns one thing, got --{' and --'.join(given)}; leave all but one out.",
        )
        check_seeds(self.seed, self.num_images_per_prompt)


@dataclass(frozen=True, kw_only=True)
class _Training(TrainConfig):
    """What one word and many have in common."""

    dry_run: bool = False
    """Print what would be done, and stop."""
    preview_pictures: bool = False
    """Write a sheet of what the model will see (crops, masks, captions), and stop. It reads only the model's settings, not its weights."""
    json: Path | None = None
    """JSON file for the results."""


@dataclass(frozen=True, kw_only=True)
class TrainArguments(_Training):
    """Learn a word from the pictures in a folder. Run the same command again to resume.

    Many words at once: oneword train --jobs FOLDER_OF_FOLDERS (see oneword train --jobs . --help).
    """

    rank_initializers: bool = False
    """Print the common nouns, and the initializer token if one is given, by their loss on the pictures, the best first, and stop."""
    push_to_hub: bool = False
    """Upload the word, with its card and last preview, to the Hub after training."""
    hub_model_id: str | None = None
    """Repository for push_to_hub: OWNER/NAME, or NAME for one of your own (default: the name of the run folder)."""
    hub_token: str | None = None
    """Hub token with write access, for push_to_hub (default: from hf auth login or HF_TOKEN)."""
    save_as_full_pipeline: bool = False
    """Also save the whole pipeline, with the word in it, to the run folder (gigabytes). It is for tools that load pipelines but no word files."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.mirror is None or not self.save_as_full_pipeline,
            "Cannot use save_as_full_pipeline with --mirror because a mirror holds the run but no "
            "model; leave one of them out.",
        )


@dataclass(frozen=True, kw_only=True)
class JobsArguments(_Training):
    """Learn many words at once. Run the same command again to resume.

    Every other option holds for all jobs. Each word has a run folder of its own in --output-dir,
    and a job that cannot be trained fails alone.
    """

    jobs: Path = Path()
    """Folder with one subfolder of pictures per word, or a TOML file with one [[jobs]] table per word. The keys of a table are options of oneword train."""
    slots: str = "auto"
    """Number of words to train at once in one batch; "auto" is as many as fit into the GPU's memory, or 4 on a CPU."""
    cluster: str | None = None
    """Train on Ray: local, auto (the cluster this machine belongs to) or an address. All machines must see the folders; for what is written, --mirror also works."""
    workers: int | None = None
    """Number of workers of the cluster (default: one per GPU, or one per core without GPUs)."""
    train_data_dir: Annotated[Path, tyro.conf.Suppress] = Path()
    num_processes: int = 1
    """Only for a single word. To share many words among processes, use --cluster local --workers N."""


@dataclass(frozen=True, kw_only=True)
class AnnotateArguments(AnnotateConfig):
    """Caption pictures and mask the thing in them: oneword pictures FOLDER --caption-with MODEL.

    The files go next to the pictures, where training finds them. A sheet shows them all: check and
    correct them.
    """

    folder: tyro.conf.Positional[Path]
    """Folder with the pictures."""


@dataclass(frozen=True, kw_only=True)
class GenerateArguments(GenerateConfig):
    """Draw pictures: every prompt with every seed. Each PNG stores the settings that made it."""

    json: Path | None = None
    """JSON file for the list of pictures with their settings."""


@dataclass(frozen=True, kw_only=True)
class EditArguments(EditConfig):
    """Edit a picture: inside a mask, as a whole, or by DDIM inversion."""

    picture: tyro.conf.Positional[Path]
    """The picture to edit."""
    json: Path | None = None
    """JSON file for the list of edits with their settings."""


@dataclass(frozen=True, kw_only=True)
class EvaluateArguments(EvaluateConfig):
    """Score a word next to its initializer, the best existing noun and the training pictures."""

    json: Path | None = None
    """JSON file for the scores."""


@dataclass(frozen=True, kw_only=True)
class ChooseArguments(ChooseConfig):
    """Pick one of the words that a run saved during training: oneword choose RUN --step 500.

    Without --step or --by, it draws all of them on one sheet and lists their losses.
    """

    run: tyro.conf.Positional[Path]
    """Run folder of oneword train with --save-steps."""
    json: Path | None = None
    """JSON file for the list of words with their losses and scores."""


@dataclass(frozen=True, kw_only=True)
class StudyArguments(StudyConfig):
    """Compare ways to learn a word, over concepts and seeds, by the paper's protocol.

    Run the same command again to resume. It writes a new report each time.
    """

    prompts: Literal["paper", "paper-figures", "dreambench", "microworld"] | None = None
    """Evaluation prompts (default: microworld on the embedded models, paper elsewhere)."""
    dry_run: bool = False
    """Print the plan and its cost, estimated from a few timed steps and pictures, and stop."""
    card_tflops: float = 300.0
    """Speed of a GPU in TFLOP/s, used to estimate GPU hours on a machine without one. 300 is about a third of an H100's maximum in bf16."""
    rows: Path | None = None
    """Import the rows of this results.jsonl (or .gz) as finished jobs. Use it to report kept rows, or to continue a study from them."""
    report: bool = False
    """Write the report of the finished jobs, and stop."""
    markdown: Path | None = None
    """Page to write the results into, between the lines <!-- study: begin --> and <!-- study: end -->. Its figures and results.jsonl.gz go to --figures-dir."""
    figures_dir: Path | None = None
    """Folder for the figures and rows of --markdown (default: next to the page, with its name)."""
    json: Path | None = None
    """JSON file for the plan, or for a summary of the results."""

    def __post_init__(self) -> None:
        StudyConfig.__post_init__(self)
        require(
            self.card_tflops > 0, f"card_tflops must be greater than 0, got {self.card_tflops}."
        )


@dataclass(frozen=True, kw_only=True)
class WebArguments(WebConfig):
    """Open the page in the browser: teach, draw with, edit with and keep words. Ctrl-C ends it."""


@dataclass(frozen=True, kw_only=True)
class UserStudyMakeArguments(UserStudyConfig):
    """Write both questionnaires about a study's pictures: one on similarity, one on the match to a text."""


@dataclass(frozen=True, kw_only=True)
class UserStudyReadArguments:
    """Check people's answers and rank the models, with intervals, tests and a figure."""

    answers: tyro.conf.Positional[tuple[Path, ...]]
    """Answer files, folders of them, or the answers.sqlite of oneword web."""
    forms: Path = Path("oneword-userstudy")
    """Folder with the questionnaires and their answer key."""
    output_dir: Path = Path("oneword-userstudy-results")
    """Folder for the report, the figure and the tables."""
    json: Path | None = None
    """JSON file for the numbers, in addition to results.json in that folder."""


@dataclass(frozen=True, kw_only=True)
class UserStudyCaptionsArguments:
    """Write a page where people describe a thing. With --answers: write its descriptions.json."""

    pictures: tyro.conf.Positional[Path]
    """Folder with four or more pictures of the thing."""
    answers: tuple[Path, ...] = ()
    """Answer files of that page, or the answers.sqlite of oneword web. They must contain five short and five long descriptions, which are written next to the pictures."""
    output_dir: Path = Path("oneword-userstudy")
    """Folder for the page."""
    each: int = 5
    """Number of short descriptions that one person writes, 1 to 5, and the same number of long ones."""
    seed: int = 0
    """Random seed that picks the four pictures to show."""
    consent: Path | None = None
    """Text file with the consent text (default: a short text of our own)."""

    def __post_init__(self) -> None:
        require(1 <= self.each <= 5, f"each must be 1 to 5, got {self.each}.")
        check_seeds(self.seed)


@dataclass(frozen=True, kw_only=True)
class EncoderTrainArguments(EncoderConfig):
    """Train an encoder, which turns 1 to 25 pictures into a word at once. Run it again to resume.

    To use it: oneword train --initializer encoder --encoder FOLDER, or --setup encoder.
    """

    minutes: float | None = None
    """Time budget of this call, in minutes (default: none). Run the same command again to continue."""
    json: Path | None = None
    """JSON file for the results."""


@dataclass(frozen=True, kw_only=True)
class PalavraTrainArguments(PalavraTrainConfig):
    """Train the maps of a CLIP from which its words start (PALAVRA, stage A). Run it again to resume.

    It trains on a folder with one subfolder of pictures per class, or on microworld's own scenes.
    """

    json: Path | None = None
    """JSON file for the results."""


@dataclass(frozen=True, kw_only=True)
class ClipDiffusionArguments(ClipDiffusionConfig):
    """Draw by CLIP-guided diffusion: the paper's comparison in Figure 5.

    With a text-to-image model, its own denoiser draws, with an empty prompt.
    """

    prompts: tyro.conf.Positional[tuple[str, ...]]
    """Prompts, each in quotes. They may contain words from --concepts."""
    json: Path | None = None
    """JSON file for the list of pictures with their settings."""


@dataclass(frozen=True, kw_only=True)
class PalavraWordArguments(PalavraWordConfig):
    """Learn a word of a CLIP from a few pictures (PALAVRA, stage B). Run it again to resume."""

    json: Path | None = None
    """JSON file for the results."""


@dataclass(frozen=True, kw_only=True)
class PalavraFindArguments(PalavraFindConfig):
    """Measure how well a CLIP's word finds pictures of its thing: oneword palavra find WORD."""

    concept: tyro.conf.Positional[Path]
    """File or folder of the word."""
    held_out: HeldOutName | None = None
    """Held-out concept of the embedded models' world to use instead of both folders. Draws five pictures of it among pictures of its noun."""
    json: Path | None = None
    """JSON file for the numbers."""


@dataclass(frozen=True, kw_only=True)
class VQGANCLIPArguments(VQGANCLIPConfig):
    """Draw with VQGAN-CLIP: oneword baseline vqgan-clip "a photo of a mug" --pictures FOLDER.

    It optimises a picture's codes until CLIP finds the picture similar to the text, and to the given
    pictures. It learns nothing that could draw another picture.
    """

    prompts: tyro.conf.Positional[tuple[str, ...]] = ()
    """Prompts, each in quotes. "a mug | a photo:0.5" draws towards two texts, the second with half the weight. "a mug:1:0.6" ignores distances below 0.6."""
    json: Path | None = None
    """JSON file for the list of pictures with their settings."""


@dataclass(frozen=True, kw_only=True)
class VariationsArguments(VariationsConfig):
    """Vary pictures with an image-guided model: oneword baseline variations PICTURE ...

    This is what DALL-E 2 does in the paper's figure 3, with published models. Nothing is learned.
    """

    pictures: tyro.conf.Positional[tuple[Path, ...]]
    """Pictures to vary."""
    json: Path | None = None
    """JSON file for the list of variations with their settings."""


@dataclass(frozen=True, kw_only=True)
class ProjectorArguments(ProjectorConfig):
    """Train a projector, with which a model of this package varies pictures. Run it again to resume.

    The network turns a picture's CLIP features into vectors that the frozen model reads in place of
    a word. The loss is the paper's equation 2.
    """

    minutes: float | None = None
    """Time budget of this call, in minutes (default: none). Run the same command again to continue."""


@dataclass(frozen=True, kw_only=True)
class ComposeArguments(ComposeConfig):
    """Learn several words together, so that they can appear in one picture.

    Words learned separately can also be drawn together: oneword generate --concepts A B.
    """


@dataclass(frozen=True, kw_only=True)
class DebiasArguments(DebiasConfig):
    """Learn a fairer word from a small diverse set of pictures: oneword debias WORD --images FOLDER.

    It draws the old and the new word with the same seeds, and reports who is shown.
    """

    json: Path | None = None
    """JSON file for the numbers."""


@dataclass(frozen=True, kw_only=True)
class MicroworldTrainArguments(_Seeded):
    """Run the recipe that makes an embedded model. Run it again to resume."""

    model: Embedded = "microworld"
    """Model to make."""
    output_dir: Path = Path("microworld-work")
    """Work folder for resumable states, finished parts and latents."""
    minutes: float = 60.0
    """Time budget of this call, in minutes."""
    stages: tuple[Stage, ...] = ()
    """Stages to run, in order. Without it: all."""
    from_scratch: bool = False
    """Ignore the published weights. Otherwise every finished stage starts from them."""
    device: str = "cpu"
    """Torch device."""
    num_processes: int = 1
    """Number of CPU processes, of one thread each, that share a batch."""
    seed: int = 0
    """Random seed of the weights and of every batch."""
    denoiser_samples: int | None = None
    """Number of pictures that the denoiser sees in this stage (default: the recipe's). Its learning rate falls over the last third."""
    oracle_samples: int | None = None
    """Number of pictures to train the oracle on, starting from its published weights (default: none, use it as it is)."""
    world: Literal[1, 2] | None = None
    """Version of the world that oracle, judge and guide learn to read (default: the published model's)."""
    land: Path | None = None
    """Folder to put the finished model into."""


@dataclass(frozen=True, kw_only=True)
class MicroworldEvaluateArguments(_Seeded):
    """Read generated pictures with the oracle and compare them with their prompts."""

    model: EmbeddedOrFolder = "microworld"
    """Embedded model, or the folder of one."""
    num_prompts: int = 500
    """Number of prompts that never occurred in training, with one picture each."""
    num_people: int = 100
    """Number of pictures of each profession whose appearance is biased in the world."""
    seed: int = 0
    """Random seed of the prompts and pictures."""
    guidance_scale: float | None = None
    """Guidance scale (default: the model's own). 1 turns guidance off."""
    num_inference_steps: int | None = None
    """Number of denoising steps (default: the model's own)."""
    batch_size: int = 16
    """Pictures drawn at once."""
    json: Path | None = None
    """JSON file for the numbers."""
    output_dir: Path | None = None
    """Folder for the contact sheets of generated and drawn pictures."""
    save_to_card: bool = False
    """Write the scores to the embedded model's card."""
    earlier: tuple[str, ...] = ()
    """Folders of the same model after fewer training samples, whose cards have scores already. They are shown as a learning curve and written to the card."""


@dataclass(frozen=True, kw_only=True)
class PicturesArguments(_Seeded):
    """Draw a held-out concept, which the embedded model has never seen."""

    concept: HeldOutName
    """Name of the concept."""
    output_dir: Path
    """Folder for the pictures."""
    plain: bool = False
    """Plain backgrounds, for scoring. Otherwise places, for training."""
    num_images: int = 5
    """Number of pictures."""
    seed: int = 0
    """Random seed of the pictures."""


@dataclass(frozen=True, kw_only=True)
class PeopleArguments(_Seeded):
    """Draw a profession with every skin and hair equally often: a small diverse training set."""

    profession: tyro.conf.Positional[Profession]
    """Profession."""
    output_dir: Path
    """Folder for the pictures."""
    num_images: int = 12
    """Number of pictures; a multiple of six is balanced."""
    seed: int = 0
    """Random seed of the pictures."""


@dataclass(frozen=True, kw_only=True)
class SampleArguments:
    """Draw prompts and print what the oracle reads from each picture."""

    prompts: tyro.conf.Positional[tuple[str, ...]]
    """Prompts in the sentences of the embedded model's world, such as "a photo of a red mug on the beach"."""
    model: EmbeddedOrFolder = "microworld"
    """Embedded model, or the folder of one."""
    output_dir: Path = Path("microworld-sample")
    """Folder for the pictures."""
    num_images_per_prompt: int = 4
    """Number of pictures per prompt."""
    seed: int = 0
    """Seed of the first picture. The next ones follow."""

    def __post_init__(self) -> None:
        check_seeds(self.seed, max(1, self.num_images_per_prompt))


@dataclass(frozen=True, kw_only=True)
class ExploreArguments(_Seeded):
    """Make contact sheets of the model's world, drawn next to generated, and of held-out concepts."""

    model: EmbeddedOrFolder = "microworld"
    """Embedded model, or the folder of one."""
    output_dir: Path = Path("microworld-sheets")
    """Folder for the sheets."""
    seed: int = 0
    """Random seed of colours, backgrounds and pictures."""
    generated: bool = True
    """Put generated pictures below the drawn ones."""


@dataclass(frozen=True, kw_only=True)
class ThingsArguments:
    """List the things that the world can draw, and make a sheet of them."""

    search: str | None = None
    """Show only things with this word in their noun or keywords. If there are none, similar names are suggested."""
    sheet: Path | None = None
    """PNG file for a sheet of every thing in its four looks, or in one with --look."""
    look: Look | None = None
    """Look to show on the sheet (default: all but the first edition)."""
    num: int | None = None
    """Maximum number of things to show."""


@dataclass(frozen=True, kw_only=True)
class CodebookArguments(_Seeded):
    """Quantise the embedded model's autoencoder by k-means, for oneword baseline vqgan-clip.

    The codebook is saved next to the model's weights. Run it once per new model.
    """

    model: EmbeddedOrFolder = "microworld"
    """Embedded model, or the folder of one."""
    seed: int = 0
    """Random seed of the pictures and the first rows."""


@dataclass(frozen=True, kw_only=True)
class MicroworldCardArguments:
    """Print how an embedded model was made and how it scores, as JSON."""

    model: EmbeddedOrFolder = "microworld"
    """Embedded model, or the folder of one."""


@dataclass(frozen=True, kw_only=True)
class ModelsArguments:
    """List the model families, or probe a pipeline folder of any family."""

    probe: Path | None = None
    """Folder of any diffusers text-to-image pipeline to probe. Shows its text encoders and embedding tables, and whether a word reaches them through the pipeline's encode_prompt."""
    dtype: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Data type of the probed pipeline. "auto" is bf16 on CUDA and fp32 elsewhere."""
    device: str = "cpu"
    """Device for the probed pipeline: "auto" (CUDA, then MPS, then CPU) or a torch device."""
    json: Path | None = None
    """JSON file for the table, or for the results of the probe."""


@dataclass(frozen=True, kw_only=True)
class InspectArguments:
    """Show what files contain: word, layout, norms, nearest words, training; for run folders also how far the word moved."""

    files: tuple[Path, ...]
    """Embedding files of any tool, or run folders."""
    nearest: int = 0
    """Number of nearest existing words to list per row (loads the model). 0 lists none."""
    compare: bool = False
    """Load the model to compare norms, show each row's distance to the nearest existing word, and find rows that were never trained."""
    model: ModelConfig = field(default_factory=of_the_word)
    json: Path | None = None
    """JSON file for the facts."""


@dataclass(frozen=True, kw_only=True)
class ConvertArguments:
    """Write each word of some files in another tool's layout, one file per word."""

    files: tuple[Path, ...]
    """Embedding files of any tool, or run folders."""
    to: Layout
    """Target tool: "diffusers" writes a pair for two text encoders, "authors" is the paper's own code. Words that a tool has no form for are refused; the others are written."""
    output_dir: Path = Path("oneword-concepts")
    """Folder for the files, which are named after the words. Nothing is overwritten."""


@dataclass(frozen=True, kw_only=True)
class ExtractArguments:
    """Extract each word of a file (a LoRA with bundled embeddings, a merged file) to its own file."""

    files: tuple[Path, ...]
    """Files that contain embeddings, several at once or among other things."""
    to: Layout = "oneword"
    """Layout of the files, as for convert."""
    output_dir: Path = Path("oneword-concepts")
    """Folder for the files. Nothing is overwritten."""


@dataclass(frozen=True, kw_only=True)
class MergeArguments:
    """Merge the words of many files into one. Words with the same name get a number."""

    files: tuple[Path, ...]
    """Embedding files of any tool, or run folders."""
    output: Path
    """New file. It must not exist yet."""
    to: Literal["oneword", "diffusers", "authors"] = "oneword"
    """Layout. Only these can hold several words."""


@dataclass(frozen=True, kw_only=True)
class RenameArguments:
    """Rename the word of a file."""

    files: tuple[Path, ...]
    """One embedding file."""
    placeholder_token: str
    """The new name, without spaces."""
    output: Path
    """New file. It must not exist yet."""
    to: Layout = "oneword"
    """Layout of the new file."""


@dataclass(frozen=True, kw_only=True)
class CombineArguments:
    """Mix words into a new one: the weighted average of their vectors, or all their vectors in a row."""

    files: tuple[Path, ...]
    """Two or more embedding files of the same model."""
    placeholder_token: str
    """The new word."""
    output: Path
    """New file. It must not exist yet."""
    weights: tuple[float, ...] = ()
    """Weights, one per file, which are divided by their sum. Without them: equal."""
    concatenate: bool = False
    """Keep every vector, one after the other, instead of averaging."""
    to: Layout = "oneword"
    """Layout of the new file."""


@dataclass(frozen=True, kw_only=True)
class ConceptCardArguments:
    """Write a card in the Hub's format and a preview, next to a word's file."""

    files: tuple[Path, ...]
    """One embedding file or run folder."""
    license: str = "unknown"
    """Licence of the word, by its name on the Hub, such as cc-by-4.0."""
    preview: bool = True
    """Draw a preview, which loads the model."""
    prompts: tuple[str, ...] = ()
    """Prompts for the preview, with "{}" for the word. Without them: the edit prompts of its family."""
    num_images_per_prompt: int = 4
    """Number of pictures per prompt."""
    seed: int = 0
    """First seed."""
    scores: Path | None = None
    """The scores.json of oneword evaluate (default: the one next to the file, if it exists)."""
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
    """One embedding file or run folder with its card next to it, and the name of the repository."""
    private: bool = False
    """Create the repository as private, if it is new."""
    token: str | None = None
    """Hub token with write access (default: from hf auth login or HF_TOKEN)."""
    message: str | None = None
    """Commit message."""


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

  sample    draw prompts and print what the oracle reads from each picture
  explore   contact sheets of nouns, places and relations in all styles, drawn next to generated
  things    list or search what the world can draw, or make a sheet of it
  pictures  draw a held-out concept, to learn from or to score against
  people    draw a profession without the world's bias: a set for `oneword debias`
  evaluate  count how often prompts are obeyed, by attribute, next to drawings of the same
  card      show how an embedded model was made and how it scores
  codebook  quantise its autoencoder by k-means, for `oneword baseline vqgan-clip`
  train     run the recipe: draw pictures and train every part, resumable, within --minutes""",
    "encoder": """usage: oneword encoder train [options]

  train  train an encoder on pictures of many things, so that new words take a second

`oneword encoder train --help` lists its options.""",
    "userstudy": """usage: oneword userstudy {make,read,captions} [options]

  make      write both questionnaires about a study's pictures, as pages that need no server
  read      check the answers and rank the models: intervals, tests, agreement, a figure
  captions  write the page where people describe a thing; with --answers, its descriptions.json

`oneword userstudy VERB --help` lists a verb's options.""",
    "baseline": """usage: oneword baseline {clip-diffusion,vqgan-clip,variations,projector} [options]

  clip-diffusion  draw by CLIP-guided diffusion: unconditional pixels, or a model's latents
  vqgan-clip      optimise a picture's codes until CLIP finds it similar to a text and to pictures
  variations      vary pictures with an image-guided model, as DALL-E 2 does in figure 3
  projector       train the part with which a model of this package varies pictures

`oneword baseline VERB --help` lists a verb's options.""",
    "palavra": """usage: oneword palavra {train,word,find} [options]

  train  train the maps of a CLIP from which its words start, on pictures of classes
  word   learn a word of that CLIP from a few pictures
  find   measure how well a word finds pictures of its thing among others

`oneword palavra VERB --help` lists a verb's options.""",
    "concept": f"""usage: oneword concept VERB FILE [FILE ...] [options]

{chr(10).join(f"  {sub:<8} {(kind.__doc__ or '').strip()}" for sub, kind in sub_verbs("concept").items())}

`oneword concept VERB --help` lists a verb's options.""",
}
"""What a verb that has sub-verbs prints without one."""
