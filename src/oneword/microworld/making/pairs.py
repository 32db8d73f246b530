"""The CLIP pairs: the text encoder's teacher, the judge that scores, the guide that steers.

Those of the second world learn its pictures and captions, and know nothing that is held out. It has
no teacher: its text encoder grows from the landed one.
"""

# The libraries' own annotations are narrower than what they take and return.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportOptionalMemberAccess=false, reportOptionalSubscript=false, reportOperatorIssue=false

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from transformers import CLIPModel, CLIPTokenizer

from oneword.microworld import weights
from oneword.microworld.making import models, oracle, spelling, wide_oracle
from oneword.microworld.making.recipe import Recipe
from oneword.microworld.making.run import Run, Workshop, seed_weights
from oneword.microworld.making.stages import drawn_of, pixels_of, seeds_of
from oneword.microworld.world import artwork, captions, scenes, unseen, wide_captions, wide_scenes
from oneword.microworld.world.inventory import NOUNS, PROFESSIONS, Scene
from oneword.microworld.world.sets import FIRST_WORLD
from oneword.microworld.world.wide_scenes import WideScene


@dataclass(frozen=True, slots=True)
class _Lessons:
    """What the pairs of a world learn from."""

    tokens: Callable[[], CLIPTokenizer]
    sample: Callable[[int], Any]
    """The scene of a seed."""
    caption: Callable[[Any, np.random.Generator], str]
    setting: Callable[[Any], tuple[str, ...]]
    """What hard groups have in common."""
    truth: Callable[[Any], dict[str, str]]
    heads: Mapping[str, tuple[str, ...]]
    """What heads that are thrown away read, and the values of each."""


def _drawn_setting(scene: Scene) -> tuple[str, ...]:
    return scene.place, scene.style, scene.things[0].colours[0]


def _wide_setting(scene: Scene | WideScene) -> tuple[str, ...]:
    if isinstance(scene, Scene):
        return _drawn_setting(scene)
    first = scene.things[0]
    return scene.place, scene.style, first.look, first.colour


_FIRST_HEADS = ("noun", "second_noun", "colour", "pattern", "scene", "style", "count", "relation")


def _wide_heads() -> dict[str, tuple[str, ...]]:
    artists = (artwork.things()[slug].noun for slug in unseen.known())
    nouns = tuple(dict.fromkeys((oracle.NONE, *NOUNS, *PROFESSIONS, *artists)))
    read = ("colour", "pattern", "scene", "style", "look", "count", "relation")
    return {"noun": nouns, "second_noun": nouns} | {n: wide_oracle.HEADS[n] for n in read}


def _lessons(recipe: Recipe) -> _Lessons:
    if recipe.world == FIRST_WORLD:
        return _Lessons(
            tokens=models.tokenizer,
            sample=scenes.sample_scene,
            caption=captions.caption,
            setting=_drawn_setting,
            truth=oracle.truth,
            heads={name: oracle.HEADS[name] for name in _FIRST_HEADS},
        )
    return _Lessons(
        tokens=partial(spelling.wide_tokenizer, recipe.model),
        sample=wide_scenes.sample,
        caption=wide_captions.caption,
        setting=_wide_setting,
        truth=wide_oracle.truth,
        heads=_wide_heads(),
    )


def _alike(lessons: _Lessons, rng: np.random.Generator, num: int) -> list[int]:
    """Seeds of a batch in groups that share scene, style and colour, so that shape must be learnt.

    Random batches can be told apart by colour, scene and style: a CLIP trained on them was blind to
    nouns.
    """
    seeds = seeds_of(rng, 6 * num)
    groups: dict[tuple[str, ...], list[int]] = {}
    for seed in seeds:
        groups.setdefault(lessons.setting(lessons.sample(seed)), []).append(seed)
    order = sorted(groups, key=lambda key: (-min(len(groups[key]), 8), rng.random()))
    picked = [seed for key in order for seed in groups[key][:8]]
    return picked[:num]


