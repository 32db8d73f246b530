r"""Whether a wider world makes unseen shapes learnable: 50 names against 700, read as they train.

    python benchmarks/world_gate.py --arm narrow --json docs/data/world-gate.json &
    python benchmarks/world_gate.py --arm wide --json docs/data/world-gate.json

A denoiser of the embedded model's size and its text encoder begin at nothing and see artists'
drawings in two looks, on plain ground and in two places, under names. Forty things are held out of
both arms, drawings and words. At each reading a row (``--rows`` says how many) is fitted to five
pictures of each held-out thing with everything frozen, and pictures are drawn with it: top-1 is the
share whose nearest neighbour in latent space, among the drawings of all things, is the thing
itself. Beside it stand the best existing noun and known things by their own word, and the loss on
other pictures of the held-out things.

Pictures of 128 px are computed in bf16, in every arm, where the machine computes that.

A run can be stopped at any moment and goes on from its state in ``--state``; its readings are kept
there, and ``--json`` holds those of every run with the same state folder.
"""

from __future__ import annotations

import _briefly  # noqa: F401  (before torch)


# isort: split

import json
import math
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import skia
import torch
import tyro
from _common import record
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import CLIPTextModel

from oneword.images import from_uint8, to_images
from oneword.microworld import weights
from oneword.microworld.making import models, reading
from oneword.microworld.making.reading import Examples, Near, sampled, stratified
from oneword.microworld.making.recipe import Recipe
from oneword.microworld.making.run import Run, Workshop, seed_weights
from oneword.microworld.world import artwork, unseen
from oneword.microworld.world.pen import StylePen
from oneword.microworld.world.places import draw_place
from oneword.microworld.world.sprites import sprite


Arm = Literal["narrow", "wide"]
NAMES: dict[Arm, int] = {"narrow": 50, "wide": 700}
PICTURES: dict[Arm, int] = {"narrow": 96, "wide": 12}
"""Pictures of each drawing."""
LOOKS = {"flat sticker": "a flat sticker of a {}", "classic emoji": "a classic emoji of a {}"}
PLACES = {"plain": "on a plain background", "beach": "on the beach", "meadow": "in the meadow"}
CONTEXT = 16
"""Tokens of a caption, with begin and end."""
NUM_FITTED, NUM_OTHER = 5, 8
"""Pictures of a held-out thing: to fit a row to, and to measure the loss on."""
SIDES = (64, 128)
"""Pixels of a picture: at first, and after ``--switch`` samples."""


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Train one arm of the gate and read it."""

    arm: Arm = "wide"
    """How many names there are."""
    seed: int = 0
    """Seed of the weights and of every batch."""
    state: Path = Path("world-gate")
    """Folder of latents, states and readings."""
    num_samples: int = 300_000
    """Pictures seen in all."""
    switch: int = 150_000
    """Samples after which pictures have 128 px instead of 64."""
    readings: tuple[int, ...] = (25_000, 50_000, 100_000, 150_000, 200_000, 300_000)
    """Samples after which the arm is read."""
    rows: tuple[int, ...] = (1, 3)
    """How many rows are fitted."""
    fit_steps: int = 60
    """Steps of a fit."""
    fit_pictures: int = 4
    """Pictures of each thing that a step of a fit sees."""
    fit_rate: float = 0.01
    """Rate at its beginning; it falls to zero."""
    num_nouns: int = 8
    """Known nouns from which the best one is chosen for each thing, the nearest to look at."""
    num_drawn: int = 4
    """Pictures that are drawn with each thing's rows; half as many with nouns."""
    guidance_scale: float = 3.0
    """Of the drawn pictures."""
    num_inference_steps: int = 15
    """Of the drawn pictures."""
    minutes: float = math.inf
    """Time budget of this call."""
    latents_only: bool = False
    """Make the latents of both arms and end."""
    json: Path | None = None
    """File for the readings of every run in the state folder."""


# --- what is shown


