"""The words that a run has saved, and which of them is its word.

The run's word is in ``learned_embeds.safetensors``, where training puts the one that ``keep``
selects. Once a saved one is chosen, it stays there, even if the run continues. Training's own is
then next to it, in ``learned_embeds-trained.safetensors``, until it is taken back.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from oneword._files import is_there, read_bytes, read_json, write_together
from oneword.concepts import formats, previews
from oneword.concepts.concept import Concept
from oneword.config.checks import seeds_of
from oneword.errors import UserError
from oneword.runs.folder import RunError, RunFolder
from oneword.runs.mirror import Mirror
from oneword.runs.sheets import preview_of


By = Literal["eye", "loss", "clip"]
_CHOSEN = "chosen"  # in the provenance of a word that was
_MAX_WORD = 2**36  # bytes; of one that changes the model's weights
_RECORD = {
    "config": {
        "model": {"model": str},
        "inversion": {"placeholder_token": str, "keep": str, "seed": int},
        "num_validation_images": int,
        "replace": bool,
        "mirror?": (str, type(None)),
        "validation_prompt?": str,
        "validation_prompts?": [str],
        "validation_seeds?": [str],
        "validation_negative_prompt?": str,
        "validation_height?": (int, type(None)),
        "validation_width?": (int, type(None)),
    }
}
"""Form of a run's record, for the parts that choosing reads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """The words that a run has saved."""

    folder: RunFolder
    config: Mapping[str, Any]
    """The run's settings, from its record."""
    words: Mapping[int, Concept]
    """By step, oldest first."""
    choice: Mapping[str, Any] | None
    """Step of the chosen word, and the reason; ``None`` if it is training's own."""

    @property
    def token(self) -> str:
        """The words' placeholder."""
        return self.config["inversion"]["placeholder_token"]

    @property
    def prompts(self) -> tuple[str, ...]:
        """Those of the run's previews."""
        own = self.config.get("validation_prompts") or [self.config.get("validation_prompt")]
        return tuple(prompt or f"a photo of a {self.token}" for prompt in own)

    @property
    def seeds(self) -> tuple[int, ...]:
        """Those of the run's previews."""
        if given := self.config.get("validation_seeds"):
            return seeds_of(given)
        first = self.config["inversion"]["seed"]
        return tuple(range(first, first + self.config["num_validation_images"]))

    @property
    def losses(self) -> dict[int, float]:
        """Loss on the fixed batch for the words whose step was scored."""
        found = {step: word.provenance.get("loss") for step, word in self.words.items()}
        return {step: float(x) for step, x in found.items() if isinstance(x, int | float)}

    def best_by_loss(self) -> int:
        """Step of the lowest loss, the earliest of equals.

        Raises:
            RunError: no word has a loss.
        """
        losses = self.losses
        if not losses:
            averages = self.config["inversion"]["keep"] == "average"
            why = (
                "averages are not evaluated in training"
                if averages
                else "--save-steps should be a multiple of --evaluation-steps"
            )
            raise RunError(
                f"Cannot choose by loss because none of the {len(self.words)} words in "
                f"{self.folder.path} was evaluated ({why}); pass --by clip, or --step."
            )
        return min(losses, key=lambda step: (losses[step], step))


def read_saved(run: Path) -> Saved:
    """The words that a run has saved, all of them checked.

    Raises:
        RunError: the folder is not a run folder, or has no saved words or one of another run.
        FormatError: a word's file cannot be read.
    """
    return _read(*_opened(run))


def _opened(run: Path) -> tuple[RunFolder, Mapping[str, Any]]:
    """A run's folder and settings."""
    must = f"{run} must be the folder of a run of oneword train"
    config = read_json(run / "config.json", _RECORD, must=must, error=RunError)["config"]
    mirror = config.get("mirror")
    return RunFolder(run, steps=1, mirror=None if mirror is None else Mirror(mirror)), config


def _read(folder: RunFolder, config: Mapping[str, Any]) -> Saved:
    words = {step: formats.load_concept(path) for step, path in folder.words().items()}
    if not words:
        raise RunError(
            f"{folder.path} must contain words saved during training, got none; train with "
            "--save-steps."
        )
    for step, word in words.items():
        _check_own(folder.word(step), word, config)
    return Saved(folder=folder, config=config, words=words, choice=choice_of(folder))


