"""The published unconditional diffusion model of pixels, from the file that its authors published.

Dhariwal and Nichol 2021, arXiv:2105.05233: ``256x256_diffusion_uncond.pt`` and others of its kind.
Names of tensors are those of their code; widths and which levels attend are read from the tensors.
"""

# The libraries' own annotations are narrower than what they take and return.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportIndexIssue=false, reportReturnType=false, reportOperatorIssue=false

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from oneword._typing import Latents, Pixels
from oneword.errors import ModelError, reason_of
from oneword.models import single_file


_BLOCKS = 2  # of a level
_GROUPS = 32
_HEAD_CHANNELS = 64
_LOWEST = 8  # px at the last level of every published size
_BETAS = (1e-4, 0.02, 1000)  # first, last and number; linear between


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Widths and depths of a published model."""

    channels: int
    """Of the time's embedding, a quarter of its hidden width."""
    widths: tuple[int, ...]
    """Channels of each level, from the pixels inwards; the picture shrinks by 2 between two."""
    attends: tuple[bool, ...]
    """Which levels attend."""

    @property
    def size_px(self) -> int:
        """Side of the model's pictures, px."""
        return _LOWEST * 2 ** (len(self.widths) - 1)


PUBLISHED = Layout(
    channels=256,
    widths=(256, 256, 512, 512, 1024, 1024),
    attends=(False, False, False, True, True, True),
)
"""``256x256_diffusion_uncond.pt``."""