@cache
def held_out() -> tuple[str, ...]:
    """The forty things of the development half."""
    return tuple(slug for slug, half in unseen.counted().items() if half == "development")


@cache
def names(arm: Arm) -> tuple[str, ...]:
    """An arm's things; the narrow arm's are the first of the wide one's.

    They share no word with the held-out forty and are no twins of theirs.
    """
    excluded = set(held_out()).union(*map(unseen.kin, held_out()))
    others = [slug for slug in artwork.things() if slug not in excluded]
    rng = np.random.default_rng(np.random.SeedSequence((2022, 71)))
    return tuple(others[int(i)] for i in rng.permutation(len(others))[: NAMES[arm]])


@dataclass(frozen=True, slots=True)
class Shown:
    """One picture; its variations follow from what it is."""

    slug: str
    look: str
    place: str
    key: int
    """Tells apart pictures of the same thing in the same look and place."""

    def draw(self, size: int) -> np.ndarray:
        """The picture, uint8 (size, size, 3)."""
        numbers = (2022, 72, self.key, *(sorted(table).index(value) for table, value in (
            (artwork.things(), self.slug), (LOOKS, self.look), (PLACES, self.place))))  # fmt: skip
        rng = np.random.default_rng(np.random.SeedSequence(numbers))
        surface = skia.Surface(size, size)
        canvas = surface.getCanvas()
        canvas.scale(size / 64, size / 64)
        pen = StylePen(canvas, "photo")
        draw_place(pen, self.place, rng)
        side = 44 * float(rng.uniform(0.95, 1.05))
        canvas.translate(32 + float(rng.uniform(-2, 2)), 56 + float(rng.uniform(-1, 1)))
        pen.shadow(0.4 * side)
        if rng.random() < 0.5:
            canvas.scale(-1, 1)
        image = skia.Image.fromarray(
            sprite(self.slug, self.look), skia.kRGBA_8888_ColorType, skia.kPremul_AlphaType
        )
        smooth = skia.SamplingOptions(skia.FilterMode.kLinear, skia.MipmapMode.kLinear)
        canvas.drawImageRect(image, skia.Rect.MakeXYWH(-side / 2, -side, side, side), smooth)
        return surface.toarray(colorType=skia.kRGBA_8888_ColorType)[..., :3]


@cache
def training(arm: Arm) -> tuple[Shown, ...]:
    """All pictures of an arm: half on plain ground, the rest in two places."""
    where = ("plain", "beach", "plain", "meadow")
    return tuple(
        Shown(slug, look, where[i % 4], i)
        for slug in names(arm)
        for look in LOOKS
        for i in range(PICTURES[arm])
    )


@cache
def unseen_pictures() -> tuple[Shown, ...]:
    """Pictures of the held-out things, each thing in one look: first those to fit, then others."""
    where = ("plain", "beach", "meadow")
    return tuple(
        Shown(slug, tuple(LOOKS)[i % 2], where[k % 3], 1000 + k)
        for i, slug in enumerate(held_out())
        for k in range(NUM_FITTED + NUM_OTHER)
    )


@cache
def references() -> tuple[Shown, ...]:
    """Drawings of every thing on plain ground, among which the nearest is sought."""
    return tuple(
        Shown(slug, look, "plain", 2000 + k)
        for slug in artwork.things()
        for look in LOOKS
        for k in range(4)
    )


@cache
def fresh() -> tuple[Shown, ...]:
    """Drawings that ``references`` lacks: how well the nearest neighbour reads true ones."""
    return tuple(Shown(slug, look, "plain", 3000) for slug in held_out() for look in LOOKS)


SETS = {
    "narrow": lambda: training("narrow"),
    "wide": lambda: training("wide"),
    "unseen": unseen_pictures,
    "references": references,
    "fresh": fresh,
}


