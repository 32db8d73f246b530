"""Whether `torch.compile` gives the embedded denoiser's gradients: share of weights where it does.

    python benchmarks/compiled_gradients.py

Compares each weight's gradient, compiled against eager, float32, on one batch.
"""

from __future__ import annotations

import _briefly  # noqa: F401  (before torch)


# isort: split

from typing import Any

import torch

from oneword.microworld.making import models
from oneword.microworld.making.sizes import MICROWORLD


def gradients(unet: torch.nn.Module, forward: Any) -> dict[str, torch.Tensor]:
    """Gradient of each weight of the UNet on a fixed batch."""
    draws = torch.Generator().manual_seed(0)
    sizes = MICROWORLD
    shape = (4, sizes.latent_channels, sizes.latent_size, sizes.latent_size)
    x_t = torch.randn(shape, generator=draws).contiguous(memory_format=torch.channels_last)
    states = torch.randn(4, models.CONTEXT, sizes.text_dim, generator=draws)
    unet.zero_grad()
    forward(x_t, torch.tensor([1, 200, 500, 900]), states).sample.square().mean().backward()
    return {name: p.grad.clone() for name, p in unet.named_parameters() if p.grad is not None}


def main() -> None:
    """Compare and print."""
    unet = models.denoiser(MICROWORLD).to(memory_format=torch.channels_last)
    eager = gradients(unet, unet)
    compiled = gradients(unet, torch.compile(unet))
    errors = {
        n: float((compiled[n] - g).norm() / g.norm().clamp_min(1e-12)) for n, g in eager.items()
    }
    zero = sum(not compiled[n].any() for n in eager)
    right = sum(error < 1e-3 for error in errors.values())
    print(f"torch {torch.__version__}: {right} of {len(errors)} gradients agree within 0.1 %; "
          f"{zero} are exactly zero.")  # fmt: skip


if __name__ == "__main__":
    main()
