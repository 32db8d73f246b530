"""The oracle: reads from a picture what the embedded model's world lets one know.

A plain convolutional classifier, trained on drawn scenes of which a part has gone through the VAE
and was softened as a generator softens. It scores, and is never used for training or choosing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from oneword._typing import Pixels
from oneword.microworld import concepts, scenes


NONE = "none"
_NAMES = (*scenes.NOUNS, *scenes.PROFESSIONS, NONE)
HEADS: dict[str, tuple[str, ...]] = {
    "noun": _NAMES,
    "second_noun": _NAMES,
    "colour": scenes.COLOURS,
    "second_colour": scenes.COLOURS,
    "detail_colour": scenes.COLOURS,
    "pattern": scenes.PATTERNS,
    "scene": scenes.PLACES,
    "style": (*scenes.STYLES, *scenes.HIDDEN_STYLES),
    "count": ("one", "two", "three"),
    "relation": scenes.RELATIONS,
    "skin": scenes.SKINS,
    "hair": scenes.HAIRS,
    "concept": (*(c.name for c in concepts.HELD_OUT if c.thing is not None), NONE),
}
"""What is read, and the values of each. The first noun is the left, upper, inner or wearing one."""
_COLOURLESS = ("blueprint", "duotone")


def truth(scene: scenes.Scene, concept: str = NONE) -> dict[str, str]:
    """What the oracle should read; what a picture does not show is left out.

    Args:
        scene: What is drawn.
        concept: Name of the held-out concept that its first thing is.
    """
    first = scene.things[0]
    known = (*scenes.NOUNS, *scenes.PROFESSIONS)
    found = {
        "noun": first.noun if first.noun in known else NONE,
        "second_noun": NONE,
        "scene": scene.place,
        "style": scene.style,
        "count": HEADS["count"][scene.num - 1],
        "relation": scene.relation,
        "concept": concept,
    }
    if scene.relation not in ("alone", "count"):
        found["second_noun"] = scene.things[1].noun
    if first.noun in scenes.PROFESSIONS:
        found |= {"skin": first.skin, "hair": first.hair}
    elif scene.style not in _COLOURLESS:
        colours = ("colour", "second_colour", "detail_colour")
        # small or half hidden parts are not asked for
        shown = colours if scene.relation == "alone" else colours[:1]
        found |= dict(zip(shown, first.colours, strict=False))
        if scene.relation == "alone":
            found["pattern"] = first.pattern
    return found


def attribute_loss(logits: Mapping[str, Tensor], truths: Sequence[Mapping[str, str]]) -> Tensor:
    """Cross-entropy summed over heads, each over the pictures that show what it reads."""
    total = torch.zeros((), device=next(iter(logits.values())).device)
    for name, scores in logits.items():
        values = {value: i for i, value in enumerate(HEADS[name])}
        aim = torch.tensor([values[t[name]] if name in t else -1 for t in truths])
        if (aim >= 0).any():
            total = total + F.cross_entropy(scores, aim.to(scores.device), ignore_index=-1)
    return total


class Oracle(nn.Module):
    """Reads every attribute of ``HEADS``."""

    def __init__(self, width: int, size_px: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels, side = 3, size_px
        while side > 4:
            wide = min(2 * channels if layers else width, 5 * width)
            layers += [
                nn.Conv2d(channels, wide, 3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(wide),
                nn.SiLU(),
                nn.Conv2d(wide, wide, 3, padding=1, bias=False),
                nn.BatchNorm2d(wide),
                nn.SiLU(),
            ]
            channels, side = wide, side // 2
        hidden = 8 * width
        self.features = nn.Sequential(*layers)
        self.hidden = nn.Sequential(nn.Flatten(), nn.Linear(channels * 16, hidden), nn.SiLU())
        self.heads = nn.ModuleDict({n: nn.Linear(hidden, len(v)) for n, v in HEADS.items()})

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        """Logits of every attribute; pixels are in [-1, 1] and of the model's size."""
        hidden = self.hidden(self.features(pixels))
        return {name: head(hidden) for name, head in self.heads.items()}

    @torch.no_grad()
    def read(self, pixels: Pixels) -> list[dict[str, str]]:
        """The likeliest value of every attribute of each picture."""
        found: list[dict[str, str]] = [{} for _ in pixels]
        for name, scores in self(pixels).items():
            for picture, index in zip(found, scores.argmax(dim=1).tolist(), strict=True):
                picture[name] = HEADS[name][index]
        return found


def agreement(
    read: Sequence[Mapping[str, str]], truths: Sequence[Mapping[str, str]]
) -> dict[str, float]:
    """Share of pictures whose attribute is read as it should be, for each attribute asked for."""
    found = {}
    for name in HEADS:
        hits = [r[name] == t[name] for r, t in zip(read, truths, strict=True) if name in t]
        if hits:
            found[name] = sum(hits) / len(hits)
    return found