def _check_own(path: Path, word: Concept, config: Mapping[str, Any]) -> None:
    """Refuse a word of another run, whose file was put there."""
    for what, ours, theirs in (
        ("of the model", config["model"]["model"], word.provenance.get("base_model")),
        ("for", config["inversion"]["placeholder_token"], word.placeholder_token),
    ):
        if ours != theirs:
            raise RunError(
                f"{path} must be a word {what} {ours!r}, like its run, got one {what} {theirs!r}; "
                "it belongs to another run: move it away."
            )


def choice_of(folder: RunFolder) -> Mapping[str, Any] | None:
    """What is known about the choice of the run's word; ``None`` if it is training's or missing."""
    if not is_there(folder.learned):
        return None
    try:
        found = formats.load_concept(folder.learned).provenance.get(_CHOSEN)
    except UserError:  # damaged, or several words
        return None
    return found if isinstance(found, dict) and isinstance(found.get("step"), int) else None


def said_of(choice: Mapping[str, Any]) -> str:
    """Which word was chosen, in words."""
    return f"that of step {choice['step']}, chosen by {choice.get('by', 'eye')}"


def note_of(folder: RunFolder) -> str:
    """A message about the choice at the end of training; empty if there is none."""
    choice = choice_of(folder)
    if choice is None:
        return ""
    return (
        f"The run's word stays {said_of(choice)}. The one that training kept is in "
        f"{folder.trained}; to use it, run `oneword choose {folder.path} --by training`."
    )


def file_of_training(folder: RunFolder) -> Path:
    """Path for the word that training keeps."""
    return folder.learned if choice_of(folder) is None else folder.trained


def choose_word(
    run: Path | str, step: int | None, *, by: By = "eye", score: float | None = None
) -> Path:
    """Make one of a run's saved words the run's word; training's own is kept next to it.

    While a run is at work in the folder, nothing can be chosen. If the run has a mirror, it gets
    the word, too.

    Args:
        run: The run's folder.
        step: Step of the saved word; ``None``: go back to the one that training kept.
        by: The reason of the choice, for its file.
        score: The score that decided, for its file.

    Returns:
        Path of the run's word, ``learned_embeds.safetensors``.

    Raises:
        RunError: the folder is not a run folder, or has no such word or one of another run.
        InUseError: a run is at work there.
        OutputError: the folder cannot be written.
    """
    folder, config = _opened(Path(run))
    folder.claim()
    try:
        if step is None:
            _take_back(folder)
        else:
            _take(_read(folder, config), step, by, score)
        folder.push()
    finally:
        folder.release()
    return folder.learned


def _take(saved: Saved, step: int, by: By, score: float | None) -> None:
    folder = saved.folder
    if step not in saved.words:
        raise RunError(
            f"step must be one whose word was saved, {', '.join(map(str, saved.words))}, got "
            f"{step}."
        )
    word = saved.words[step]
    choice = {"step": step, "by": by} | ({} if score is None else {"score": score})
    files: dict[Path, bytes] = {}
    if choice_of(folder) is None and is_there(folder.learned):  # first, so that a kill loses none
        files[folder.trained] = read_bytes(folder.learned, most=_MAX_WORD)
    word = dataclasses.replace(word, provenance=word.provenance | {_CHOSEN: choice})
    files |= formats.files_of(word, folder.learned)
    _put(folder, files, word.placeholder_token, folder.preview(step))


def _take_back(folder: RunFolder) -> None:
    if choice_of(folder) is None:
        raise RunError(
            f"The run's word in {folder.path} is already the one that training kept, or training "
            "has not finished; to choose another, pass --step."
        )
    if not is_there(folder.trained):
        raise RunError(
            f"Cannot go back to the word that training kept because {folder.trained} is empty: "
            "the run has not finished. Run its command again, or choose another word."
        )
    data = read_bytes(folder.trained, most=_MAX_WORD)
    token = formats.load_concept(folder.trained).placeholder_token
    _put(folder, {folder.learned: data}, token, folder.last_preview())
    folder.trained.unlink(missing_ok=True)


def _put(folder: RunFolder, files: dict[Path, bytes], token: str, preview: Path | None) -> None:
    """Write the run's word and the preview next to it; another word's preview is removed."""
    beside = preview_of(token, folder, preview)
    write_together(files | beside)
    place = previews.beside(folder.learned)
    if not beside and is_there(place) and previews.may_write(place):
        place.unlink()
