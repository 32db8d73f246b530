"""Pictures of the second world put together from ready parts, in torch alone.

``packing`` draws the parts with skia; here, on a machine that may have neither skia nor diffusers,
they become batches of pictures: a background in a style, the things where the layout has them, and
what the style does to the whole picture. A picture is nearly the one that ``wide_drawing`` draws.
"""

from __future__ import annotations

import colorsys
import io
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from oneword.errors import UserError
from oneword.microworld.world import scenes, wide_scenes
from oneword.microworld.world.inventory import Scene
from oneword.microworld.world.tints import HUES
from oneword.microworld.world.wide_layout import Extent, layout
from oneword.microworld.world.wide_scenes import WideScene


SIDE = 96
"""Pixels of a packed drawing."""
REACH = 1.12
"""Side of a packed drawing over that of the thing's own square, so that outlines have room."""
BELOW = 0.06
"""Part of the thing's side that a packed drawing has below its lower edge."""
SIZE = 128
"""Pixels of a picture."""
TINTED = ("photo", "poster", "cartoon", "pixel art", "oil painting")
"""Styles in which another hue is seen; in the others a thing keeps its own."""
RIM = "rim"
"""In place of a style: a line icon with the pale rim that it has in places."""
_UNITS = SIZE / 64


class PackError(UserError):
    """The file of parts is not one that these pictures can be made from."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One thing of a picture; lengths in units of 64 to the picture."""

    sprite: int
    x: float
    y: float
    side: float
    width: float
    flip: float
    colour: str
    shadow: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """How a picture is put together, or which ready one it is."""

    background: int
    layers: tuple[Layer, ...] = ()
    style: str = "photo"
    light: float = 1.0
    variant: int = 0
    """Of the style's texture."""
    drawn: int = -1
    """Index of a ready picture of the first world; -1: none."""


