"""The embedded model's denoiser and encoder in torch alone, by the names of the landed weights.

A lent machine may have no diffusers. These compute what its classes compute, for the embedded
models' configurations only, and what they train loads into its classes.
"""

# The libraries' own annotations are narrower than what they take and return.
# pyright: reportArgumentType=false, reportCallIssue=false, reportIndexIssue=false

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from oneword.errors import UserError


_WEIGHTS = Path(__file__).parents[1] / "weights"


class LandedError(UserError):
    """The embedded model's files are missing or damaged."""


class _Resnet(nn.Module):
    def __init__(self, channels: int, wide: int, groups: int, eps: float, times: int = 0) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, channels, eps)
        self.conv1 = nn.Conv2d(channels, wide, 3, padding=1)
        self.time_emb_proj = nn.Linear(times, wide) if times else None
        self.norm2 = nn.GroupNorm(groups, wide, eps)
        self.conv2 = nn.Conv2d(wide, wide, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(channels, wide, 1) if channels != wide else None

    def forward(self, x: Tensor, time: Tensor | None = None) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        if self.time_emb_proj is not None and time is not None:
            h = h + self.time_emb_proj(F.silu(time))[:, :, None, None]
        h = self.conv2(F.silu(self.norm2(h)))
        return h + (x if self.conv_shortcut is None else self.conv_shortcut(x))


def attended(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention of (batch, heads, tokens, width), scaled by the root of the width.

    In bf16 torch's own kernel for CPUs takes 3 to 7 times longer, forward and backward, than two
    products and a softmax for as few tokens as the embedded models have. Their scores are rounded
    to bf16, so that the error is about twice as large, under 2 % of the gradient.
    """
    if q.device.type == "cpu" and q.dtype == torch.bfloat16:
        return torch.softmax(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5, dim=-1) @ v
    return F.scaled_dot_product_attention(q, k, v)


class _Attention(nn.Module):
    def __init__(self, width: int, context: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k = nn.Linear(context, width, bias=False)
        self.to_v = nn.Linear(context, width, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(width, width)])

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        q, k, v = (
            layer(source).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer, source in ((self.to_q, x), (self.to_k, context), (self.to_v, context))
        )
        mixed = attended(q, k, v)
        return self.to_out[0](mixed.transpose(1, 2).flatten(2))


class _Gate(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, 8 * width)

    def forward(self, x: Tensor) -> Tensor:
        x, gate = self.proj(x).chunk(2, dim=-1)
        return x * F.gelu(gate)


class _Feedforward(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.ModuleList([_Gate(width), nn.Identity(), nn.Linear(4 * width, width)])

    def forward(self, x: Tensor) -> Tensor:
        return self.net[2](self.net[0](x))


class _Block(nn.Module):
    def __init__(self, width: int, context: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.attn1 = _Attention(width, width, heads)
        self.attn2 = _Attention(width, context, heads)
        self.ff = _Feedforward(width)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        h = self.norm1(x)
        x = x + self.attn1(h, h)
        x = x + self.attn2(self.norm2(x), context)
        return x + self.ff(self.norm3(x))


class _Transformer(nn.Module):
    def __init__(self, width: int, context: int, heads: int, groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, width, 1e-6)
        self.proj_in = nn.Conv2d(width, width, 1)
        self.transformer_blocks = nn.ModuleList([_Block(width, context, heads)])
        self.proj_out = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        cells = self.proj_in(self.norm(x)).flatten(2).transpose(1, 2)
        cells = self.transformer_blocks[0](cells, context)
        h = cells.transpose(1, 2).unflatten(2, x.shape[2:])
        return x + self.proj_out(h.contiguous(memory_format=torch.channels_last))


class _Resample(nn.Module):
    """Halves the side by a strided convolution, or doubles it before one."""

    def __init__(self, width: int, *, up: bool, shifted: bool = False) -> None:
        super().__init__()
        self.up, self.shifted = up, shifted
        self.conv = nn.Conv2d(width, width, 3, stride=1 if up else 2, padding=0 if shifted else 1)

    def forward(self, x: Tensor) -> Tensor:
        if self.up:
            x = F.interpolate(x, scale_factor=2.0)
        return self.conv(F.pad(x, (0, 1, 0, 1)) if self.shifted else x)


class _Level(nn.Module):
    """Resnets of one size, each with attention where the level attends."""

    def __init__(self, resnets: list[_Resnet], attentions: list[_Transformer]) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(resnets)
        if attentions:
            self.attentions = nn.ModuleList(attentions)
        self.attends = bool(attentions)


class _Times(nn.Module):
    def __init__(self, channels: int, wide: int) -> None:
        super().__init__()
        self.linear_1, self.linear_2 = nn.Linear(channels, wide), nn.Linear(wide, wide)
        self.channels = channels

    def forward(self, t: Tensor) -> Tensor:
        half = self.channels // 2
        rates = torch.exp(torch.arange(half, device=t.device) * (-math.log(10_000) / half))
        angles = t.float()[:, None] * rates
        waves = torch.cat([angles.cos(), angles.sin()], dim=-1)
        return self.linear_2(F.silu(self.linear_1(waves)))


class PlainUNet(nn.Module):
    """``UNet2DConditionModel`` of an embedded model's configuration."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        widths: list[int] = config["block_out_channels"]
        groups, eps = config["norm_num_groups"], config["norm_eps"]
        context, heads = config["cross_attention_dim"], config["attention_head_dim"]
        times = 4 * widths[0]

        def resnet(channels: int, wide: int) -> _Resnet:
            return _Resnet(channels, wide, groups, eps, times)

        def attention(width: int, num: int, kind: str) -> list[_Transformer]:
            attends = "CrossAttn" in kind
            return [_Transformer(width, context, heads, groups) for _ in range(num * attends)]

        self.conv_in = nn.Conv2d(config["in_channels"], widths[0], 3, padding=1)
        self.time_embedding = _Times(widths[0], times)
        self.down_blocks, self.up_blocks = nn.ModuleList(), nn.ModuleList()
        skips, channels = [widths[0]], widths[0]
        for i, (wide, kind) in enumerate(zip(widths, config["down_block_types"], strict=True)):
            level = _Level([resnet(channels, wide)], attention(wide, 1, kind))
            skips.append(wide)
            if i + 1 < len(widths):
                level.downsamplers = nn.ModuleList([_Resample(wide, up=False)])
                skips.append(wide)
            self.down_blocks.append(level)
            channels = wide
        self.mid_block = _Level(
            [resnet(channels, channels) for _ in range(2)], attention(channels, 1, "CrossAttn")
        )
        for i, (wide, kind) in enumerate(zip(widths[::-1], config["up_block_types"], strict=True)):
            resnets = []
            for _ in range(2):
                resnets.append(resnet(channels + skips.pop(), wide))
                channels = wide
            level = _Level(resnets, attention(wide, 2, kind))
            if i + 1 < len(widths):
                level.upsamplers = nn.ModuleList([_Resample(wide, up=True)])
            self.up_blocks.append(level)
        self.conv_norm_out = nn.GroupNorm(groups, widths[0], eps)
        self.conv_out = nn.Conv2d(widths[0], config["out_channels"], 3, padding=1)

    def forward(self, x: Tensor, t: Tensor, context: Tensor) -> Tensor:
        """Predict the velocity.

        Args:
            x: Noisy latents (batch, channels, cells, cells).
            t: Times (batch,).
            context: Hidden states of the text (batch, tokens, width).
        """
        time = self.time_embedding(t).to(x.dtype)
        x = self.conv_in(x)
        skips = [x]
        for level in self.down_blocks:
            x = level.resnets[0](x, time)
            if level.attends:
                x = level.attentions[0](x, context)
            skips.append(x)
            if hasattr(level, "downsamplers"):
                x = level.downsamplers[0](x)
                skips.append(x)
        x = self.mid_block.resnets[0](x, time)
        x = self.mid_block.attentions[0](x, context)
        x = self.mid_block.resnets[1](x, time)
        for level in self.up_blocks:
            for i, resnet in enumerate(level.resnets):
                x = resnet(torch.cat([x, skips.pop()], dim=1), time)
                if level.attends:
                    x = level.attentions[i](x, context)
            if hasattr(level, "upsamplers"):
                x = level.upsamplers[0](x)
        return self.conv_out(F.silu(self.conv_norm_out(x)))


class _Inner(nn.Module):
    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        widths: list[int] = config["block_out_channels"]
        groups, eps = config["norm_num_groups"], 1e-6
        self.conv_in = nn.Conv2d(config["in_channels"], widths[0], 3, padding=1)
        self.down_blocks = nn.ModuleList()
        channels = widths[0]
        for i, wide in enumerate(widths):
            level = _Level([_Resnet(channels, wide, groups, eps)], [])
            if i + 1 < len(widths):
                level.downsamplers = nn.ModuleList([_Resample(wide, up=False, shifted=True)])
            self.down_blocks.append(level)
            channels = wide
        self.mid_block = _Level([_Resnet(channels, channels, groups, eps) for _ in range(2)], [])
        self.conv_norm_out = nn.GroupNorm(groups, channels, eps)
        self.conv_out = nn.Conv2d(channels, 2 * config["latent_channels"], 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for level in self.down_blocks:
            x = level.resnets[0](x)
            if hasattr(level, "downsamplers"):
                x = level.downsamplers[0](x)
        for resnet in self.mid_block.resnets:
            x = resnet(x)
        return self.conv_out(F.silu(self.conv_norm_out(x)))


class PlainEncoder(nn.Module):
    """The encoder's half of ``AutoencoderKL`` of an embedded model's configuration."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.encoder = _Inner(config)
        self.quant_conv = nn.Conv2d(2 * config["latent_channels"], 2 * config["latent_channels"], 1)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation of the latents of pixels in [-1, 1]."""
        mean, logvar = self.quant_conv(self.encoder(pixels)).chunk(2, dim=1)
        return mean, torch.exp(0.5 * logvar.clamp(-30, 20))


def landed(name: str) -> Path:
    """Folder of a landed pipeline; ``weights.pipeline_folder`` checks it, but needs diffusers.

    Raises:
        LandedError: a file that is read here does not match its SHA-256, or is missing.
    """
    folder = _WEIGHTS / name
    sums: dict[str, str] = json.loads((folder / "card.json").read_text())["sha256"]
    for file, expected in sums.items():
        path = folder / file
        if path.parent.name in ("unet", "vae", "text_encoder", "tokenizer"):
            found = hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else "no file"
            if found != expected:
                raise LandedError(
                    f"The embedded model's file {file} must have SHA-256 {expected[:12]}..., got "
                    f"{found[:12]}; reinstall oneword."
                )
    return folder / "pipeline"


def config_of(folder: Path, name: str = "config.json") -> dict[str, Any]:
    """The configuration of a landed part."""
    return json.loads((folder / name).read_text())


def state_of(folder: Path) -> dict[str, Tensor]:
    """The weights of a landed part, fp32."""
    found: dict[str, Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        found |= load_file(path)
    return {name: tensor.float() for name, tensor in found.items()}


def alphas(folder: Path) -> Tensor:
    """The products of alphas of a landed pipeline's schedule, (times,)."""
    schedule = config_of(folder / "scheduler", "scheduler_config.json")
    root = torch.linspace(
        schedule["beta_start"] ** 0.5, schedule["beta_end"] ** 0.5, schedule["num_train_timesteps"]
    )
    return torch.cumprod(1 - root**2, dim=0)


def load_encoder(folder: Path) -> PlainEncoder:
    """The landed autoencoder's encoder, frozen."""
    encoder = PlainEncoder(config_of(folder))
    state = state_of(folder)
    encoder.load_state_dict({n: t for n, t in state.items() if n in encoder.state_dict()})
    return encoder.eval().requires_grad_(False)
