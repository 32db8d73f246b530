"""Files to pixels and back: reading, cropping, contact sheets, and settings kept inside PNGs."""

from __future__ import annotations

import base64
import contextlib
import io
import math
import unicodedata
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import torch
from jaxtyping import Int
from PIL import Image, ImageCms, ImageDraw, ImageFont, PngImagePlugin
from torch import Tensor
from torch.nn import functional as F

from oneword._escaping import terminal
from oneword._files import (
    MAX_LINE,
    FormError,
    check,
    open_regular,
    parsed,
    read_lines,
    read_text,
    write_atomic,
)
from oneword._typing import Masks, Pixels
from oneword.config.presets import Fit, Interpolation
from oneword.errors import UserError
from oneword.prompts import descriptions


MIN_SIDE_PX = 16
MAX_PIXELS = 100_000_000
"""Larger pictures are refused by their header, because decoding one can fill the memory."""
MAX_BYTES = 2**30
"""Most bytes of a picture's file: more than the largest picture has without any compression."""
FORMATS = {
    "AVIF": (".avif",),
    "BMP": (".bmp", ".dib"),
    "GIF": (".gif",),
    "HEIF": (".heic", ".heif", ".hif"),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "JPEG2000": (".jp2", ".j2k", ".jpf", ".jpx"),
    "PNG": (".png", ".apng"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "TGA": (".tga",),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
}
"""Formats that are read, whatever a file is called, and their usual file extensions.

Pillow reads others, too: PostScript by starting Ghostscript, and video by its first frame. HEIF
needs pillow-heif.
"""
_ENDINGS = {ending for endings in FORMATS.values() for ending in endings}
_NOT_READ = {
    ".jxl": "JPEG XL", ".psd": "Photoshop", ".svg": "SVG", ".eps": "PostScript",
    ".ai": "Illustrator", ".xcf": "GIMP", ".ico": "icon", ".dng": "raw", ".cr2": "raw",
    ".cr3": "raw", ".nef": "raw", ".arw": "raw", ".orf": "raw", ".raf": "raw", ".rw2": "raw",
}  # fmt: skip
_STRIP = 2**22  # pixels that are processed at once if a step needs much memory for each


class ImageError(UserError):
    """A picture, or a folder of pictures, cannot be used."""


@dataclass(frozen=True, slots=True)
class PictureSet:
    """The pictures of a folder, in the order of their names."""

    pixels: Pixels
    """If sizes differ, each is in the upper left of a frame of the same size, white elsewhere."""
    names: tuple[str, ...]
    captions: tuple[str | None, ...]
    """From ``metadata.jsonl`` or a .txt file with the same stem, if there is one."""
    crops: Int[Tensor, "batch 4"]
    """Original height and width, and top and left of the crop in the resized picture, in px."""
    masks: Masks | None = None
    """Which part of each picture counts, if any picture has a mask; those without one count in
    full."""
    opacity: Masks | None = None
    """Opacity of each picture, in [0, 1], if any is partly transparent; ``pixels`` show them on
    white."""
    sizes: Int[Tensor, "batch 2"] | None = None
    """Height and width of each picture in px, if they differ; ``None``: all fill their frames."""
    skipped: tuple[str, ...] = field(default=())
    """Entries that are not pictures, each with the reason."""


@dataclass(frozen=True, slots=True)
class Frame:
    """The frame that a picture is fitted into, and how."""

    size: tuple[int, int]
    """Height and width, px."""
    fit: Fit = "crop"
    """See :func:`to_pixels`."""
    interpolation: Interpolation = "lanczos"

    @property
    def shape(self) -> str:
        """Its shape, in a word."""
        return "square" if self.size[0] == self.size[1] else "frame"


_MASK = ".mask.png"
_METADATA = "metadata.jsonl"


def read_folder(
    folder: Path,
    *,
    resolution: int,
    fit: Fit = "crop",
    bucket_step: int = 64,
    interpolation: Interpolation = "lanczos",
    masks: bool = True,
    mask_dir: Path | None = None,
    caption_dir: Path | None = None,
) -> PictureSet:
    """Read every picture of a folder at the size that a model takes.

    Hidden files, folders and files of other kinds are skipped and listed. A damaged picture is an
    error, because leaving it out would change the result silently. Transparent areas become white.
    A caption is a .txt file next to the picture, or the field "text" in the ``metadata.jsonl`` of
    the Hugging Face imagefolder layout.

    Args:
        folder: Folder with the pictures.
        resolution: Side of the squares, in px; buckets have at most their area.
        fit: Take the middle square ("crop"), squash the whole picture to a square ("squash"), add
            bars that masks leave out ("pad"), or crop to the nearest of ``bucket_sizes``
            ("buckets").
        bucket_step: Sides of buckets are multiples of this, in px.
        interpolation: How pictures are resized.
        masks: Read masks: the first of ``mask_dir``, ``NAME.mask.png`` next to ``NAME.jpg``, and
            the picture's own transparency.
        mask_dir: Folder with masks, named after the pictures' stems.
        caption_dir: Folder with .txt files, which take precedence over those next to the pictures.

    Raises:
        ImageError: the folder is missing or has no pictures, or a picture cannot be used.
    """
    paths, skipped = picture_files(folder)
    for name, other in (("masks", mask_dir), ("captions", caption_dir)):
        if other is not None and not other.is_dir():
            raise ImageError(f"The {name} must be in a folder, got {other}.")
    captions = captions_of(folder, paths, caption_dir)
    buckets = bucket_sizes(resolution, bucket_step) if fit == "buckets" else []
    pixels, crops, found_masks, solid = [], [], [], []
    for path in paths:
        upright = _upright(path)
        size = _nearest(upright, buckets) if buckets else (resolution, resolution)
        frame = Frame(size, fit, interpolation)
        pixels.append(to_pixels(_rgb(upright), frame))
        crops.append(_crop(upright, frame))
        solid.append(_solid(upright, path, frame))
        mask = _mask_of(path, upright, mask_dir) if masks else None
        found_masks.append(_to_mask(mask, upright, path, frame))
    sizes = torch.tensor([own.shape[-2:] for own in pixels])
    return PictureSet(
        _framed(pixels),
        tuple(path.name for path in paths),
        captions,
        torch.tensor(crops),
        _framed(found_masks) if any(not bool(m.all()) for m in found_masks) else None,
        _framed(solid) if any(bool((own < 1).any()) for own in solid) else None,
        sizes if bool((sizes != sizes[0]).any()) else None,
        tuple(skipped),
    )


def picture_files(folder: Path) -> tuple[list[Path], list[str]]:
    """The pictures of a folder in the order of their names, and the skipped entries with reasons.

    Raises:
        ImageError: the folder is missing or has no pictures.
    """
    if not folder.is_dir():
        found = "a file" if folder.exists() else "nothing there"
        raise ImageError(f"The pictures must be in a folder, got {folder} ({found}).")
    paths, skipped = [], []
    for path in sorted(folder.iterdir(), key=lambda p: p.name):
        if path.name.startswith(".") or path.name in (_METADATA, descriptions.FILE):
            continue
        beside = path.name.endswith(_MASK)
        if (path.suffix == ".txt" or beside) and path.is_file():
            if not _has_picture(path.with_name(path.name.removesuffix(_MASK)) if beside else path):
                kind = "a mask" if beside else "a text file"
                skipped.append(f"{path.name} ({kind} without its picture)")
        elif path.is_dir():
            skipped.append(f"{path.name} (a folder)")
        elif path.suffix.lower() not in _ENDINGS:
            kind = _NOT_READ.get(path.suffix.lower())
            why = f"a {kind} file, which cannot be read; save it as JPEG or PNG" if kind else ""
            skipped.append(f"{path.name} ({why or 'not a picture'})")
        elif not path.is_file():
            skipped.append(f"{path.name} (not a regular file)")
        else:
            paths.append(path)
    if not paths:
        also = f"; skipped {', '.join(skipped)}" if skipped else ""
        raise ImageError(
            f"The folder must contain at least one picture, got none in {folder}{also}."
        )
    return paths, skipped


def captions_of(
    folder: Path, paths: Sequence[Path], caption_dir: Path | None = None
) -> tuple[str | None, ...]:
    """The caption of each picture of a folder, if it has one.

    Args:
        folder: As for :func:`read_folder`.
        paths: Its pictures.
        caption_dir: As for :func:`read_folder`.

    Raises:
        ImageError: a caption cannot be read, or ``metadata.jsonl`` names other pictures.
    """
    listed = _listed_captions(folder / _METADATA)
    spelled = {_composed(name): name for name in listed}
    own = [spelled.get(_composed(path.name), "") for path in paths]
    unused = listed.keys() - {*own}
    if unused:
        raise ImageError(
            f"{folder / _METADATA} must list only pictures in its folder, got "
            f"{', '.join(sorted(unused)[:3])}."
        )
    return tuple(
        _caption_beside(path, caption_dir) or listed.get(name) or None
        for path, name in zip(paths, own, strict=True)
    )


def caption_file(picture: Path, caption_dir: Path | None = None) -> Path:
    """Path of a picture's caption: next to it, or in a folder of captions."""
    beside = picture.with_suffix(".txt")
    return beside if caption_dir is None else caption_dir / beside.name


def mask_file(picture: Path, mask_dir: Path | None = None) -> Path:
    """Path to which a picture's mask is written: next to it, or in a folder of masks."""
    return (
        picture.with_name(picture.stem + _MASK)
        if mask_dir is None
        else mask_dir / f"{picture.stem}.png"
    )


def _caption_beside(picture: Path, caption_dir: Path | None) -> str | None:
    places = [caption_file(picture, caption_dir), caption_file(picture)]
    path = next((place for place in places if place.exists()), None)
    if path is None:
        return None
    must = f"The caption of {picture.name} must be a readable text file"
    return read_text(path, most=MAX_LINE, must=must, error=ImageError).strip()


def _framed(own: Sequence[Tensor]) -> Tensor:
    """Pictures of several sizes, each in the upper left of a frame with the largest sides."""
    height, width = (max(one.shape[axis] for one in own) for axis in (-2, -1))
    return torch.cat(
        [F.pad(o, (0, width - o.shape[-1], 0, height - o.shape[-2]), value=1.0) for o in own]
    )


# --- sizes by aspect

MOST_LONG = 4
"""Most that a bucket's longer side can be, in units of its shorter one."""


def bucket_sizes(resolution: int, step: int) -> list[tuple[int, int]]:
    """Heights and widths that are multiples of a step and nearly fill the area of a square.

    For each width it is the largest height; the longer side is at most ``MOST_LONG`` times the
    shorter.

    Args:
        resolution: Side of the square, in px.
        step: The step, in px.

    Raises:
        ImageError: the square is smaller than one step.

    Source:
        Podell et al. 2023, arXiv:2307.01952, section 2.3 and appendix I.
    """
    if resolution < step:
        raise ImageError(
            f"resolution must be at least one step of the buckets' sides, got {resolution} px "
            f"with steps of {step} px; use a smaller --bucket-step, or --fit crop."
        )
    side = resolution // step * step
    found = {(side, side)}
    for long in range(side, 2 * resolution + 1, step):
        short = resolution**2 // long // step * step
        if short and long <= MOST_LONG * short:
            found |= {(short, long), (long, short)}
    return sorted(found)


def _nearest(image: Image.Image, sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """The size with the aspect nearest to a picture's; the largest of equally near ones."""
    aspect = math.log(image.width / image.height)
    return min(sizes, key=lambda s: (abs(math.log(s[1] / s[0]) - aspect), -s[0] * s[1]))


def _composed(name: str) -> str:
    """A file's name in one spelling: macOS stores "é" as two characters, others as one."""
    return unicodedata.normalize("NFC", name)


_Entry = {"file_name": str, "text": (str, type(None))}


def _listed_captions(path: Path) -> dict[str, str | None]:
    """Captions by file name from a ``metadata.jsonl``; empty if there is no such file."""
    if not path.exists():
        return {}
    found: dict[str, str | None] = {}
    must = "The captions must be a readable text file"
    for number, line in enumerate(read_lines(path, must=must, error=ImageError), 1):
        if not line.strip():
            continue
        try:
            if len(line) > MAX_LINE:
                raise FormError(f"the line has {len(line)} characters")
            entry = check(parsed(line), _Entry, "the line")
        except FormError as error:
            raise ImageError(
                f"Each line of {path} must be JSON such as "
                f'{{"file_name": "a.jpg", "text": "..."}}, '
                f"got line {number}: {line[:80]!r} ({error})."
            ) from error
        name = entry["file_name"].removeprefix("./")
        found[name] = None if entry["text"] is None else entry["text"].strip()
    return found


def _crop(image: Image.Image, frame: Frame) -> list[int]:
    """Original height and width, and the frame's position in the resized picture, in px."""
    width, height = image.size
    if frame.fit in ("squash", "pad"):
        return [height, width, 0, 0]
    scale = max(own / side for own, side in zip(frame.size, (height, width), strict=True))
    top, left = (
        round((side * scale - own) / 2)
        for own, side in zip(frame.size, (height, width), strict=True)
    )
    return [height, width, top, left]


def _mask_places(path: Path, mask_dir: Path | None) -> list[Path]:
    """The candidates for a picture's mask; the first one that exists counts."""
    places = [mask_file(path)]
    if mask_dir is not None:
        inside = [p for p in sorted(mask_dir.iterdir()) if p.suffix.lower() in _ENDINGS]
        places = [p for p in inside if p.stem == path.stem] + places
    return [place for place in places if place.exists()]


def mask_of(path: Path, mask_dir: Path | None = None) -> Image.Image | None:
    """The mask of a picture, grey and of the same size, if there is one.

    Args:
        path: The picture.
        mask_dir: As for :func:`read_folder`.

    Raises:
        ImageError: the picture or its mask cannot be used.
    """
    return _mask_of(path, _upright(path), mask_dir)


def _mask_of(path: Path, upright: Image.Image, mask_dir: Path | None) -> Image.Image | None:
    for place in _mask_places(path, mask_dir):
        mask = _upright(place)
        if mask.size != upright.size:
            raise ImageError(
                f"A mask must be as large as its picture, got {place.name} of {mask.width} x "
                f"{mask.height} for {path.name} of {upright.width} x {upright.height}."
            )
        transparent = mask.mode in ("RGBA", "LA") and _opacity(mask) is not None
        return _opacity(mask) if transparent else _rgb(mask).convert("L")
    return _opacity(upright)


def _opacity(image: Image.Image) -> Image.Image | None:
    """The alpha channel, if part of the picture is transparent."""
    if (
        image.mode == "P"
        or "transparency" in image.info
        or image.mode in ("LA", "La", "PA", "RGBa")
    ):
        image = image.convert("RGBA")
    if image.mode != "RGBA":
        return None
    alpha = image.getchannel("A")
    return alpha if alpha.getextrema() != (255, 255) else None


def _solid(upright: Image.Image, path: Path, frame: Frame) -> Masks:
    """Opacity of the pixels of a picture in its frame."""
    alpha = _opacity(upright)
    if alpha is None:
        return torch.ones(1, 1, *frame.size)
    found = _level(alpha, frame)
    if not bool((found > 0.5).any()):
        raise ImageError(
            "A picture must not be fully transparent, got nothing visible inside the "
            f"{frame.shape} of {path.name}."
        )
    return found


def _level(image: Image.Image, frame: Frame) -> Masks:
    """A grey picture as numbers in [0, 1]; bars around it are 0."""
    pixels = to_pixels(image.convert("RGB"), frame, fill=0)
    return ((pixels[:, :1] + 1) / 2).clamp(0, 1)


def _to_mask(mask: Image.Image | None, upright: Image.Image, path: Path, frame: Frame) -> Masks:
    if mask is None and frame.fit != "pad":
        return torch.ones(1, 1, *frame.size)
    found = _level(mask or Image.new("L", upright.size, 255), frame)
    if not bool((found > 0.5).any()):
        raise ImageError(
            "A mask must mark part of its picture white (or opaque), got nothing marked inside "
            f"the {frame.shape} of {path.name}."
        )
    return found


def _has_picture(text: Path) -> bool:
    stem = text.stem if text.suffix == ".txt" else text.name
    beside = text.parent.glob(f"{_escaped(stem)}.*")
    return any(p.suffix.lower() in _ENDINGS and not p.name.endswith(_MASK) for p in beside)


def _escaped(stem: str) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in stem)


def read_image(path: Path) -> Image.Image:
    """Read a picture as upright RGB; transparency becomes white, an animation its first frame.

    Raises:
        ImageError: the file is not a picture, is damaged, or is too small or too large.
    """
    return _rgb(_upright(path))


def open_picture(path: Path) -> Image.Image:
    """Read a picture as it is stored, in any of :data:`FORMATS`.

    Raises:
        ImageError: the file is not a picture, is damaged, or is too large.
    """
    must = "A picture must be complete and readable"
    with open_regular(path, most=MAX_BYTES, must=must, error=ImageError) as file:
        if _is_heif(file, path) and not _reads_heif():
            raise ImageError(
                f"Cannot read {path.name} because pillow-heif is not installed; pip install "
                "'oneword[heic]', or remove it from the folder."
            )
        try:
            with warnings.catch_warnings():
                # of sizes, which are checked here, and of EXIF, of which one number is used
                warnings.simplefilter("ignore")
                Image.init()
                image = Image.open(file, formats=[name for name in FORMATS if name in Image.OPEN])
                _check_size(image, path)
                image.load()
        except ImageError:
            raise
        except Image.DecompressionBombError as error:
            raise ImageError(
                f"A picture must have at most {MAX_PIXELS // 10**6} megapixels, got {path.name}: "
                f"{error}"
            ) from error
        except Exception as error:
            # what a damaged file raises inside a dozen decoders has no common type
            raise ImageError(
                f"{must}, got {path.name} ({error or type(error).__name__}); repair it or remove "
                "it from the folder."
            ) from error
        return image


_HEIF = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}
"""Brands in the headers of HEIC files, whatever they are called."""
_MAYBE_HEIF = {b"mif1", b"msf1"}  # or AVIF