class Parts:
    """What a pack holds, by name; enough to plan pictures, without their pixels."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with zipfile.ZipFile(path) as archive:
                index: dict[str, Any] = json.loads(archive.read("index.json"))
        except (OSError, zipfile.BadZipFile, KeyError) as error:
            raise PackError(
                f"The parts must be a file made by oneword.microworld.making.packing, got {path} "
                f"({error}); make it on a machine with skia."
            ) from error
        if index["world"] != wide_scenes.VERSION:
            raise PackError(
                f"The parts must be of world version {wide_scenes.VERSION}, got {index['world']} "
                f"in {path}; make them again."
            )
        self.sprites = {tuple(key): i for i, key in enumerate(index["sprites"])}
        self.slugs = tuple(dict.fromkeys(slug for slug, _, _ in index["sprites"]))
        self.extents = {
            (slug, look): Extent(width=w, height=h, top=t)
            for slug, look, w, h, t in index["extents"]
        }
        self.backgrounds = {tuple(key): i for i, key in enumerate(index["backgrounds"])}
        self.variants: list[int] = index["variants"]
        self.num_variants = 1 + max(variant for _, _, variant in self.backgrounds)
        self.shadows: dict[str, int] = index["shadows"]
        self.drawn: list[int] = index["drawn"]
        self.inks: dict[str, list[int]] = index["inks"]

    def drawn_seed(self, seed: int) -> int | None:
        """The ready picture of the first world that a seed shows; None: it shows another scene."""
        rng = np.random.default_rng(np.random.SeedSequence((seed, 66)))
        if self.drawn and rng.random() < wide_scenes.DRAWN_SHARE:
            return self.drawn[int(rng.integers(len(self.drawn)))]
        return None

    def sample(self, seed: int) -> Scene | WideScene:
        """The scene of a seed, as ``wide_scenes.sample`` has it, that the parts can show."""
        drawn = self.drawn_seed(seed)
        if drawn is not None:
            return scenes.sample_scene(drawn)
        return self.shown(wide_scenes.sample_wide(seed, slugs=self.slugs))

    def shown(self, scene: WideScene) -> WideScene:
        """A scene with what the parts lack replaced: styles redraw flat stickers alone."""
        if scene.style == "photo":
            return scene
        things = tuple(
            replace(
                thing,
                look="flat sticker",
                name=thing.name if thing.look == "flat sticker" else "",
                colour=thing.colour if scene.style in TINTED else "",
            )
            for thing in scene.things
        )
        return replace(scene, things=things)

    def plan(self, scene: Scene | WideScene, seed: int | None = None) -> Plan:
        """Say how a scene's picture is put together.

        Args:
            scene: As ``sample`` gives it.
            seed: Of a scene of the first world: which of ``drawn`` it is.
        """
        if isinstance(scene, Scene):
            return Plan(0, drawn=self.drawn.index(-1 if seed is None else seed))
        variant = scene.seed % self.num_variants
        background = self.backgrounds[scene.style, scene.place, variant]
        layers = []
        for placed in layout(scene, lambda slug, look: self.extents[slug, look]):
            figure, style = placed.figure, scene.style
            if style == "photo" and figure.look == "line icon" and scene.place != "plain":
                style = RIM
            key = (figure.slug, figure.look, style)
            layers.append(
                Layer(
                    sprite=self.sprites.get(key, self.sprites[figure.slug, figure.look, "photo"]),
                    x=placed.x,
                    y=placed.y,
                    side=placed.side,
                    width=placed.width,
                    flip=-1.0 if figure.flipped else 1.0,
                    colour=figure.colour,
                    shadow=placed.shadow,
                )
            )
        return Plan(background, tuple(layers), scene.style, scene.light, self.variants[background])


class Collage:
    """The parts' pixels on a device, from which batches of pictures are put together."""

    def __init__(self, parts: Parts, device: torch.device) -> None:
        self.parts, self.device = parts, device
        with zipfile.ZipFile(parts.path) as archive:
            self.sprites = self._stack(archive, "sprites", len(parts.sprites), "RGBA")
            self.backgrounds = self._stack(archive, "backgrounds", len(parts.backgrounds), "RGB")
            self.drawn = self._stack(archive, "drawn", len(parts.drawn), "RGB")
            finish = np.load(io.BytesIO(archive.read("finish.npz")))
            self.finish = {n: torch.from_numpy(finish[n]).to(device) for n in finish.files}
        alpha = self.sprites[:, 3:].float() / 255
        self.sprites[:, :3] = (self.sprites[:, :3].float() * alpha).round().to(torch.uint8)
        line = {i for (_, look, _), i in parts.sprites.items() if look == "line icon"}
        self.line = torch.tensor([i in line for i in range(len(parts.sprites))], device=device)
        middles = (torch.arange(SIZE, device=device) + 0.5) / _UNITS
        self.rows, self.columns = middles[:, None], middles[None, :]

    def _stack(self, archive: zipfile.ZipFile, folder: str, num: int, mode: str) -> Tensor:
        found = [
            np.asarray(Image.open(io.BytesIO(archive.read(f"{folder}/{i}.webp"))).convert(mode))
            for i in range(num)
        ]
        if not found:
            return torch.zeros((0, len(mode), SIZE, SIZE), dtype=torch.uint8, device=self.device)
        return torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2).contiguous().to(self.device)

    def pictures(self, plans: Sequence[Plan]) -> Tensor:
        """Put pictures together, float32 (batch, 3, SIZE, SIZE) in [-1, 1]."""
        image = self.backgrounds[[plan.background for plan in plans]].float() / 255
        for k in range(max((len(plan.layers) for plan in plans), default=0)):
            index = [i for i, plan in enumerate(plans) if len(plan.layers) > k]
            layers = [plans[i].layers[k] for i in index]
            crisp = torch.tensor([plans[i].style == "pixel art" for i in index])
            shaded = self._shaded(image[index], layers, [plans[i].style for i in index])
            image[index] = self._laid(shaded, layers, crisp.to(self.device))
        image = 255 * image
        for style, finish in (
            ("watercolor", self._watercolor),
            ("oil painting", self._oil_painting),
            ("pixel art", self._pixel_art),
        ):
            index = [i for i, plan in enumerate(plans) if plan.style == style and plan.layers]
            if index:
                image[index] = finish(image[index], [plans[i].variant for i in index])
        light = torch.tensor([plan.light for plan in plans], device=self.device)
        image = (image * light[:, None, None, None]).clamp(0, 255)
        ready = [i for i, plan in enumerate(plans) if plan.drawn >= 0]
        if ready:
            image[ready] = self.drawn[[plans[i].drawn for i in ready]].float()
        return image.round() / 127.5 - 1

    def _column(self, values: Sequence[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=self.device)[:, None, None]

    def _shaded(self, image: Tensor, layers: Sequence[Layer], styles: Sequence[str]) -> Tensor:
        """Darken the ground under things."""
        half = 0.5 * self._column([layer.width for layer in layers])
        x, y = (self._column([getattr(layer, n) for layer in layers]) for n in ("x", "y"))
        flat = (0.16 * half).clamp(max=3.4)
        radius = torch.hypot((self.columns - x) / half, (self.rows - y) / flat)
        depth = self._column(
            [self.parts.shadows[s] * la.shadow / 255 for s, la in zip(styles, layers, strict=True)]
        )
        alpha = depth * ((1 - radius) / 0.55).clamp(0, 1)
        return image * (1 - alpha[:, None])

    def _laid(self, image: Tensor, layers: Sequence[Layer], crisp: Tensor) -> Tensor:
        """Lay things over pictures."""
        x, y, side, flip = (
            self._column([getattr(layer, n) for layer in layers])
            for n in ("x", "y", "side", "flip")
        )
        across = (self.columns - x) / side * flip * (2 / REACH)
        down = ((self.rows - y) / side - BELOW) * (2 / REACH) + 1
        grid = torch.stack(torch.broadcast_tensors(across, down), dim=-1)
        index = torch.tensor([layer.sprite for layer in layers], device=self.device)
        sprites = self.sprites[index].float() / 255
        sprites = self._tinted(sprites, layers, self.line[index])
        laid = F.grid_sample(sprites, grid, align_corners=False)
        # what is drawn at less than half its size would sparkle
        small = (side[:, 0, 0] * _UNITS * REACH < 0.6 * SIDE).nonzero()[:, 0]
        if len(small):
            halved = F.avg_pool2d(sprites[small], 2)
            laid[small] = F.grid_sample(halved, grid[small], align_corners=False)
        alpha = laid[:, 3:]
        hard = (alpha > 0.5).float()
        rgb = laid[:, :3] / alpha.clamp(min=1e-4) * hard
        over = image * (1 - alpha) + laid[:, :3]
        blocky = image * (1 - hard) + rgb
        return torch.where(crisp[:, None, None, None], blocky, over).clamp(0, 1)

    def _tinted(self, sprites: Tensor, layers: Sequence[Layer], line: Tensor) -> Tensor:
        """Replace hues, as ``tints.tinted`` does; sprites are premultiplied."""
        some = [i for i, layer in enumerate(layers) if layer.colour]
        if not some:
            return sprites
        table = torch.tensor([_pure(layers[i].colour) for i in some], device=self.device)
        pure, more, bright = (
            table[:, :3, None, None],
            table[:, 3, None, None],
            table[:, 4, None, None],
        )
        alpha = sprites[some, 3:]
        rgb = (sprites[some, :3] / alpha.clamp(min=1e-4)).clamp(0, 1)
        value = rgb.amax(1)
        saturation = torch.where(value > 0, 1 - rgb.amin(1) / value.clamp(min=1e-6), 0.0)
        share = ((saturation - 0.12) / 0.12).clamp(0, 1) * ((value - 0.15) / 0.1).clamp(0, 1)
        s, v = (saturation * more).clamp(0, 1), (value * bright).clamp(0, 1)
        new = v[:, None] * (1 - s[:, None] * (1 - pure))
        new = rgb + share[:, None] * (new - rgb)
        # a line icon is one colour all over; its rim stays pale
        inks = [self.parts.inks[layers[i].colour] for i in some]
        ink = torch.tensor(inks, device=self.device)[:, :, None, None] / 255
        ink = rgb + ((1 - value[:, None]) / 0.86).clamp(0, 1) * (ink - rgb)
        new = torch.where(line[some][:, None, None, None], ink, new)
        tinted = sprites.clone()
        tinted[some, :3] = new.clamp(0, 1) * alpha
        return tinted

    def _watercolor(self, image: Tensor, variants: Sequence[int]) -> Tensor:
        paper = self.finish["paper"][list(variants)][:, None]
        return image + (self.finish["paper_rgb"][None, :, None, None] - image) * paper

    def _oil_painting(self, image: Tensor, variants: Sequence[int]) -> Tensor:
        corners = self.finish["corners"][list(variants)].long()  # (batch, 4, pixels)
        shares = self.finish["shares"][list(variants)]
        flat = image.flatten(2)
        dragged = sum(
            flat.gather(2, corners[:, k, None].expand(-1, 3, -1)) * shares[:, k, None]
            for k in range(4)
        )
        bright = 1 + 0.09 * self.finish["dabs"][list(variants)]
        return (dragged * bright[:, None]).view_as(image)

    def _pixel_art(self, image: Tensor, variants: Sequence[int]) -> Tensor:
        del variants
        block = SIZE // 32
        chosen = image[:, :, block // 2 :: block, block // 2 :: block]
        levels = (chosen / 42.5).round() * 42.5
        return levels.repeat_interleave(block, 2).repeat_interleave(block, 3)


def _pure(colour: str) -> list[float]:
    """A colour's pure red, green and blue, and its factors of saturation and value."""
    hue, more, bright = HUES[colour]
    return [*colorsys.hsv_to_rgb(hue, 1.0, 1.0), more, bright]
