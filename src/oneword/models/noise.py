"""Noise processes of models: diffusion on a schedule of alphas, straight flow, and TrigFlow.

Constants come from the model's own scheduler.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from diffusers.pipelines.flux.pipeline_flux import calculate_shift
from torch import Tensor

from oneword._typing import Latents, Timesteps, Uniforms


class Diffusion:
    """Integer timesteps, with epsilon or v as the target."""

    def __init__(self, scheduler: Any, device: torch.device) -> None:
        self.prediction_type: str = scheduler.config.prediction_type
        self.alphas_cumprod = scheduler.alphas_cumprod.to(device, torch.float32)

    def sample_t(self, u: Uniforms, _latent_size: tuple[int, int], /) -> Timesteps:
        """Timesteps uniform over the whole schedule."""
        count = len(self.alphas_cumprod)
        return (u * count).long().clamp(0, count - 1).to(self.alphas_cumprod.device)

    def first(self, scheduler: Any, num_inference_steps: int) -> float:
        """Timestep of the first of this number of steps."""
        scheduler.set_timesteps(num_inference_steps)
        return int(scheduler.timesteps[0])

    def after(self, scheduler: Any, timestep: Any) -> float | None:
        """Time to which a scheduler's step leads; ``None``: the last one's."""
        place = _place(scheduler, timestep)
        return int(scheduler.timesteps[place]) if place < len(scheduler.timesteps) else None

    def _signal_and_noise(self, t: Timesteps) -> tuple[Tensor, Tensor]:
        power = self.alphas_cumprod[t][:, None, None, None]
        return power.sqrt(), (1 - power).sqrt()

    def add_noise(self, x0: Latents, noise: Latents, t: Timesteps) -> Latents:
        """``sqrt(abar_t) x0 + sqrt(1 - abar_t) noise``.

        Source:
            Ho et al. 2020, arXiv:2006.11239, equation 4.
        """
        signal, sigma = self._signal_and_noise(t)
        return signal * x0 + sigma * noise

    def target(self, x0: Latents, noise: Latents, t: Timesteps) -> Latents:
        """The noise, or ``v = sqrt(abar_t) noise - sqrt(1 - abar_t) x0``.

        Source:
            Salimans and Ho 2022, arXiv:2202.00512, section 4.
        """
        if self.prediction_type == "epsilon":
            return noise
        signal, sigma = self._signal_and_noise(t)
        return signal * noise - sigma * x0


class Flow:
    """Times in (0, 1), equal to the share of noise, with the velocity as the target.

    Source:
        Esser et al. 2024, arXiv:2403.03206, sections 3.1 (logit-normal) and 5.3.2 (shift).
    """

    prediction_type = "flow"

    def __init__(
        self,
        scheduler: Any,
        shift_of: Callable[[tuple[int, int]], float] | None = None,
        patch: int = 2,
    ) -> None:
        """Take the family's scheduler.

        Args:
            scheduler: Its configuration says whether and how times are shifted.
            shift_of: Logarithm of a dynamic shift for latents of (h, w) cells, if the family's is
                not linear in the number of the transformer's tokens.
            patch: Side of a token, in latent cells.
        """
        self.scheduler, self.patch = scheduler, patch
        self._shift_of = shift_of or self._linear_shift

    def _linear_shift(self, latent_size: tuple[int, int]) -> float:
        config = self.scheduler.config
        return calculate_shift(
            (latent_size[0] // self.patch) * (latent_size[1] // self.patch),
            config.base_image_seq_len,
            config.max_image_seq_len,
            config.base_shift,
            config.max_shift,
        )

    def sample_t(self, u: Uniforms, latent_size: tuple[int, int]) -> Timesteps:
        """Logit-normal times, shifted as the scheduler shifts them for pictures of this size."""
        u = u.double().clamp(1e-6, 1 - 1e-6)
        t = torch.special.ndtri(u).sigmoid()
        config = self.scheduler.config
        if config.get("use_dynamic_shifting"):
            return self.scheduler.time_shift(self._shift_of(latent_size), 1.0, t).float()
        # Sana's solver has its own name for it
        shift = config.get("shift", config.get("flow_shift", 1.0))
        return (shift * t / (1 + (shift - 1) * t)).float()

    def first(self, scheduler: Any, num_inference_steps: int, /) -> float:
        """Time of the first step of so many; some solvers begin a little below 1."""
        if scheduler.config.get("use_dynamic_shifting"):
            return 1.0  # which every shift leaves as it is
        scheduler.set_timesteps(num_inference_steps)
        return float(scheduler.sigmas[0])

    def after(self, scheduler: Any, timestep: Any) -> float | None:
        """Time to which a scheduler's step leads; ``None``: the last one's."""
        place = _place(scheduler, timestep)  # timesteps may be rounded, sigmas are not
        return float(scheduler.sigmas[place]) if place < len(scheduler.timesteps) else None

    def add_noise(self, x0: Latents, noise: Latents, t: Timesteps) -> Latents:
        """``(1 - t) x0 + t noise``."""
        t = t[:, None, None, None]
        return (1 - t) * x0 + t * noise

    def target(self, x0: Latents, noise: Latents, _t: Timesteps, /) -> Latents:
        """``noise - x0``."""
        return noise - x0


class TrigFlow:
    """Angles in (0, pi/2) between picture and noise, with the velocity along the arc as the target.

    What a consistency model says for latents, ``cos(t) x_t - sin(t) velocity``, is the picture at
    the end of their path. The target is the velocity for which that is x0. Where the data is one
    picture all paths end there, and this is just what a consistency model of it says; of several
    pictures it is what such a model says near t = 0, and on average elsewhere.

    Source:
        Lu and Song 2024, arXiv:2410.11081, section 3; Chen et al. 2025, arXiv:2503.09641,
        section 2 (target). Mean and spread of the times are those of its authors' training code.
    """

    prediction_type = "trigflow"
    _MEAN, _STD = 0.2, 1.6  # of the logarithm of the noise level, in latents of spread sigma_data

    def __init__(self, scheduler: Any) -> None:
        self.sigma_data: float = scheduler.config.sigma_data

    def sample_t(self, u: Uniforms, _latent_size: tuple[int, int], /) -> Timesteps:
        """Angles whose tangent, the ratio of noise to picture, is log-normal."""
        u = u.double().clamp(1e-6, 1 - 1e-6)
        sigma = (self._MEAN + self._STD * torch.special.ndtri(u)).exp()
        return torch.atan(sigma / self.sigma_data).float()

    def first(self, scheduler: Any, num_inference_steps: int) -> float:
        """Timestep of the first of this number of steps."""
        scheduler.set_timesteps(num_inference_steps, intermediate_timesteps=None)
        return float(scheduler.timesteps[0])

    def after(self, scheduler: Any, _timestep: Any, /) -> float | None:
        """Time to which the step just done leads; ``None``: the last one's."""
        place = scheduler.step_index
        end = len(scheduler.timesteps) - 1  # the last of its times is no step's
        return float(scheduler.timesteps[place]) if place < end else None

    def add_noise(self, x0: Latents, noise: Latents, t: Timesteps) -> Latents:
        """``cos(t) x0 + sin(t) noise``."""
        t = t[:, None, None, None]
        return torch.cos(t) * x0 + torch.sin(t) * noise

    def target(self, x0: Latents, noise: Latents, t: Timesteps) -> Latents:
        """``cos(t) noise - sin(t) x0``."""
        t = t[:, None, None, None]
        return torch.cos(t) * noise - torch.sin(t) * x0


def _place(scheduler: Any, timestep: Any) -> int:
    """Place of the timestep after one of a scheduler's, which may be the end."""
    return scheduler.timesteps.tolist().index(float(timestep)) + 1