def _is_heif(file: BinaryIO, path: Path) -> bool:
    """Whether a file is HEIC. If only its end tells it from AVIF, Pillow can read both."""
    header = file.read(12)
    file.seek(0)
    brand = header[8:] if header[4:8] == b"ftyp" else b""
    if brand in _MAYBE_HEIF:
        _reads_heif()
        return path.suffix.lower() in FORMATS["HEIF"]
    return brand in _HEIF


@cache
def _reads_heif() -> bool:
    """Let Pillow read HEIC if the extra is installed; whether it is."""
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


def _check_size(image: Image.Image, path: Path) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ImageError(
            f"A picture must have at most {MAX_PIXELS // 10**6} megapixels, got {path.name} of "
            f"{width} x {height}; make it smaller."
        )


def _upright(path: Path) -> Image.Image:
    """A picture as a person sees it: rotated as its camera recorded, with colours in sRGB."""
    image = open_picture(path)
    if min(image.size) < MIN_SIDE_PX:
        raise ImageError(
            f"A picture must be at least {MIN_SIDE_PX} px wide and high, got {path.name} of "
            f"{image.width} x {image.height}."
        )
    turn = _TURNS.get(_orientation(image))
    if turn is not None:
        image = image.transpose(turn)
    return _in_srgb(image, path)


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""Transposition by the orientation in EXIF."""
_ORIENTATION = 0x0112  # the tag


def _orientation(image: Image.Image) -> int:
    """The one number of EXIF that is used; the other tags may hold anything."""
    data = image.info.get("exif")
    found = _short_in_exif(data, _ORIENTATION) if isinstance(data, bytes) else None
    if found is None:
        with contextlib.suppress(Exception):  # of a damaged header, of many types
            found = image.getexif().get(_ORIENTATION)  # TIFF, or as text, or in XMP
    return found if isinstance(found, int) else 1


def _short_in_exif(data: bytes, tag: int) -> int | None:
    """A small number in the first directory of EXIF, read on its own.

    Source:
        TIFF 6.0, section 2.
    """
    body = data[6:] if data.startswith(b"Exif\0\0") else data
    order: Literal["little", "big"] = "big" if body.startswith(b"MM") else "little"

    def number(start: int, size: int) -> int:
        return int.from_bytes(body[start : start + size], order)

    first = number(4, 4)
    for entry in range(first + 2, first + 2 + 12 * number(first, 2), 12):
        if entry + 12 > len(body):
            break
        size = {1: 1, 3: 2, 4: 4}.get(number(entry + 2, 2))  # of byte, short and long
        if number(entry, 2) == tag and size and number(entry + 4, 4) == 1:
            return number(entry + 8, size)
    return None


def _in_srgb(image: Image.Image, path: Path) -> Image.Image:
    """Apply the colour profile that a picture carries; without one it is in sRGB already."""
    data = image.info.get("icc_profile")
    if not data or image.mode.startswith(("I", "F", "1")):
        return image
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(data))
        facts: Any = profile.profile
        space, name = facts.xcolor_space.strip(), (facts.profile_description or "").strip()
    except Exception as error:  # of LittleCMS, about any byte
        return _without_profile(image, path, error)
    if space == "RGB" and name.lower().startswith("srgb"):
        return image  # the same colours, and then the same bits
    if "transparency" in image.info or image.mode in ("P", "PA", "La", "RGBa"):
        image = image.convert("RGBA")
    alpha = image.getchannel("A") if image.mode in ("RGBA", "LA") else None
    colours = image.convert(image.mode.removesuffix("A")) if alpha is not None else image
    if _SPACES.get(colours.mode) != space:
        return image  # a profile of another kind of picture, which viewers leave out, too
    try:
        found = ImageCms.profileToProfile(
            colours, profile, ImageCms.createProfile("sRGB"), outputMode="RGB"
        )
    except Exception as error:
        return _without_profile(image, path, error)
    assert found is not None
    if alpha is not None:
        found.putalpha(alpha)
    found.info.pop("icc_profile", None)
    return found


_SPACES = {"RGB": "RGB", "RGBX": "RGB", "L": "GRAY", "CMYK": "CMYK", "LAB": "Lab"}
"""ICC's name of a profile's colour space, by the picture mode that it is for."""


def _without_profile(image: Image.Image, path: Path, error: Exception) -> Image.Image:
    warnings.warn(
        f"{terminal(path.name)}: its colour profile cannot be read "
        f"({terminal(error or type(error).__name__)}); its colours are treated as sRGB.",
        stacklevel=2,
    )
    return image


def _rgb(image: Image.Image) -> Image.Image:
    """As RGB; the parts of a large picture one after the other, which takes less memory."""
    if image.width * image.height <= _STRIP:
        return _strip_to_rgb(image, _brightest(image))
    top = _brightest(image)
    whole = Image.new("RGB", image.size)
    rows = max(1, _STRIP // image.width)
    for start in range(0, image.height, rows):
        box = (0, start, image.width, min(image.height, start + rows))
        whole.paste(_strip_to_rgb(image.crop(box), top), box)
    return whole


def _brightest(image: Image.Image) -> float:
    """The value of white in a picture of more than 8 bits."""
    if not image.mode.startswith(("I", "F")):
        return 255.0
    return 65535.0 if np.nanmax(np.asarray(image)) > 255 else 255.0


def _strip_to_rgb(image: Image.Image, top: float) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        # Pillow would clip 16 bits to 255 instead of scaling them
        values = np.nan_to_num(np.asarray(image, dtype=np.float64))
        image = Image.fromarray(np.clip(values / top * 255 + 0.5, 0, 255).astype(np.uint8))
    if image.mode == "P" or "transparency" in image.info or image.mode in ("LA", "La", "PA"):
        image = image.convert("RGBA")
    if image.mode in ("RGBA", "RGBa"):
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    if image.mode == "LAB":
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        image = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB") or image
    return image.convert("RGB")


def to_pixels(image: Image.Image, frame: Frame, fill: int = 255) -> Pixels:
    """One picture in its frame, (1, 3, height, width) in [-1, 1].

    Args:
        image: The picture.
        frame: With ``fit`` "crop" or "buckets", the middle with the frame's aspect; with "squash",
            the whole picture, whatever its aspect; with "pad", the whole picture between two bars.
        fill: Grey value of the bars, 0..255.
    """
    height, width = frame.size
    size, how = (width, height), Image.Resampling[frame.interpolation.upper()]
    if frame.fit == "pad":
        scale = min(width / image.width, height / image.height)
        inner = max(1, round(image.width * scale)), max(1, round(image.height * scale))
        whole = Image.new("RGB", size, (fill,) * 3)
        small = image if image.size == inner else image.resize(inner, how)
        whole.paste(small, ((width - inner[0]) // 2, (height - inner[1]) // 2))
        image = whole
    elif frame.fit != "squash":
        inner = (
            max(1, min(image.width, round(image.height * width / height))),
            max(1, min(image.height, round(image.width * height / width))),
        )
        left, top = (image.width - inner[0]) // 2, (image.height - inner[1]) // 2
        image = image.crop((left, top, left + inner[0], top + inner[1]))
    if image.size != size:
        image = image.resize(size, how)
    values = torch.from_numpy(np.asarray(image.convert("RGB"), dtype=np.float32).copy())
    return (values / 127.5 - 1).permute(2, 0, 1)[None].contiguous()


def from_uint8(pictures: np.ndarray) -> Pixels:
    """uint8 (batch, height, width, 3) as pixels in [-1, 1]."""
    return (
        torch.from_numpy(pictures.astype(np.float32) / 127.5 - 1).permute(0, 3, 1, 2).contiguous()
    )


def to_images(pixels: Pixels) -> list[Image.Image]:
    """Pixels in [-1, 1] as pictures."""
    values = ((pixels.detach().float().cpu().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return [Image.fromarray(v.permute(1, 2, 0).numpy()) for v in values]


def png_bytes(image: Image.Image, metadata: dict[str, str] | None = None) -> bytes:
    """A picture as PNG, with text entries: of the plain kind, which all tools read, in ASCII."""
    info = PngImagePlugin.PngInfo()
    for key, value in (metadata or {}).items():
        if value.isascii():
            info.add_text(key, value)
        else:
            info.add_itxt(key, value)
    stream = io.BytesIO()
    image.save(stream, format="PNG", pnginfo=info)
    return stream.getvalue()


def save_png(image: Image.Image, path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write a PNG atomically; its settings are stored inside as text entries."""
    write_atomic(path, png_bytes(image, metadata))


