"""Subjects of a study: folders of photographs, or held-out concepts of the embedded model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from PIL import Image

from oneword._files import read_bytes, read_lines, visible, write_atomic
from oneword._typing import Pixels
from oneword.config.model import is_embedded
from oneword.errors import ConfigError
from oneword.evaluation.silhouettes import filled
from oneword.images import from_uint8, png_bytes, read_folder, to_images
from oneword.microworld import weights
from oneword.microworld.world import learnable
from oneword.microworld.world.held_out import HeldOut
from oneword.microworld.world.learnable import Learnable
from oneword.prompts import descriptions


if TYPE_CHECKING:
    from torch import Tensor


_CLASSES = "prompts_and_classes.txt"  # DreamBench's own list
_LIVE = ("cat", "dog")  # its classes of live subjects
_MAX_FILE = 2**30  # bytes of a picture, or of a file next to it
_OF_TEXTS = ("initializer", "captions-short", "captions-long", "variations-captions")
_USUAL = 5  # pictures that a held-out concept is learned from


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One concept of a study."""

    name: str
    noun: str | None
    """Word that training starts from; ``None``: chosen on the pictures."""
    kind: Literal["object", "live", "style"] = "object"
    source: Path | Learnable
    """The folder of its photographs, or a concept that the embedded model's world draws."""
    num: int | None = None
    """Most pictures to learn from; ``None``: all photographs, or five drawings."""

    @property
    def learnable_property(self) -> Literal["object", "style"]:
        return "style" if self.kind == "style" else "object"

    @property
    def held_out(self) -> Learnable | None:
        """The concept that the world draws; ``None`` if it has photographs."""
        return None if isinstance(self.source, Path) else self.source

    @property
    def family(self) -> str:
        """Kind of concept, for tables."""
        return self.held_out.family if self.held_out else self.kind

    @cached_property
    def files(self) -> list[Path]:
        """Its photographs, in the order of their names."""
        if not isinstance(self.source, Path):
            return []
        known = Image.registered_extensions()
        return [
            p
            for p in sorted(self.source.iterdir(), key=lambda p: p.name)
            if p.suffix.lower() in known and not p.name.endswith(".mask.png") and p.name[0] != "."
        ]

    @property
    def left_out(self) -> tuple[str, ...]:
        """Setups that it has no texts for: an artist's thing has neither noun nor descriptions."""
        if isinstance(self.source, Path) or isinstance(self.source.of, HeldOut):
            return ()
        return _OF_TEXTS

    @property
    def num_pictures(self) -> int:
        """Default number of pictures to learn from."""
        if self.held_out:
            return self.num or _USUAL
        return min(self.num or len(self.files), len(self.files))

    def most(self, wanted: int) -> bool:
        """Whether there are this many pictures; the world can draw any number."""
        return self.held_out is not None or wanted <= len(self.files)

    def pictures_in(self, place: Path, *, seed: int, num: int, size_px: int) -> Path:
        """A folder with ``num`` pictures to learn from; created below ``place`` if necessary.

        Pictures of a held-out concept depend on the seed; a smaller set is the beginning of a
        larger one.
        """
        if isinstance(self.source, Path):
            if num == len(self.files):
                return self.source
            folder = place / f"{self.name}--n{num}"
            for file in self.files[:num]:
                for path in file.parent.glob(f"{file.stem}.*"):
                    if not (folder / path.name).exists():
                        write_atomic(folder / path.name, read_bytes(path, most=_MAX_FILE))
            return folder
        folder = place / f"{self.name}--seed{seed}--n{num}"
        if not (folder / f"{num - 1:02d}.png").exists():
            drawn = from_uint8(self.source.pictures(num, seed, size_px))
            for i, picture in enumerate(to_images(drawn)):
                write_atomic(folder / f"{i:02d}.png", png_bytes(picture))
        return folder

    def pixels(self, seed: int, size_px: int) -> Pixels:
        """The default number of pictures."""
        if isinstance(self.source, Path):
            return read_folder(self.source, resolution=size_px).pixels[: self.num_pictures]
        return from_uint8(self.source.pictures(self.num_pictures, seed, size_px))

    def captions(self, setup: str) -> tuple[str, ...]:
        """People's descriptions of it, of the setup "captions-short" or "captions-long".

        Raises:
            ConfigError: there are none next to its pictures, or of an artist's thing.
            DescriptionError: they are not valid.
        """
        if not isinstance(self.source, Path):
            found = self.source.of
            if not isinstance(found, HeldOut):
                raise ConfigError(
                    f"Cannot use the setup {setup} for {self.name} because nobody has described "
                    "the artists' things; leave it out."
                )
            return found.captions_short if setup == "captions-short" else found.captions_long
        given = descriptions.read(self.source)
        if given is None:
            raise ConfigError(
                f"Cannot use the setup {setup} for {self.name} because it has no descriptions; "
                f"write {self.source / descriptions.FILE}."
            )
        return given.short if setup == "captions-short" else given.long

    def plain(self, size_px: int) -> Pixels | None:
        """Drawings of the thing alone on plain backgrounds; ``None`` if the truth is not known."""
        if self.held_out is None or self.held_out.is_style:
            return None
        return from_uint8(self.held_out.plain(size=size_px))

    def outlines(self, size_px: int) -> Tensor | None:
        """The true outlines of those drawings."""
        if self.held_out is None or self.held_out.is_style:
            return None
        import numpy as np
        import torch

        return filled(torch.from_numpy(np.stack(self.held_out.plain_masks(size=size_px))))


