"""A base model behind the contract, found by its folder, its file or its name on the hub."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oneword.config.model import EMBEDDED, ModelConfig
from oneword.errors import ModelError, reason_of
from oneword.models.contract import Backbone
from oneword.models.memory import count, plan as memory
from oneword.models.speed.streaming import returning_memory


if TYPE_CHECKING:
    from oneword.models.memory.count import Work


FAMILIES = {
    "StableDiffusionPipeline": "stable_diffusion",
    "LDMTextToImagePipeline": "ldm",
    "StableDiffusionXLPipeline": "sdxl",
    "StableDiffusion3Pipeline": "sd3",
    "PixArtAlphaPipeline": "pixart",
    "PixArtSigmaPipeline": "pixart",
    "SanaPipeline": "sana",
    "SanaSprintPipeline": "sana_sprint",
    "Lumina2Pipeline": "lumina2",
    "ChromaPipeline": "chroma",
    "FluxPipeline": "flux",
    # more T5, Gemma and GLM
    "LuminaPipeline": "lumina",
    "BriaPipeline": "bria",
    "HunyuanDiTPipeline": "hunyuan_dit",
    "CogView3PlusPipeline": "cogview3",
    "AuraFlowPipeline": "auraflow",
    "CogView4Pipeline": "cogview4",
    "Cosmos2TextToImagePipeline": "cosmos2",
    "KolorsPipeline": "kolors",
    "IFPipeline": "deepfloyd_if",
    "PRXPipeline": "prx",
    "PRXPixelPipeline": "prx",
    "HiDreamImagePipeline": "hidream",
    "Kandinsky3Pipeline": "kandinsky3",
    "BriaFibo2Pipeline": "bria_fibo2",
    "Kandinsky5T2IPipeline": "kandinsky5",
    "NucleusMoEImagePipeline": "nucleus_moe",
    "DreamLitePipeline": "dreamlite",
    "DreamLiteMobilePipeline": "dreamlite",
    "ErnieImagePipeline": "ernie_image",
    "Ideogram4Pipeline": "ideogram4",
    "LongCatImagePipeline": "longcat_image",
    "Krea2Pipeline": "krea2",
    "QwenImage21Pipeline": "qwen_image21",
    "OvisImagePipeline": "ovis_image",
    "QwenImagePipeline": "qwen_image",
    "HunyuanImagePipeline": "hunyuan_image",
    "ZImagePipeline": "z_image",
    "ZImageOmniPipeline": "z_image",
    "Flux2KleinPipeline": "flux2",
    "Flux2KleinKVPipeline": "flux2",
    "Flux2Pipeline": "flux2",
}
"""Module of this folder by the pipeline class that a model's ``model_index.json`` names."""


_SINGLE_FILES = {"v1": "stable_diffusion", "v2": "stable_diffusion", "sd3": "sd3"}


_SINGLE_FILES |= {"sd35": "sd3", "xl_base": "sdxl", "flux-dev": "flux", "flux-schnell": "flux"}
"""The same by the beginning of diffusers' name of a single file's layout."""


def load_backbone(config: ModelConfig, work: Work | None = None) -> Backbone:
    """Load a base model behind the contract, in the way that ``config.memory`` picks.

    Args:
        config: Which model, and how.
        work: What it will be asked for, by which the way is picked; ``None``: training on four
            samples a step.

    Raises:
        ModelError: no pipeline is there, a file is missing, the family is not supported, or what
            was asked for cannot be done on this machine.
    """
    module = importlib.import_module(f"oneword.models.families.{_family(config)}")
    plan = memory.plan(module.load, config, work or count.Work())
    with returning_memory():
        backbone = module.load(config if plan is None else plan.config)
    if plan is not None:
        backbone.memory = str(plan)
    return backbone


def _family(config: ModelConfig) -> str:
    """Module of the family, from the pipeline's own index or the file's tensors."""
    if config.model in EMBEDDED:
        return "stable_diffusion"
    path = Path(config.model)
    if path.is_file():
        return _family_of_file(path)
    if path.exists():
        return _family_of_folder(path)
    if config.model.startswith((".", "/", "~")) or config.model.count("/") > 1:
        raise ModelError(
            f"The model must be a hub id, a pipeline folder or a checkpoint file, got the path "
            f"{config.model}, which does not exist."
        )
    from diffusers import DiffusionPipeline

    try:
        found: Any = DiffusionPipeline.load_config(config.model, revision=config.revision)
    except Exception as error:
        # no network, no such model, no right to it
        raise ModelError(
            f"The model {config.model} must be a whole pipeline on the hub or on this machine, "
            f"got: {reason_of(error)}"
        ) from error
    return _known(found.get("_class_name"), config.model)


def _known(name: object, where: object) -> str:
    if name not in FAMILIES:
        raise ModelError(
            f"The model must be of a supported family ({', '.join(FAMILIES)}), got {name} in "
            f"{where}."
        )
    return FAMILIES[str(name)]


def _family_of_file(path: Path) -> str:
    if path.suffix not in (".safetensors", ".ckpt"):
        raise ModelError(
            f"A single-file model must be a .safetensors or .ckpt checkpoint, got {path}."
        )
    from diffusers.loaders import single_file_utils

    try:
        checkpoint = single_file_utils.load_single_file_checkpoint(str(path))
        layout = single_file_utils.infer_diffusers_model_type(checkpoint)
    except Exception as error:
        raise ModelError(f"{path} must be a whole checkpoint, got: {reason_of(error)}") from error
    for start, family in _SINGLE_FILES.items():
        if layout.startswith(start):
            return family
    raise ModelError(f"A single-file model must be of a supported family, got {layout} in {path}.")


def _family_of_folder(path: Path) -> str:
    index = path / "model_index.json"
    if not index.is_file():
        raise ModelError(
            f"A model folder must be a diffusers pipeline with a model_index.json, got {path} "
            "without one."
        )
    try:
        entries = json.loads(index.read_text())
        found = entries["_class_name"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{index} must name its pipeline class, got {error!r}.") from error
    family = _known(found, path)
    # a part is a library and a class; other lists are settings
    parts = [
        name
        for name, kind in entries.items()
        if isinstance(kind, list) and len(kind) == 2 and all(isinstance(x, str) for x in kind)
    ]
    missing = [name for name in parts if not (path / name).is_dir()]
    if missing:
        raise ModelError(
            f"A model folder must hold every part that its model_index.json names, got no "
            f"{', no '.join(missing)} in {path}."
        )
    return family
