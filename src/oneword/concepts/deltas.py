"""Changes to a model's weights that belong to a word: applied for a while, then undone to the bit.

They have the names that other tools use in files: ``unet.<module>.lora_A.weight`` (rank, in) and
``lora_B`` (out, rank) for a low-rank change, as diffusers and peft write it; ``unet.<module>.diff``
and ``.diff_b`` for the full change of a weight and of a bias, as ComfyUI reads it. The first part
of a name is the pipeline's own name for the model that changes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from oneword.errors import UserError


LORA_A, LORA_B = ".lora_A.weight", ".lora_B.weight"
WEIGHT, BIAS = ".diff", ".diff_b"
_ADAPTER = "oneword"


class DeltaError(UserError):
    """Changes to weights are incomplete, or do not fit the model."""


def is_lora(name: str) -> bool:
    """Whether a change is one of the two factors of a low-rank change."""
    return name.endswith((LORA_A, LORA_B))


def check(changes: Mapping[str, Tensor], owner: str) -> None:
    """Refuse changes that are not finite or not complete.

    Args:
        changes: By name.
        owner: Name in messages of what they belong to.

    Raises:
        DeltaError: as described above.
    """
    for name, change in changes.items():
        if "." not in name or not (is_lora(name) or name.endswith((WEIGHT, BIAS))):
            raise DeltaError(
                f"A weight delta of {owner} must be named <model>.<module>{LORA_A}, {LORA_B}, "
                f"{WEIGHT} or {BIAS}, got {name!r}."
            )
        if not change.is_floating_point() or not bool(torch.isfinite(change).all()):
            raise DeltaError(
                f"The weight deltas of {owner} must be finite floats, got other values in "
                f"{name!r}; the file is damaged or its training diverged."
            )
        if is_lora(name):
            _check_pair(changes, name, owner)


def _check_pair(changes: Mapping[str, Tensor], name: str, owner: str) -> None:
    stem = name.removesuffix(LORA_A).removesuffix(LORA_B)
    down, up = changes.get(stem + LORA_A), changes.get(stem + LORA_B)
    pair = [one for one in (down, up) if one is not None and one.ndim == 2]
    if len(pair) != 2 or len(pair[0]) != pair[1].shape[1]:
        shapes = [None if one is None else tuple(one.shape) for one in (down, up)]
        raise DeltaError(
            f"A LoRA of {owner} must have a matrix (rank, in) and a matrix (out, rank) for "
            f"{stem!r}, got {shapes[0]} and {shapes[1]}."
        )


@dataclass(slots=True)
class Applied:
    """Changes that are applied to a model."""

    leaves: dict[str, Tensor] = field(default_factory=dict)
    """Tensors that the model computes with, by the name of the change: for a LoRA the change
    itself, otherwise the changed weight, which has the same gradient as the change."""
    _whole: list[tuple[nn.Parameter, Tensor, list[Tensor]]] = field(default_factory=list)

    @torch.no_grad()
    def refresh(self) -> None:
        """Update the model's weights after the changes have been modified."""
        for live, original, changes in self._whole:
            total = sum((change.to(live.device, torch.float32) for change in changes), 0.0)
            live.copy_(original.float() + total)


@contextmanager
def applied(
    pipeline: Any, many: Sequence[Mapping[str, Tensor]], *, trainable: bool = False
) -> Iterator[Applied]:
    """Run a pipeline's models with changed weights inside the context.

    Several sets of changes add up. On exit, also after an exception, every module and every
    parameter is the old object with the old bits.

    Args:
        pipeline: A diffusers pipeline.
        many: Sets of changes, each valid for :func:`check`.
        trainable: Let gradients reach ``Applied.leaves``.

    Raises:
        DeltaError: a change is for another model, or for one whose weights are packed or offloaded.

    Source:
        LoRA: Hu et al. 2021, arXiv:2106.09685, equation 3, with a scale of 1.
    """
    found = Applied()
    together: dict[str, list[Tensor]] = {}
    for changes in many:
        for name, change in changes.items():
            together.setdefault(name, []).append(change)
    for part in dict.fromkeys(name.partition(".")[0] for name in together):
        check_whole(_component(pipeline, part))
    with ExitStack() as undo:
        for name, changes in together.items():
            if not is_lora(name):
                _change(pipeline, name, changes, found, undo, trainable=trainable)
        found.refresh()
        lora = {name: changes for name, changes in together.items() if is_lora(name)}
        for part in dict.fromkeys(name.partition(".")[0] for name in lora):
            own = {n.partition(".")[2]: c for n, c in lora.items() if n.startswith(f"{part}.")}
            layers = _adapt(_component(pipeline, part), own, undo, trainable=trainable)
            found.leaves |= {f"{part}.{name}": leaf for name, leaf in layers.items()}
        yield found


def _component(pipeline: Any, part: str) -> nn.Module:
    module = pipeline.components.get(part)
    if not isinstance(module, nn.Module):
        models = [n for n, one in pipeline.components.items() if isinstance(one, nn.Module)]
        raise DeltaError(
            f"Weight deltas must be for a model of this pipeline ({', '.join(models)}), got some "
            f"for {part!r}; use the base model that they were learned on."
        )
    return module


