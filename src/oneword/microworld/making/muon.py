"""Which weights Muon steps, and a Muon for machines without bf16 instructions."""

# The libraries' own annotations are narrower than what they take and return.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def as_matrix(tensor: Tensor, weight: Tensor) -> Tensor:
    """See a weight or its gradient as (outputs, inputs), in the weight's order in memory."""
    channels_last = weight.ndim == 4 and not weight.is_contiguous()
    return (tensor.permute(0, 2, 3, 1) if channels_last else tensor).reshape(len(weight), -1)


def hidden_matrices(part: nn.Module) -> list[tuple[nn.Parameter, Tensor]]:
    """Find the weights of linear and convolutional layers, each with its view as a matrix.

    Muon (Jordan et al. 2024) makes a step's update orthogonal, which suits these alone: tables of
    rows, and layers with few inputs or outputs such as the one that ends in pixels, are left out.
    """
    found = []
    for module in part.modules():
        if not isinstance(module, (nn.Linear, nn.Conv2d)):
            continue
        matrix = as_matrix(module.weight.detach(), module.weight)
        if min(matrix.shape) >= 16:
            found.append((module.weight, matrix))
    return found


class PlainMuon(torch.optim.Muon):
    """``torch.optim.Muon`` with the adjusted rate of AdamW, in the precision of its weights.

    torch orthogonalises in bf16, which a CPU without such instructions imitates: 14 s a step for
    the embedded model's ten million weights, where this takes a third of a second.
    """

    @torch.no_grad()
    def step(self) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Take one step with the gradients that are there."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(p)
                mean = state["momentum_buffer"].lerp_(p.grad, 1 - group["momentum"])
                ahead = p.grad.lerp(mean, group["momentum"])
                update = orthogonal(ahead, group["ns_coefficients"], group["ns_steps"])
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(update, alpha=-group["lr"] * 0.2 * math.sqrt(max(p.shape)))


def orthogonal(
    matrix: Tensor, coefficients: tuple[float, float, float], num_steps: int, eps: float = 1e-7
) -> Tensor:
    """Bring a matrix's singular values near 1 by Newton-Schulz steps on its Gram matrix.

    The steps X <- aX + bAX + cAAX with A = XX' multiply X from the left by polynomials in the first
    A, so the wide matrix itself is needed at the beginning and at the end only: a third of the
    products for the convolutions' matrices of 9 times as many columns as rows.

    Args:
        matrix: (rows, columns).
        coefficients: a, b and c.
        num_steps: Steps.
        eps: Least norm by which is divided.
    """
    a, b, c = coefficients
    x = matrix.T if len(matrix) > matrix.shape[1] else matrix
    x = x / x.norm().clamp(min=eps)
    gram = x @ x.T
    product = None
    for step in range(num_steps):
        factor = torch.addmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal().add_(a)
        product = factor if product is None else factor @ product
        if step + 1 < num_steps:
            gram = factor @ gram @ factor
    x = product @ x if product is not None else x
    return x.T if len(matrix) > matrix.shape[1] else x
