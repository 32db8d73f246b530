"""The oracle: reads from a picture what the embedded model's world lets one know.

A small classifier, trained on drawn scenes of which a part has gone through the VAE
and was softened as a generator softens. It scores, and is never used for training or choosing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from oneword._typing import Pixels
from oneword.microworld.world import held_out, inventory


NONE = "none"
_NAMES = (*inventory.NOUNS, *inventory.PROFESSIONS, NONE)
HEADS: dict[str, tuple[str, ...]] = {
    "noun": _NAMES,
    "second_noun": _NAMES,
    "colour": inventory.COLOURS,
    "second_colour": inventory.COLOURS,
    "detail_colour": inventory.COLOURS,
    "pattern": inventory.PATTERNS,
    "scene": inventory.PLACES,
    "style": (*inventory.STYLES, *inventory.HIDDEN_STYLES),
    "count": ("one", "two", "three"),
    "relation": inventory.RELATIONS,
    "skin": inventory.SKINS,
    "hair": inventory.HAIRS,
    "concept": (*(c.name for c in held_out.HELD_OUT if c.thing is not None), NONE),
}
"""What is read, and the values of each. The first noun is the left, upper, inner or wearing one."""
_COLOURLESS = ("blueprint", "duotone")


def truth(scene: inventory.Scene, concept: str = NONE) -> dict[str, str]:
    """What the oracle should read; what a picture does not show is left out.

    Args:
        scene: What is drawn.
        concept: Name of the held-out concept that its first thing is.
    """
    first = scene.things[0]
    known = (*inventory.NOUNS, *inventory.PROFESSIONS)
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
    if first.noun in inventory.PROFESSIONS:
        found |= {"skin": first.skin, "hair": first.hair}
    elif scene.style not in _COLOURLESS:
        colours = ("colour", "second_colour", "detail_colour")
        # small or half hidden parts are not asked for
        shown = colours if scene.relation == "alone" else colours[:1]
        found |= dict(zip(shown, first.colours, strict=False))
        if scene.relation == "alone":
            found["pattern"] = first.pattern
    return found


def attribute_loss(
    logits: Mapping[str, Tensor],
    truths: Sequence[Mapping[str, str]],
    heads: Mapping[str, Sequence[str]] = HEADS,
) -> Tensor:
    """Cross-entropy summed over heads, each over the pictures that show what it reads."""
    total = torch.zeros((), device=next(iter(logits.values())).device)
    for name, scores in logits.items():
        values = {value: i for i, value in enumerate(heads[name])}
        aim = torch.tensor([values[t[name]] if name in t else -1 for t in truths])
        if (aim >= 0).any():
            total = total + F.cross_entropy(scores, aim.to(scores.device), ignore_index=-1)
    return total


def _convolution(channels: int, wide: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, wide, 3, stride, padding=1, bias=False), nn.BatchNorm2d(wide), nn.SiLU()
    )


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch = _convolution(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


class Trunk(nn.Module):
    """What the oracles of all worlds see a picture with.

    Convolutions see the parts, and a few layers of attention let each attribute ask for its own:
    the colour of the beak of what sits on top. One common hidden layer could not (see
    ``docs/log/log.md``).
    """

    def __init__(self, width: int, size_px: int, num_questions: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels, side = 3, size_px
        while side > 8:
            wide = min(2 * channels if layers else width, 5 * width)
            layers += [_convolution(channels, wide, stride=2), _Residual(wide)]
            channels, side = wide, side // 2
        self.features = nn.Sequential(*layers)
        self.places = nn.Parameter(0.02 * torch.randn(side * side, channels))
        self.questions = nn.Parameter(0.02 * torch.randn(num_questions, channels))
        self.attention = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(
                channels, 4, 4 * channels, 0.0, "gelu", batch_first=True, norm_first=True
            ),
            num_layers=3,
            norm=nn.LayerNorm(channels),
            enable_nested_tensor=False,
        )

    def answers(self, pixels: Tensor) -> Tensor:
        """What each question finds, then each cell: (batch, questions + cells, channels).

        Args:
            pixels: (batch, 3, height, width) in [-1, 1], of the model's size.
        """
        cells = self.features(pixels).flatten(2).transpose(1, 2) + self.places
        questions = self.questions.expand(len(cells), -1, -1)
        return self.attention(torch.cat([questions.to(cells), cells], dim=1))

    def start_from(self, other: Trunk) -> None:
        """Take over what another oracle of the same kind knows."""
        self.load_state_dict(other.state_dict())


class Oracle(Trunk):
    """Reads every attribute of ``HEADS``."""

    def __init__(self, width: int, size_px: int) -> None:
        super().__init__(width, size_px, len(HEADS))
        channels = self.places.shape[1]
        self.heads = nn.ModuleDict({n: nn.Linear(channels, len(v)) for n, v in HEADS.items()})

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        """Logits of every attribute; pixels are in [-1, 1] and of the model's size."""
        answers = self.answers(pixels)
        return {name: head(answers[:, i]) for i, (name, head) in enumerate(self.heads.items())}

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
    for name in read[0]:
        hits = [r[name] == t[name] for r, t in zip(read, truths, strict=True) if name in t]
        if hits:
            found[name] = sum(hits) / len(hits)
    return found
