"""SDXL's UNet, which Kolors also uses: it takes a pooled prompt and sizes."""

from __future__ import annotations

from typing import ClassVar

from oneword._typing import Latents, Timesteps
from oneword.models.contract import Conditioning
from oneword.models.drawing import FamilyPipeline


class SizedUNet(FamilyPipeline):
    """A family with SDXL's UNet. It adds ``_read``."""

    tells_sizes: ClassVar[bool] = True

    def _denoise(self, x_t: Latents, t: Timesteps, cond: Conditioning) -> Latents:
        """The UNet's own prediction, float32, given the picture's size and the crop's position."""
        output = self.denoiser(
            x_t.to(self.dtype),
            t,
            encoder_hidden_states=self._states(cond),
            added_cond_kwargs={
                "text_embeds": self._pooled(cond),
                "time_ids": cond.extra["sizes"],
            },
        )
        return output.sample.float()
