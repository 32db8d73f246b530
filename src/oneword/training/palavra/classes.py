"""Training data of the maps: a CLIP's features of pictures of classes and of their sentences."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from oneword._files import read_json, visible
from oneword._typing import Pixels
from oneword.config.palavra import HELD_BACK
from oneword.images import (
    Frame,
    captions_of,
    from_uint8,
    picture_files,
    read_image,
    to_pixels,
)
from oneword.microworld.world import (
    artwork,
    captions,
    inventory,
    scenes,
    unseen,
    wide_captions,
    wide_scenes,
)
from oneword.microworld.world.sets import FIRST_WORLD
from oneword.microworld.world.wide_scenes import WideScene
from oneword.models.guide import Features
from oneword.prompts import with_word
from oneword.training.palavra.maps import PalavraError, Reader, picture_features


OnClass = Callable[[int, int], None]
"""``on_class(done, total)``."""
_PLAIN = "a photo of a {}"  # for a picture without a caption
_FIRST_SCENE = 2**41  # above every seed of the embedded models' own recipe
_SCENES = 2**24  # between two nouns, and more than are tried
_NAMED = 16  # pictures of each thing that has a name of its own


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PictureClass:
    """The pictures of one class, and sentences about them."""

    words: tuple[str, ...]
    """Its own word, and further words that may replace it."""
    pictures: Features
    texts: Float[Tensor, "words pictures dim"]
    """Features of each picture's sentence with each word, from the CLIP's projection."""

    @property
    def held_back(self) -> Int[Tensor, " some"]:
        """Indices of the pictures that are used only for testing."""
        return torch.arange(0, len(self.pictures), HELD_BACK)

    @property
    def learned(self) -> Int[Tensor, " others"]:
        """Indices of the other pictures."""
        every = torch.arange(len(self.pictures))
        return every[every % HELD_BACK != 0]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Classes:
    """All classes."""

    members: tuple[PictureClass, ...]
    tested: tuple[int, ...]
    """Indices of the classes that are tested."""
    sha256: str
    """Hash of words, sentences and pixels."""


class _Gathering:
    """Classes that are read one after the other."""

    def __init__(self, reader: Reader) -> None:
        self.reader, self.members = reader, list[PictureClass]()
        self.digest = hashlib.sha256()

    def add(self, words: Sequence[str], sentences: Sequence[str], pixels: Pixels) -> None:
        """Take a class.

        Args:
            words: As for ``PictureClass``.
            sentences: One for each picture, with "{}" for the word.
            pixels: Pictures at the CLIP's own size.
        """
        self.digest.update(repr((tuple(words), tuple(sentences))).encode())
        self.digest.update(pixels.contiguous().numpy().tobytes())
        texts = [s.replace("{}", word) for word, s in itertools.product(words, sentences)]
        read = self.reader.texts(texts).cpu()
        member = PictureClass(
            words=tuple(words),
            pictures=picture_features(self.reader.guide, pixels),
            texts=read.unflatten(0, (len(words), len(sentences))),
        )
        self.members.append(member)

    def classes(self, tested: Sequence[int]) -> Classes:
        """All that were taken."""
        return Classes(
            members=tuple(self.members), tested=tuple(tested), sha256=self.digest.hexdigest()
        )


def of_folder(
    reader: Reader,
    folder: Path,
    *,
    num_pictures: int,
    words_file: Path | None = None,
    on_class: OnClass | None = None,
) -> Classes:
    """The classes of a folder of folders of pictures.

    Args:
        reader: Reader of the CLIP.
        folder: Has a folder for each class, whose name is its word ("-" and "_" are spaces).
        num_pictures: Most pictures of each class, the first ones by name.
        words_file: JSON with further words, by class.
        on_class: Called with the progress.

    Raises:
        UserError: there are fewer than two classes, one has fewer than two pictures, a picture
            cannot be read, or the file names a class that is not there.
    """
    places = {
        path.name.replace("-", " ").replace("_", " ").strip(): path
        for path in (sorted(visible(folder)) if folder.is_dir() else ())
        if path.is_dir()
    }
    if len(places) < 2:
        raise PalavraError(
            "The training data must be a folder with two or more subfolders of pictures, one per "
            f"class, got {len(places)} in {folder}."
        )
    more = _further_words(words_file, places)
    found = _Gathering(reader)
    side = reader.guide.size
    for number, (word, place) in enumerate(places.items(), 1):
        paths, _ = picture_files(place)
        if len(paths) < 2:
            raise PalavraError(
                "A class must have two or more pictures because one is held back for the test, "
                f"got {len(paths)} in {place}."
            )
        told = captions_of(place, paths)[:num_pictures]
        frame = Frame((side, side), "crop", "bicubic")
        pixels = torch.cat([to_pixels(read_image(p), frame) for p in paths[:num_pictures]])
        sentences = [with_word(text, "{}", word) if text else _PLAIN for text in told]
        found.add([word, *more.get(word, ())], sentences, pixels)
        if on_class is not None:
            on_class(number, len(places))
    return found.classes(range(len(places)))


def _further_words(path: Path | None, known: Mapping[str, Path]) -> dict[str, list[str]]:
    if path is None:
        return {}
    must = "words_file must contain lists of texts by class"
    more = read_json(path, {str: [str]}, must=must, error=PalavraError)
    strange = sorted(more.keys() - known.keys())
    if strange:
        raise PalavraError(
            f"{path} must name classes of the training data, got {strange[0]!r}; they are "
            f"{', '.join(sorted(known)[:20])}."
        )
    return {name: [w for w in words if w.strip()] for name, words in more.items()}


@dataclass(frozen=True, slots=True)
class _Kind:
    """Things of one noun, as a world draws them."""

    noun: str
    keywords: tuple[str, ...]
    """Further words for all of them."""
    names: tuple[str, ...]
    """Words for those with a look that has a name of its own."""
    first: int
    """Number of the first scene."""
    key: tuple[int, ...]
    """Of the captions' draws."""
    sample: Callable[[int], inventory.Scene | WideScene]
    """The scene of a number, with the thing alone."""