def data_uri(image: Image.Image, most_px: int | None = None) -> str:
    """A picture as a data URI, for pages in a single file.

    Args:
        image: The picture.
        most_px: Larger ones are shrunk to this side, in px, and stored as JPEG, so that pages with
            hundreds stay small. Default: every pixel is kept.
    """
    if most_px is not None and max(image.size) > most_px:
        return jpeg_uri(jpeg_bytes(shrunk(image, most_px)))
    return "data:image/png;base64," + base64.b64encode(png_bytes(image)).decode()


def jpeg_bytes(image: Image.Image, quality: int = 88) -> bytes:
    """A picture as a JPEG file; quality 1..95."""
    stream = io.BytesIO()
    image.save(stream, format="JPEG", quality=quality)
    return stream.getvalue()


def jpeg_uri(data: bytes) -> str:
    """A JPEG file as a data URI."""
    return "data:image/jpeg;base64," + base64.b64encode(data).decode()


def shrunk(image: Image.Image, most_px: int) -> Image.Image:
    """A picture whose longer side is at most this long; a smaller one is not changed."""
    factor = min(1.0, most_px / max(image.size))
    size = tuple(max(1, round(side * factor)) for side in image.size)
    return image.resize(size, Image.Resampling.LANCZOS) if factor < 1 else image  # pyright: ignore[reportArgumentType]


