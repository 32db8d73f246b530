r"""Latents of the second world's pictures, drawn and encoded once, for training on CPUs.

    python -m oneword.microworld.making.wide_latents FOLDER --num-processes 2

Each picture is drawn with skia, encoded by the landed autoencoder whole and at half its side, and
its moments are kept in fp16. What a picture shows belongs to its number, so that captions are
written anew each time it is seen. A stopped command goes on with the shard it was at.
"""

# The libraries' own annotations are narrower than what they take and return.
# pyright: reportCallIssue=false

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from oneword._devices import computes
from oneword.errors import UserError
from oneword.microworld.making import plain, processes, shards
from oneword.microworld.making.processes import Ending
from oneword.microworld.making.sizes import SIZES
from oneword.microworld.world import wide_scenes
from oneword.microworld.world.inventory import Scene
from oneword.microworld.world.wide_scenes import WideScene


_AT_ONCE = 20
"""Pictures that are encoded together: the quickest number on a core."""
_MODULE = "oneword.microworld.making.wide_latents"
_VAE = "pipeline/vae/diffusion_pytorch_model.safetensors"


class LatentsError(UserError):
    """The latents on disk are missing, damaged or of another recipe."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Gallery:
    """Which pictures are drawn, and whose autoencoder encodes them."""

    model: str = "microworld"
    """A landed model, whose pictures' side and autoencoder are taken."""
    seed: int = 0
    """Of the pictures."""
    num_pictures: int = 200_000
    """Pictures in all; more can be added later."""
    shard_size: int = 2000
    """Pictures of a file; it divides num_pictures."""

    def __post_init__(self) -> None:
        if self.shard_size < 1 or self.num_pictures < 1 or self.num_pictures % self.shard_size:
            raise LatentsError(
                "num_pictures must be a multiple of shard_size, both 1 or more, got "
                f"{self.num_pictures} and {self.shard_size}."
            )

    @property
    def num_shards(self) -> int:
        """Files in all."""
        return self.num_pictures // self.shard_size

    @property
    def sides(self) -> tuple[int, int]:
        """Pixels of a picture, halved and whole."""
        return SIZES[self.model].size_px // 2, SIZES[self.model].size_px

    def metadata(self) -> dict[str, str]:
        """What every file says of itself; the number of pictures is not in it."""
        card = json.loads((plain.landed(self.model).parent / "card.json").read_text())
        own = {"seed": self.seed, "shard_size": self.shard_size, "world": wide_scenes.VERSION}
        return {name: str(value) for name, value in own.items()} | {"vae": card["sha256"][_VAE]}

    def scene(self, index: int) -> Scene | WideScene:
        """What a picture shows."""
        return wide_scenes.sample(self.seed * 2**32 + index)


@torch.inference_mode()
def encoded(encoder: plain.PlainEncoder, pictures: np.ndarray) -> tuple[Tensor, Tensor]:
    """Moments of pictures at half their side and whole.

    Args:
        encoder: In fp32.
        pictures: uint8 (batch, side, side, 3).

    Returns:
        Mean and deviation side by side, fp16 (batch, 2 * channels, cells, cells) each.
    """
    pixels = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1
    amp = computes(torch.bfloat16, torch.device("cpu"))
    found = []
    for shown in (F.avg_pool2d(pixels, 2), pixels):
        with torch.autocast("cpu", torch.bfloat16, enabled=amp):
            moments = encoder(shown.contiguous(memory_format=torch.channels_last))
        found.append(torch.cat(moments, dim=1).half())
    return found[0], found[1]


def make(
    folder: Path,
    gallery: Gallery,
    *,
    minutes: float = math.inf,
    num_processes: int = 1,
    on_progress: Callable[[int, int, float], None] | None = None,
) -> bool:
    """Make the shards that are missing; needs the extra that draws.

    Args:
        folder: For the shards.
        gallery: Which pictures.
        minutes: Time budget; the shard at which it ends is made anew later.
        num_processes: CPU processes of one thread each.
        on_progress: Called with shards that are there, shards in all, and pictures a second.

    Returns:
        Whether all are there.

    Raises:
        LatentsError: the folder holds shards of another recipe.
    """
    check(folder, gallery, whole=False)
    if not shards.missing(folder, gallery.num_shards):
        return True
    folder.mkdir(parents=True, exist_ok=True)
    job = (folder, gallery, time.monotonic() + 60 * minutes, num_processes)
    tell = on_progress or _tell_nobody
    processes.launch(_make_process, job, num_processes, tell, patient=True)
    return not shards.missing(folder, gallery.num_shards)


