"""The published VQGANs from their own files, in diffusers' ``VQModel``.

Esser, Rombach and Ommer 2020, arXiv:2012.09841; names of tensors and settings are those of their
code (CompVis/taming-transformers), whose files of ImageNet are ``vqgan_imagenet_f16_16384`` and
``vqgan_imagenet_f16_1024``. Sizes are read from the tensors; a ``model.yaml`` need not be there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from diffusers import VQModel
from torch import Tensor

from oneword._files import FormError, check, read_text
from oneword.errors import ModelError, reason_of
from oneword.models import single_file


CODEBOOK = "quantize.embedding.weight"
"""The rows that a latent's cells are taken from: (rows, dim)."""
TARGET = "taming.models.vqgan.VQModel"
"""What a ``model.yaml`` calls this layout."""
_OF_TRAINING = "loss."
"""Prefix of the tensors of the loss, which the files have in addition to the weights."""
_GROUPS = 32  # of every normalisation, which no size tells
_KINDS = {"resnets": "block", "attentions": "attn"}
_SCALERS = {"downsamplers": "downsample", "upsamplers": "upsample"}
_PARTS = {
    "conv_shortcut": "nin_shortcut", "group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v",
    "to_out.0": "proj_out",
}  # fmt: skip
_SHOWN = 3  # names in a message


def load(checkpoint: Path, config: Path | None = None) -> VQModel:
    """Read a VQGAN from a file of the authors' code: float32, frozen, on the CPU.

    Args:
        checkpoint: A ``.ckpt`` or ``.safetensors`` file.
        config: The ``model.yaml`` that belongs to it, with which its sizes are compared.

    Raises:
        ModelError: there is no such file, it is of another layout (its tensors are named), is not
            whole, or the configuration is of another model.
    """
    if not checkpoint.is_file() or checkpoint.suffix not in (".ckpt", ".safetensors"):
        raise ModelError(
            f"A VQGAN must be a .ckpt or .safetensors file of taming-transformers, got {checkpoint}"
            f"{'' if checkpoint.exists() else ', which does not exist'}."
        )
    try:
        model = model_of(single_file.read(checkpoint))
    except Exception as error:  # the reader raises many kinds
        raise ModelError(
            "A VQGAN must be a complete VQModel of taming-transformers (such as "
            f"vqgan_imagenet_f16_16384), got {checkpoint}: {reason_of(error)}"
        ) from error
    if config is not None:
        _compare(model, config)
    return model


def model_of(tensors: Mapping[str, Any]) -> VQModel:
    """The network of a file's tensors, every one of them in its place.

    Args:
        tensors: By the authors' names; those of the training loss are left out.

    Raises:
        ValueError: a tensor is missing, is one too many or has another size.
    """
    given = {
        name: tensor
        for name, tensor in tensors.items()
        if isinstance(tensor, Tensor) and not name.startswith(_OF_TRAINING)
    }
    sizes = {name: tuple(value.shape) for name, value in given.items()}
    try:
        with torch.device("meta"):
            model: Any = VQModel(**_settings(sizes))
    except KeyError as error:
        raise ValueError(
            f"it lacks the tensor {error.args[0]}, and contains {_some(sizes)}"
        ) from error
    ours = model.state_dict()
    levels = len(model.config.block_out_channels)
    names = {name: taming_name(name, levels) for name in ours}
    lacking, strange = {*names.values()} - given.keys(), given.keys() - {*names.values()}
    if lacking or strange:
        told = [f"it lacks the tensors {_some(lacking)}"] if lacking else []
        told += [f"it contains tensors of something else, {_some(strange)}"] if strange else []
        raise ValueError(" and ".join(told))
    single_file.fill(model, {n: _shaped(given[names[n]], ours[n]) for n in ours})
    return model.float().eval().requires_grad_(False)


def taming_name(name: str, levels: int) -> str:
    """Name in the authors' files of a tensor of diffusers' ``VQModel``.

    Args:
        name: In ``VQModel.state_dict()``.
        levels: Sizes that a picture has inside, from its own down to that of the latents.
    """
    found = re.match(r"(encoder\.down|decoder\.up)_blocks\.(\d+)\.(\w+)\.(\d+)\.(.+)", name)
    if found is not None:
        side, place, kind, number, rest = found.groups()
        # the decoder's levels are counted from the picture, too
        level = int(place) if side == "encoder.down" else levels - 1 - int(place)
        part = f"{_KINDS[kind]}.{number}" if kind in _KINDS else _SCALERS[kind]
        return f"{side}.{level}.{part}.{_inside(rest)}"
    found = re.match(r"(encoder|decoder)\.mid_block\.(\w+)\.(\d+)\.(.+)", name)
    if found is not None:
        side, kind, number, rest = found.groups()
        return f"{side}.mid.{_KINDS[kind]}_{int(number) + 1}.{_inside(rest)}"
    return name.replace("conv_norm_out", "norm_out")