def _at_least_float32(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


class _Norm(nn.GroupNorm):
    """Group norm that computes in float32 or more."""

    def __init__(self, channels: int) -> None:
        super().__init__(_GROUPS, channels)

    def forward(self, input: Tensor) -> Tensor:
        dtype = _at_least_float32(input.dtype)
        weight, bias = self.weight.to(dtype), self.bias.to(dtype)
        found = F.group_norm(input.to(dtype), self.num_groups, weight, bias, self.eps)
        return found.to(input.dtype)


class _Residual(nn.Module):
    """Two convolutions beside a skip, told the time by scale and shift; it may resize."""

    def __init__(
        self, channels: int, width: int, time_width: int, resize: float | None = None
    ) -> None:
        super().__init__()
        self.resize = resize
        self.in_layers = nn.Sequential(
            _Norm(channels), nn.SiLU(), nn.Conv2d(channels, width, 3, padding=1)
        )
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(time_width, 2 * width))
        self.out_layers = nn.Sequential(
            _Norm(width), nn.SiLU(), nn.Dropout(0.0), nn.Conv2d(width, width, 3, padding=1)
        )
        same = channels == width
        self.skip_connection = nn.Identity() if same else nn.Conv2d(channels, width, 1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        hidden = self._resized(self.in_layers[1](self.in_layers[0](x)))
        hidden = self.in_layers[2](hidden)
        scale, shift = self.emb_layers(time)[..., None, None].chunk(2, dim=1)
        hidden = self.out_layers[0](hidden) * (1 + scale) + shift
        return self.skip_connection(self._resized(x)) + self.out_layers[1:](hidden)

    def _resized(self, x: Tensor) -> Tensor:
        if self.resize is None:
            return x
        if self.resize < 1:
            return F.avg_pool2d(x, 2)
        return F.interpolate(x, scale_factor=self.resize, mode="nearest")


class _Attention(nn.Module):
    """Self-attention over the cells; each head's queries, keys and values lie side by side."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.num_heads = max(1, channels // _HEAD_CHANNELS)
        self.norm = _Norm(channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = nn.Conv1d(channels, channels, 1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:  # noqa: ARG002  (as the other layers)
        cells = x.flatten(2)
        heads = self.qkv(self.norm(cells)).unflatten(1, (self.num_heads, 3, -1))
        query, key, value = heads.transpose(-1, -2).unbind(2)
        found = F.scaled_dot_product_attention(query, key, value)
        return x + self.proj_out(found.transpose(-1, -2).flatten(1, 2)).view_as(x)


class _Layers(nn.ModuleList):
    """Consecutive layers, which all get the time."""

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        for layer in self:
            x = layer(x) if isinstance(layer, nn.Conv2d) else layer(x, time)
        return x


class UNet(nn.Module):
    """The network: noise, and where between its bounds the variance lies.

    Source:
        Dhariwal and Nichol 2021, arXiv:2105.05233, section 3; Nichol and Dhariwal 2021,
        arXiv:2102.09672, equation 15 (variance).
    """

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        self.layout = layout
        self.channels = layout.channels
        time_width = 4 * layout.channels
        self.time_embed = nn.Sequential(
            nn.Linear(layout.channels, time_width), nn.SiLU(), nn.Linear(time_width, time_width)
        )
        width = layout.widths[0]
        inward: list[_Layers] = [_Layers([nn.Conv2d(3, width, 3, padding=1)])]
        skipped = [width]
        last = len(layout.widths) - 1
        for level, (wide, attends) in enumerate(zip(layout.widths, layout.attends, strict=True)):
            for _ in range(_BLOCKS):
                block = _Residual(width, wide, time_width)
                inward.append(_Layers([block, *([_Attention(wide)] if attends else [])]))
                width = wide
                skipped.append(width)
            if level < last:
                inward.append(_Layers([_Residual(width, width, time_width, 0.5)]))
                skipped.append(width)
        self.input_blocks = nn.ModuleList(inward)
        self.middle_block = _Layers(
            [
                _Residual(width, width, time_width),
                _Attention(width),
                _Residual(width, width, time_width),
            ]
        )
        outward: list[_Layers] = []
        for level in reversed(range(len(layout.widths))):
            wide = layout.widths[level]
            for place in range(_BLOCKS + 1):
                layers: list[nn.Module] = [_Residual(width + skipped.pop(), wide, time_width)]
                width = wide
                if layout.attends[level]:
                    layers.append(_Attention(width))
                if level and place == _BLOCKS:
                    layers.append(_Residual(width, width, time_width, 2.0))
                outward.append(_Layers(layers))
        self.output_blocks = nn.ModuleList(outward)
        self.out = nn.Sequential(_Norm(width), nn.SiLU(), nn.Conv2d(width, 6, 3, padding=1))

    def forward(self, x: Pixels, times: Tensor) -> Tensor:
        """Noise and variance of noised pictures.

        Args:
            x: (batch, 3, height, width); sides that the levels halve evenly.
            times: (batch,) in [0, 1000).

        Returns:
            (batch, 6, height, width), float32 or more: three channels of noise; three of the
            variance's logarithm, -1 at its lower bound and 1 at its upper one.
        """
        dtype = self.out[2].weight.dtype
        time = self.time_embed(_embedded(times, self.channels).to(dtype))
        hidden, kept = x.to(dtype), []
        for block in self.input_blocks:
            hidden = block(hidden, time)
            kept.append(hidden)
        hidden = self.middle_block(hidden, time)
        for block in self.output_blocks:
            hidden = block(torch.cat([hidden, kept.pop()], dim=1), time)
        return self.out(hidden).to(_at_least_float32(dtype))


def _embedded(times: Tensor, channels: int) -> Tensor:
    """Cosines and sines of times at frequencies from 1 to 1/10000: (batch, channels)."""
    half = channels // 2
    at = torch.arange(half, device=times.device, dtype=torch.float32)
    angles = times.float()[:, None] * torch.exp(-math.log(10000) * at / half)
    return torch.cat([angles.cos(), angles.sin()], dim=1)


class Unconditional:
    """The model as what CLIP guides: pictures are their own latents."""

    channels = 3
    factor = 1
    is_of_pixels = True

    def __init__(self, unet: UNet, name: str) -> None:
        self.unet, self.name = unet.eval().requires_grad_(False), name
        self.resolution = unet.layout.size_px
        first, last, count = _BETAS
        betas = torch.linspace(first, last, count, dtype=torch.float64)
        self.alphas_cumprod = (1 - betas).cumprod(0)

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return self.unet.out[2].weight.device

    def predict(self, x_t: Latents, time: int) -> tuple[Latents, Latents | None]:
        """Noise, and the position of the variance's logarithm between its bounds, in [-1, 1]."""
        times = torch.full((len(x_t),), time, device=x_t.device)
        noise, share = self.unet(x_t, times).chunk(2, dim=1)
        return noise.to(x_t.dtype), share.to(x_t.dtype)

    def encode(self, pixels: Pixels) -> Latents:
        """The pictures themselves."""
        return pixels

    def decode(self, latents: Latents) -> Pixels:
        """The pictures themselves, not clamped."""
        return latents


def load_unconditional(
    path: Path, device: torch.device, dtype: torch.dtype = torch.float32
) -> Unconditional:
    """A published unconditional model.

    Args:
        path: Its ``.pt`` or ``.safetensors`` file.
        device: Where it runs.
        dtype: Its compute type; norms and outputs are float32.

    Raises:
        ModelError: the file cannot be read, or holds another model; the tensors that are missing,
            of another shape or too many are named.
    """
    state = _read(path)
    unet = unet_of(state, str(path))
    unet.load_state_dict(state)
    return Unconditional(unet.to(device, dtype), path.stem)


def unet_of(state: Mapping[str, Tensor], name: str) -> UNet:
    """The network that tensors belong to, without them.

    Raises:
        ModelError: they are those of another model.
    """
    layout = _layout_of(state)
    if "label_emb.weight" in state:
        raise ModelError(
            f"The checkpoint must be of an unconditional model, got {name} with label_emb.weight, "
            "which needs a class; use 256x256_diffusion_uncond.pt."
        )
    with torch.device("meta"):
        unet = UNet(layout or PUBLISHED)
    needed = {n: tuple(t.shape) for n, t in unet.state_dict().items()}
    given = {n: tuple(t.shape) for n, t in state.items()}
    missing = [n for n in needed if n not in given]
    further = [n for n in given if n not in needed]
    other = [n for n in needed if n in given and given[n] != needed[n]]
    if missing or further or other:
        told = [
            *_few("missing", missing),
            *_few("unknown", further),
            *_few("of another shape", [f"{n} {given[n]} for {needed[n]}" for n in other]),
        ]
        raise ModelError(
            "The checkpoint must contain the tensors of guided-diffusion's unconditional UNet "
            f"(such as 256x256_diffusion_uncond.pt), got {name} with {'; '.join(told)}."
        )
    return unet.to_empty(device="cpu")


def _few(what: str, names: list[str]) -> list[str]:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return [f"{what}: {', '.join(names[:3])}{more}"] if names else []


def _layout_of(state: Mapping[str, Tensor]) -> Layout | None:
    """Widths and depths that tensors have; ``None``: they have other names."""
    blocks = sum(f"input_blocks.{i}.0.in_layers.2.weight" in state for i in range(1, 64)) + 1
    levels, rest = divmod(blocks, _BLOCKS + 1)
    time = state.get("time_embed.0.weight")
    firsts = [1 + level * (_BLOCKS + 1) for level in range(levels)]
    convolutions = [state.get(f"input_blocks.{i}.0.in_layers.2.weight") for i in firsts]
    if rest or time is None or time.ndim != 2 or not levels:
        return None
    widths = [len(c) for c in convolutions if c is not None]
    if len(widths) < levels or any(width % _GROUPS for width in widths):
        return None
    attends = tuple(f"input_blocks.{i}.1.qkv.weight" in state for i in firsts)
    return Layout(channels=time.shape[1], widths=tuple(widths), attends=attends)


def _read(path: Path) -> dict[str, Tensor]:
    """Tensors of a file, which may hold nothing else.

    Raises:
        ModelError: it is so, or it cannot be read.
    """
    if not path.is_file():
        raise ModelError(
            f"The checkpoint must be a file, got {path}, which is none; download "
            "256x256_diffusion_uncond.pt of guided-diffusion and pass its path."
        )
    try:
        found: Any = single_file.read(path)
    except Exception as error:
        raise ModelError(
            f"The checkpoint must be a .pt or .safetensors file of tensors, got {path}: "
            f"{reason_of(error)}"
        ) from error
    if not isinstance(found, dict) or not all(isinstance(t, Tensor) for t in found.values()):
        raise ModelError(
            f"The checkpoint must be a dictionary of tensors, got {path} with something else."
        )
    return {str(name): tensor for name, tensor in found.items()}