def check_whole(model: nn.Module) -> None:
    """Refuse a model whose weights are packed, or kept elsewhere until they are used.

    Raises:
        DeltaError: as described above.
    """
    if any(p.is_meta or not p.is_floating_point() for p in model.parameters()):
        raise DeltaError(
            f"Cannot change the weights of a {type(model).__name__} because they are quantised or "
            "offloaded layer by layer; pass --weights full --offload vae."
        )


def _owner(module: nn.Module, path: str, name: str) -> nn.Module:
    try:
        return module.get_submodule(path)
    except AttributeError as error:
        raise DeltaError(
            f"Weight deltas must be for modules of this model, got {name!r}, which it does not "
            "have; use the base model that they were learned on."
        ) from error


def _fitting(shape: Sequence[int], wanted: Sequence[int], name: str) -> None:
    if tuple(shape) != tuple(wanted):
        raise DeltaError(
            f"Weight deltas must have the shapes of this model, got {tuple(shape)} for {name!r}, "
            f"which is {tuple(wanted)} here; use the base model that they were learned on."
        )


def _change(
    pipeline: Any,
    name: str,
    changes: list[Tensor],
    found: Applied,
    undo: ExitStack,
    *,
    trainable: bool,
) -> None:
    """Replace a parameter with a changed copy."""
    part, _, path = name.partition(".")
    path, attribute = _parameter(path)
    owner = _owner(_component(pipeline, part), path, name)
    original = owner._parameters.get(attribute)
    if original is None:
        raise DeltaError(
            f"Weight deltas must be for parameters of this model, got {name!r}, which it does not "
            "have; use the base model that they were learned on."
        )
    for change in changes:
        _fitting(change.shape, original.shape, name)
    live = nn.Parameter(original.detach().clone(), requires_grad=trainable)
    setattr(owner, attribute, live)
    undo.callback(setattr, owner, attribute, original)
    found.leaves[name] = live
    found._whole.append((live, original.detach(), changes))


def _parameter(path: str) -> tuple[str, str]:
    """Module and attribute that a full change is for."""
    if path.endswith(BIAS):
        return path.removesuffix(BIAS), "bias"
    return path.removesuffix(WEIGHT), "weight"


def name_of_change(part: str, parameter: str) -> str | None:
    """Name of the full change of a model's parameter; ``None`` if files have no name for it."""
    path, _, attribute = parameter.rpartition(".")
    ending = {"weight": WEIGHT, "bias": BIAS}.get(attribute)
    return None if ending is None or not path else f"{part}.{path}{ending}"


def _adapt(
    model: nn.Module, lora: Mapping[str, list[Tensor]], undo: ExitStack, *, trainable: bool
) -> dict[str, Tensor]:
    """Wrap a model's linear layers in peft's, with these matrices; return the leaves by name."""
    from peft import LoraConfig
    from peft.tuners.lora import Linear, LoraModel

    if hasattr(model, "peft_config"):
        raise DeltaError(
            "Cannot add a LoRA to a model that already has adapters; unload them first."
        )
    paths = [name.removesuffix(LORA_A) for name in lora if name.endswith(LORA_A)]
    for path in paths:
        layer = _owner(model, path, path + LORA_A)
        if not isinstance(layer, nn.Linear):
            kind = "Conv2d" if isinstance(layer, nn.Conv2d) else type(layer).__name__
            raise DeltaError(
                f"A LoRA must be for linear layers, got one for {path!r}, a {kind}; such files "
                "are not supported."
            )
        for change in lora[path + LORA_A]:
            _fitting(change.shape, (len(change), layer.in_features), path + LORA_A)
        for change in lora[path + LORA_B]:
            _fitting(change.shape, (layer.out_features, change.shape[1]), path + LORA_B)
    # The rank is that of the matrices set below; with alpha equal to it, the scale is 1. Made
    # without storage, so that peft draws nothing from the global generator.
    config = LoraConfig(r=1, lora_alpha=1, target_modules="|".join(map(re.escape, paths)))
    flags = {name: p.requires_grad for name, p in model.named_parameters()}
    tuner = LoraModel(model, {_ADAPTER: config}, _ADAPTER, low_cpu_mem_usage=True)
    undo.callback(_restore, model, tuner, flags)
    leaves: dict[str, Tensor] = {}
    for path in paths:
        layer = model.get_submodule(path)
        assert isinstance(layer, Linear)
        for half, ending, axis in ((layer.lora_A, LORA_A, 0), (layer.lora_B, LORA_B, 1)):
            own = lora[path + ending]
            # two LoRAs of one layer add up to one whose rank is the sum of theirs
            matrix = own[0] if len(own) == 1 else torch.cat([m.float() for m in own], axis)
            if not isinstance(matrix, nn.Parameter):
                matrix = nn.Parameter(matrix.detach().to(layer.weight.device, torch.float32))
            half[_ADAPTER].weight = matrix.requires_grad_(trainable)
            leaves[path + ending] = matrix
    return leaves


def _restore(model: nn.Module, tuner: Any, flags: Mapping[str, bool]) -> None:
    tuner.unload()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(flags[name])


def size_mb(changes: Mapping[str, Tensor]) -> float:
    """Size of changes in a file, in MB."""
    return sum(change.numel() * change.element_size() for change in changes.values()) / 1e6
