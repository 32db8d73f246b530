"""Widens a trained denoiser and text encoder so that they still compute nearly what they did.

Channels are copied group by group, and what goes out of a copied channel is shared among its copies
(Net2Net, arXiv:1511.05641, section 2.3.1). The shares are unequal and sum to one, so that copies
learn different things from the first step while the outcome stays. Only normalisations see a
difference, where some channels of a group are copied and others are not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


_UNEVEN = 0.2
"""Deviation of the copies' shares, in units of an equal share."""
_ROW_NOISE = 0.1
"""Deviation of what is added to the copies of words' rows, in units of the rows' own."""


@dataclass(frozen=True, slots=True)
class Axis:
    """Which old channel each new one is copied from."""

    index: Tensor
    """(new channels,)."""

    @property
    def share(self) -> Tensor:
        """An equal share of each copy, (new channels,)."""
        return 1 / self.index.bincount()[self.index].float()

    def split(self, num: int, generator: torch.Generator) -> Tensor:
        """Uneven shares of the copies for each of ``num`` outputs, (num, new channels)."""
        noise = _UNEVEN * torch.randn((num, len(self.index)), generator=generator)
        mean = torch.zeros(num, int(self.index.max()) + 1).index_add_(1, self.index, noise)
        return self.share * (1 + (noise - mean[:, self.index] * self.share))


def same(num: int) -> Axis:
    """Channels that stay as they are."""
    return Axis(torch.arange(num))


def copied(old: int, new: int, groups: int) -> Axis:
    """Channels of which some are copied within their group, evenly spread.

    Args:
        old: Channels before.
        new: Channels afterwards, at least as many.
        groups: Into which both are divided.
    """
    own, more = old // groups, new // groups - old // groups
    extra = torch.arange(more) * own // max(more, 1) if more <= own else torch.arange(more) % own
    within = torch.cat([torch.arange(own), extra])
    return Axis((own * torch.arange(groups)[:, None] + within).flatten())


def joined(*axes: Axis) -> Axis:
    """Channels of several axes behind one another."""
    before, found = 0, []
    for axis in axes:
        found.append(axis.index + before)
        before += int(axis.index.max()) + 1
    return Axis(torch.cat(found))


class _Widener:
    """Collects a model's widened weights."""

    def __init__(self, old: Mapping[str, Tensor], generator: torch.Generator) -> None:
        self.old, self.generator = old, generator
        self.new: dict[str, Tensor] = {}

    def layer(self, name: str, out: Axis, into: Axis) -> None:
        """A linear or convolutional layer."""
        weight = self.old[f"{name}.weight"][out.index][:, into.index]
        shares = into.split(len(weight), self.generator)
        self.new[f"{name}.weight"] = weight * shares.view(*shares.shape, *(1,) * (weight.ndim - 2))
        self._plain(f"{name}.bias", out)

    def norm(self, name: str, axis: Axis) -> None:
        """A normalisation's factors and offsets."""
        self._plain(f"{name}.weight", axis)
        self._plain(f"{name}.bias", axis)

    def _plain(self, name: str, axis: Axis) -> None:
        if name in self.old:
            self.new[name] = self.old[name][axis.index]


