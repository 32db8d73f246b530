"""Two learned words in one picture: learned apart beside learned together, read by the oracle.

    python benchmarks/composition.py --markdown composition.md --sheets sheets

Two things and a style that microworld has never seen are learned apart, then together: with
pictures of one pasted into the other's, and with pictures that show both. The same prompts and
seeds are drawn with the words' initialisers, and the scenes themselves are drawn by the world, so
that one knows how often the oracle would read a right picture as right.
"""

from __future__ import annotations

import _briefly  # noqa: F401  (before torch)


# isort: split

import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from _common import record

from oneword._files import write_atomic
from oneword._typing import Pixels
from oneword.concepts.concept import Concept
from oneword.config.drawing import SamplingConfig
from oneword.config.inversion import InversionConfig
from oneword.config.model import ModelConfig
from oneword.evaluation.metrics import wilson_interval
from oneword.generation.generate import generate
from oneword.images import contact_sheet, from_uint8, save_png
from oneword.microworld import weights
from oneword.microworld.making.oracle import Oracle
from oneword.microworld.world import concepts, drawing, inventory
from oneword.microworld.world.drawn import concept_pictures
from oneword.microworld.world.held_out import HeldOut
from oneword.models.contract import Backbone
from oneword.models.loading import load_backbone
from oneword.training.job import Job
from oneword.training.loop import invert_many
from oneword.training.together import invert_together


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Learn two things and a style apart and together, and read what their prompts show."""

    first: str = "parrot"
    """Held-out thing; it stands left, or on top."""
    second: str = "midnight-teapot"
    """Held-out thing; it stands right, or below."""
    style: str = "neon"
    """Held-out style."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of training, each with other pictures."""
    num_images: int = 16
    """Pictures per prompt and seed."""
    paste: float = 0.1
    """Share of the samples with a pasted picture."""
    num_inference_steps: int | None = None
    """Denoising steps; unset: the model's default."""
    inversion: tyro.conf.OmitArgPrefixes[InversionConfig] = dataclasses.field(
        default_factory=InversionConfig
    )
    """Settings of training."""
    json: Path | None = None
    """File for all counts."""
    markdown: Path | None = None
    """File for the table."""
    sheets: Path | None = None
    """Folder for contact sheets."""


WORDS = ("<first>", "<second>", "<style>")
PROMPTS = {
    "beside": "a photo of a {0} next to a {1}",
    "on": "a photo of a {0} on top of a {1}",
    "style": "a {0} in the style of {2}",
}
"""By relation; the words are the first thing, the second and the style."""
READ = {
    "beside": ("both nouns", "relation", "each right"),
    "on": ("both nouns", "relation", "upper right"),
    "style": ("thing right", "style right", "both right"),
}


def main() -> None:
    """Learn, draw, read, print."""
    arguments = tyro.cli(Arguments)
    torch.set_num_threads(1)
    backbone = load_backbone(ModelConfig())
    oracle = weights.load_oracle()
    found = tuple(concepts.get(n) for n in (arguments.first, arguments.second, arguments.style))
    counts: dict[str, dict[str, dict[str, int]]] = {}
    num = arguments.num_images * len(arguments.seeds)
    for seed in arguments.seeds:
        for method, relations in _methods(arguments, backbone, found, seed).items():
            for relation, pixels in relations.items():
                row = counts.setdefault(method, {}).setdefault(relation, {})
                for name, hits in _read(oracle, pixels, relation, found).items():
                    row[name] = row.get(name, 0) + hits
                if arguments.sheets is not None:
                    path = arguments.sheets / f"{method.replace(' ', '-')}-{relation}-{seed}.png"
                    save_png(contact_sheet(pixels), path)
    record(arguments.json, model="microworld", num=num, counts=counts)
    text = _table(arguments, counts, num)
    print(text)
    if arguments.markdown is not None:
        write_atomic(arguments.markdown, text.encode())


def _methods(
    arguments: Arguments, backbone: Backbone, found: Sequence[HeldOut], seed: int
) -> dict[str, dict[str, Pixels]]:
    """Pictures by method and relation."""
    jobs = [_job(arguments, c, token, seed) for c, token in zip(found, WORDS, strict=True)]
    things, styled = jobs[:2], [jobs[0], jobs[2]]
    starts = [c.noun for c in found]

    def draw(names: Sequence[str], known: Sequence[Concept], *relations: str) -> dict[str, Pixels]:
        drawn = {}
        for relation in relations:
            prompt = PROMPTS[relation].format(*names)
            drawn[relation] = generate(
                backbone,
                [prompt],
                range(1000 * seed, 1000 * seed + arguments.num_images),
                concepts=[c for c in known if c.placeholder_token in prompt],
                sampling=SamplingConfig(num_inference_steps=arguments.num_inference_steps),
                batch_size=16,
            ).pixels
        return drawn

    def say(what: str) -> None:
        print(f"seed {seed}: {what}", file=sys.stderr, flush=True)

    say("drawn by the world and by the initialisers")
    methods = {
        "drawn by the world": _drawn(found, arguments.num_images, seed, backbone),
        "initialisers": draw(starts, [], "beside", "on", "style"),
    }
    say("apart")
    apart = _learned(invert_many(backbone, jobs, slots=3))
    methods["apart"] = draw(WORDS, apart, "beside", "on", "style")
    say("together, pasted")
    pasted = _learned(invert_together(backbone, things, paste=arguments.paste, seed=seed))
    methods["together, pasted"] = draw(WORDS, pasted, "beside", "on")
    say("together, pictures with both")
    # other seeds than those that the world is read by
    shown = _drawn(found, 3, 10_000 + seed, backbone)
    both = (
        torch.cat([shown["beside"], shown["on"]]),
        [PROMPTS[r].format(*WORDS) for r in ("beside", "on") for _ in range(3)],
    )
    taught = _learned(invert_together(backbone, things, paste=0, together=both))
    drawn = draw(WORDS, taught, "beside", "on")
    say("together, pictures of the thing in the style")
    in_style = (shown["style"], [PROMPTS["style"].format(*WORDS)] * 3)
    taught = _learned(invert_together(backbone, styled, paste=0, together=in_style))
    methods["together, pictures with both"] = drawn | draw(WORDS, taught, "style")
    return methods


