"""CLIP pairs, loaded in the same way as judge and as guide."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from oneword._files import read_json
from oneword.config.model import is_embedded
from oneword.errors import UserError, reason_of
from oneword.microworld import weights


if TYPE_CHECKING:
    from transformers import CLIPModel

DEFAULT_JUDGE = "openai/clip-vit-base-patch32"
"""The paper's judge."""
DEFAULT_GUIDE = "openai/clip-vit-base-patch16"
"""The guide of the published notebook of CLIP-guided diffusion (Crowson 2021, 256 px), which is not
the judge."""
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
"""Mean and standard deviation of CLIP's pixels in [0, 1], unless a pair's folder has others."""
_FILES = ("model.safetensors", "pytorch_model.bin")


@dataclass(frozen=True, slots=True, eq=False)
class ClipPair:
    """A pair with its tokenizer, and the mean and deviation for its pixels."""

    model: CLIPModel
    tokenizer: Any
    mean: tuple[float, ...]
    """Per channel, of pixels in [0, 1]."""
    std: tuple[float, ...]


def judge_source(name: str | None, model: str) -> str:
    """Hub id or folder of the judge; default: microworld's own on microworld, else the paper's.

    Args:
        name: The name in the settings.
        model: Name of the model whose pictures are scored.
    """
    return name or (str(weights.judge_folder(model)) if is_embedded(model) else DEFAULT_JUDGE)


def guide_source(name: str | None, model: str | None) -> str:
    """Hub id or folder of the guide; default: microworld's own on microworld, else CLIP's B/16.

    Args:
        name: The name in the settings.
        model: Name of the guided model; ``None`` if no oneword model draws.
    """
    return name or (str(weights.guide_folder(model)) if is_embedded(model) else DEFAULT_GUIDE)


def load_pair(source: str, device: torch.device, *, role: str, error: type[UserError]) -> ClipPair:
    """A frozen CLIP pair, float32.

    Args:
        source: Hub id or folder.
        device: The device.
        role: Its name in messages, such as "The judge".
        error: Type of the error.

    Raises:
        UserError: of type ``error``, if there is no complete pair, for example only a text encoder.
    """
    from transformers import AutoTokenizer, CLIPModel
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        found: Any = CLIPModel.from_pretrained(
            source, dtype=torch.float32, output_loading_info=True
        )
        tokenizer = AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError, KeyError, RuntimeError, TypeError, AttributeError) as failure:
        raise error(
            f"{role} must be a CLIP (hub id or folder), got {source}: {reason_of(failure)[:200]}"
        ) from failure
    finally:
        logging.enable_progress_bar()
    model, told = found
    # a tower that is in no file would be random
    if missing := sorted(told["missing_keys"]):
        towers = sorted({name.partition(".")[0].removesuffix("_model") for name in missing})
        raise error(
            f"{role} must be a CLIP with a text and an image encoder, got {source} without "
            f"weights of {', '.join(towers)} (such as {missing[0]}); pass a folder or hub id of a "
            "complete CLIP."
        )
    picture: dict[str, Any] = {}
    settings = Path(source) / "preprocessor_config.json"
    if settings.is_file():
        form = {"image_mean?": [float], "image_std?": [float]}
        picture = read_json(settings, form, error=error)
    return ClipPair(
        model.to(device).eval().requires_grad_(False),
        tokenizer,
        tuple(picture.get("image_mean", MEAN)),
        tuple(picture.get("image_std", STD)),
    )


def is_same(one: str, other: str) -> bool:
    """Whether two names mean the same CLIP: the same place, or weights with the same SHA-256.

    Nothing is downloaded: a hub id is compared by its weights if they are on this machine.
    """
    if one == other or Path(one).resolve() == Path(other).resolve():
        return True
    first, second = _sha256(one), _sha256(other)
    return first is not None and first == second


def _sha256(source: str) -> str | None:
    """SHA-256 of the weights' file, if there is one on this machine."""
    from huggingface_hub import try_to_load_from_cache

    for name in _FILES:
        path: Any = Path(source) / name
        if not path.is_file() and not Path(source).is_dir() and source.count("/") == 1:
            path = try_to_load_from_cache(source, name)
        if isinstance(path, str | Path) and Path(path).is_file():
            with Path(path).open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
    return None
