"""The outline of a thing on a plain background, and how well two outlines agree.

CLIP is nearly blind to shape (Gal et al. 2022, arXiv:2208.01618, section 5.3), so shape is measured
in the pictures themselves: on a plain background, the thing is everything that cannot be reached
from the border through smooth changes of colour.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from oneword._typing import Pixels


Outlines = Bool[Tensor, "num height width"]
_STEP = 0.16  # between neighbours, for colours in [-1, 1]: shadows change more softly
_SIDE_PX = 64  # side of the frame in which outlines are compared


def silhouettes(pixels: Pixels) -> Outlines:
    """Mark the thing on a plain background; holes are filled.

    Args:
        pixels: One thing each, on a background with soft changes.
    """
    across = (pixels[..., :, 1:] - pixels[..., :, :-1]).abs().amax(1) > _STEP
    down = (pixels[..., 1:, :] - pixels[..., :-1, :]).abs().amax(1) > _STEP
    edge = F.pad(across, (0, 1)) | F.pad(across, (1, 0))
    edge |= F.pad(down, (0, 0, 0, 1)) | F.pad(down, (0, 0, 1, 0))
    # a drawn outline has gaps: they are bridged, and the edge's own width is removed again
    return ~_grown(~filled(_grown(edge, 1)), 2)


def _grown(marked: Outlines, px: int) -> Outlines:
    return F.max_pool2d(marked[:, None].float(), 2 * px + 1, 1, px)[:, 0] > 0.5


def filled(outline: Outlines) -> Outlines:
    """Everything that cannot be reached from the border without crossing the outline."""
    free = ~outline
    reached = torch.zeros_like(free)
    reached[..., 0, :], reached[..., -1, :] = free[..., 0, :], free[..., -1, :]
    reached[..., :, 0] |= free[..., :, 0]
    reached[..., :, -1] |= free[..., :, -1]
    while True:
        wider = reached.clone()
        wider[..., 1:, :] |= reached[..., :-1, :]
        wider[..., :-1, :] |= reached[..., 1:, :]
        wider[..., :, 1:] |= reached[..., :, :-1]
        wider[..., :, :-1] |= reached[..., :, 1:]
        wider &= free
        if torch.equal(wider, reached):
            return ~reached
        reached = wider


def overlap(
    found: Outlines, true: Bool[Tensor, "num_true height_true width_true"]
) -> Float[Tensor, " num"]:
    """Intersection over union of each found outline with the true one that fits it best.

    Position and size do not count: outlines are cut out with their proportions, and compared both
    unchanged and mirrored. An empty outline has an overlap of 0.
    """
    seen, wanted = _framed(found), torch.cat([_framed(true), _framed(true.flip(-1))])
    both = (seen[:, None] & wanted[None]).sum((2, 3))
    either = (seen[:, None] | wanted[None]).sum((2, 3))
    return (both / either.clamp(min=1)).amax(1)


def _framed(outlines: Outlines) -> Bool[Tensor, "num side side"]:
    """Each outline's bounding box, in the middle of a square frame of the same size."""
    frames = []
    for outline in outlines:
        rows, columns = outline.any(1).nonzero()[:, 0], outline.any(0).nonzero()[:, 0]
        if not len(rows):
            frames.append(torch.zeros(_SIDE_PX, _SIDE_PX, dtype=torch.bool))
            continue
        box = outline[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].float()
        height, width = box.shape
        side = max(height, width)
        left, top = (side - width) // 2, (side - height) // 2
        box = F.pad(box, (left, side - width - left, top, side - height - top))
        frames.append(F.interpolate(box[None, None], (_SIDE_PX, _SIDE_PX), mode="area")[0, 0] > 0.5)
    return torch.stack(frames)
