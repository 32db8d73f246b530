"""Named array types of the package; their shapes are checked in the tests.

Axes: ``batch`` samples, ``height``/``width`` pixels, ``h``/``w`` latent cells,
``tokens`` positions.
"""

from jaxtyping import Float, Int
from torch import Tensor


Pixels = Float[Tensor, "batch 3 height width"]
"""RGB, float32, in [-1, 1]."""
Masks = Float[Tensor, "batch 1 height width"]
"""Which part of each picture counts, in [0, 1]."""
Latents = Float[Tensor, "batch channels h w"]
"""Latent pictures, already scaled (and shifted) as the denoiser expects them."""
TokenIds = Int[Tensor, "batch tokens"]
"""Token ids, int64."""
Timesteps = Float[Tensor, " batch"] | Int[Tensor, " batch"]
"""Timestep of each sample, in the family's own unit."""
PerSample = Float[Tensor, " batch"]
"""One number per sample, such as a loss before reduction."""
Rows = Float[Tensor, "num_vectors dim"]
"""Rows of a concept for one text encoder, float32."""
Uniforms = Float[Tensor, " batch"]
"""Draws from U[0, 1)."""
