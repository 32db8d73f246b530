"""The artists' drawings as pixels with transparency, in their own look."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import skia

from oneword.microworld.world import artwork


@lru_cache(maxsize=8192)
def sprite(slug: str, look: str, size: int = 128) -> np.ndarray:
    """Draw a thing in a look, cut to what is drawn, with its longer side filling the square.

    Args:
        slug: Which thing.
        look: One of ``artwork.LOOKS``, or ``artwork.FIRST_EDITION``.
        size: Side in pixels.

    Returns:
        uint8 (size, size, 4), RGBA with colours premultiplied by alpha; it stands on the lower
        edge, centred. It is kept, so do not write into it.
    """
    drawn = _rasterised(artwork.artworks(look)[slug], 2 * size)
    rows, columns = (np.flatnonzero((drawn[..., 3] > 8).any(axis)) for axis in (1, 0))
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    left, right = int(columns[0]), int(columns[-1]) + 1
    scale = size / max(bottom - top, right - left)
    surface = skia.Surface(size, size)
    with surface as canvas:
        canvas.clear(skia.ColorTRANSPARENT)
        canvas.translate(size / 2 - scale * (left + right) / 2, size - scale * bottom)
        canvas.scale(scale, scale)
        image = skia.Image.fromarray(drawn, skia.kRGBA_8888_ColorType, skia.kPremul_AlphaType)
        linear = skia.SamplingOptions(skia.FilterMode.kLinear, skia.MipmapMode.kLinear)
        canvas.drawImage(image, 0, 0, linear)
    pixels = _pixels(surface)
    pixels.setflags(write=False)
    return pixels


def _rasterised(art: artwork.Artwork, size: int) -> np.ndarray:
    """Draw the whole view box, uint8 (size, size, 4), premultiplied."""
    document = skia.SVGDOM.MakeFromStream(skia.MemoryStream(art.svg.encode(), copyData=True))
    document.setContainerSize(skia.Size(size, size))
    surface = skia.Surface(size, size)
    with surface as canvas:
        canvas.clear(skia.ColorTRANSPARENT)
        document.render(canvas)
    return _pixels(surface)


def _pixels(surface: skia.Surface) -> np.ndarray:
    pixels = surface.toarray(colorType=skia.kRGBA_8888_ColorType, alphaType=skia.kPremul_AlphaType)
    return np.ascontiguousarray(pixels)
