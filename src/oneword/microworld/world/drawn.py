"""Pictures and masks of held-out concepts, and pictures of other things of their nouns."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from oneword.microworld.world.concepts import concept_scenes
from oneword.microworld.world.held_out import HeldOut
from oneword.microworld.world.inventory import Scene
from oneword.microworld.world.scenes import sample_scene
from oneword.microworld.world.sets import FIRST_WORLD


if TYPE_CHECKING:
    from collections.abc import Sequence

_FIRST_NOUN = 2**42  # scenes that neither the recipes nor PALAVRA's maps learn from


_SCENES = 83  # stream of the scenes' seeds


def concept_pictures(concept: HeldOut, num: int = 5, seed: int = 0, size: int = 128) -> np.ndarray:
    """Draw pictures to learn a concept from, in varied places: uint8 (num, size, size, 3)."""
    return _drawn(concept_scenes(concept, num, seed), size)


def concept_plain(concept: HeldOut, num: int = 8, seed: int = 0, size: int = 128) -> np.ndarray:
    """Draw a concept on plain backgrounds, the truth for scores: uint8 (num, size, size, 3)."""
    return _drawn(concept_scenes(concept, num, seed, plain=True), size)


def noun_pictures(noun: str, num: int, seed: int = 0, size: int = 128) -> np.ndarray:
    """Draw things of a noun that training knows, each alone: uint8 (num, size, size, 3)."""
    first = _FIRST_NOUN + seed * 2**20
    return _drawn(
        [sample_scene(first + i, nouns=(noun,), relation="alone") for i in range(num)], size
    )


def concept_masks(
    concept: HeldOut, num: int = 5, seed: int = 0, size: int = 128, *, plain: bool = False
) -> list[dict[str, np.ndarray]]:
    """Draw the silhouette and parts of what the pictures show, or of the plain ones."""
    from oneword.microworld.world import drawing  # needs the optional extra

    found = concept_scenes(concept, num, seed, plain=plain)
    return [drawing.masks(scene, size=size) for scene in found]


def world_pictures(
    num: int, seed: int = 0, size: int = 128, world: int = FIRST_WORLD
) -> np.ndarray:
    """Draw scenes as in training, without held-out things: uint8 (num, size, size, 3).

    Args:
        num: How many.
        seed: Decides the scenes.
        size: Side in pixels.
        world: Version of the world.
    """
    rng = np.random.default_rng(np.random.SeedSequence((seed, _SCENES)))
    return pictures_of(rng.integers(0, 2**40, num).tolist(), size, world)


def pictures_of(seeds: Sequence[int], size: int, world: int) -> np.ndarray:
    """Draw the scene of each seed in a version of the world: uint8 (seeds, size, size, 3)."""
    from oneword.microworld.world import drawing, wide_drawing  # needs the optional extra

    render = (drawing if world == FIRST_WORLD else wide_drawing).render_batch
    return render(seeds, size=size)[0]


def _drawn(found: Sequence[Scene], size: int) -> np.ndarray:
    from oneword.microworld.world import drawing  # needs the optional extra

    return np.stack([drawing.render(scene, size=size) for scene in found])