class _UNetWidener(_Widener):
    """Walks through a denoiser as ``PlainUNet`` puts it together."""

    def __init__(
        self,
        old: Mapping[str, Tensor],
        before: Mapping[str, Any],
        after: Mapping[str, Any],
        generator: torch.Generator,
    ) -> None:
        super().__init__(old, generator)
        self.heads: int = after["attention_head_dim"]
        groups: int = after["norm_num_groups"]
        widths = list(zip(before["block_out_channels"], after["block_out_channels"], strict=True))
        axes = [copied(a, b, groups) for a, b in widths]
        if widths[0][0] != widths[0][1]:
            raise ValueError(f"The first width must stay, got {widths[0]}.")  # times belong to it
        self.times = same(4 * widths[0][0])
        self.context = doubled(before["cross_attention_dim"], after["cross_attention_dim"])
        self.layer("conv_in", axes[0], same(before["in_channels"]))
        self.layer("time_embedding.linear_1", self.times, same(widths[0][0]))
        self.layer("time_embedding.linear_2", self.times, self.times)
        skips, x, last = [axes[0]], axes[0], len(axes) - 1
        for i, (axis, kind) in enumerate(zip(axes, after["down_block_types"], strict=True)):
            self._resnet(f"down_blocks.{i}.resnets.0", x, axis)
            if "CrossAttn" in kind:
                self._attention(f"down_blocks.{i}.attentions.0", axis)
            skips.append(axis)
            if i < last:
                self.layer(f"down_blocks.{i}.downsamplers.0.conv", axis, axis)
                skips.append(axis)
            x = axis
        self._resnet("mid_block.resnets.0", x, x)
        self._attention("mid_block.attentions.0", x)
        self._resnet("mid_block.resnets.1", x, x)
        for i, (axis, kind) in enumerate(zip(axes[::-1], after["up_block_types"], strict=True)):
            for j in range(2):
                self._resnet(f"up_blocks.{i}.resnets.{j}", joined(x, skips.pop()), axis)
                x = axis
                if "CrossAttn" in kind:
                    self._attention(f"up_blocks.{i}.attentions.{j}", axis)
            if i < last:
                self.layer(f"up_blocks.{i}.upsamplers.0.conv", axis, axis)
        self.norm("conv_norm_out", axes[0])
        self.layer("conv_out", same(before["out_channels"]), axes[0])

    def _resnet(self, name: str, into: Axis, out: Axis) -> None:
        self.norm(f"{name}.norm1", into)
        self.layer(f"{name}.conv1", out, into)
        self.layer(f"{name}.time_emb_proj", out, self.times)
        self.norm(f"{name}.norm2", out)
        self.layer(f"{name}.conv2", out, out)
        if f"{name}.conv_shortcut.weight" in self.old:
            self.layer(f"{name}.conv_shortcut", out, into)

    def _attention(self, name: str, axis: Axis) -> None:
        self.norm(f"{name}.norm", axis)
        self.layer(f"{name}.proj_in", axis, axis)
        self.layer(f"{name}.proj_out", axis, axis)
        block = f"{name}.transformer_blocks.0"
        old, new = int(axis.index.max()) + 1, len(axis.index)
        inner = copied(old, new, self.heads)
        for attention, source in (("attn1", axis), ("attn2", self.context)):
            own = f"{block}.{attention}"
            self.layer(f"{own}.to_q", inner, axis)
            # a copied product counts once, and its scale is that of the old width
            self.new[f"{own}.to_q.weight"] *= inner.share[:, None] * (new / old) ** 0.5
            self.layer(f"{own}.to_k", inner, source)
            self.layer(f"{own}.to_v", inner, source)
            self.layer(f"{own}.to_out.0", axis, inner)
        for number in (1, 2, 3):
            self.norm(f"{block}.norm{number}", axis)
        hidden = copied(4 * old, 4 * new, 1)
        self.layer(f"{block}.ff.net.0.proj", joined(hidden, hidden), axis)
        self.layer(f"{block}.ff.net.2", axis, hidden)


def doubled(old: int, new: int) -> Axis:
    """All channels copied equally often, which normalisations do not see.

    Args:
        old: Channels before.
        new: Channels afterwards, a multiple of them.
    """
    if new % old:
        raise ValueError(f"The new width must be a multiple of {old}, got {new}.")
    return Axis(torch.arange(new) % old)


def widened_unet(
    old: Mapping[str, Tensor],
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """The weights of a denoiser with wider levels and a wider text.

    Args:
        old: Weights of ``PlainUNet``.
        before: Its configuration.
        after: That of the wider one; the first level stays as wide as it is.
        generator: Of what makes copies differ.
    """
    return _UNetWidener(old, before, after, generator).new


def widened_text(
    old: Mapping[str, Tensor], before: Mapping[str, Any], width: int, generator: torch.Generator
) -> dict[str, Tensor]:
    """The weights of a text encoder of a multiple of its width, with as many times its heads.

    Args:
        old: Weights of ``CLIPTextModel``.
        before: Its configuration.
        width: Of the wider one.
        generator: Of what makes copies differ.
    """
    wider = _Widener(old, generator)
    axis = doubled(before["hidden_size"], width)
    hidden = doubled(
        before["intermediate_size"], before["intermediate_size"] * width // before["hidden_size"]
    )
    for name, tensor in old.items():
        module, _, kind = name.rpartition(".")
        if kind == "bias":
            continue  # goes with its weight
        if "embedding" in module:
            noise = torch.randn((len(tensor), width), generator=generator)
            noise = noise.unflatten(1, (-1, before["hidden_size"]))
            noise = (noise - noise.mean(1, keepdim=True)).flatten(1)
            wider.new[name] = tensor[:, axis.index] + _ROW_NOISE * tensor.std() * noise
        elif "norm" in module:
            wider.norm(module, axis)
        else:
            out, into = (
                (hidden, axis)
                if module.endswith("fc1")
                else (axis, hidden)
                if module.endswith("fc2")
                else (axis, axis)
            )
            wider.layer(module, out, into)
    return wider.new
