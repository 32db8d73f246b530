"""The changes of a denoiser's weights that a setup learns."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from oneword.concepts import deltas
from oneword.config.inversion import ResolvedConfig
from oneword.models.contract import Backbone
from oneword.training.draws import generator
from oneword.training.job import JobError


_LORA_STREAM = 100  # of draws.generator: the first half of a LoRA


_ATTENTION = ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj",
              "to_add_out")  # fmt: skip


_TEXT_KEYS = ("attn2.to_k", "attn2.to_v", "add_k_proj", "add_v_proj")


def changes_of(backbone: Backbone, config: ResolvedConfig) -> dict[str, Tensor]:
    """The changes of the denoiser's weights that a setup learns, at first without effect.

    Raises:
        JobError: the denoiser has no such weights.
    """
    check_weights(backbone, config)
    tuning = config.resolved_tuning
    part, denoiser = denoiser_of(backbone)
    if tuning.tuned_weights == "lora":
        return _low_rank(denoiser, part, tuning.rank, config.seed)
    return {
        key: torch.zeros_like(parameter, dtype=torch.float32)
        for key, parameter in _tuned(denoiser, part, config)
    }


def check_weights(backbone: Backbone, config: ResolvedConfig) -> None:
    """Refuse a setup whose weights the denoiser does not have.

    Raises:
        JobError: the denoiser does not have such weights.
    """
    part, denoiser = denoiser_of(backbone)
    weights = config.resolved_tuning.tuned_weights
    those = _attention(denoiser) if weights == "lora" else _tuned(denoiser, part, config)
    if next(those, None) is None:
        raise JobError(
            f"The denoiser of {backbone.name} must have weights to train as {weights!r}, got "
            "none; choose other --tuned-weights."
        )


def _tuned(
    denoiser: nn.Module, part: str, config: ResolvedConfig
) -> Iterator[tuple[str, nn.Parameter]]:
    """Weights that are changed in full, by the name of their change."""
    every = config.resolved_tuning.tuned_weights == "full"
    for name, parameter in denoiser.named_parameters():
        key = deltas.name_of_change(part, name)
        wanted = every or name.rpartition(".")[0].endswith(_TEXT_KEYS)
        if key is not None and wanted and parameter.is_floating_point():
            yield key, parameter


def _attention(denoiser: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    """Attention layers that a LoRA changes."""
    for name, layer in denoiser.named_modules():
        if name.endswith(_ATTENTION) and isinstance(layer, nn.Linear):
            yield name, layer


def denoiser_of(backbone: Backbone) -> tuple[str, nn.Module]:
    """The pipeline's name of the denoiser, and the denoiser."""
    part = "unet" if "unet" in backbone.pipeline.components else "transformer"
    return part, backbone.pipeline.components[part]


def _low_rank(denoiser: nn.Module, part: str, rank: int, seed: int) -> dict[str, Tensor]:
    """A LoRA of every attention layer; its first half is random, its second half zero.

    Source:
        Hu et al. 2021, arXiv:2106.09685, section 4.1; the spread of the first half is that of peft.
    """
    found: dict[str, Tensor] = {}
    g = generator(seed, _LORA_STREAM)
    for name, layer in _attention(denoiser):
        bound = 1 / math.sqrt(layer.in_features)
        first = (2 * torch.rand(rank, layer.in_features, generator=g) - 1) * bound
        device = layer.weight.device
        found[f"{part}.{name}{deltas.LORA_A}"] = first.to(device)
        found[f"{part}.{name}{deltas.LORA_B}"] = torch.zeros(
            layer.out_features, rank, device=device
        )
    return found


def compact(changes: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Changes in the form for a file: full ones in half precision, without those that are zero.

    A change is about a hundredth or thousandth of its weight, so three digits of it are five or six
    digits of the weight.
    """
    kept = {}
    for name, change in changes.items():
        stem = name.removesuffix(deltas.LORA_A).removesuffix(deltas.LORA_B)
        moved = changes[stem + deltas.LORA_B] if deltas.is_lora(name) else change
        if moved.any():
            kept[name] = change.float() if deltas.is_lora(name) else _halved(change)
    return kept


def _halved(change: Tensor) -> Tensor:
    """Half precision, or bfloat16 for numbers so small that this loses less."""
    forms = (change.half(), change.bfloat16())
    return min(forms, key=lambda form: float((form.float() - change).norm()))
