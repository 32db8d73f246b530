"""Other hues for the artists' drawings."""

from __future__ import annotations

import colorsys

import numpy as np


HUES: dict[str, tuple[float, float, float]] = {
    "red": (0.0, 1.0, 1.0), "orange": (0.075, 1.05, 1.0), "yellow": (0.135, 1.0, 1.1),
    "green": (0.36, 0.95, 0.9), "teal": (0.5, 1.0, 0.9), "blue": (0.615, 1.0, 1.0),
    "purple": (0.77, 0.85, 0.95), "pink": (0.93, 0.55, 1.3), "brown": (0.06, 0.85, 0.6),
}  # fmt: skip
"""Hue of a colour, and what an area's saturation and value are multiplied by."""


def tinted(rgb: np.ndarray, colour: str) -> np.ndarray:
    """Replace the hues of colours; greys and near-blacks keep theirs.

    Args:
        rgb: (..., 3), from 0 to 1.
        colour: One of ``wide_scenes.COLOURS``.
    """
    hue, more_saturated, brighter = HUES[colour]
    value = rgb.max(-1)
    saturation = np.where(value > 0, 1 - rgb.min(-1) / np.maximum(value, 1e-6), 0.0)
    # from grey to coloured there is no edge in a glossy drawing
    share = np.clip((saturation - 0.12) / 0.12, 0, 1) * np.clip((value - 0.15) / 0.1, 0, 1)
    s = np.clip(saturation * more_saturated, 0, 1)
    v = np.clip(value * brighter, 0, 1)
    pure = np.array(colorsys.hsv_to_rgb(hue, 1.0, 1.0))
    new = v[..., None] * (1 - s[..., None] * (1 - pure))
    return rgb + share[..., None] * (new - rgb)