def _make_process(
    rank: int,
    folder: Path,
    gallery: Gallery,
    deadline_s: float,
    num_processes: int,
    tell: Callable[[int, int, float], None],
) -> None:
    from oneword.microworld.world import wide_drawing  # needs the optional extra

    encoder = plain.load_encoder(plain.landed(gallery.model) / "vae")
    encoder.to(memory_format=torch.channels_last)
    side = gallery.sides[1]
    before = len(shards.missing(folder, gallery.num_shards))
    started = time.monotonic()
    with Ending() as ending:

        def late() -> bool:
            return ending.asked or time.monotonic() >= deadline_s

        def shard(index: int) -> dict[str, Tensor] | None:
            first = index * gallery.shard_size
            found = []
            for start in range(first, first + gallery.shard_size, _AT_ONCE):
                if late():
                    return None
                numbers = range(start, min(start + _AT_ONCE, first + gallery.shard_size))
                drawn = [wide_drawing.render(gallery.scene(i), side) for i in numbers]
                found.append(encoded(encoder, np.stack(drawn)))
            return {
                str(size): torch.cat(own)
                for size, own in zip(gallery.sides, zip(*found, strict=True), strict=True)
            }

        def told(index: int) -> bool:
            del index
            left = len(shards.missing(folder, gallery.num_shards))
            speed = (before - left) * gallery.shard_size / (time.monotonic() - started)
            tell(gallery.num_shards - left, gallery.num_shards, speed)
            return late()

        shards.make(
            folder,
            gallery.num_shards,
            shard,
            metadata=gallery.metadata(),
            rank=rank,
            num_processes=num_processes,
            on_shard=told,
        )


def _tell_nobody(done: int, total: int, speed: float) -> None:
    """Stand in for an absent ``on_progress``."""


def check(folder: Path, gallery: Gallery, *, whole: bool = True) -> None:
    """Refuse shards that are not the gallery's.

    Args:
        folder: Where they lie.
        gallery: What they must be of.
        whole: Whether none may be missing.

    Raises:
        LatentsError: one is missing, damaged or of another recipe.
    """
    wanted = gallery.metadata()
    for index in range(gallery.num_shards):
        path = shards.path_of(folder, index)
        if not path.exists():
            if whole:
                raise LatentsError(
                    f"There must be latents of {gallery.num_pictures:,} pictures, got no "
                    f"{path.name} in {folder}; make them with `python -m {_MODULE} {folder} "
                    f"--num-pictures {gallery.num_pictures}`."
                )
            continue
        try:
            with safe_open(path, "pt") as file:
                found = file.metadata() or {}
                shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise LatentsError(
                f"The latents in {path} cannot be read ({error}); delete the file, and it is made "
                "again."
            ) from error
        for name, value in wanted.items():
            if found.get(name) != value:
                raise LatentsError(
                    f"The latents must have {name} {value[:12]}, got {found.get(name, 'none')[:12]}"
                    f" in {path}; take another folder for them."
                )
        sizes = SIZES[gallery.model]
        for side in gallery.sides:
            cells = side // sizes.factor
            expected = [gallery.shard_size, 2 * sizes.latent_channels, cells, cells]
            if shapes.get(str(side)) != expected:
                raise LatentsError(
                    f"The latents of {side} px must have shape {expected}, got "
                    f"{shapes.get(str(side))} in {path}; delete the file, and it is made again."
                )


class Latents:
    """A gallery's latents, read from their files where they are needed."""

    def __init__(self, folder: Path, gallery: Gallery) -> None:
        check(folder, gallery)
        self.gallery = gallery
        # mapped, not read
        self._files = [load_file(shards.path_of(folder, i)) for i in range(gallery.num_shards)]

    def moments(self, numbers: Sequence[int], *, small: bool) -> tuple[Tensor, Tensor]:
        """Mean and deviation of some pictures' latents, float32 (batch, channels, cells, cells).

        Args:
            numbers: Which pictures.
            small: Whether at half their side.
        """
        key, size = str(self.gallery.sides[0 if small else 1]), self.gallery.shard_size
        found = torch.stack([self._files[i // size][key][i % size] for i in numbers])
        mean, std = found.float().chunk(2, dim=1)
        return mean, std


def progress(done: int, total: int, speed: float) -> str:
    """A line on how far the latents are."""
    return f"latents {done} of {total}: {speed:.0f} pictures a second"


def main(arguments: Sequence[str] | None = None) -> int:
    """Make latents from the command line."""
    parser = argparse.ArgumentParser(description="Draw and encode the second world's pictures.")
    parser.add_argument("folder", type=Path, help="for the latents")
    parser.add_argument("--num-pictures", type=int, help="pictures in all")
    parser.add_argument("--seed", type=int, default=0, help="of the pictures")
    parser.add_argument("--num-processes", type=int, default=1, help="CPU processes")
    parser.add_argument("--minutes", type=float, default=math.inf, help="time budget")
    options = parser.parse_args(arguments)
    gallery = Gallery(seed=options.seed)
    if options.num_pictures:
        gallery = replace(gallery, num_pictures=options.num_pictures)
    complete = make(
        options.folder,
        gallery,
        minutes=options.minutes,
        num_processes=options.num_processes,
        on_progress=lambda *some: print(progress(*some), flush=True),  # noqa: T201
    )
    size = sum(p.stat().st_size for p in options.folder.glob("latents-*.safetensors"))
    told = "All" if complete else "Some; the same command makes the rest of the"
    print(f"{told} {gallery.num_pictures:,} pictures' latents: {size / 2**30:.2f} GiB.")  # noqa: T201
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