_GAP = 4  # px between the pictures of a contact sheet
Box = tuple[int, int, int, int]
"""Left, top, right and bottom of a picture on a sheet, px."""


def contact_sheet(
    pictures: Pixels | Sequence[Image.Image],
    *,
    columns: int | None = None,
    row_labels: Sequence[str] | None = None,
    column_labels: Sequence[str] | None = None,
    cell_px: int = 128,
) -> Image.Image:
    """Pictures side by side; small ones are enlarged so that a person can see them.

    Args:
        pictures: Pixels, or pictures of any size.
        columns: Pictures per row; by default the sheet is nearly square.
        row_labels: Text above each row; an empty one takes no room.
        column_labels: Text above each column, cut to its width.
        cell_px: Smallest side of a picture on the sheet, in px.
    """
    images = to_images(pictures) if isinstance(pictures, torch.Tensor) else list(pictures)
    columns = columns or math.ceil(math.sqrt(len(images)))
    labels = [*(row_labels or ()), *[""] * len(images)][: math.ceil(len(images) / columns)]
    return _laid_out(images, columns, labels, column_labels or (), cell_px)[0]


def _laid_out(
    images: Sequence[Image.Image],
    columns: int,
    labels: Sequence[str],
    column_labels: Sequence[str] = (),
    cell_px: int = 128,
) -> tuple[Image.Image, list[Box]]:
    """A contact sheet, and the box of each picture on it."""
    width = max(image.width for image in images)
    factor = max(1, math.ceil(cell_px / width))
    images = [
        image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
        if factor > 1
        else image
        for image in images
    ]
    cell_w, cell_h = max(i.width for i in images), max(i.height for i in images)
    gap, label_px = _GAP, 22
    head_px = label_px if column_labels else 0
    tops = [gap + head_px]  # of the rows' pictures; the last is the end
    for label in labels:
        tops[-1] += label_px if label else 0
        tops.append(tops[-1] + cell_h + gap)
    sheet = Image.new("RGB", (gap + columns * (cell_w + gap), tops[-1]), (255, 255, 255))
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for label, top in zip(labels, tops, strict=False):
        pen.text((gap, top + 2 - label_px), terminal(label), fill=(30, 30, 30), font=font)
    for column, label in enumerate(column_labels):
        text = terminal(label)
        while text and font.getlength(text) > cell_w:
            text = text[:-1]
        place = gap + column * (cell_w + gap), 2
        pen.text(place, text, fill=(30, 30, 30), font=font)
    boxes = []
    for i, image in enumerate(images):
        row, column = divmod(i, columns)
        left, top = gap + column * (cell_w + gap), tops[row]
        sheet.paste(image, (left, top))
        boxes.append((left, top, left + image.width, top + image.height))
    return sheet, boxes