def _inside(rest: str) -> str:
    part, _, end = rest.rpartition(".")
    return f"{_PARTS.get(part, part)}.{end}"


def _shaped(tensor: Tensor, like: Tensor) -> Tensor:
    """Attention's 1 x 1 convolutions are matrices in diffusers."""
    is_kernel = like.ndim == 2 and tensor.shape == (*like.shape, 1, 1)
    return tensor[:, :, 0, 0] if is_kernel else tensor


def _some(names: Any) -> str:
    shown = sorted(names)
    more = f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
    return (", ".join(shown[:_SHOWN]) or "none") + more


def _settings(sizes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Settings of diffusers' class; a name that is not there is a ``KeyError``."""
    rows, width = sizes[CODEBOOK]
    block = "encoder.down.{}.block.{}.conv1.weight"
    levels = [i for i in range(16) if block.format(i, 0) in sizes] or [0]
    layers = [j for j in range(16) if block.format(0, j) in sizes]
    attends = [f"encoder.down.{i}.attn.0.norm.weight" in sizes for i in levels]
    down = ["AttnDownEncoderBlock2D" if yes else "DownEncoderBlock2D" for yes in attends]
    up = ["AttnUpDecoderBlock2D" if yes else "UpDecoderBlock2D" for yes in reversed(attends)]
    return {
        "in_channels": sizes["encoder.conv_in.weight"][1],
        "out_channels": sizes["decoder.conv_out.weight"][0],
        "down_block_types": down,
        "up_block_types": up,
        "block_out_channels": [sizes[block.format(i, 0)][0] for i in levels],
        "layers_per_block": len(layers),
        "latent_channels": sizes["encoder.conv_out.weight"][0],
        "num_vq_embeddings": rows,
        "vq_embed_dim": width,
        "norm_num_groups": _GROUPS,
    }


_CONFIG = {
    "model": {
        "target": str,
        "params": {
            "embed_dim": int,
            "n_embed": int,
            "ddconfig": {
                "ch": int, "ch_mult": [int], "num_res_blocks": int, "z_channels": int,
                "attn_resolutions": [int], "resolution": int, "in_channels?": int, "out_ch?": int,
                "double_z?": bool,
            },
        },
    }
}  # fmt: skip


def _compare(model: Any, path: Path) -> None:
    """Refuse a configuration that is not the model's.

    Raises:
        ModelError: it is so, or it cannot be read.
    """
    must = "A VQGAN's configuration must be the model.yaml of taming-transformers that came with it"
    text = read_text(path, must=must, error=ModelError)
    try:
        found = check(yaml.safe_load(text), _CONFIG)
    except (yaml.YAMLError, FormError, RecursionError) as error:
        raise ModelError(f"{must}, got {path} ({reason_of(error)}).") from error
    target, given = found["model"]["target"], found["model"]["params"]
    if target != TARGET:
        raise ModelError(f"{must}, of {TARGET}, got {target} in {path}.")
    inner, own = given["ddconfig"], model.config
    sides = [inner["resolution"] // 2**i for i in range(len(inner["ch_mult"]))]
    attends = ["Attn" in name for name in own.down_block_types]
    pairs = {
        "n_embed": (given["n_embed"], own.num_vq_embeddings),
        "embed_dim": (given["embed_dim"], own.vq_embed_dim),
        "z_channels": (inner["z_channels"], own.latent_channels),
        "ch times ch_mult": (
            [inner["ch"] * factor for factor in inner["ch_mult"]],
            [*own.block_out_channels],
        ),
        "num_res_blocks": (inner["num_res_blocks"], own.layers_per_block),
        "attn_resolutions": (
            [side for side in sides if side in inner["attn_resolutions"]],
            [side for side, yes in zip(sides, attends, strict=False) if yes],
        ),
        "in_channels": (inner.get("in_channels", 3), own.in_channels),
        "out_ch": (inner.get("out_ch", 3), own.out_channels),
        "double_z": (inner.get("double_z", False), False),
    }
    for name, (said, read) in pairs.items():
        if said != read:
            raise ModelError(
                f"{must}, got {name} {said} in {path} and {read} in the checkpoint; pass the one "
                "that came with it, or leave out --checkpoint-config."
            )
