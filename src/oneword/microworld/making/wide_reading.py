"""How far a training on the second world is: known things by their nouns, unseen ones by rows.

Only the development half of what is held out is looked at, as in the gate. Taking a reading draws,
so it needs skia and diffusers.
"""

# The libraries' own annotations are narrower than what they take and return.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPTokenizer

from oneword._files import write_json_atomic
from oneword.images import contact_sheet, save_png, to_images
from oneword.microworld.making import plain, reading
from oneword.microworld.making.reading import Examples, Near, Settings
from oneword.microworld.making.wide_latents import encoded
from oneword.microworld.world import artwork, captions, unseen, wide_concepts, wide_scenes
from oneword.microworld.world.wide_scenes import WideScene


MARKS = (500_000, 1_000_000, 1_500_000, 2_000_000, 2_500_000)
"""Samples after which a training is read."""
PLACES = ("beach", "meadow")
"""Where known things are asked for besides plain ground."""
_NUM_FITTED, _NUM_OTHER = 5, 8
_COLUMNS = 20
"""Things of the sheet."""


def _development() -> tuple[str, ...]:
    return tuple(slug for slug, half in unseen.counted().items() if half == "development")


def _some_known() -> tuple[str, ...]:
    known = unseen.known()
    return known[:: len(known) // 80][:80]


@dataclass(frozen=True, kw_only=True, slots=True)
class Scope:
    """What a reading looks at."""

    held_out: tuple[str, ...] = field(default_factory=_development)
    """Things to which rows are fitted."""
    known: tuple[str, ...] = field(default_factory=_some_known)
    """Things that are asked for by their noun."""
    neighbours: tuple[str, ...] = field(default_factory=lambda: tuple(artwork.things()))
    """Things whose drawings may be the nearest one, each in all looks."""
    rows: tuple[int, ...] = (1, 3)
    """How many rows are fitted."""
    num_drawn: int = 4
    """Pictures that are drawn with each thing's rows; half as many of known things."""
    settings: Settings = field(default_factory=Settings)
    """How rows are fitted and pictures drawn."""


class Spelled:
    """Ids of texts in the second world's tokenizer, with learned rows behind its table."""

    def __init__(self, tokens: CLIPTokenizer) -> None:
        self.tokens = tokens

    def _of(self, word: str) -> list[int]:
        if word.startswith("*"):
            return [len(self.tokens) + int(word[1:])]
        return self.tokens(word, add_special_tokens=False).input_ids

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Ids (texts, tokens), padded as drawing pads them."""
        context = self.tokens.model_max_length
        found = torch.full((len(texts), context), self.tokens.pad_token_id)
        for line, text in zip(found, texts, strict=True):
            ids = [i for word in text.split() for i in self._of(word)][: context - 2]
            ids = [self.tokens.bos_token_id, *ids, self.tokens.eos_token_id]
            line[: len(ids)] = torch.tensor(ids)
        return found

    def first_row(self, noun: str) -> int:
        """The last row of a noun's last word."""
        return self._of(noun.split()[-1])[-1]


def _in_places(slug: str, look: str, num: int) -> list[WideScene]:
    return wide_concepts.concept_scenes(artwork.things()[slug], num, look=look)


def _alone(slug: str, look: str, num: int, place: str, seed: int) -> list[WideScene]:
    found = wide_concepts.concept_scenes(artwork.things()[slug], num, seed, look=look, plain=True)
    return [replace(scene, place=place) for scene in found]


def _look(i: int) -> str:
    return artwork.LOOKS[i % len(artwork.LOOKS)]


def _sets(scope: Scope) -> dict[str, list[WideScene]]:
    """Scenes of everything that is drawn, by name."""
    asked = (*scope.held_out, *scope.known)
    found = {
        "held-out": [
            scene
            for i, slug in enumerate(scope.held_out)
            for scene in _in_places(slug, _look(i), _NUM_FITTED + _NUM_OTHER)
        ]
    }
    for place in ("plain", *PLACES):
        found[f"near-{place}"] = [
            scene
            for slug in scope.neighbours
            for look in artwork.LOOKS
            for scene in _alone(slug, look, 2 if place == "plain" else 1, place, seed=1)
        ]
        found[f"fresh-{place}"] = [
            scene
            for i, slug in enumerate(asked)
            for scene in _alone(slug, _look(i), 1, place, seed=2)
        ]
    return found


def _moments(folder: Path, name: str, some: Sequence[WideScene], model: str, side: int) -> Tensor:
    """Moments of scenes at a side, made once for both."""
    from oneword.microworld.world import wide_drawing  # needs the optional extra

    path = folder / f"reading-{name}.safetensors"
    meta = {"world": str(wide_scenes.VERSION), "num": str(len(some))}
    if path.exists():
        with safe_open(path, "pt") as file:
            if file.metadata() == meta:
                return file.get_tensor(str(side))
    landed = plain.landed(model)
    encoder = plain.load_encoder(landed / "vae").to(memory_format=torch.channels_last)
    whole = plain.config_of(landed / "vae")["sample_size"]
    found: dict[str, list[Tensor]] = {str(whole // 2): [], str(whole): []}
    for start in range(0, len(some), 20):
        drawn = [wide_drawing.render(scene, whole) for scene in some[start : start + 20]]
        for own, moments in zip(found.values(), encoded(encoder, np.stack(drawn)), strict=True):
            own.append(moments)
    tensors = {size: torch.cat(own).contiguous() for size, own in found.items()}
    part = path.with_suffix(".part")
    save_file(tensors, part, metadata=meta)
    part.replace(path)
    return tensors[str(side)]


def _means(moments: Tensor) -> Tensor:
    return moments.float().chunk(2, dim=1)[0]


def read(
    parts: nn.ModuleDict,
    tokens: CLIPTokenizer,
    folder: Path,
    *,
    model: str,
    samples: int,
    side: int,
    amp: Any,
    mark: int | None = None,
    scope: Scope | None = None,
) -> dict[str, Any]:
    """Take a reading; a row of JSON and a sheet of pictures are written beside the state.

    Args:
        parts: Frozen "unet" and "text".
        tokens: The second world's.
        folder: Of the state; drawings' latents are kept in it.
        model: The landed model, of which autoencoder and schedule are.
        samples: Pictures that the training has seen.
        side: Pixels of a picture.
        amp: Context in which is computed.
        mark: Under what number the reading is kept; unset: ``samples``.
        scope: What is looked at.

    Returns:
        The row: "top1_..." are shares of drawn pictures whose nearest drawing is the thing itself,
        "loss_..." mean losses on other pictures of what is held out.
    """
    from diffusers import DDIMScheduler

    started = time.monotonic()
    scope = scope or Scope()
    scenes = _sets(scope)
    moments = {name: _moments(folder, name, own, model, side) for name, own in scenes.items()}
    near = {
        place: Near(
            _means(moments[f"near-{place}"]),
            [scene.things[0].slug for scene in scenes[f"near-{place}"]],
        )
        for place in ("plain", *PLACES)
    }
    scheduler = DDIMScheduler.from_pretrained(plain.landed(model) / "scheduler")
    own = reading.Model(Spelled(tokens), parts["unet"], parts["text"], scheduler, amp)
    shape = moments["held-out"].shape[1] // 2, *moments["held-out"].shape[2:]
    settings = scope.settings

    def draw(words: Sequence[str], num: int, place: str, rows: Tensor | None = None) -> Tensor:
        texts = [f"a {word} {captions.PLACES[place][0]}" for word in words] * num
        return own.draw(texts, settings, shape, rows)

    row: dict[str, Any] = {"samples": samples, "size_px": side, "seed": settings.seed}
    asked = [*scope.held_out, *scope.known]
    sheet: dict[str, Tensor] = {}
    nouns_known = [artwork.things()[slug].noun for slug in scope.known]
    half = max(1, scope.num_drawn // 2)
    for place in near:
        fresh = _means(moments[f"fresh-{place}"])
        row[f"top1_drawings_{place}"] = near[place].top1(fresh, asked)
        drawn = draw(nouns_known, half, place)
        row[f"top1_known_{place}"] = near[place].top1(drawn, list(scope.known) * half)
        sheet[f"known, {place}"] = drawn
        if place == "plain":
            sheet = {"drawn": fresh[: len(scope.held_out)], **sheet}
    examples = _examples(moments["held-out"], scenes["held-out"], len(scope.held_out))
    fitted = Examples(examples.moments[:, :_NUM_FITTED], [t[:_NUM_FITTED] for t in examples.texts])
    others = Examples(examples.moments[:, _NUM_FITTED:], [t[_NUM_FITTED:] for t in examples.texts])
    names = {slug: artwork.things()[slug].noun for slug in unseen.known()}
    names = {slug: noun for slug, noun in names.items() if slug in near["plain"].slugs}
    nouns = reading.best_nouns(own, fitted, near["plain"], names, settings)
    row["loss_no_caption"] = reading.losses(own, others, [None] * len(nouns)).mean().item()
    row["loss_best_noun"] = reading.losses(own, others, nouns).mean().item()
    drawn = draw(nouns, half, "plain")
    row["top1_best_noun"] = near["plain"].top1(drawn, list(scope.held_out) * half)
    sheet["best noun"] = drawn
    for num in scope.rows:
        rows, words = reading.fit(own, fitted, num, nouns, settings)
        drawn = draw(words, scope.num_drawn, "plain", rows)
        slugs = list(scope.held_out) * scope.num_drawn
        row[f"top1_rows_{num}"] = near["plain"].top1(drawn, slugs)
        row[f"loss_rows_{num}"] = reading.losses(own, others, words, rows).mean().item()
        row[f"spread_rows_{num}"] = reading.spread(own, rows)
        sheet[f"{num} row{'s' * (num > 1)}"] = drawn
    row["reading_s"] = time.monotonic() - started
    name = path_of(folder, samples if mark is None else mark)
    save_png(_sheet(sheet, model, len(scope.held_out)), name.with_suffix(".png"))
    write_json_atomic(name, row)
    return row


def path_of(folder: Path, mark: int) -> Path:
    """The file of a reading."""
    return folder / f"reading-{mark}.json"


def taken(folder: Path, samples: int) -> list[dict[str, Any]]:
    """The readings of a state's folder until so many samples, by their marks."""
    found = {
        int(path.stem.removeprefix("reading-")): json.loads(path.read_text())
        for path in folder.glob("reading-*.json")
    }
    return [row for _, row in sorted(found.items()) if row["samples"] <= samples]


def due(folder: Path, marks: Sequence[int], samples: int) -> int | None:
    """The last mark that is passed, where it has not been read; None: there is none."""
    passed = [mark for mark in marks if mark <= samples]
    return passed[-1] if passed and not path_of(folder, passed[-1]).exists() else None


def _examples(moments: Tensor, some: Sequence[WideScene], num: int) -> Examples:
    each = len(some) // num
    texts = [f"a {{}} {captions.PLACES[scene.place][0]}" for scene in some]
    return Examples(
        moments.unflatten(0, (num, each)), [texts[i * each :][:each] for i in range(num)]
    )


@torch.inference_mode()
def _sheet(lines: Mapping[str, Tensor], model: str, num: int) -> Image.Image:
    """Lines of pictures, decoded."""
    from diffusers import AutoencoderKL

    vae = AutoencoderKL.from_pretrained(plain.landed(model) / "vae", torch_dtype=torch.float32)
    columns = min(num, _COLUMNS)
    pictures: list[Image.Image] = []
    for line in lines.values():
        own = to_images(vae.decode(line[:columns]).sample)
        blank = Image.new("RGB", own[0].size, "white")
        pictures += [*own, *[blank] * (columns - len(own))]
    return contact_sheet(
        pictures, columns=columns, row_labels=list(lines), cell_px=pictures[0].width
    )
