"""Pictures of one artist's thing, to learn it from or to score against, held out or not."""

from __future__ import annotations

import zlib

import numpy as np

from oneword.microworld.world import artwork
from oneword.microworld.world.inventory import PLACES
from oneword.microworld.world.wide_scenes import Figure, WideScene


def concept_scenes(
    thing: artwork.Drawn,
    num: int,
    seed: int = 0,
    *,
    look: str = "flat sticker",
    plain: bool = False,
) -> list[WideScene]:
    """List the scenes of a thing's pictures, in every place before one repeats.

    Args:
        thing: Which one; ``unseen.counted`` says which are held out.
        num: How many.
        seed: Decides places, backgrounds and small moves.
        look: One of ``artwork.LOOKS``, or ``artwork.FIRST_EDITION``.
        plain: On plain ground, for scores, rather than in places, for learning.

    Raises:
        ArtworkError: there is no such look, or it lacks the thing.
    """
    if thing.slug not in artwork.artworks(look):
        raise artwork.ArtworkError(
            f"The look must have the thing, got {look!r}, in which nobody drew {thing.noun!r}; "
            f"take one of {', '.join(artwork.LOOKS)}."
        )
    key = (seed, 69 if plain else 68, zlib.crc32(f"{thing.slug}/{look}".encode()))
    rng = np.random.default_rng(np.random.SeedSequence(key))
    places = ("plain",) if plain else tuple(place for place in PLACES if place != "plain")
    found: list[WideScene] = []
    while len(found) < num:
        for i in rng.permutation(len(places))[: num - len(found)]:
            figure = Figure(
                slug=thing.slug,
                look=look,
                x=0.5 + float(rng.uniform(-0.05, 0.05)),
                scale=float(rng.uniform(0.93, 1.07)),
                flipped=bool(rng.random() < 0.5),
            )
            place, background = places[int(i)], int(rng.integers(2**31))
            found.append(WideScene(things=(figure,), place=place, seed=background))
    return found


def concept_pictures(
    thing: artwork.Drawn,
    num: int = 5,
    seed: int = 0,
    size: int = 128,
    *,
    look: str = "flat sticker",
    plain: bool = False,
) -> np.ndarray:
    """Draw pictures of a thing: uint8 (num, size, size, 3); see ``concept_scenes``."""
    from oneword.microworld.world import wide_drawing  # needs the optional extra

    found = concept_scenes(thing, num, seed, look=look, plain=plain)
    return np.stack([wide_drawing.render(scene, size) for scene in found])


def concept_masks(
    thing: artwork.Drawn,
    num: int = 5,
    seed: int = 0,
    size: int = 128,
    *,
    look: str = "flat sticker",
    plain: bool = False,
) -> list[np.ndarray]:
    """Draw the silhouettes of what the pictures show: bool (size, size) each."""
    from oneword.microworld.world import wide_drawing  # needs the optional extra

    found = concept_scenes(thing, num, seed, look=look, plain=plain)
    return [wide_drawing.masks(scene, size)["silhouette"] for scene in found]
