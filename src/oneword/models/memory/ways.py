"""Packed weights, layers that visit the device, and layers that are computed again."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from diffusers.models.embeddings import HunyuanDiTAttentionPool
from torch import nn
from torch.utils.checkpoint import checkpoint


_LEAST = 1024  # entries of a weight that is worth packing or moving


def units_of(module: nn.Module, *, innermost: bool = True) -> list[nn.Module]:
    """The modules that checkpointing keeps the inputs of: members of lists of layers."""
    lists = [m for m in module.modules() if isinstance(m, nn.ModuleList)]
    members = [unit for layers in lists for unit in layers]
    if innermost:
        return [
            unit for unit in members
            if not any(isinstance(m, nn.ModuleList) for m in unit.modules())
            and any(True for _ in unit.parameters())
        ]  # fmt: skip
    inner = {id(m) for unit in members for m in unit.modules() if m is not unit}
    return [unit for unit in members if id(unit) not in inner]


def layers_of(module: nn.Module, *, linear: bool = False) -> list[Any]:
    """Linear and convolution layers with weights of their own and of some size.

    A model's first parameter stays as it is, since it says where the model lies and of which type
    it is. So does what a model names as too delicate for a narrow type, and a layer that is never
    run, since the module around it takes its weight.
    """
    first = next(module.parameters(), None)
    tables = {id(m.weight) for m in module.modules() if isinstance(m, nn.Embedding)}
    pools = (m for m in module.modules() if isinstance(m, HunyuanDiTAttentionPool))
    unrun = {id(layer) for pool in pools for layer in pool.children()}
    delicate = set(getattr(module, "_keep_in_fp32_modules", None) or ()) if linear else set()
    kinds = (nn.Linear,) if linear else (nn.Linear, nn.Conv2d)
    return [
        layer
        for name, layer in module.named_modules()
        if isinstance(layer, kinds)
        and type(layer) in kinds
        and layer.weight is not first
        and layer.weight.numel() >= _LEAST
        and id(layer.weight) not in tables
        and id(layer) not in unrun
        and not delicate & set(name.split("."))
    ]


def pack_weights(module: nn.Module, bits: str, dtype: torch.dtype) -> None:
    """Put bitsandbytes' layers in place of linear ones; they pack when they reach their device.

    Source:
        Dettmers et al. 2022, arXiv:2208.07339 (8 bit); 2023, arXiv:2305.14314 (nf4).
    """
    import bitsandbytes

    bnb: Any = bitsandbytes.nn  # its annotations know neither its options nor a missing bias
    chosen = {id(layer) for layer in layers_of(module, linear=True)}
    for name, layer in list(module.named_modules()):
        if id(layer) not in chosen:
            continue
        assert isinstance(layer, nn.Linear)
        size, bias = (layer.in_features, layer.out_features), layer.bias is not None
        weight = layer.weight.data
        if bits == "4bit":
            packed = bnb.Linear4bit(*size, bias=False, compute_dtype=dtype, quant_type="nf4")
            packed.weight = bnb.Params4bit(weight, requires_grad=False, quant_type="nf4")
        else:
            packed = bnb.Linear8bitLt(*size, bias=False, has_fp16_weights=False)
            packed.weight = bnb.Int8Params(weight, requires_grad=False, has_fp16_weights=False)
        packed.bias = nn.Parameter(layer.bias.data, requires_grad=False) if bias else None
        module.set_submodule(name, packed)


def let_layers_visit(module: nn.Module, device: torch.device) -> None:
    """Keep the layers' weights on the CPU; each comes to the device for as long as it runs."""
    from accelerate import cpu_offload

    for layer in layers_of(module):
        cpu_offload(layer, device)
    module._apply(lambda tensor: tensor if tensor.is_meta else tensor.to(device))


def recompute_layers(encoder: nn.Module) -> None:
    """Let a text encoder keep the inputs of its layers alone for the backward pass.

    As transformers' own checkpointing, which works in training mode only, where dropout would act.
    """
    for layer in units_of(encoder, innermost=False):
        layer.forward = partial(_recomputed, layer.forward)


def _recomputed(forward: Any, *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    for name in ("past_key_values", "layer_past"):  # a second run would add to it again
        if kwargs.get(name) is not None:
            kwargs[name] = None
    return checkpoint(forward, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)
