"""The second world's oracle: reads what its pictures show, the things by their nearest prototype.

As the first world's ``oracle``, whose trunk it has, it scores and is never used for training or
choosing. Some eight hundred things, of which some are held out, are told apart by where a picture
lies among prototypes, one for each, in place of a head with a row for each.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from oneword.microworld.making import oracle
from oneword.microworld.making.oracle import NONE, Trunk
from oneword.microworld.world import artwork, held_out, inventory, unseen
from oneword.microworld.world.inventory import Scene
from oneword.microworld.world.wide_scenes import WideScene, truth as facts_of


PARTS = "drawn from parts"
"""The look of what the first world draws."""
HEADS: dict[str, tuple[str, ...]] = {
    name: values
    for name, values in oracle.HEADS.items()
    if name not in ("noun", "second_noun", "concept")
} | {"look": (*artwork.LOOKS, artwork.FIRST_EDITION, PARTS)}
"""What is read by a head of its own, and the values of each."""
_FOUND = ("noun", "second_noun")  # by prototype; each asks a question of its own
_DIM = 96  # of the space of the prototypes
_SCALE = 24.0  # of cosines, so that one thing among all can be certain


@cache
def prototypes() -> tuple[tuple[str, str], ...]:
    """What has a prototype: (noun, held-out thing of the first world or ``NONE``), none first.

    A noun that both worlds draw has one, and so has a held-out shape that artists drew too.
    """
    nouns = (
        NONE, *inventory.NOUNS, *inventory.PROFESSIONS,
        *(thing.noun for thing in artwork.things().values()),
    )  # fmt: skip
    found = dict.fromkeys((noun, NONE) for noun in nouns)
    for concept in held_out.HELD_OUT:
        if concept.thing is not None:
            noun = noun_of(concept)
            if concept.family == "shape":
                found.pop((noun, NONE), None)
            found[noun, concept.name] = None
    return tuple(found)


def noun_of(concept: held_out.HeldOut) -> str:
    """What a held-out thing of the first world is read as: its noun, or its own name, of a shape.

    A shape that the artists drew under a longer name goes by that one.
    """
    if concept.family != "shape":
        return concept.noun
    thing = artwork.things().get(unseen.slug_of(concept.name))
    return concept.name if thing is None else thing.noun


@cache
def _index() -> dict[tuple[str, str], int]:
    """Prototypes by noun, and those of held-out things by their names alone as well."""
    found = {pair: i for i, pair in enumerate(prototypes())}
    for i, (noun, concept) in enumerate(prototypes()):
        if concept != NONE:
            found["", concept] = i
            found.setdefault((noun, NONE), i)  # of a shape, which no plain noun stands for
    return found


def prototype_of(noun: str, concept: str = NONE) -> int:
    """Index in ``prototypes`` of what a truth names."""
    return _index()[(noun, NONE) if concept == NONE else ("", concept)]


def truth(scene: Scene | WideScene, concept: str = NONE) -> dict[str, str]:
    """What the oracle should read; what a picture does not show is left out.

    Args:
        scene: What is drawn, of either world.
        concept: Name of the first world's held-out thing that its first thing is.
    """
    if isinstance(scene, WideScene):
        found = {"second_noun": NONE} | facts_of(scene)
        found.pop("second_look", None)
    else:
        found = oracle.truth(scene, concept) | {"look": PARTS}
    noun, concept = prototypes()[prototype_of(found["noun"], concept)]
    return found | {"noun": noun, "concept": concept}


class WideOracle(Trunk):
    """Reads every attribute of ``HEADS``, and one thing or two by their nearest prototypes."""

    def __init__(self, width: int, size_px: int) -> None:
        super().__init__(width, size_px, len(HEADS) + len(_FOUND))
        channels = self.places.shape[1]
        self.heads = nn.ModuleDict({n: nn.Linear(channels, len(v)) for n, v in HEADS.items()})
        self.sides = nn.ModuleDict({n: nn.Linear(channels, _DIM) for n in _FOUND})
        self.prototypes = nn.Parameter(torch.randn(len(prototypes()), _DIM) / _DIM**0.5)

    def embed(self, pixels: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Logits of every head, and where the things lie: by question, unit vectors.

        Args:
            pixels: (batch, 3, height, width) in [-1, 1], of the model's size.
        """
        answers = self.answers(pixels)
        read = {name: head(answers[:, i]) for i, (name, head) in enumerate(self.heads.items())}
        found = {
            name: F.normalize(side(answers[:, len(HEADS) + i]).float(), dim=-1)
            for i, (name, side) in enumerate(self.sides.items())
        }
        return read, found

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        """Logits of every head and, of the things, over all prototypes; pixels are in [-1, 1]."""
        read, found = self.embed(pixels)
        table = F.normalize(self.prototypes.float(), dim=-1)
        return read | {name: _SCALE * place @ table.T for name, place in found.items()}

    @torch.no_grad()
    def read(self, pixels: Tensor) -> list[dict[str, str]]:
        """The likeliest value of every attribute of each picture.

        "noun", "second_noun" and "concept" come from the nearest prototypes: a mug that is held out
        is the noun "mug" and the concept "gold-mug".
        """
        found: list[dict[str, str]] = [{} for _ in pixels]
        for name, scores in self(pixels).items():
            for picture, index in zip(found, scores.argmax(dim=1).tolist(), strict=True):
                if name in HEADS:
                    picture[name] = HEADS[name][index]
                elif name == "noun":
                    picture["noun"], picture["concept"] = prototypes()[index]
                else:
                    picture[name] = prototypes()[index][0]
        return found

    def start_from(self, other: Trunk) -> None:
        """Take over what another oracle of the same sizes knows, of this world or of the first."""
        if isinstance(other, WideOracle):
            super().start_from(other)
            return
        mine, theirs = self.state_dict(), other.state_dict()
        taken = ("features.", "attention.", "places")
        state = {n: t for n, t in theirs.items() if n.startswith(taken)}
        known = list(oracle.HEADS)
        questions = mine["questions"].clone()
        for i, name in enumerate((*HEADS, *_FOUND)):
            if name in known:
                questions[i] = theirs["questions"][known.index(name)]
            if HEADS.get(name) == oracle.HEADS.get(name):
                state |= {n: t for n, t in theirs.items() if n.startswith(f"heads.{name}.")}
        self.load_state_dict(mine | state | {"questions": questions})


