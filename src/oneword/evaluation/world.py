"""How well pictures of the embedded model show what their prompts say, by a trained reader."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from oneword._typing import Pixels
from oneword.backbones.base import Backbone
from oneword.config import SamplingConfig
from oneword.images import from_uint8
from oneword.microworld.first import captions, scenes, weights
from oneword.microworld.first.models import Reader


ATTRIBUTES = tuple(Reader.HEADS)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorldScores:
    """Accuracy of each attribute on generated pictures, and the reader's own on drawn ones."""

    value: dict[str, float]
    ceiling: dict[str, float]
    prompts: tuple[str, ...]
    generated: Pixels
    drawn: Pixels

    def plain(self) -> dict[str, dict[str, float]]:
        """``{"noun": {"value": 0.9, "ceiling": 0.98}, ...}``."""
        return {
            name: {"value": self.value[name], "ceiling": self.ceiling[name]} for name in ATTRIBUTES
        }


def accuracy(reader: Reader, pixels: Pixels, truth: Sequence[dict[str, str]]) -> dict[str, float]:
    """Share of pictures whose attributes are read as their prompts name them, in 0..1."""
    with torch.no_grad():
        logits = reader(pixels)
    found = {}
    for name, values in Reader.HEADS.items():
        read = [values[i] for i in logits[name].argmax(dim=1).tolist()]
        hits = [r == t[name] for r, t in zip(read, truth, strict=True)]
        found[name] = sum(hits) / len(hits)
    return found


def evaluate_world(
    backbone: Backbone,
    *,
    num_prompts: int,
    seed: int,
    sampling: SamplingConfig | None = None,
    batch_size: int = 16,
    on_picture: Callable[[int, int], None] | None = None,
) -> WorldScores:
    """Generate a picture for each of a set of prompts, balanced over all attributes, and read it.

    Args:
        backbone: The embedded model or one made by its recipe.
        num_prompts: Prompts, one picture each.
        seed: Of the prompts, of the pictures and of the drawings beside them.
        sampling: Unset fields take the model's default.
        batch_size: Pictures drawn at once.
        on_picture: Told how far the drawing is.
    """
    reader = weights.load_reader()
    pairs = captions.evaluation_prompts(num_prompts, seed)
    truth = [attributes for _, attributes in pairs]
    batches: list[Pixels] = []
    for start in range(0, num_prompts, batch_size):
        part = pairs[start : start + batch_size]
        seeds = [seed * 1_000_003 + start + i for i in range(len(part))]
        batches.append(backbone.draw([p for p, _ in part], seeds, sampling).cpu())
        if on_picture is not None:
            on_picture(start + len(part), num_prompts)
    generated = torch.cat(batches)
    drawn = drawn_twins(truth, seed)
    return WorldScores(
        value=accuracy(reader, generated, truth),
        ceiling=accuracy(reader, drawn, truth),
        prompts=tuple(p for p, _ in pairs),
        generated=generated,
        drawn=drawn,
    )


def drawn_twins(truth: Sequence[dict[str, str]], seed: int) -> Pixels:
    """Drawn pictures of the same attributes: what the reader reads at best."""
    pictures = []
    for i, attributes in enumerate(truth):
        scene = scenes.sample_scene(
            seed * 1_000_003 + i,
            nouns=(attributes["noun"],),
            styles=(attributes["style"],),
            num_things=1,
        )
        (thing,) = scene.things
        main, second, detail = thing.colours
        colour = attributes["colour"]
        thing = replace(thing, colours=(colour, colour if second == main else second, detail))
        pictures.append(scenes.render(replace(scene, things=(thing,), place=attributes["scene"])))
    return from_uint8(np.stack(pictures))