def train_clip(shop: Workshop, name: str) -> bool:
    """A CLIP pair: contrastive loss on hard groups, and attribute heads that are thrown away."""
    recipe = shop.recipe
    lessons = _lessons(recipe)
    seed_weights(recipe, name)
    tokens, sizes = lessons.tokens(), recipe.pair_sizes
    pair = models.clip(tokens, sizes, judge=name == "judge").to(shop.device)
    heads = nn.ModuleDict(
        {n: nn.Linear(sizes.text_dim, len(values)) for n, values in lessons.heads.items()}
    ).to(shop.device)
    stage = getattr(recipe, name)
    run = Run(shop, name, stage, {"clip": pair, "heads": heads})
    for rng in run.steps():
        num = stage.batch_size // shop.num_processes
        hard = run.step % 4 != 0
        seeds = _alike(lessons, rng, num) if hard else seeds_of(rng, num)
        pictures, drawn = drawn_of(recipe.world, seeds, recipe.sizes.size_px)
        texts = [lessons.caption(scene, rng) for scene in drawn]
        batch = tokens(texts, padding=True, truncation=True, return_tensors="pt").to(shop.device)
        with shop.amp:
            seen = pair.vision_model(pixel_values=pixels_of(pictures, shop.device)).pooler_output
            read = pair.text_model(**batch).pooler_output
            image = F.normalize(pair.visual_projection(seen).float(), dim=-1)
            text = F.normalize(pair.text_projection(read).float(), dim=-1)
            logits = pair.logit_scale.exp().clamp(max=100.0) * image @ text.T
            same = torch.tensor([[a == b for b in texts] for a in texts], device=shop.device)
            aim = same.float() / same.sum(dim=1, keepdim=True)
            loss = (F.cross_entropy(logits, aim) + F.cross_entropy(logits.T, aim)) / 2
            read = {n: head(image * 8) for n, head in heads.items()}
            told = [lessons.truth(scene) for scene in drawn]
            loss = loss + 0.3 * oracle.attribute_loss(read, told, lessons.heads)
        run.update(loss)
    if shop.rank == 0:
        weights.save_part(shop.folder, name, pair)
        tokens.save_pretrained(shop.folder / name)
    return run.done


def check_pairs(folder: Path, recipe: Recipe, names: tuple[str, ...] = ("judge", "guide")) -> None:
    """Refuse pairs that do not read the captions of the recipe's world.

    Args:
        folder: With a folder for each pair.
        recipe: Whose world is asked for.
        names: Of the pairs.

    Raises:
        WeightsError: one does not.
    """
    for name in names:
        theirs = _world_of(weights.pair_tokenizer(folder / name))
        if theirs != recipe.world:
            raise weights.WeightsError(
                f"A model's {name} must read the captions of its own world, {recipe.world}, got "
                f"one of world {theirs} in {folder / name}; remove it and its {name}.done, and "
                f"run `oneword microworld train --world {recipe.world} --stages {name}` again."
            )


def _world_of(tokens: CLIPTokenizer) -> int:
    """The world whose captions a tokenizer was made for: the second has all artists' nouns."""
    known = tokens.get_vocab()
    words = {w for thing in artwork.things().values() for w in re.findall(r"\w+", thing.noun)}
    return wide_scenes.VERSION if all(f"{w}</w>" in known for w in words) else FIRST_WORLD


@torch.no_grad()
def pair_retrieval(folder: Path, recipe: Recipe) -> float:
    """Share of unseen drawings whose own caption is the nearest of all their captions.

    Args:
        folder: A CLIP pair's, of the recipe's world.
        recipe: Whose ``num_check_pictures`` are drawn.
    """
    lessons = _lessons(recipe)
    pair, tokens = CLIPModel.from_pretrained(folder).float().eval(), weights.pair_tokenizer(folder)
    rng = np.random.default_rng(np.random.SeedSequence((recipe.seed, 53)))
    seeds = seeds_of(rng, recipe.num_check_pictures)
    pictures, drawn = drawn_of(recipe.world, seeds, recipe.sizes.size_px)
    texts = [lessons.caption(scene, rng) for scene in drawn]
    images = []
    for pixels in pixels_of(pictures, torch.device("cpu")).split(64):
        seen = pair.vision_model(pixel_values=pixels).pooler_output
        images.append(F.normalize(pair.visual_projection(seen), dim=-1))
    batch = tokens(texts, padding=True, truncation=True, return_tensors="pt")
    read = F.normalize(pair.text_projection(pair.text_model(**batch).pooler_output), dim=-1)
    nearest = (torch.cat(images) @ read.T).argmax(dim=1).tolist()
    return sum(texts[n] == text for n, text in zip(nearest, texts, strict=True)) / len(texts)