def attribute_loss(logits: Mapping[str, Tensor], truths: Sequence[Mapping[str, str]]) -> Tensor:
    """Cross-entropy summed over what is read, each over the pictures that show it."""
    loss = oracle.attribute_loss({name: logits[name] for name in HEADS}, truths, HEADS)
    for name in _FOUND:
        aim = _aims(truths, name).to(logits[name].device)
        loss = loss + F.cross_entropy(logits[name], aim)
    return loss


def _aims(truths: Sequence[Mapping[str, str]], name: str) -> Tensor:
    """The prototypes of the first things, or of the second ones."""
    concepts = [truth["concept"] if name == "noun" else NONE for truth in truths]
    pairs = zip(truths, concepts, strict=True)
    return torch.tensor([prototype_of(truth[name], concept) for truth, concept in pairs])


@torch.no_grad()
def calibrate(
    reader: WideOracle, batches: Iterable[tuple[Tensor, Sequence[Mapping[str, str]]]]
) -> None:
    """Put every prototype in the middle of where drawings of it lie; one that has none stays.

    Args:
        reader: Its prototypes are replaced.
        batches: Drawings that have gone through the VAE, (batch, 3, height, width) in [-1, 1], and
            their truths.
    """
    sums = torch.zeros_like(reader.prototypes)
    for pixels, truths in batches:
        _, found = reader.embed(pixels)
        for name, place in found.items():
            sums.index_add_(0, _aims(truths, name).to(sums.device), place.to(sums))
    some = sums.norm(dim=1) > 0
    reader.prototypes[some] = F.normalize(sums, dim=1)[some]


def agreement(
    read: Sequence[Mapping[str, str]], truths: Sequence[Mapping[str, str]]
) -> dict[str, float]:
    """As the first world's; "thing" is the noun together with what is held out of it."""
    hits = [
        r["noun"] == t["noun"] and r["concept"] == t["concept"]
        for r, t in zip(read, truths, strict=True)
    ]
    return {"thing": sum(hits) / len(hits)} | oracle.agreement(read, truths)