def captioned_sheet(
    pictures: Sequence[tuple[Image.Image, Sequence[str]]],
    *,
    columns: int = 4,
    cell_px: int = 256,
) -> Image.Image:
    """Pictures of any aspect in rows, each with texts below it, broken into lines.

    Args:
        pictures: Each with its texts, one below the other.
        columns: Most pictures per row.
        cell_px: Longer side of a picture on the sheet, in px.
    """
    columns, font, line_px = min(columns, len(pictures)), ImageFont.load_default(13), 18
    cells = []
    for image, texts in pictures:
        factor = cell_px / max(image.size)
        size = max(1, round(image.width * factor)), max(1, round(image.height * factor))
        how = Image.Resampling.NEAREST if factor > 1 else Image.Resampling.LANCZOS
        lines = [line for text in texts for line in _lines(terminal(text), font, cell_px)]
        cells.append((image.convert("RGB").resize(size, how), lines))
    rows = [cells[first : first + columns] for first in range(0, len(cells), columns)]
    heights = [
        max(own.height for own, _ in row) + line_px * max(len(lines) for _, lines in row) + 3 * _GAP
        for row in rows
    ]
    gap = 3 * _GAP
    width = gap + columns * (cell_px + gap)
    sheet = Image.new("RGB", (width, gap + sum(heights)), (255, 255, 255))
    pen, top = ImageDraw.Draw(sheet), gap
    for row, height in zip(rows, heights, strict=True):
        below = max(image.height for image, _ in row)
        for column, (image, lines) in enumerate(row):
            left = gap + column * (cell_px + gap)
            sheet.paste(image, (left, top))
            for number, line in enumerate(lines):
                place = left, top + below + 2 + number * line_px
                pen.text(place, line, fill=(30, 30, 30), font=font)
        top += height
    return sheet