def caption(shown: Shown, word: str, rng: np.random.Generator | None) -> str:
    """Name a picture; half of the captions name its look, and most its ground."""
    form = LOOKS[shown.look] if rng is not None and rng.random() < 0.5 else "a {}"
    text = form.format(word)
    return text if rng is not None and rng.random() < 0.15 else f"{text} {PLACES[shown.place]}"


@torch.inference_mode()
def latents(state: Path, name: str, size: int) -> Tensor:
    """Moments of a set's latents, fp16 (pictures, 2 * channels, cells, cells), made once."""
    path = state / f"{name}-{size}.safetensors"
    if not path.exists():
        print(f"Making {path.name} ...", flush=True)
        vae = weights.load_vae(weights.pipeline_folder())
        found, shown = [], SETS[name]()
        for start in range(0, len(shown), 64):
            pixels = from_uint8(np.stack([s.draw(size) for s in shown[start : start + 64]]))
            posterior = vae.encode(pixels.contiguous(memory_format=torch.channels_last)).latent_dist
            found.append(torch.cat([posterior.mean, posterior.std], dim=1).half())
        part = path.with_suffix(".part")
        save_file({"moments": torch.cat(found).contiguous()}, part)
        part.replace(path)
    return load_file(path)["moments"]


# --- words


class Words:
    """A table of whole words; what stands behind it in the ids are learned rows."""

    pad_token_id, bos_token_id, eos_token_id = 0, 1, 2

    def __init__(self, arm: Arm) -> None:
        texts = [*LOOKS.values(), *PLACES.values(), "a"]
        texts += [artwork.things()[slug].noun for slug in names(arm)]
        words = sorted({word for text in texts for word in text.split()} - {"{}"})
        self.ids = {word: 3 + i for i, word in enumerate(words)}

    def __len__(self) -> int:
        return 3 + len(self.ids)

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Ids (texts, CONTEXT); the word "*7" is the learned row 7."""
        found = torch.full((len(texts), CONTEXT), self.pad_token_id)
        for line, text in zip(found, texts, strict=True):
            ids = [
                len(self) + int(word[1:]) if word[0] == "*" else self.ids[word]
                for word in text.split()
            ]
            if not text:
                ids = []
            line[: len(ids) + 2] = torch.tensor([self.bos_token_id, *ids, self.eos_token_id])
        return found

    def first_row(self, noun: str) -> int:
        """The row of a noun's last word."""
        return self.ids[noun.split()[-1]]


class Model(reading.Model):
    """A denoiser with its text encoder and words."""

    def __init__(self, arm: Arm, recipe: Recipe) -> None:
        seed_weights(recipe, "denoiser")
        words = Words(arm)
        self.unet = models.denoiser(recipe.sizes).to(memory_format=torch.channels_last)
        text = CLIPTextModel(models.text_config(words, recipe.sizes, recipe.sizes.text_layers))
        super().__init__(words, self._denoise, text, models.scheduler())

    def _denoise(self, x: Tensor, t: Tensor, states: Tensor) -> Tensor:
        return self.unet(x, t, states).sample


# --- readings


