"""What a CLIP pair of the second world learns from: its pictures, its captions, its known things.

The guide is such a pair; without it, no method that a CLIP guides could be told of a fox. Nothing
held out is drawn or said.
"""

from __future__ import annotations

from oneword.microworld.making import oracle, spelling, wide_oracle
from oneword.microworld.making.models import CONTEXT
from oneword.microworld.making.oracle import NONE
from oneword.microworld.making.stages import Lessons
from oneword.microworld.world import artwork, unseen, wide_captions, wide_drawing, wide_scenes
from oneword.microworld.world.inventory import NOUNS, PROFESSIONS, Scene
from oneword.microworld.world.wide_scenes import WideScene


_READ = ("colour", "pattern", "scene", "style", "count", "relation")


def lessons() -> Lessons:
    """Those of the second world."""
    known = (artwork.things()[slug].noun for slug in unseen.known())
    nouns = tuple(dict.fromkeys((NONE, *NOUNS, *PROFESSIONS, *known)))
    looks = (*artwork.LOOKS, wide_oracle.PARTS)
    return Lessons(
        tokens=spelling.tokenizer(wide_captions.vocabulary(), CONTEXT),
        heads={name: oracle.HEADS[name] for name in _READ}
        | {"look": looks, "noun": nouns, "second_noun": nouns},
        alike=_alike,
        draw=lambda seeds, size_px: wide_drawing.render_batch(seeds, size=size_px),
        caption=wide_captions.caption,
        truth=_truth,
    )


def _alike(seed: int) -> tuple[str, ...]:
    """Place and style, and the look of artists' things or the colour of others."""
    scene = wide_scenes.sample(seed)
    first = scene.things[0]
    look = first.look if isinstance(first, wide_scenes.Figure) else first.colours[0]
    return scene.place, scene.style, look


def _truth(scene: Scene | WideScene) -> dict[str, str]:
    """What is true of a picture; things go by their nouns."""
    if isinstance(scene, Scene):
        return oracle.truth(scene) | {"look": wide_oracle.PARTS}
    return {"second_noun": NONE} | wide_scenes.truth(scene)
