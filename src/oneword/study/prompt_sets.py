"""Published sets of evaluation prompts, by name, each prompt with its kind.

Sources: "paper" and "paper-figures": Gal et al. 2022, arXiv:2208.01618, section 5.1 and figures 1,
4, 5 and 6 (the whole list was never published); "dreambench": Ruiz et al. 2022, arXiv:2208.12242,
25 prompts for objects and 25 for live subjects; "microworld": the same kinds of prompts in the
words of the embedded model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from oneword.prompts import EDIT_PROMPTS, PAPER_EDIT_PROMPTS, PHOTO_PROMPTS


PHOTO, PLAIN = "photo", "plain"
KINDS = ("background", "style", "composition", "property", "accessory")
"""What an edit prompt changes."""


@dataclass(frozen=True, slots=True)
class PromptSet:
    """Templates with "{}" for the word."""

    photo: str
    """Template for the reconstruction score."""
    edits: Mapping[str, tuple[str, ...]]
    """Templates for the editability score, by kind."""

    @property
    def kinds(self) -> dict[str, str]:
        """The kind of every template, the photo first."""
        return {self.photo: PHOTO} | {t: kind for kind, ts in self.edits.items() for t in ts}


_PLACES = (
    "in the jungle", "in the snow", "on the beach", "on a cobblestone street",
    "on top of pink fabric", "on top of a wooden floor", "with a city in the background",
    "with a mountain in the background", "with a blue house in the background",
    "on top of a purple rug in a forest",
)  # fmt: skip
_OBJECT_PLACES = (
    "with a wheat field in the background", "with a tree and autumn leaves in the background",
    "with the Eiffel Tower in the background", "floating on top of water",
    "floating in an ocean of milk", "on top of green grass with sunflowers around it",
    "on top of a mirror", "on top of the sidewalk in a crowded street", "on top of a dirt road",
    "on top of a white rug",
)  # fmt: skip
_OUTFITS = (
    "wearing a red hat", "wearing a santa hat", "wearing a rainbow scarf",
    "wearing a black top hat and a monocle", "in a chef outfit", "in a firefighter outfit",
    "in a police outfit", "wearing pink glasses", "wearing a yellow shirt",
    "in a purple wizard outfit",
)  # fmt: skip
_PROPERTIES = tuple(f"a {word} {{}}" for word in ("red", "purple", "shiny", "wet", "cube shaped"))
_STYLE = PromptSet(PHOTO_PROMPTS["*"]["style"], {"composition": EDIT_PROMPTS["*"]["style"]})
_PAPER_STYLE = PromptSet(PHOTO_PROMPTS["*"]["style"], {"composition": PAPER_EDIT_PROMPTS["style"]})


def _a(endings: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"a {{}} {ending}" for ending in endings)


PROMPT_SETS: dict[str, dict[str, PromptSet]] = {
    "paper": {
        "object": PromptSet(
            "a photo of {}",
            {
                "background": ("a photo of {} on the moon", "a photo of {} on the beach"),
                "style": ("an oil painting of {}",),
                "composition": ("Elmo holding a {}",),
            },
        ),
        "style": _PAPER_STYLE,
    },
    "paper-figures": {
        "object": PromptSet(
            "a photo of {}",
            {
                "background": (
                    "a photo of {} on the moon", "a photo of {} on the beach",
                    "watercolor painting of {} on a branch",
                    "masterful oil painting of {} hanging on the wall",
                ),
                "style": (
                    "an oil painting of {}", "app icon of {}", "crochet {}", "Banksy art of {}",
                    "{} made of lego", "da Vinci sketch of {}", "grainy photo of {} in angry birds",
                    "{} made of chocolate", "a mosaic depicting {}", "felt {}",
                ),
                "composition": (
                    "Elmo holding a {}", "Elmo sitting in the same pose as {}",
                    "painting of two {} fishing on a boat", "a {} backpack",
                    "a {} themed lunchbox", "{} sports car", "{} onesie",
                    "a house in the style of {}", "death metal album cover featuring {}",
                    "an artist drawing a {}", "a photo of {} full of cashew nuts",
                    "a mouse using {} as a boat", "a photo of a {} mask", "ramen soup served in {}",
                    "a carpet with {} embroidery", "a {} stamp", "{} fedora",
                ),
            },
        ),
        "style": _PAPER_STYLE,
    },
    "dreambench": {
        "object": PromptSet(
            "a photo of a {}",
            {"background": _a(_PLACES + _OBJECT_PLACES), "property": _PROPERTIES},
        ),
        "live": PromptSet(
            "a photo of a {}",
            {"background": _a(_PLACES), "accessory": _a(_OUTFITS), "property": _PROPERTIES},
        ),
        "style": _STYLE,
    },
    "microworld": {
        "object": PromptSet(
            "a photo of a {}",
            {
                "background": ("a photo of a {} on the moon", "a photo of a {} on the beach"),
                "style": ("an oil painting of a {}", "a watercolor painting of a {}"),
                "composition": (
                    "a photo of a {} next to a cat", "a photo of a {} on top of a drum",
                ),
            },
        ),
        "style": PromptSet(
            PHOTO_PROMPTS["microworld"]["style"],
            {"composition": EDIT_PROMPTS["microworld"]["style"]},
        ),
    },
}  # fmt: skip
"""By name and kind of subject: "object", "live" (objects' prompts if there are none) and
"style"."""


def prompts_for(name: str, subject_kind: str) -> PromptSet:
    """The prompts of a set for a kind of subject ("object", "live" or "style")."""
    kinds = PROMPT_SETS[name]
    return kinds.get(subject_kind, kinds["object"])