def _job(arguments: Arguments, concept: HeldOut, token: str, seed: int) -> Job:
    config = dataclasses.replace(
        arguments.inversion,
        placeholder_token=token,
        initializer_token=concept.noun,
        learnable_property="style" if concept.thing is None else "object",
        seed=seed,
    )
    return Job(
        name=token,
        pictures=from_uint8(concept_pictures(concept, seed=seed)),
        config=config,
    )


def _learned(results: Sequence[Any]) -> list[Concept]:
    for result in results:
        assert result.concept is not None, result.reason
    return [result.concept for result in results]


def _drawn(found: Sequence[HeldOut], num: int, seed: int, backbone: Backbone) -> dict[str, Pixels]:
    """What each prompt asks for, as the world draws it, through the VAE."""
    first, second, style = found
    assert first.thing
    assert second.thing
    rng = np.random.default_rng(np.random.SeedSequence((seed, 41)))
    pictures = {}
    for relation in PROMPTS:
        rows = []
        for _ in range(num):
            scene = concepts.concept_scene(first, str(rng.choice(inventory.PLACES)), rng)
            if relation == "style":
                scene = dataclasses.replace(scene, style=style.style)
            else:
                things = (dataclasses.replace(scene.things[0], x=0.5), second.thing)
                scene = dataclasses.replace(scene, things=things, relation=relation)
            rows.append(drawing.render(scene, size=backbone.resolution))
        pixels = from_uint8(np.stack(rows))
        means = [backbone.encode_image(part).mean for part in pixels.split(16)]
        pictures[relation] = torch.cat([backbone.decode_latents(m) for m in means]).cpu()
    return pictures


def _read(
    oracle: Oracle, pixels: Pixels, relation: str, found: Sequence[HeldOut]
) -> dict[str, int]:
    """How many pictures are right, by what is asked."""
    first, second, style = found
    seen = oracle.read(pixels)
    if relation == "style":
        thing = [r["concept"] == first.name for r in seen]
        look = [r["style"] == style.style for r in seen]
        rows = (thing, look, [a and b for a, b in zip(thing, look, strict=True)])
    else:
        ordered = [(r["noun"], r["second_noun"]) == (first.noun, second.noun) for r in seen]
        either = [{r["noun"], r["second_noun"]} == {first.noun, second.noun} for r in seen]
        related = [r["relation"] == relation for r in seen]
        # the oracle names the left or upper thing; in the mirror image the right one is the left
        mirrored = oracle.read(pixels.flip(-1))
        if relation == "beside":
            right = [
                {a["concept"], b["concept"]} == {first.name, second.name}
                for a, b in zip(seen, mirrored, strict=True)
            ]
            rows = (either, related, [a and b for a, b in zip(either, right, strict=True)])
        else:
            upper = [r["concept"] == first.name for r in seen]
            rows = (ordered, related, [a and b for a, b in zip(ordered, upper, strict=True)])
    return {name: sum(row) for name, row in zip(READ[relation], rows, strict=True)}


def _table(arguments: Arguments, counts: dict[str, dict[str, dict[str, int]]], num: int) -> str:
    heads = [f"{relation}: {name}" for relation, names in READ.items() for name in names]
    lines = ["| | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    for method, relations in counts.items():
        cells = []
        for relation, names in READ.items():
            for name in names:
                if relation not in relations:
                    cells.append("")
                    continue
                hits = relations[relation][name]
                low, high = wilson_interval(hits, num)
                cells.append(f"{hits / num:.2f} [{low:.2f}, {high:.2f}]")
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    plain = InversionConfig()
    settings = {
        f.name: getattr(arguments.inversion, f.name)
        for f in dataclasses.fields(InversionConfig)
        if getattr(arguments.inversion, f.name) != getattr(plain, f.name)
    }
    lines += [
        "",
        f"{arguments.first} and {arguments.second}, {arguments.style}; {num} pictures per cell "
        f"({len(arguments.seeds)} trainings), paste {arguments.paste}, preset "
        f"{arguments.inversion.preset}"
        + (f" with {settings}" if settings else "")
        + ". Shares of pictures with 95 % intervals (Wilson). Each right: both nouns, and the "
        "oracle sees one concept in the picture and the other in its mirror image. Upper right: "
        "both nouns in order, and the upper thing is the concept; the lower one's is not read.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