def find(names: Sequence[str], model: str, num: int | None = None) -> list[Subject]:
    """The subjects for a list of names and folders, each once.

    Args:
        names: Folders, or held-out concepts of the embedded models.
        model: The study's model.
        num: Most pictures to learn each from; ``None``: see ``Subject.num``.

    Raises:
        ConfigError: one is neither a folder with pictures nor a held-out concept, or two have the
            same name.
    """
    if not names:
        hint = "--concepts test" if is_embedded(model) else "--concepts FOLDER"
        raise ConfigError(f"Cannot run a study without concepts; pass for example {hint}.")
    found: list[Subject] = []
    for name in names:
        if Path(name).is_dir():
            found += _in_folder(Path(name))
        elif is_embedded(model):
            found += _of_world(name, weights.world(model))
        else:
            raise ConfigError(
                f"A concept must be a folder of pictures or a folder of such folders, got {name}, "
                "which does not exist."
            )
    chosen = {subject.name: subject for subject in found}
    for subject in found:
        if chosen[subject.name] != subject:
            raise ConfigError(
                f"The concepts' names must differ, got two of {subject.name!r}; rename a folder."
            )
    return [replace(subject, num=num) for subject in chosen.values()]


def _of_world(name: str, world: int) -> list[Subject]:
    if name in ("test", "development"):
        chosen = [one for one in learnable.learnable(world).values() if one.half == name]
    else:
        chosen = [learnable.find(name, world)]
    return [
        Subject(
            name=concept.name,
            noun=concept.noun,
            kind="style" if concept.is_style else "object",
            source=concept,
        )
        for concept in chosen
    ]


def _in_folder(folder: Path) -> list[Subject]:
    alone = Subject(name=folder.resolve().name, noun=None, source=folder)
    folders = [folder] if alone.files else sorted(p for p in visible(folder) if p.is_dir())
    classes = _classes((folder.resolve().parent if alone.files else folder) / _CLASSES)
    found = []
    for path in folders:
        name = path.resolve().name
        noun = classes.get(name)
        kind = "live" if noun in _LIVE else "object"
        subject = Subject(name=name, noun=noun, kind=kind, source=path)
        if subject.files:
            found.append(subject)
    if not found:
        raise ConfigError(
            "A concept's folder must contain pictures, or folders of pictures, got none in "
            f"{folder}."
        )
    return found


def _classes(path: Path) -> dict[str, str]:
    """Class word of each subject, as DreamBench lists them: ``name,class`` lines."""
    if not path.is_file():
        return {}
    pairs = [line.strip().split(",") for line in read_lines(path)]
    return {pair[0]: pair[1] for pair in pairs if len(pair) == 2 and " " not in pair[0]}