def _kinds(seed: int, world: int) -> list[_Kind]:
    """All nouns of a world; one that artists drew too is the first world's."""
    nouns, looks = inventory.NOUNS, scenes.named()
    found = [
        _Kind(
            noun=noun,
            keywords=(),
            names=tuple(looks[noun]),
            first=_FIRST_SCENE + (seed * len(nouns) + number) * _SCENES,
            key=(seed, 61, number),
            sample=partial(scenes.sample_scene, nouns=(noun,), relation="alone"),
        )
        for number, noun in enumerate(nouns, 1)
    ]
    if world == FIRST_WORLD:
        return found
    known, names, keywords = unseen.known(), wide_scenes.names(), wide_captions.keywords()
    taken = {*nouns}
    for number, slug in enumerate(known):
        noun = artwork.things()[slug].noun
        if noun in taken:
            continue
        taken.add(noun)
        _, name = names[slug]
        found.append(
            _Kind(
                noun=noun,
                keywords=keywords[slug],
                names=(name,),
                first=_FIRST_SCENE + (seed * len(known) + number) * _SCENES,
                key=(seed, 61, len(nouns) + 1 + number),
                sample=partial(wide_scenes.sample_wide, slugs=(slug,), relation="alone"),
            )
        )
    return found


def of_world(
    reader: Reader,
    *,
    num_pictures: int,
    seed: int = 0,
    world: int = FIRST_WORLD,
    on_class: OnClass | None = None,
) -> Classes:
    """The nouns of the embedded models' world, and the things in it that have names of their own.

    Each noun is a class whose further words are its keywords, which artists' things have, and the
    names of its named looks; and each name is a class by itself. Captions are exact; held-out
    things are not drawn.

    Args:
        reader: Reader of the CLIP.
        num_pictures: Pictures of each noun; names have 16, or this number if it is smaller.
        seed: Seed of the scenes.
        world: Version of the world.
        on_class: Called with the progress.
    """
    from oneword.microworld.world import wide_drawing  # needs the optional extra

    found, tested = _Gathering(reader), list[int]()
    side = reader.guide.size
    each = min(num_pictures, _NAMED)
    write = captions.caption if world == FIRST_WORLD else wide_captions.caption

    def add(words: Sequence[str], drawn: Sequence[tuple[Any, str]]) -> None:
        pictures = np.stack([wide_drawing.render(scene, side) for scene, _ in drawn])
        found.add(words, [text for _, text in drawn], from_uint8(pictures))

    kinds = _kinds(seed, world)
    for number, kind in enumerate(kinds, 1):
        rng = np.random.default_rng(np.random.SeedSequence(kind.key))
        plain: list[tuple[Any, str]] = []
        named: dict[str, list[tuple[Any, str]]] = {name: [] for name in kind.names}
        for index in itertools.count(kind.first):
            scene = kind.sample(index)
            name = scene.things[0].name
            if len(plain) < num_pictures:
                plain.append((scene, _sentence(write, scene, kind.noun, rng)))
            elif name and len(named[name]) < each:
                named[name].append((scene, _sentence(write, scene, name, rng)))
            elif all(len(own) == each for own in named.values()):
                break
        tested.append(len(found.members))
        add([kind.noun, *kind.keywords, *named], plain)
        for name, own in named.items():
            add([name], own)
        if on_class is not None:
            on_class(number, len(kinds))
    return found.classes(tested)


def _sentence(
    write: Callable[[Any, np.random.Generator], str],
    scene: Any,
    word: str,
    rng: np.random.Generator,
) -> str:
    """A true caption with "{}" instead of the thing's noun, or of its name."""
    thing = scene.things[0]
    own = replace(scene, things=(replace(thing, name=thing.name if word == thing.name else ""),))
    while True:  # a caption names a thing by its name four times in five
        text = with_word(write(own, rng), "{}", word)
        if not text.startswith("{}, "):
            return text
