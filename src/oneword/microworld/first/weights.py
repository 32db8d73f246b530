"""The embedded model's files: finished parts of the recipe, and the landed pipeline.

``weights/pipeline`` is a plain ``StableDiffusionPipeline`` folder, ``weights/judge`` a plain CLIP
folder and ``weights/reader.safetensors`` the classifier that scores; all fp16, with their SHA-256.
"""

# The libraries' own annotations are narrower than what they take and return.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportOptionalMemberAccess=false, reportOptionalSubscript=false, reportOperatorIssue=false

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oneword._files import write_json_atomic
from oneword.config import UserError


if TYPE_CHECKING:
    import torch
    from diffusers import AutoencoderKL
    from torch import nn

    from oneword.microworld.first.models import Reader

WEIGHTS = Path(__file__).parent / "weights"
CARD = "card.json"


class WeightsError(UserError):
    """The embedded model's files are missing or damaged."""


def _checked(folder: Path) -> Path:
    card = folder / CARD
    if not card.exists():
        raise WeightsError(
            f"The embedded model must lie in {folder}, but its card is missing; reinstall oneword, "
            "or make the model with `oneword microworld train`."
        )
    sums: dict[str, str] = json.loads(card.read_text())["sha256"]
    for name, expected in sums.items():
        path = folder / name
        found = hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else "no file"
        if found != expected:
            raise WeightsError(
                f"The embedded model's file {name} must have SHA-256 {expected[:12]}..., got "
                f"{found[:12]}; reinstall oneword."
            )
    return folder


def pipeline_folder() -> Path:
    """Folder of the embedded ``StableDiffusionPipeline``.

    Raises:
        WeightsError: a file is missing or does not match its SHA-256.
    """
    return _checked(WEIGHTS) / "pipeline"


def judge_folder() -> Path:
    """Folder of the CLIP that scores on the embedded model."""
    return WEIGHTS / "judge"


def card() -> dict[str, Any]:
    """How the embedded model was made and what it scores."""
    return json.loads((WEIGHTS / CARD).read_text())


def add_scores(scores: dict[str, Any]) -> None:
    """Put scores into the embedded model's card."""
    write_json_atomic(WEIGHTS / CARD, card() | {"scores": scores})


def save_part(folder: Path, name: str, module: nn.Module) -> None:
    """Write a finished part of the recipe into the work folder, fp32."""
    from safetensors.torch import save_file

    target, part = folder / name, folder / f"{name}.part"
    shutil.rmtree(part, ignore_errors=True)
    if hasattr(module, "save_pretrained"):
        module.save_pretrained(part)
    else:
        part.mkdir()
        state = {name: tensor.contiguous() for name, tensor in module.state_dict().items()}
        save_file(state, part / "model.safetensors")
    shutil.rmtree(target, ignore_errors=True)
    os.replace(part, target)


def check_landing(folder: Path, target: Path) -> None:
    """Refuse to land a model that is not whole, or over a folder that holds no model.

    Raises:
        WeightsError: one of the two.
    """
    missing = [
        name
        for name in ("vae", "unet", "text_encoder", "judge", "reader")
        if not (folder / name).exists()
    ]
    if missing:
        raise WeightsError(
            f"A model is landed when its parts are made, got none of {', '.join(missing)} in "
            f"{folder}; run their stages first."
        )
    if target.exists() and not (target / CARD).exists():
        raise WeightsError(
            f"A model may replace only an older one, got {target} without a {CARD}; name another "
            "folder."
        )


def land(folder: Path, target: Path, details: dict[str, Any]) -> Path:
    """Put a work folder's finished parts together as the model that ships, fp16.

    Args:
        folder: Work folder of the recipe.
        target: Folder to write; an existing one is replaced when the new one is complete.
        details: What the card says besides the checksums: recipe, samples, compute, scores.
    """
    import torch
    from diffusers import StableDiffusionPipeline, UNet2DConditionModel
    from safetensors.torch import load_file, save_file
    from transformers import CLIPModel, CLIPTextModel

    from oneword.microworld.first import models

    part = target.with_name(target.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    pipeline = StableDiffusionPipeline(
        vae=load_vae(folder),
        text_encoder=CLIPTextModel.from_pretrained(folder / "text_encoder"),
        tokenizer=models.tokenizer(),
        unet=UNet2DConditionModel.from_pretrained(folder / "unet"),
        scheduler=models.scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.to(dtype=torch.float16)
    pipeline.save_pretrained(part / "pipeline", max_shard_size="14MB")
    CLIPModel.from_pretrained(folder / "judge").half().save_pretrained(part / "judge")
    models.tokenizer().save_pretrained(part / "judge")
    (part / "judge" / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": [0.5] * 3, "image_std": [0.5] * 3})  # pixels as they are
    )
    reader = load_file(folder / "reader" / "model.safetensors")
    save_file(
        {n: t.half() if t.is_floating_point() else t for n, t in reader.items()},
        part / "reader.safetensors",
    )
    seal(part, details)
    shutil.rmtree(target, ignore_errors=True)
    os.replace(part, target)
    return target


def seal(folder: Path, details: dict[str, Any]) -> None:
    """Write the card of a weights folder, with the checksum of every other file in it."""
    for path in folder.rglob("config.json"):  # diffusers notes where a part was loaded from
        settings = json.loads(path.read_text())
        if settings.pop("_name_or_path", None) is not None:
            path.write_text(json.dumps(settings, indent=2) + "\n")
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != CARD)
    sums = {
        p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files
    }
    (folder / CARD).write_text(json.dumps({**details, "sha256": sums}, indent=1) + "\n")


def load_vae(folder: Path) -> AutoencoderKL:
    """The autoencoder of a work folder."""
    import torch
    from diffusers import AutoencoderKL

    return AutoencoderKL.from_pretrained(folder / "vae", dtype=torch.float32)


def take(stage: str, folder: Path) -> bool:
    """Put the landed outcome of a stage into a work folder; whether there is one.

    Everything but the denoiser is taken as it is: another VAE would not fit the landed denoiser.
    """
    if not (WEIGHTS / CARD).exists():
        return False
    if stage == "reader":
        (folder / "reader").mkdir(exist_ok=True)
        shutil.copy(WEIGHTS / "reader.safetensors", folder / "reader" / "model.safetensors")
    elif stage in ("vae", "judge"):
        source = WEIGHTS / ("pipeline/vae" if stage == "vae" else "judge")
        shutil.copytree(source, folder / stage, dirs_exist_ok=True)
    return stage in ("vae", "clip", "judge", "reader")


def landed_denoiser(part: str) -> dict[str, torch.Tensor] | None:
    """Landed weights of "unet" or "text", from which training goes on."""
    place = {"unet": "pipeline/unet", "text": "pipeline/text_encoder"}[part]
    if not (WEIGHTS / place).exists():
        return None
    from safetensors.torch import load_file

    state: dict[str, torch.Tensor] = {}
    for path in sorted((WEIGHTS / place).glob("*.safetensors")):
        state |= load_file(path)
    return state


def load_reader(path: Path | None = None) -> Reader:
    """The classifier that reads attributes; the landed one unless a file is named."""
    from safetensors.torch import load_file

    from oneword.microworld.first.models import Reader

    reader = Reader()
    state = load_file(path or WEIGHTS / "reader.safetensors")
    reader.load_state_dict({n: t.float() if t.is_floating_point() else t for n, t in state.items()})
    return reader.eval().requires_grad_(False)