class Reader:
    """Reads an arm at one picture size."""

    def __init__(self, arguments: Arguments, model: Model, size: int) -> None:
        self.arguments, self.model = arguments, model
        self.settings = reading.Settings(
            **{f.name: getattr(arguments, f.name) for f in fields(reading.Settings)}
        )
        self.cells = size // 8
        per_thing = NUM_FITTED + NUM_OTHER
        found = latents(arguments.state, "unseen", size)
        found = found.view(len(held_out()), per_thing, *found.shape[1:])
        texts = [
            [caption(s, "{}", None) for s in unseen_pictures()[i * per_thing :][:per_thing]]
            for i in range(len(found))
        ]
        self.fitted = Examples(found[:, :NUM_FITTED], [own[:NUM_FITTED] for own in texts])
        self.others = Examples(found[:, NUM_FITTED:], [own[NUM_FITTED:] for own in texts])
        means = latents(arguments.state, "references", size).float().chunk(2, dim=1)[0]
        self.near = Near(means, [s.slug for s in references()])
        self.fresh = latents(arguments.state, "fresh", size).float().chunk(2, dim=1)[0]

    def _loss(self, words: Sequence[str | None], rows: Tensor | None = None) -> float:
        """Mean loss on the other pictures of the held-out things."""
        return reading.losses(self.model, self.others, words, rows).mean().item()

    def read(self, samples: int) -> dict[str, Any]:
        """Read everything, as numbers."""
        started = time.monotonic()
        model, settings, top1 = self.model, self.settings, self.near.top1
        own = {slug: artwork.things()[slug].noun for slug in names(self.arguments.arm)}
        nouns = reading.best_nouns(model, self.fitted, self.near, own, settings)
        slugs = list(held_out())
        half = max(1, self.arguments.num_drawn // 2)
        found: dict[str, Any] = {
            "arm": self.arguments.arm,
            "seed": self.arguments.seed,
            "samples": samples,
            "size_px": 8 * self.cells,
            "loss_no_caption": self._loss([None] * len(slugs)),
            "loss_best_noun": self._loss(nouns),
            "top1_drawings": top1(self.fresh, [s.slug for s in fresh()]),
        }
        drawn = self._draw(nouns, half)
        found["top1_best_noun"] = top1(drawn, slugs * half)
        sheet = [drawn[: len(slugs)]]
        known = list(names("narrow"))[: len(slugs)]
        drawn = self._draw([artwork.things()[slug].noun for slug in known], half)
        found["top1_known"] = top1(drawn, known * half)
        for num_rows in self.arguments.rows:
            rows, words = reading.fit(model, self.fitted, num_rows, nouns, settings)
            drawn = self._draw(words, self.arguments.num_drawn, rows)
            found[f"top1_rows_{num_rows}"] = top1(drawn, slugs * self.arguments.num_drawn)
            found[f"loss_rows_{num_rows}"] = self._loss(words, rows)
            found[f"spread_rows_{num_rows}"] = reading.spread(model, rows)
            sheet.append(drawn[: len(slugs)])
        for name in ("fit_pictures", "num_nouns", "num_drawn"):
            found[name] = getattr(self.arguments, name)
        found["reading_s"] = time.monotonic() - started
        self._save_sheet(sheet, samples)
        return found

    def _draw(self, words: Sequence[str], num: int, rows: Tensor | None = None) -> Tensor:
        """Latents of pictures on plain ground, ``num`` times all words."""
        texts = [f"a {word} {PLACES['plain']}" for word in words] * num
        shape = (self.model.unet.config.in_channels, self.cells, self.cells)
        return self.model.draw(texts, self.settings, shape, rows)

    @torch.inference_mode()
    def _save_sheet(self, lines: Sequence[Tensor], samples: int) -> None:
        """Lines of pictures: a drawing, the best noun's, then one for each number of rows."""
        vae = weights.load_vae(weights.pipeline_folder())
        drawn = self.fresh.view(len(held_out()), 2, *self.fresh.shape[1:])
        truth = torch.stack([own[i % 2] for i, own in enumerate(drawn)])
        size = 8 * self.cells
        sheet = Image.new("RGB", (size * len(truth), size * (1 + len(lines))))
        for y, line in enumerate((truth, *lines)):
            for x, image in enumerate(to_images(vae.decode(line).sample)):
                sheet.paste(image, (x * size, y * size))
        arguments = self.arguments
        sheet.save(arguments.state / f"{arguments.arm}-{arguments.seed}-{samples}.png")


# --- a run


def run_arm(arguments: Arguments) -> None:
    """Train an arm on from its state and read it at its marks."""
    folder = arguments.state / f"{arguments.arm}-{arguments.seed}"
    folder.mkdir(parents=True, exist_ok=True)
    recipe = Recipe(seed=arguments.seed)
    stage = replace(recipe.denoiser, num_samples=arguments.num_samples)
    recipe = replace(recipe, denoiser=stage)
    shop = Workshop(
        recipe, folder, torch.device("cpu"), time.monotonic() + 60 * arguments.minutes, _tell,
        from_scratch=True,
    )  # fmt: skip
    model = Model(arguments.arm, recipe)
    parts: dict[str, nn.Module] = {"unet": model.unet, "text": model.text}
    run = Run(shop, "denoiser", stage, parts, text=recipe.text_rate_factor)
    shown = training(arguments.arm)
    moments, size = torch.empty(0), 0
    for rng in run.steps():
        wanted = SIDES[run.samples >= arguments.switch]
        if size != wanted:
            size = wanted
            moments = latents(arguments.state, arguments.arm, size)
            # the first half was begun in fp32; 128 px take 1.6 times as long in it
            model.amp = shop.amp if size == SIDES[1] else nullcontext()
        index = rng.integers(0, len(shown), stage.batch_size)
        texts = [
            ""
            if rng.random() < recipe.caption_dropout
            else caption(shown[i], artwork.things()[shown[i].slug].noun, rng)
            for i in index.tolist()
        ]
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        x0 = sampled(moments[torch.from_numpy(index)], generator)
        noise = torch.randn(x0.shape, generator=generator)
        t = stratified(len(x0), generator)
        run.update(model.errors(x0, noise, t, model.read(texts)).mean())
        before = run.samples - stage.batch_size
        for mark in arguments.readings:
            # the last step's samples may fall short of the last mark by a part of a batch
            if before < mark <= run.samples or (run.done and mark > run.samples - stage.batch_size):
                _read(arguments, run, model, size, mark)
    print(f"{arguments.arm}, seed {arguments.seed}: {run.samples:,} samples", flush=True)


def _read(arguments: Arguments, run: Run, model: Model, size: int, mark: int) -> None:
    """Read with the averaged weights, keep the row, and save the state behind it."""
    path = run.shop.folder / f"reading-{mark}.json"
    if path.exists():
        return
    trained = [p.detach().clone() for p in run.parameters]
    run.use_average()
    for part in run.parts.values():
        part.requires_grad_(False).eval()
    row = Reader(arguments, model, size).read(run.samples)
    for part in run.parts.values():
        part.requires_grad_(True).train()
    for p, kept in zip(run.parameters, trained, strict=True):
        p.data.copy_(kept)
    lately = [h["loss"] for h in run.history[-10:]]
    row["loss_training"] = float(np.mean(lately)) if lately else None
    path.write_text(json.dumps(row))
    print(json.dumps(row), flush=True)
    run.save()
    write(arguments)


def write(arguments: Arguments) -> None:
    """Write the readings of every run in the state folder."""
    rows = [json.loads(path.read_text()) for path in arguments.state.glob("*/reading-*.json")]
    rows.sort(key=lambda row: (row["seed"], row["arm"], row["samples"]))
    settings = {
        name: getattr(arguments, name)
        for name in (
            "num_samples", "switch", "fit_steps", "fit_rate", "guidance_scale",
            "num_inference_steps",
        )
    }  # fmt: skip
    record(
        arguments.json, model="microworld", settings=settings, held_out=list(held_out()), rows=rows
    )


def _tell(stage: str, done: int, total: int, metrics: dict[str, float]) -> None:
    numbers = ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
    print(f"{stage} {done}/{total}: {numbers}", flush=True)


def main() -> None:
    """Run the command line."""
    arguments = tyro.cli(Arguments, description=__doc__)
    torch.set_num_threads(1)
    torch.backends.cuda.enable_flash_sdp(False)  # slower backwards for small heads
    arguments.state.mkdir(parents=True, exist_ok=True)
    if arguments.latents_only:
        for size in SIDES:
            for name in SETS:
                latents(arguments.state, name, size)
        return
    run_arm(arguments)
    write(arguments)


if __name__ == "__main__":
    main()
