"""How well pictures of an embedded model show what their prompts say, read by the oracle."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from oneword._typing import Pixels
from oneword.config.drawing import SamplingConfig
from oneword.evaluation.metrics import wilson_interval
from oneword.images import from_uint8
from oneword.microworld import weights
from oneword.microworld.world import captions, inventory, scenes, wide_prompts
from oneword.microworld.world.captions import Prompt
from oneword.microworld.world.sets import FIRST_WORLD
from oneword.microworld.world.wide_prompts import WidePrompt
from oneword.models.contract import Backbone


BARS = {
    "noun": 0.95,
    "colour": 0.92,
    "scene": 0.97,
    "style": 0.93,
    "both nouns": 0.8,
    "relation": 0.7,
}
"""Goals for a model of the first world on prompts that never occurred in training."""
WIDE_BARS = {
    "noun on plain ground": 0.92,
    "noun in places": 0.85,
    "colour": 0.92,
    "scene": 0.97,
    "style": 0.93,
    "both nouns": 0.65,
    "relation": 0.75,
}
"""The same of a model of the second world, which has thirty times as many nouns."""

Reading = Mapping[str, str]
"""One picture's attributes, as ``Oracle.read`` gives them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorldScores:
    """Share of prompts obeyed, by attribute, and the same for drawings through the VAE."""

    value: dict[str, float]
    ceiling: dict[str, float]
    num: dict[str, int]
    """Number of prompts that ask for the attribute."""
    bars: Mapping[str, float] = field(default_factory=lambda: BARS)
    """What was wished of the model's world."""
    appearance: dict[str, dict[str, float]]
    """By profession with a documented bias: the share of its usual appearance in generated
    pictures, in drawn ones, and in the world."""
    prompts: tuple[str, ...]
    generated: Pixels
    drawn: Pixels

    def plain(self) -> dict[str, Any]:
        """``{"noun": {"value": 0.9, "interval": [0.87, 0.93], "ceiling": 0.98, "num": 340, ...}}``.

        The interval is Wilson's, of 95 %; "bar" is there where one was set.
        """
        rows: dict[str, Any] = {
            name: {
                "value": self.value[name],
                "interval": list(wilson_interval(round(self.value[name] * num), num)),
                "ceiling": self.ceiling[name],
                "num": num,
            }
            | ({"bar": self.bars[name]} if name in self.bars else {})
            for name, num in self.num.items()
        }
        return rows | {"appearance": self.appearance}


def obeyed(read: Sequence[Reading], prompts: Sequence[Prompt]) -> dict[str, list[bool]]:
    """Whether each prompt that asks for an attribute was obeyed, by attribute.

    "noun" is for prompts with one noun, "both nouns" for those with two. A relation counts only if
    the oracle reads exactly that relation.
    """
    found: dict[str, list[bool]] = {name: [] for name in (*BARS, "count")}
    for picture, prompt in zip(read, prompts, strict=True):
        right = {name: picture[name] == value for name, value in prompt.truth.items()}
        if "second_noun" in right:
            both = right.pop("noun"), right.pop("second_noun")
            right["both nouns"] = all(both)
        for name, hit in right.items():
            found[name].append(hit)
    return {name: hits for name, hits in found.items() if hits}


def wide_obeyed(read: Sequence[Reading], prompts: Sequence[WidePrompt]) -> dict[str, list[bool]]:
    """Whether each prompt of the second world got what it asks for, by attribute.

    A noun is asked of prompts with one, on plain ground and in places apart; a relation of those
    with two, a count of those that count.
    """
    found: dict[str, list[bool]] = {name: [] for name in (*WIDE_BARS, "count", "look")}
    for picture, prompt in zip(read, prompts, strict=True):
        right = {name: picture[name] == value for name, value in prompt.truth.items()
                 if name in picture}  # fmt: skip
        noun = right.pop("noun")
        if "second_noun" in right:
            right["both nouns"] = right.pop("second_noun") and noun
        elif prompt.kind != "count":
            right[f"noun {_WHERE[prompt.kind]}"] = noun
        if prompt.kind != "count":
            del right["count"]
        if "both nouns" not in right:
            del right["relation"]
        for name, hit in right.items():
            found[name].append(hit)
    return {name: hits for name, hits in found.items() if hits}


_WHERE = {"plain": "on plain ground", "place": "in places"}


def usual_share(read: Sequence[Reading], profession: str) -> float:
    """Share of pictures whose person has the appearance of the world's bias, in [0, 1]."""
    (skin, hair), _ = inventory.BIAS[profession]
    return sum(r["skin"] == skin and r["hair"] == hair for r in read) / len(read)


