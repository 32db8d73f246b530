"""An encoder's input: features of pictures from a frozen CLIP or the model's autoencoder."""

from __future__ import annotations

from functools import lru_cache
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from oneword._typing import Pixels
from oneword.config.encoder import LATENTS
from oneword.models.contract import Backbone
from oneword.models.guide import Guide


PictureFeatures = Float[Tensor, "batch dim"]

_CHUNK = 32  # pictures at once; bounds memory
_CELLS = 8  # side of the latents at the encoder's resolution


@runtime_checkable
class Tower(Protocol):
    """Turns pictures into features."""

    def __call__(self, pixels: Pixels) -> PictureFeatures:
        """Features of pictures in [-1, 1], float32, on the CPU."""
        ...


class _OfGuide:
    def __init__(self, guide: Guide) -> None:
        self.guide = guide

    @torch.no_grad()
    def __call__(self, pixels: Pixels) -> PictureFeatures:
        parts = [self.guide.image_features(self._seen(part)) for part in pixels.split(_CHUNK)]
        return torch.cat(parts).float().cpu()

    def _seen(self, pixels: Pixels) -> Tensor:
        """Their middle squares at the guide's size, in [0, 1]."""
        height, width = pixels.shape[-2:]
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        values = pixels[..., top : top + side, left : left + side].to(self.guide.device)
        values = (values.float() + 1) / 2
        if side != self.guide.size:
            size = (self.guide.size, self.guide.size)
            values = F.interpolate(values, size, mode="bicubic", antialias=True)
        return values.clamp(0, 1)


class _OfAutoencoder:
    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone

    @torch.no_grad()
    def __call__(self, pixels: Pixels) -> PictureFeatures:
        means = [self.backbone.encode_image(part).mean for part in pixels.split(_CHUNK)]
        shrunk = [F.adaptive_avg_pool2d(mean.float(), _CELLS).flatten(1) for mean in means]
        return torch.cat(shrunk).cpu()


def tower_of(backbone: Backbone, guide: str | None, *, allow_same_clip: bool = False) -> Tower:
    """The tower for a model's encoder.

    Args:
        backbone: The model.
        guide: As ``EncoderConfig.guide``.
        allow_same_clip: As ``EncoderConfig.allow_same_clip``.

    Raises:
        GuideError: there is no complete CLIP with that name, or it is the one that scores.
    """
    if guide == LATENTS:
        return _OfAutoencoder(backbone)
    return _OfGuide(_guide(guide, backbone.name, str(backbone.device), allow_same_clip))


@lru_cache(maxsize=1)  # many words are encoded one after the other
def _guide(guide: str | None, model: str, device: str, allow_same_clip: bool) -> Guide:
    return Guide.load(guide, model, device=torch.device(device), allow_same_clip=allow_same_clip)


def probe(backbone: Backbone) -> Pixels:
    """A picture whose features distinguish towers: (1, 3, side, side)."""
    side = backbone.resolution
    up, across = torch.meshgrid(*[torch.linspace(-1, 1, side)] * 2, indexing="ij")
    return torch.stack([up, across, torch.sin(9 * up * across)])[None]
