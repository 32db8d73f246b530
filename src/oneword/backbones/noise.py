"""The two ways in which models are noised: diffusion on a schedule of alphas, and straight flow.

Constants come from the model's own scheduler.
"""

from __future__ import annotations

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

    def sample_t(self, u: Uniforms, latent_size: tuple[int, int]) -> Timesteps:  # noqa: ARG002
        """Timesteps uniform over the whole schedule."""
        count = len(self.alphas_cumprod)
        return (u * count).long().clamp(0, count - 1).to(self.alphas_cumprod.device)

    def first(self, scheduler: Any, num_inference_steps: int) -> float:
        """Time of the first step of so many."""
        scheduler.set_timesteps(num_inference_steps)
        return int(scheduler.timesteps[0])

    def after(self, scheduler: Any, timestep: Any) -> float | None:
        """Time to which a scheduler's step leads; ``None``: the last one's."""
        following = _following(scheduler, timestep)
        return None if following is None else int(following)

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
    """Times in (0, 1), which are the share of noise, with the velocity as the target.

    Source:
        Esser et al. 2024, arXiv:2403.03206, sections 3.1 (logit-normal) and 5.3.2 (shift).
    """

    prediction_type = "flow"

    def __init__(self, scheduler: Any) -> None:
        self.scheduler = scheduler

    def sample_t(self, u: Uniforms, latent_size: tuple[int, int]) -> Timesteps:
        """Logit-normal times, shifted as the scheduler shifts them for pictures of this size."""
        u = u.double().clamp(1e-6, 1 - 1e-6)
        t = torch.special.ndtri(u).sigmoid()
        config = self.scheduler.config
        if config.use_dynamic_shifting:
            num_tokens = (latent_size[0] // 2) * (latent_size[1] // 2)
            mu = calculate_shift(
                num_tokens,
                config.base_image_seq_len,
                config.max_image_seq_len,
                config.base_shift,
                config.max_shift,
            )
            return self.scheduler.time_shift(mu, 1.0, t).float()
        return (config.shift * t / (1 + (config.shift - 1) * t)).float()

    def first(self, scheduler: Any, num_inference_steps: int) -> float:  # noqa: ARG002
        """Time of the first step: nothing but noise."""
        return 1.0

    def after(self, scheduler: Any, timestep: Any) -> float | None:
        """Time to which a scheduler's step leads; ``None``: the last one's."""
        following = _following(scheduler, timestep)
        return None if following is None else following / scheduler.config.num_train_timesteps

    def add_noise(self, x0: Latents, noise: Latents, t: Timesteps) -> Latents:
        """``(1 - t) x0 + t noise``."""
        t = t[:, None, None, None]
        return (1 - t) * x0 + t * noise

    def target(self, x0: Latents, noise: Latents, t: Timesteps) -> Latents:  # noqa: ARG002
        """``noise - x0``."""
        return noise - x0


def _following(scheduler: Any, timestep: Any) -> float | None:
    """The timestep after one of a scheduler's; ``None`` after the last."""
    times = scheduler.timesteps.tolist()
    place = times.index(float(timestep)) + 1
    return times[place] if place < len(times) else None
