"""Edits read by the oracle: inside a mask beside full generation, drawn over, and inverted.

    python benchmarks/editing.py --markdown editing.md --sheet docs/pictures/editing.png

Words of held-out things are learned. The world draws pictures of other things in a place, the mask
is the square around the thing, and the word is drawn into it. The same prompts and seeds are drawn
from noise; the oracle says in how many pictures it sees the thing. Outside the mask an edit is
compared with its picture; the autoencoder's own round trip of the picture stands beside. The same
pictures are drawn over as a whole, or inverted under their own caption and drawn anew, and how far
their edges stayed where they were is measured.
"""

from __future__ import annotations

import _briefly  # noqa: F401  (before torch)


# isort: split

import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
import tyro
from _common import record

from oneword._files import write_atomic
from oneword._typing import Masks, Pixels
from oneword.concepts import formats
from oneword.concepts.concept import Concept
from oneword.config.drawing import SamplingConfig
from oneword.config.inversion import InversionConfig
from oneword.config.model import ModelConfig
from oneword.evaluation.metrics import mean_interval, structure_kept, wilson_interval
from oneword.generation.blending import Background, psnr
from oneword.generation.editing import edit
from oneword.generation.generate import generate
from oneword.images import contact_sheet, from_uint8, save_png
from oneword.microworld import weights
from oneword.microworld.world import concepts, drawing, inventory, scenes
from oneword.microworld.world.drawn import concept_pictures
from oneword.models.contract import Backbone
from oneword.models.loading import load_backbone
from oneword.training.job import Job
from oneword.training.loop import invert_many


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Learn held-out things, draw each into other pictures, and read what is seen."""

    names: tuple[str, ...] = ("gold-mug", "parrot")
    """Held-out things."""
    concepts: tuple[Path, ...] = ()
    """Files of words for S* that are learned already, one for each name; none: they are learned."""
    num_images: int = 12
    """Pictures edited with each word, in every place in turn."""
    num_optimized: int = 3
    """Of those, how many are edited with a tuned decoder, too, which is slow."""
    num_whole: int = 6
    """How many pictures are drawn over and inverted with each word."""
    strengths: tuple[float, ...] = (0.4, 0.6, 0.8)
    """How far pictures are drawn over."""
    invert_scales: tuple[float, ...] = (1.0, 2.0, 5.0)
    """Guidance scales of drawing an inverted picture anew."""
    num_inference_steps: int | None = None
    """Denoising steps; unset: the model's default."""
    num_inversion_steps: int = 250
    """Steps in which a picture is inverted, and drawn anew."""
    inversion: tyro.conf.OmitArgPrefixes[InversionConfig] = dataclasses.field(
        default_factory=InversionConfig
    )
    """Settings of training."""
    json: Path | None = None
    """File for all numbers."""
    markdown: Path | None = None
    """File for the tables."""
    sheet: Path | None = None
    """File for a sheet: picture, mask and edit of the first pictures."""


PLACES = {"moon": "on the moon", "beach": "on the beach", "forest": "in the forest"}


