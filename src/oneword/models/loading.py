"""Loads a base model behind the contract, from a folder, a file or the hub."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oneword import catalog
from oneword._files import read_json
from oneword.catalog import Family
from oneword.config.model import AUTO, ModelConfig, is_embedded
from oneword.errors import ModelError, reason_of
from oneword.models import ldm_checkpoint, single_file
from oneword.models.contract import Backbone
from oneword.models.memory import count, plan as memory
from oneword.models.memory.shapes import shapes_alone
from oneword.models.speed.streaming import returning_memory


if TYPE_CHECKING:
    from oneword.models.memory.count import Work


def load_backbone(config: ModelConfig, work: Work | None = None) -> Backbone:
    """Load a base model behind the contract, with the memory settings of ``config.memory``.

    Args:
        config: The model and how to load it.
        work: What it will be used for, which decides how memory is saved; ``None``: training with
            four samples per step.

    Raises:
        ModelError: there is no pipeline, a file is missing, the family is not supported, or this
            machine cannot do what is requested.
    """
    module = family_of(config).imported()
    plan = memory.plan(module.load, config, work or count.Work())
    with returning_memory():
        backbone = module.load(config if plan is None else plan.config)
    if plan is not None:
        backbone.memory = str(plan)
    backbone.micro_batch_size = (config if plan is None else plan.config).micro_batch_size
    return backbone


def needed_memory(config: ModelConfig, work: Work) -> memory.Plan:
    """The memory that a model is expected to need with these settings; its weights are not read.

    Args:
        config: The model and how to load it.
        work: What it will be used for.

    Raises:
        ModelError: as for ``load_backbone``.
    """
    return memory.unchanged(family_of(config).imported().load, config, work)


def load_shapes(config: ModelConfig) -> Backbone:
    """A base model's settings and shapes, without its weights if its files allow that.

    Raises:
        ModelError: as for ``load_backbone``.
    """
    if not Path(config.model).is_file():
        module = family_of(config).imported()
        # whatever is wrong is said when the model is loaded in earnest
        with contextlib.suppress(Exception), shapes_alone():
            return module.load(config)
    return load_backbone(config)


def family_of(config: ModelConfig) -> Family:
    """The record of a model's family, from the pipeline's own index or the file's tensors.

    Its weights are not read.

    Raises:
        ModelError: there is no such model, or its family is not supported.
    """
    if config.model == AUTO:
        raise ModelError(
            f"Cannot tell the model with --model {AUTO} because no word's file names it; pass "
            "another --model."
        )
    if is_embedded(config.model):
        return catalog.FAMILIES["microworld"]
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
            f"The model {config.model} must be a complete pipeline on the Hub or on this machine, "
            f"got: {reason_of(error)}"
        ) from error
    return _known(found.get("_class_name"), config.model)


def _known(name: object, where: object) -> Family:
    family = catalog.of_pipeline(name)
    if family is None:
        known = [name for family in catalog.FAMILIES.values() for name in family.pipelines]
        raise ModelError(
            f"The model must be of a supported family ({', '.join(known)}), got {name} in {where}."
        )
    return family


def _family_of_file(path: Path) -> Family:
    if path.suffix not in (".safetensors", ".ckpt"):
        raise ModelError(
            f"A single-file model must be a .safetensors or .ckpt checkpoint, got {path}."
        )
    from diffusers.loaders import single_file_utils

    try:
        checkpoint = single_file.read(path)
        # the one layout that diffusers does not know
        is_ldm = ldm_checkpoint.TOLD_BY in checkpoint
        layout = "ldm" if is_ldm else single_file_utils.infer_diffusers_model_type(checkpoint)
    except Exception as error:
        raise ModelError(
            f"{path} must be a complete checkpoint, got: {reason_of(error)}"
        ) from error
    family = catalog.of_single_file(layout)
    if family is None:
        raise ModelError(
            f"A single-file model must be of a supported family, got {layout} in {path}."
        )
    return family


def _family_of_folder(path: Path) -> Family:
    index = path / "model_index.json"
    if not index.is_file():
        raise ModelError(
            f"A model folder must be a diffusers pipeline with a model_index.json, got {path} "
            "without one."
        )
    must = f"{index} must name its pipeline class"
    entries = read_json(index, {"_class_name": str}, must=must, error=ModelError)
    found = entries["_class_name"]
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
            "A model folder must contain every part in its model_index.json, got no "
            f"{', no '.join(missing)} in {path}."
        )
    return family
