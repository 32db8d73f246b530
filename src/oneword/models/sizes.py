"""Families that are told the size of a picture and of its crop."""

from __future__ import annotations

import torch
from torch import Tensor

from oneword._devices import sent
from oneword._typing import Latents, Timesteps
from oneword.models.contract import Conditioning
from oneword.models.pipeline import FrozenPipeline


class ToldSizes(FrozenPipeline):
    """A family whose denoiser is told the picture's size before and after it was cropped."""

    def _sizes(self, x_t: Latents, crops: Tensor | None) -> dict[str, Tensor]:
        """What it is told, px: height and width, and the crop's top and left, of each picture."""
        target = torch.tensor([[side * self.vae_factor for side in x_t.shape[-2:]]] * len(x_t))
        if crops is None:
            crops = torch.cat([target, torch.zeros_like(target)], dim=1)
        told = torch.cat([crops.cpu(), target], dim=1).to(self.dtype)
        original, corner, target = sent(told, self.device).split(2, dim=1)
        return {"original_size": original, "target_size": target, "crop_coords": corner}


class SizedUNet(FrozenPipeline):
    """A family with SDXL's UNet, which is told a pooled prompt, the picture's size and its crop."""

    def predict(
        self, x_t: Latents, t: Timesteps, cond: Conditioning, crops: Tensor | None = None
    ) -> Latents:
        """The UNet's own prediction, float32, told the picture's size and the crop's place."""
        pooled = cond.pooled
        assert pooled is not None
        size = torch.tensor([[side * self.vae_factor for side in x_t.shape[-2:]]] * len(x_t))
        if crops is None:
            crops = torch.cat([size, torch.zeros_like(size)], dim=1)
        sizes = torch.cat([crops.to(size.dtype).cpu(), size], dim=1)
        time_ids = sent(sizes.to(self.dtype), self.device)
        output = self.denoiser(
            x_t.to(self.dtype),
            t,
            encoder_hidden_states=self._states(cond),
            added_cond_kwargs={"text_embeds": pooled.to(self.dtype), "time_ids": time_ids},
        )
        return output.sample.float()
