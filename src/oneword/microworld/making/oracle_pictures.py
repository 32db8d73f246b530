"""What the second world's oracle is trained, calibrated and measured on: pictures of all things.

As the first world's oracle does, it sees what is held out too, since it has to tell it when a
learned word shows it: held-out things as often as known ones, the first edition's hand, and the
hidden styles. It is never used for training or choosing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from oneword.microworld.making import stages, wide_oracle
from oneword.microworld.making.oracle import NONE
from oneword.microworld.making.recipe import Recipe
from oneword.microworld.making.run import Workshop
from oneword.microworld.making.wide_oracle import WideOracle
from oneword.microworld.world import artwork, held_out, scenes, wide_drawing, wide_scenes
from oneword.microworld.world.inventory import HIDDEN_STYLES, NOUNS, PROFESSIONS, STYLES, Scene
from oneword.microworld.world.wide_scenes import WideScene


HELD_OUT_SHARE = 0.1
"""Pictures of what the first world holds out; of the rest, the world's own share is its scenes."""
FIRST_EDITION_SHARE = 0.15
"""Of pictures in the artists' own looks, how many are by the first edition's hand."""
_BATCH = 16  # pictures that go through the VAE at once when nothing is learned


def sample(rng: np.random.Generator) -> tuple[Scene | WideScene, str]:
    """One scene, and the first world's held-out thing that it shows, or ``NONE``."""
    if rng.random() < HELD_OUT_SHARE:
        concept = held_out.HELD_OUT[int(rng.integers(len(held_out.HELD_OUT)))]
        scene = stages.held_out_scene(concept, rng)
        return scene, concept.name if concept.thing else NONE
    seed = int(rng.integers(2**40))
    if rng.random() < wide_scenes.DRAWN_SHARE:
        return scenes.sample_scene(seed), NONE
    return _artists(seed, rng), NONE


def _artists(
    seed: int,
    rng: np.random.Generator,
    slugs: Sequence[str] | None = None,
    relation: str | None = None,
) -> WideScene:
    """A scene of the artists' things, in any style or by any hand."""
    scene = wide_scenes.sample_wide(
        seed,
        slugs=tuple(artwork.things()) if slugs is None else slugs,
        styles=(*STYLES, *HIDDEN_STYLES),
        relation=relation,
    )
    if scene.style != "photo" or rng.random() >= FIRST_EDITION_SHARE:
        return scene
    drew = artwork.artworks(artwork.FIRST_EDITION)
    things = tuple(
        replace(thing, look=artwork.FIRST_EDITION) if thing.slug in drew else thing
        for thing in scene.things
    )
    return replace(scene, things=things)


def batch(
    rng: np.random.Generator, num: int, size_px: int
) -> tuple[np.ndarray, list[dict[str, str]]]:
    """Drawn pictures, uint8 (num, size, size, 3), with their truth."""
    drawn = [sample(rng) for _ in range(num)]
    pictures = np.stack([wide_drawing.render(scene, size_px) for scene, _ in drawn])
    return pictures, [wide_oracle.truth(scene, concept) for scene, concept in drawn]


def each(rng: np.random.Generator, num: int) -> Iterator[tuple[Scene | WideScene, str]]:
    """Scenes of everything that has a prototype, ``num`` of each; every fourth has two things."""
    slugs = tuple(artwork.things())
    for slug in slugs:
        for i in range(num):
            others = [other for other in (slugs[int(rng.integers(len(slugs)))],) if other != slug]
            some, relation = (
                ((slug, *others), "beside") if i % 4 == 3 and others else ((slug,), "alone")
            )
            yield _artists(int(rng.integers(2**40)), rng, some, relation), NONE
    for noun in (*NOUNS, *PROFESSIONS):
        for _ in range(num):
            seed = int(rng.integers(2**40))
            yield scenes.sample_scene(seed, nouns=(noun,), relation="alone"), NONE
    for concept in held_out.HELD_OUT:
        for _ in range(num if concept.thing else 0):
            yield stages.held_out_scene(concept, rng), concept.name


def train_oracle(shop: Workshop) -> bool:
    """The second world's oracle, from the landed one's trunk; at the end it is calibrated."""

    def finish(reader: WideOracle, vae: AutoencoderKL) -> None:
        wide_oracle.calibrate(reader.eval(), _calibrating(shop, vae))

    return stages.train_reader(shop, WideOracle, batch, wide_oracle.attribute_loss, finish)


@torch.no_grad()
def _calibrating(
    shop: Workshop, vae: AutoencoderKL
) -> Iterator[tuple[Tensor, list[dict[str, str]]]]:
    recipe = shop.recipe
    rng = np.random.default_rng(np.random.SeedSequence((recipe.seed, 54)))
    drawn = list(each(rng, recipe.num_calibration))
    for start in range(0, len(drawn), _BATCH):
        some = drawn[start : start + _BATCH]
        pictures = np.stack([wide_drawing.render(s, recipe.sizes.size_px) for s, _ in some])
        pixels = stages.pixels_of(pictures, shop.device)
        yield stages.through(vae, pixels), [wide_oracle.truth(s, c) for s, c in some]
        shop.on_progress("calibration", start + len(some), len(drawn), {})


def oracle_accuracy(folder: Path, recipe: Recipe) -> dict[str, float]:
    """How well the oracle reads unseen drawings that have gone through the VAE, by attribute."""
    rng = np.random.default_rng(np.random.SeedSequence((recipe.seed, 52)))
    pictures, told = batch(rng, recipe.num_check_pictures, recipe.sizes.size_px)
    read = stages.read_back(folder, recipe, pictures)
    return wide_oracle.agreement(read, told)
