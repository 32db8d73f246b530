"""The judge: a CLIP, separate from the model, that turns pictures and prompts into features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from oneword._typing import Pixels
from oneword.errors import UserError
from oneword.models.clip_pairs import DEFAULT_JUDGE, MEAN, STD, judge_source, load_pair
from oneword.models.contract import Backbone


if TYPE_CHECKING:
    from transformers import CLIPModel

DEFAULT_DINO = "facebook/dino-vits16"
"""DreamBooth's DINO."""
_DINO_MEAN = (0.485, 0.456, 0.406)
_DINO_STD = (0.229, 0.224, 0.225)
_CHUNK = 64


class JudgeError(UserError):
    """The CLIP that scores cannot be loaded."""


class Judge:
    """A frozen CLIP pair.

    Args:
        model: The pair.
        tokenizer: Its tokenizer.
        mean: Mean of pixels in [0, 1], per channel.
        std: Standard deviation, likewise.
        name: Its name in reports.
    """

    def __init__(
        self,
        model: CLIPModel,
        tokenizer: Any,
        *,
        mean: Sequence[float] = MEAN,
        std: Sequence[float] = STD,
        name: str = "",
    ) -> None:
        self.model = model.eval().requires_grad_(False)
        self.tokenizer, self.name = tokenizer, name
        vision: Any = model.config.vision_config
        self.size_px = int(vision.image_size)
        self.mean = torch.tensor(list(mean), device=model.device)[:, None, None]
        self.std = torch.tensor(list(std), device=model.device)[:, None, None]

    @torch.no_grad()
    def images(self, pixels: Pixels) -> Tensor:
        """Features of pictures: (num, dim), float32, unit length, on the CPU.

        The shorter side is resized to CLIP's size (bicubic, with antialiasing), then they are
        cropped.
        """
        return torch.cat([self._images(part) for part in pixels.split(_CHUNK)])

    def _images(self, pixels: Pixels) -> Tensor:
        values = _squares(pixels.to(self.model.device), self.size_px)
        seen = self.model.vision_model(pixel_values=(values - self.mean) / self.std).pooler_output
        return F.normalize(self.model.visual_projection(seen), dim=-1).cpu()

    @torch.no_grad()
    def texts(self, texts: Sequence[str]) -> Tensor:
        """Features of texts: (num, dim), float32, unit length, on the CPU."""
        batch = self.tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt").to(
            self.model.device
        )
        read = self.model.text_model(**batch).pooler_output
        return F.normalize(self.model.text_projection(read), dim=-1).cpu()


class Dino:
    """A frozen DINO, whose features tell things of the same kind apart better than CLIP's.

    Args:
        model: Vision transformer.
        mean: Mean of pixels in [0, 1], per channel.
        std: Standard deviation, likewise.
        name: Its name in reports.

    Source:
        Caron et al. 2021, arXiv:2104.14294; as a score: Ruiz et al. 2022, arXiv:2208.12242.
    """

    def __init__(
        self, model: Any, *, mean: Sequence[float], std: Sequence[float], name: str = ""
    ) -> None:
        self.model = model.eval().requires_grad_(False)
        self.name, self.size_px = name, int(model.config.image_size)
        self.mean = torch.tensor(list(mean), device=model.device)[:, None, None]
        self.std = torch.tensor(list(std), device=model.device)[:, None, None]

    @torch.no_grad()
    def images(self, pixels: Pixels) -> Tensor:
        """Features of pictures: (num, dim), float32, unit length, on the CPU."""
        found = []
        for part in pixels.split(_CHUNK):
            values = _squares(part.to(self.model.device), self.size_px)
            seen = self.model(pixel_values=(values - self.mean) / self.std).last_hidden_state[:, 0]
            found.append(F.normalize(seen, dim=-1).cpu())
        return torch.cat(found)


def _squares(pixels: Tensor, size_px: int) -> Tensor:
    """Pixels in [0, 1] with the shorter side at the model's input size, cropped to the middle."""
    values = (pixels.float() + 1) / 2
    height, width = values.shape[-2:]
    if (height, width) == (size_px, size_px):
        return values
    factor = size_px / min(height, width)
    size = (round(height * factor), round(width * factor))
    values = F.interpolate(
        values, size=size, mode="bicubic", antialias=True, align_corners=False
    ).clamp(0, 1)
    top, left = (size[0] - size_px) // 2, (size[1] - size_px) // 2
    return values[..., top : top + size_px, left : left + size_px]


def load_dino(name: str, backbone: Backbone) -> Dino:
    """Load a DINO by name.

    Args:
        name: Hub id or folder of a vision transformer.
        backbone: The model whose pictures will be scored; its device is used.

    Raises:
        JudgeError: there is no vision transformer with that name.
    """
    from transformers import ViTModel
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        model: Any = ViTModel.from_pretrained(name, add_pooling_layer=False, dtype=torch.float32)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        raise JudgeError(
            f"--dino must be a vision transformer (hub id or folder) or none, got {name}: "
            f"{reason[:200]}"
        ) from error
    finally:
        logging.enable_progress_bar()
    return Dino(model.to(backbone.device), mean=_DINO_MEAN, std=_DINO_STD, name=name)


def load_judge(name: str | None, backbone: Backbone) -> Judge:
    """Load a judge by name; by default microworld's own on microworld, elsewhere the paper's CLIP.

    Args:
        name: Hub id or folder of a CLIP.
        backbone: The model whose pictures will be scored; its device is used.

    Raises:
        JudgeError: there is no CLIP with that name.
    """
    source = judge_source(name, backbone.name)
    pair = load_pair(source, backbone.device, role="The judge", error=JudgeError)
    return Judge(
        pair.model,
        pair.tokenizer,
        mean=pair.mean,
        std=pair.std,
        name=name or ("microworld's judge" if backbone.family == "microworld" else DEFAULT_JUDGE),
    )