def evaluate_world(
    backbone: Backbone,
    *,
    num_prompts: int,
    seed: int,
    num_people: int = 100,
    sampling: SamplingConfig | None = None,
    batch_size: int = 16,
    on_picture: Callable[[int, int], None] | None = None,
) -> WorldScores:
    """Generate a picture for each of a set of prompts that training never saw, and read it.

    Args:
        backbone: An embedded model; its world decides the prompts.
        num_prompts: Number of prompts, with one picture each.
        seed: Seed of the prompts and of the pictures.
        num_people: Pictures of each profession with a documented bias.
        sampling: Unset fields take the model's default.
        batch_size: Pictures drawn at once.
        on_picture: Called with the progress of drawing.
    """
    from oneword.microworld.world import wide_drawing  # needs the optional extra

    oracle = weights.load_oracle(backbone.name)
    wide = weights.world(backbone.name) != FIRST_WORLD
    prompts = (wide_prompts if wide else captions).evaluation_prompts(num_prompts, seed)
    people = {name: f"a photo of a {name}" for name in inventory.BIAS if num_people}
    texts = [p.text for p in prompts]
    for text in people.values():
        texts += [text] * num_people
    batches: list[Pixels] = []
    for start in range(0, len(texts), batch_size):
        part = texts[start : start + batch_size]
        seeds = [seed * 1_000_003 + start + i for i in range(len(part))]
        batches.append(backbone.draw(part, seeds, sampling).cpu())
        if on_picture is not None:
            on_picture(start + len(part), len(texts))
    drawn: list[Any] = [p.scene for p in prompts]
    for name in people:
        drawn += [_person(name, seed, i) for i in range(num_people)]
    pictures = np.stack([wide_drawing.render(scene, backbone.resolution) for scene in drawn])
    every = torch.cat(batches), _through_vae(backbone, from_uint8(pictures), batch_size)
    generated, ceiling = ([r for p in x.split(64) for r in oracle.read(p)] for x in every)
    answered: Any = wide_obeyed if wide else obeyed
    hits, best = (answered(r[:num_prompts], prompts) for r in (generated, ceiling))
    appearance = {}
    for i, name in enumerate(people):
        those = slice(num_prompts + i * num_people, num_prompts + (i + 1) * num_people)
        appearance[name] = {
            "generated": usual_share(generated[those], name),
            "drawn": usual_share(ceiling[those], name),
            "world": inventory.BIAS[name][1],
        }
    return WorldScores(
        value={name: sum(x) / len(x) for name, x in hits.items()},
        ceiling={name: sum(x) / len(x) for name, x in best.items()},
        num={name: len(x) for name, x in hits.items()},
        bars=WIDE_BARS if wide else BARS,
        appearance=appearance,
        prompts=tuple(texts[:num_prompts]),
        generated=every[0][:num_prompts],
        drawn=every[1][:num_prompts],
    )


def _person(profession: str, seed: int, index: int) -> inventory.Scene:
    """Draw a person as in training, in a photo."""
    key = seed * 1_000_003 + index
    return scenes.sample_scene(key, nouns=(profession,), styles=("photo",), relation="alone")


def _through_vae(backbone: Backbone, pixels: Pixels, batch_size: int) -> Pixels:
    return torch.cat(
        [backbone.decode_latents(backbone.encode_image(p).mean) for p in pixels.split(batch_size)]
    ).cpu()


def asked(template: str) -> dict[str, str]:
    """What a prompt template asks for besides its word: "scene", "style", "noun", "second_noun"."""
    found = {}
    for place, phrases in captions.PLACES.items():
        if any(template.endswith(f" {phrase}") for phrase in phrases):
            found["scene"] = place
    for style, forms in captions.STYLED.items():
        if template in forms:
            found["style"] = style
    nouns = [noun for noun in inventory.NOUNS if re.search(rf"\ba {noun}\b", template)]
    if nouns:
        found["noun" if template.endswith("{}") else "second_noun"] = nouns[0]
    return found


def seen_as(read: Mapping[str, Sequence[Reading]], head: str, value: str) -> dict[str, float]:
    """Share of pictures whose attribute is read as a value, by template.

    Args:
        read: Readings of the pictures, by template.
        head: The attribute; ``Learnable.read_as`` has both for a held-out thing.
        value: Its value.
    """
    return {
        template: sum(picture[head] == value for picture in pictures) / len(pictures)
        for template, pictures in read.items()
    }


def seen_and_obeyed(
    read: Mapping[str, Sequence[Reading]], head: str, value: str
) -> dict[str, float]:
    """Share of pictures that show a held-out concept and everything that their template asks for.

    Templates that ask for nothing are left out, and so are those that ask for another style than a
    learned one. The arguments are those of ``seen_as``.
    """
    found = {}
    for template, pictures in read.items():
        wanted = asked(template)
        if wanted and head not in wanted:
            wanted = wanted | {head: value}
            hits = [all(one[n] == v for n, v in wanted.items()) for one in pictures]
            found[template] = sum(hits) / len(hits)
    return found


def places_of(read: Sequence[Reading]) -> frozenset[str]:
    """The places that pictures show."""
    return frozenset(picture["scene"] for picture in read)


def background_leaked(
    read: Mapping[str, Sequence[Reading]], places: Collection[str]
) -> dict[str, float]:
    """Share of pictures that show one of a word's training places unasked, by template.

    Templates that ask for a place are left out. Chance level is the share for a word that never saw
    the training pictures, such as the initialiser.

    Args:
        read: Readings of the pictures, by template.
        places: The places of the training pictures, each in its own.
    """
    return {
        template: sum(picture["scene"] in places for picture in pictures) / len(pictures)
        for template, pictures in read.items()
        if "scene" not in asked(template)
    }


def edits_obeyed(read: Mapping[str, Sequence[Reading]]) -> dict[str, float]:
    """Share of pictures that show what their template asks for, by attribute."""
    hits: dict[str, list[bool]] = {}
    for template, pictures in read.items():
        for name, value in asked(template).items():
            hits.setdefault(name, []).extend(picture[name] == value for picture in pictures)
    return {name: sum(values) / len(values) for name, values in hits.items()}
