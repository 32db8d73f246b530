"""Convolutions over few cells on a CPU as matrix products, with the weights in place.

A CPU's convolution rearranges its weights in every call, forward and backward. If a layer has far
more weights than its input has cells, as in the lower half of a UNet at small batches, that costs
several times the arithmetic. A matrix product reads channels-last weights in place.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


CHANNELS_PER_CELL = 4
"""Output channels from which on a product pays, in units of the output's cells in the batch."""


def use_products(module: nn.Module) -> None:
    """Let the plain 2D convolutions of a channels-last module on a CPU choose, call by call."""
    for part in module.modules():
        if type(part) is nn.Conv2d and part.padding_mode == "zeros" and part.groups == 1:
            is_square = all(  # padding that is a word is none
                len(set(pair)) == 1 for pair in (part.kernel_size, part.stride, part.padding)
            )
            if is_square and part.dilation == (1, 1):
                part.__class__ = FewCells


class FewCells(nn.Conv2d):
    """A convolution that is a matrix product where its input has few cells."""

    def forward(self, input: Tensor) -> Tensor:
        """(n, in, h, w) to (n, out, h', w'), as every convolution."""
        is_frozen = not self.weight.requires_grad and self.weight.dtype == input.dtype
        if not (is_frozen and self._has_few(input) and _lies_last(self.weight)):
            return super().forward(input)
        padding = int(self.padding[0])
        return _Product.apply(input, self.weight, self.bias, self.stride[0], padding)

    def _has_few(self, x: Tensor) -> bool:
        padded = 2 * int(self.padding[0]) - self.kernel_size[0]
        sides = [(side + padded) // self.stride[0] + 1 for side in x.shape[-2:]]
        cells = len(x) * sides[0] * sides[1]
        return x.ndim == 4 and CHANNELS_PER_CELL * cells <= self.out_channels


def _lies_last(weight: Tensor) -> bool:
    return weight.is_contiguous(memory_format=torch.channels_last)


class _Product(torch.autograd.Function):
    """The convolution and its gradient by the input; weights are frozen."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int
    ) -> Tensor:
        """Gather what each output cell sees, and multiply."""
        ctx.save_for_backward(weight)
        ctx.shape, ctx.stride, ctx.padding = x.shape, stride, padding
        side = weight.shape[-1]
        padded = F.pad(x, (padding,) * 4)
        seen = padded.unfold(2, side, stride).unfold(3, side, stride)
        n, _, height, width = seen.shape[:4]
        gathered = seen.permute(0, 2, 3, 4, 5, 1).reshape(n * height * width, -1)
        out = F.linear(gathered, _matrix(weight), bias)
        return out.view(n, height, width, -1).permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None, None]:
        """Multiply back, and add up what each input cell gave, in float32 or better."""
        (gradient,), (weight,) = gradients, ctx.saved_tensors
        (n, channels, *sides), stride, padding = ctx.shape, ctx.stride, ctx.padding
        side = weight.shape[-1]
        height, width = gradient.shape[-2:]
        rows = gradient.permute(0, 2, 3, 1).reshape(n * height * width, -1)
        parts = (rows @ _matrix(weight)).view(n, height, width, side, side, channels)
        padded = [one + 2 * padding for one in sides]
        dtype = torch.promote_types(gradient.dtype, torch.float32)
        total = torch.zeros(n, *padded, channels, dtype=dtype)
        for i in range(side):
            for j in range(side):
                down = slice(i, i + stride * (height - 1) + 1, stride)
                right = slice(j, j + stride * (width - 1) + 1, stride)
                total[:, down, right] += parts[:, :, :, i, j]
        inner = total[:, padding : padding + sides[0], padding : padding + sides[1]]
        return inner.permute(0, 3, 1, 2).to(gradient.dtype), None, None, None, None


def _matrix(weight: Tensor) -> Tensor:
    """(out, side * side * in), without a copy."""
    return weight.permute(0, 2, 3, 1).flatten(1)