_MOST_LINES = 12  # of a text below a picture


def _lines(text: str, font: Any, width: float) -> list[str]:
    """A text in lines that are no wider than this, broken between words if possible."""
    lines = [""]
    for word in text.split():
        joined = f"{lines[-1]} {word}".strip()
        if font.getlength(joined) <= width:
            lines[-1] = joined
            continue
        if lines[-1]:
            lines.append("")
        for character in word:
            if lines[-1] and font.getlength(lines[-1] + character) > width:
                lines.append("")
            lines[-1] += character
    return lines if len(lines) <= _MOST_LINES else [*lines[: _MOST_LINES - 1], "..."]


_UNCOUNTED = (90, 0, 25)


def with_mask(image: Image.Image, mask: Image.Image) -> Image.Image:
    """A picture with the part that a mask leaves out in dark red.

    Args:
        image: The picture.
        mask: Grey, of the same size; white counts.
    """
    shown = image.convert("RGB")
    veiled = Image.blend(shown, Image.new("RGB", image.size, _UNCOUNTED), 0.7)
    return Image.composite(shown, veiled, mask.convert("L"))


def cells_of(sheet: Image.Image, rows: int) -> list[list[Image.Image]]:
    """The pictures of a contact sheet, row by row; they must be square and without labels.

    Args:
        sheet: As ``contact_sheet`` made it, or the same as JPEG.
        rows: How many it has.
    """
    step = (sheet.height - _GAP) // rows
    side = step - _GAP
    starts = range(_GAP, sheet.width - side, step)
    return [
        [sheet.crop((x, y, x + side, y + side)) for x in starts]
        for y in range(_GAP, _GAP + rows * step, step)
    ]


