"""Convolutions as matrix products: the same numbers, and only where they pay."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from oneword.models.speed.few_cells import FewCells, use_products


def layer(out=64, kernel=3, stride=1, padding=1, *, bias=True, dtype=torch.float64):
    """A plain convolution, and the same with the choice."""
    torch.manual_seed(0)  # noqa: TID251
    plain = nn.Conv2d(6, out, kernel, stride, padding, bias=bias, dtype=dtype)
    plain = plain.to(memory_format=torch.channels_last).requires_grad_(False)
    choosing = copy.deepcopy(plain)
    use_products(choosing)
    return plain, choosing


def normal(*shape, dtype=torch.float64, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def outcome(module, x, seed=1):
    x = x.clone().requires_grad_()
    found = module(x)
    (gradient,) = torch.autograd.grad(found, x, normal(*found.shape, dtype=x.dtype, seed=seed))
    return found, gradient


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "size"),
    [(3, 1, 1, (2, 3)), (3, 2, 1, (5, 4)), (3, 2, 0, (7, 5)), (1, 1, 0, (3, 2)), (4, 2, 1, (4, 6))],
)
def test_a_product_is_the_convolution_forward_and_backward(kernel, stride, padding, size, bias):
    """In float64; also of an input that does not lie channels-last."""
    plain, choosing = layer(64, kernel, stride, padding, bias=bias)
    x = normal(2, 6, *size)
    for given in (x, x.to(memory_format=torch.channels_last)):
        expected, gradient = outcome(plain, given)
        found, own = outcome(choosing, given)
        assert "Product" in type(found.grad_fn).__name__
        assert found.shape == expected.shape
        assert torch.allclose(found, expected, rtol=0, atol=1e-12)
        assert torch.allclose(own, gradient, rtol=0, atol=1e-12)
        with torch.no_grad():
            assert torch.allclose(choosing(given), expected, rtol=0, atol=1e-12)


def test_in_bf16_it_is_as_near_to_float64_as_the_convolution():
    plain, _ = layer(256)
    narrow, choosing = layer(256, dtype=torch.bfloat16)
    plain.load_state_dict(narrow.state_dict())
    x = normal(2, 6, 4, 4).bfloat16()
    exact = outcome(plain, x.double())
    for module in (narrow, choosing):
        for found, expected in zip(outcome(module, x), exact, strict=True):
            assert (found.double() - expected).norm() / expected.norm() < 5e-3


def test_it_is_chosen_by_the_cells_of_the_output():
    _, choosing = layer(64)
    few, many = normal(4, 6, 2, 2), normal(5, 6, 2, 2)  # 16 and 20 cells
    for cells, is_product in ((few, True), (many, False)):
        found = choosing(cells.requires_grad_())
        assert ("Product" in type(found.grad_fn).__name__) == is_product


def test_weights_that_learn_get_their_gradient():
    plain, choosing = layer()
    for module in (plain, choosing):
        module.requires_grad_(True)
        module(normal(1, 6, 2, 2)).square().sum().backward()
    assert torch.equal(choosing.weight.grad, plain.weight.grad)
    assert torch.equal(choosing.bias.grad, plain.bias.grad)


def test_other_convolutions_are_left_alone():
    module = nn.Sequential(
        nn.Conv2d(4, 4, 3, groups=4),
        nn.Conv2d(4, 4, 3, dilation=2),
        nn.Conv2d(4, 4, (3, 1)),
        nn.Conv2d(4, 4, 3, padding="same"),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(4, 4, 3, padding=1),
    )
    use_products(module)
    assert [type(part) is FewCells for part in module] == [False] * 5 + [True]