def scene(index: int, seed: int, size: int) -> tuple[Pixels, Masks, str, str]:
    """A picture of some thing, the square around it, where it is, and a caption."""
    rng = np.random.default_rng(np.random.SeedSequence((seed, index, 71)))
    noun = inventory.NOUNS[int(rng.integers(len(inventory.NOUNS)))]
    thing = scenes.sample_thing(rng, noun, alone=True)
    place = list(PLACES)[index % len(PLACES)]
    found = inventory.Scene(things=(thing,), place=place, seed=int(rng.integers(2**31)))
    rows, columns = np.nonzero(drawing.masks(found, size=size)["silhouette"])
    spans = [(int(v.min()), int(v.max()) + 1) for v in (rows, columns)]
    side = min(max(stop - start for start, stop in spans) + size // 8, size)
    mask = torch.zeros(1, 1, size, size)
    (top, left) = (min(max(0, (start + stop - side) // 2), size - side) for start, stop in spans)
    mask[..., top : top + side, left : left + side] = 1
    caption = f"a photo of a {thing.colours[0]} {noun} {PLACES[place]}"
    return from_uint8(drawing.render(found, size=size)[None]), mask, PLACES[place], caption


def main() -> None:
    """Learn, edit, read, print."""
    arguments = tyro.cli(Arguments)
    torch.set_num_threads(1)
    backbone = load_backbone(ModelConfig())
    oracle = weights.load_oracle()
    size, sampling = (
        backbone.resolution,
        SamplingConfig(num_inference_steps=arguments.num_inference_steps),
    )
    found = [concepts.get(name) for name in arguments.names]
    jobs = []
    for concept in found:
        pictures = concept_pictures(concept, seed=arguments.inversion.seed, size=size)
        config = dataclasses.replace(
            arguments.inversion,
            placeholder_token="S*",
            initializer_token=concept.noun,
        )
        jobs.append(Job(name=concept.name, pictures=from_uint8(pictures), config=config))
    if arguments.concepts:
        words = [formats.load_concept(path) for path in arguments.concepts]
    else:
        words = [result.concept for result in invert_many(backbone, jobs, slots=len(jobs))]

    hits = {"full generation": 0, "edit": 0}
    decibels: dict[str, list[float]] = {name: [] for name in ("round trip", *get_args(Background))}
    seconds = dict.fromkeys(get_args(Background), 0.0)
    whole: dict[str, list[tuple[bool, float]]] = {}
    shown: list[Pixels] = []
    for concept, word in zip(found, words, strict=True):
        for i in range(arguments.num_images):
            picture, mask, where, caption = scene(i, arguments.inversion.seed, size)
            prompt, seed = f"a photo of a S* {where}", arguments.inversion.seed + i
            full = generate(backbone, [prompt], [seed], concepts=[word], sampling=sampling).pixels
            outside = mask < 0.5
            trip = backbone.decode_latents(backbone.encode_image(picture).mean)
            decibels["round trip"].append(psnr(trip, picture, outside))
            edited = full
            for background in get_args(Background):
                if background == "optimize" and i >= arguments.num_optimized:
                    continue
                start = time.perf_counter()
                edits = edit(
                    backbone, picture, prompt, [seed],
                    mask=mask, background=background, concepts=[word], sampling=sampling,
                )  # fmt: skip
                seconds[background] += time.perf_counter() - start
                pixels = edits.drawing.pixels
                decibels[background].append(psnr(pixels, picture, outside))
                edited = pixels if background == "paste" else edited
            for name, pixels in (("full generation", full), ("edit", edited)):
                hits[name] += oracle.read(pixels)[0]["concept"] == concept.name
            if i < arguments.num_whole:
                ways = _whole(arguments, backbone, picture, prompt, caption, word, seed, sampling)
                for name, pixels in ({"drawn from noise alone": full} | ways).items():
                    seen = oracle.read(pixels)[0]["concept"] == concept.name
                    whole.setdefault(name, []).append((seen, structure_kept(pixels, picture)))
            if i < len(PLACES):
                shown += [picture, mask.expand(-1, 3, -1, -1) * 2 - 1, edited, full]
            print(f"{concept.name}: {i + 1} of {arguments.num_images}", flush=True)

    num = arguments.num_images * len(found)
    text = _tables(arguments, hits, num, decibels, seconds) + _whole_table(whole)
    print(text)
    numbers: dict[str, Any] = {"num": num, "hits": hits, "dB": decibels, "seconds": seconds}
    record(arguments.json, model="microworld", **numbers, whole=whole)
    if arguments.markdown is not None:
        write_atomic(arguments.markdown, text.encode())
    if arguments.sheet is not None:
        sheet = contact_sheet(torch.cat(shown), columns=4 * 2)
        save_png(sheet, arguments.sheet)


def _whole(
    arguments: Arguments,
    backbone: Backbone,
    picture: Pixels,
    prompt: str,
    caption: str,
    word: Concept,
    seed: int,
    sampling: SamplingConfig,
) -> dict[str, Pixels]:
    """The picture edited without a mask, by way."""
    found = {}
    for strength in arguments.strengths:
        edits = edit(
            backbone, picture, prompt, [seed],
            strength=strength, concepts=[word], sampling=sampling,
        )  # fmt: skip
        found[f"strength {strength:g}"] = edits.drawing.pixels
    for scale in arguments.invert_scales:
        guided = dataclasses.replace(
            sampling, guidance_scale=scale, num_inference_steps=arguments.num_inversion_steps
        )
        edits = edit(backbone, picture, prompt, invert=caption, concepts=[word], sampling=guided)
        found[f"inverted, guidance {scale:g}"] = edits.drawing.pixels
    return found


def _whole_table(whole: dict[str, list[tuple[bool, float]]]) -> str:
    """How often the thing is seen, and how far the picture's edges are kept."""
    lines = ["", "| Way | the thing is seen | share (95 %) | structure kept |", "|---|---|---|---|"]
    for name, found in whole.items():
        hits, num = sum(seen for seen, _ in found), len(found)
        low, high = wilson_interval(hits, num)
        kept = mean_interval([structure for _, structure in found])
        lines.append(
            f"| {name} | {hits} of {num} | {hits / num:.2f} ({low:.2f} to {high:.2f}) | "
            f"{kept.value:.2f} ± {kept.half_width:.2f} |"
        )
    return "\n".join(lines) + "\n" if whole else ""


def _tables(
    arguments: Arguments,
    hits: dict[str, int],
    num: int,
    decibels: dict[str, list[float]],
    seconds: dict[str, float],
) -> str:
    lines = [
        f"{', '.join(arguments.names)}; {arguments.num_images} pictures each, seed "
        f"{arguments.inversion.seed}.",
        "",
        f"| Drawn | the thing is seen, of {num} | share (95 %) |",
        "|---|---|---|",
    ]
    for name, count in hits.items():
        low, high = wilson_interval(count, num)
        lines.append(f"| {name} | {count} | {count / num:.2f} ({low:.2f} to {high:.2f}) |")
    lines += [
        "",
        "| Outside the mask | mean, dB | least, dB | s per edit |",
        "|---|---|---|---|",
    ]
    for name, values in decibels.items():
        time_taken = f"{seconds[name] / len(values):.1f}" if name in seconds else ""
        if min(values) > 119:  # psnr's own limit
            lines.append(f"| {name} | unchanged | unchanged | {time_taken} |")
            continue
        lines.append(
            f"| {name} | {sum(values) / len(values):.1f} | {min(values):.1f} | {time_taken} |"
        )
    pairs = zip(decibels["round trip"], decibels["blend"], strict=True)
    worst = max(trip - blend for trip, blend in pairs)
    lines += ["", f"Blending costs at most {worst:.2f} dB against the round trip."]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