def labelled_sheet(
    groups: Mapping[str, Pixels | Sequence[Image.Image]], *, most_columns: int = 8
) -> Image.Image:
    """A contact sheet of groups, each with its label above; a long group takes several rows.

    Args:
        groups: Pictures by label, at least one each.
        most_columns: Most pictures per row.
    """
    return groups_sheet([*groups.items()], most_columns=most_columns)[0]


def groups_sheet(
    # of any number each, where Pixels would have all groups be as many
    groups: Sequence[tuple[str, torch.Tensor | Sequence[Image.Image]]],
    *,
    most_columns: int = 8,
) -> tuple[Image.Image, list[list[Box]]]:
    """Like :func:`labelled_sheet`, for groups whose labels may be equal.

    Returns:
        The sheet, and the boxes of each group's pictures on it.
    """
    pictures = [
        (label, to_images(own) if isinstance(own, torch.Tensor) else list(own))
        for label, own in groups
    ]
    columns = min(most_columns, max(len(own) for _, own in pictures))
    blank = Image.new("RGB", pictures[0][1][0].size, (255, 255, 255))
    cells, labels, starts = [], [], []
    for label, own in pictures:
        more = math.ceil(len(own) / columns) - 1
        starts.append(len(cells))
        cells += own + [blank] * ((more + 1) * columns - len(own))
        labels += [label] + [""] * more
    sheet, boxes = _laid_out(cells, columns, labels)
    return sheet, [
        boxes[start : start + len(own)] for start, (_, own) in zip(starts, pictures, strict=True)
    ]


def grid_sheet(
    columns: Sequence[str], rows: Sequence[tuple[str, Sequence[Image.Image]]]
) -> Image.Image:
    """A sheet with a label over each column and over each row.

    Args:
        columns: The labels, at least one.
        rows: Label and pictures of each row, one picture per column.
    """
    return contact_sheet(
        [picture for _, own in rows for picture in own],
        columns=len(columns),
        row_labels=[label for label, _ in rows],
        column_labels=columns,
    )
