"""A pipeline's weights under the names that single-file checkpoints of Stable Diffusion 1.x use."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion import LDMBertModel
from safetensors.torch import save_file
from torch import Tensor


RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "norm2": "out_layers.0",
    "conv2": "out_layers.3", "time_emb_proj": "emb_layers.1", "conv_shortcut": "skip_connection",
}  # fmt: skip
TOP = {
    "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2",
}  # fmt: skip
ATTENTION = {
    "group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out",
}  # fmt: skip


def _renamed(text: str, names: dict[str, str]) -> str:
    for ours, theirs in names.items():
        if text.startswith(ours + "."):
            return theirs + text[len(ours) :]
    return text


def _unet(name: str, per_block: int, keys: set[str]) -> str:
    found = re.match(r"(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)\.(.*)", name)
    if found:
        way, block, kind, layer, rest = found.groups()
        first = int(block) * (per_block + 1)
        if kind == "downsamplers":
            return f"input_blocks.{first + per_block + 1}.0.{rest.replace('conv', 'op')}"
        if kind == "upsamplers":
            attends = any(k.startswith(f"up_blocks.{block}.attentions") for k in keys)
            return f"output_blocks.{first + per_block}.{1 + attends}.{rest}"
        place = f"input_blocks.{first + int(layer) + 1}"
        if way == "up":
            place = f"output_blocks.{first + int(layer)}"
        return f"{place}.0.{_renamed(rest, RESNET)}" if kind == "resnets" else f"{place}.1.{rest}"
    found = re.match(r"mid_block\.(\w+)\.(\d+)\.(.*)", name)
    if found:
        kind, layer, rest = found.groups()
        if kind == "attentions":
            return f"middle_block.1.{rest}"
        return f"middle_block.{2 * int(layer)}.{_renamed(rest, RESNET)}"
    return _renamed(name, TOP)


def _vae(name: str, blocks: int) -> str:
    name = name.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")
    name = re.sub(r"down_blocks\.(\d+)\.resnets", r"down.\1.block", name)
    name = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample", name)
    for i in range(blocks):
        name = name.replace(f"up_blocks.{i}.resnets", f"up.{blocks - 1 - i}.block")
        name = name.replace(f"up_blocks.{i}.upsamplers.0", f"up.{blocks - 1 - i}.upsample")
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
    if "mid_block.attentions.0." in name:
        head, rest = name.split("mid_block.attentions.0.")
        name = f"{head}mid.attn_1.{_renamed(rest, ATTENTION)}"
    return name


def names(unet: UNet2DConditionModel, vae: AutoencoderKL) -> dict[str, Tensor]:
    """The tensors of UNet and VAE under their names in a checkpoint."""
    state = unet.state_dict()
    per_block = unet.config.layers_per_block
    tensors: dict[str, Tensor] = {
        "model.diffusion_model." + _unet(name, per_block, set(state)): value
        for name, value in state.items()
    }
    blocks = len(vae.config.block_out_channels)
    for name, value in vae.state_dict().items():
        key = "first_stage_model." + _vae(name, blocks)
        tensors[key] = value[:, :, None, None] if "attn_1" in key and value.ndim == 2 else value
    return tensors


BERT = {
    "self_attn_layer_norm": (0, "0"), "self_attn.q_proj": (0, "1.to_q"),
    "self_attn.k_proj": (0, "1.to_k"), "self_attn.v_proj": (0, "1.to_v"),
    "self_attn.out_proj": (0, "1.to_out"), "final_layer_norm": (1, "0"),
    "fc1": (1, "1.net.0.0"), "fc2": (1, "1.net.2"),
}  # fmt: skip
"""By its own name in a layer: which half of the published pair it is in, and where."""


def bert_names(bert: LDMBertModel) -> dict[str, Tensor]:
    """The tensors of LDM's BERT under the names of its authors' transformer."""
    tensors: dict[str, Tensor] = {}
    for name, value in bert.state_dict().items():
        found = re.match(r"model\.layers\.(\d+)\.(.*)\.(weight|bias)", name)
        if found:
            half, place = BERT[found[2]]
            own = f"attn_layers.layers.{2 * int(found[1]) + half}.{place}.{found[3]}"
        else:
            own = name.replace("model.embed_tokens", "token_emb").replace(
                "model.layer_norm", "norm"
            )
            own = own.replace("model.embed_positions", "pos_emb.emb")
        tensors[f"cond_stage_model.transformer.{own}"] = value
    return tensors


def save(pipeline: StableDiffusionPipeline, path: Path) -> Path:
    """Write the checkpoint."""
    tensors = names(pipeline.unet, pipeline.vae)
    for name, value in pipeline.text_encoder.state_dict().items():
        tensors["cond_stage_model.transformer.text_model." + name] = value
    save_file({name: value.contiguous() for name, value in tensors.items()}, path)
    return path


def save_as_lightning(value: dict[str, Any], path: Path) -> None:
    """Write a checkpoint as Lightning 1 does: a class of its own names what a callback keeps."""
    names = ["pytorch_lightning", "pytorch_lightning.callbacks"]
    names.append(f"{names[-1]}.model_checkpoint")
    modules = {name: types.ModuleType(name) for name in names}
    kind = type("ModelCheckpoint", (), {"__module__": names[-1]})
    vars(modules[names[-1]])["ModelCheckpoint"] = kind
    with mock.patch.dict(sys.modules, modules):
        torch.save(value | {"callbacks": {kind: {"best_model_path": "epoch=3.ckpt"}}}, path)
