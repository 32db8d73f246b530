"""The memory that a model needs on a device, and ways to reduce it.

The expected peak is that of the loop's own tensors: weights by the real parameters' sizes, plus
what autograd keeps for one step. The latter is found by running the denoiser and the text encoders
on shapes alone (fake tensors: no arithmetic, no memory) and adding up what is saved for the
backward pass. A tenth is added for temporaries and fragmentation; the driver's own memory is not
counted. If a model depends on values in its step, only weights are counted, and the plan says so.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import psutil
import torch

from oneword._devices import pick_device
from oneword.config.model import ModelConfig
from oneword.errors import ModelError
from oneword.models.contract import Backbone
from oneword.models.memory.count import _BYTES, Work, _Costs
from oneword.models.memory.shapes import shapes_alone


_USABLE = 0.95  # of the memory that is free
_USABLE_UNCOUNTED = 0.6  # where what a step keeps comes on top
_WAYS: tuple[dict[str, Any], ...] = (
    {"gradient_checkpointing": False, "offload": "vae", "weights": "full"},
    {"gradient_checkpointing": True, "offload": "vae", "weights": "full"},
    {"gradient_checkpointing": True, "offload": "text", "weights": "full"},
    {"gradient_checkpointing": True, "offload": "vae", "weights": "8bit"},
    {"gradient_checkpointing": True, "offload": "vae", "weights": "4bit"},
    {"gradient_checkpointing": True, "offload": "all", "weights": "full"},
)
"""Fastest first."""
_LOW = 2  # the last of them that neither changes the weights nor moves the denoiser's


@dataclass(frozen=True, slots=True)
class Plan:
    """The chosen way."""

    config: ModelConfig
    """The settings, with every field set."""
    expected: int | None
    """Bytes at the peak; ``None`` if that is not known before the model is loaded."""
    free: int
    """Bytes that were free."""
    counted: bool = True
    """Whether autograd's memory for a step could be counted; if not, it is not in ``expected``."""

    def __str__(self) -> str:
        config = self.config
        said = [
            {"full": "", "8bit": "8-bit weights", "4bit": "4-bit weights"}[
                config.weights or "full"
            ],
            f"micro-batches of {config.micro_batch_size}" if config.micro_batch_size else "",
            "gradient checkpointing" if config.gradient_checkpointing else "",
            {
                "none": "",
                "vae": "VAE offloaded",
                "text": "VAE and text encoders' layers offloaded",
                "all": "all layers offloaded",
            }[config.offload or "none"],
        ]
        ways = ", ".join(filter(None, said)) or "no savings"
        if self.expected is None:
            return f"memory: {ways}; the peak is unknown for this kind of file"
        least = "" if self.counted else "at least "
        size = f"memory: {ways}; expected peak {least}{gb(self.expected)} of {gb(self.free)} free"
        return size + (" (it may not fit)" if self.expected > self.free else "")


def gb(size: int) -> str:
    """Bytes in a readable form."""
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"


def plan(load: Callable[[ModelConfig], Backbone], config: ModelConfig, work: Work) -> Plan | None:
    """Choose how to load a model.

    Args:
        load: The family's own loader.
        config: The requested settings; set fields are kept.
        work: What the model will be used for.

    Returns:
        The way, or ``None`` on a CPU if nothing was requested.

    Raises:
        ModelError: this machine cannot do what is requested.
    """
    device = pick_device(config.device)
    asked = (config.gradient_checkpointing, config.offload, config.weights)
    if device.type == "cpu" and config.memory == "auto" and not any(asked):
        return None
    free = _free(device)
    ways = _possible(config, device)
    shapes = _shapes(load, config)
    if shapes is None:
        order = {"auto": ways, "low": ways[: _LOW + 1][::-1], "lowest": ways[::-1]}
        return Plan(order[config.memory][0], None, free)

    @cache
    def costs(samples: int) -> _Costs:
        return _Costs.of(shapes, replace(work, samples=samples))

    def taken(way: ModelConfig, samples: int) -> Plan:
        parted = samples if samples < work.samples else None
        found = costs(samples)
        return Plan(replace(way, micro_batch_size=parted), found.peak(way), free, found.counted)

    sizes = work.passes()
    if config.micro_batch_size is not None:
        sizes = [min(config.micro_batch_size, work.samples)]
    if config.memory == "auto":
        usable = _USABLE if costs(sizes[0]).counted else _USABLE_UNCOUNTED
        for way, samples in product(ways, sizes):
            if costs(samples).peak(way) <= usable * free:
                return taken(way, samples)
        exact: list[ModelConfig] = []
    else:
        exact = [w for w in ways if w.weights == "full" and w.offload != "all"]
    least = exact if exact and config.memory == "low" else ways
    return taken(min(least, key=costs(sizes[-1]).peak), sizes[-1])


def unchanged(load: Callable[[ModelConfig], Backbone], config: ModelConfig, work: Work) -> Plan:
    """What a model needs in the way that was asked for, where nothing more is to be saved.

    Args:
        load: The family's own loader.
        config: What was asked for.
        work: What the model will be used for.
    """
    plain = _WAYS[0] | {"offload": "none"}
    asked = {name: getattr(config, name) or usual for name, usual in plain.items()}
    parted = config.micro_batch_size
    samples = work.samples if parted is None else min(parted, work.samples)
    way, shapes = replace(config, **asked), _shapes(load, config)
    free = _free(pick_device(config.device))
    if shapes is None:
        return Plan(way, None, free)
    costs = _Costs.of(shapes, replace(work, samples=samples))
    return Plan(way, costs.peak(way), free, costs.counted)


def _shapes(load: Callable[[ModelConfig], Backbone], config: ModelConfig) -> Backbone | None:
    """A model's shapes, where its files tell them without its weights."""
    if Path(config.model).is_file():
        return None
    try:
        with shapes_alone():
            return load(config)
    except Exception:  # whatever is wrong with the model is said when it is loaded in earnest
        return None


def _free(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


def _possible(config: ModelConfig, device: torch.device) -> list[ModelConfig]:
    """The ways that this machine and the user's own settings allow, fastest first."""
    can_pack = importlib.util.find_spec("bitsandbytes") is not None and device.type != "mps"
    if config.weights in _BYTES and not can_pack:
        raise ModelError(
            f"Cannot use weights {config.weights} because they need bitsandbytes on CUDA or a "
            "CPU, got "
            f"{'the device ' + device.type if device.type == 'mps' else 'none installed'}; pip "
            "install 'oneword[quant]', or leave out --weights."
        )
    found: list[ModelConfig] = []
    for way in _WAYS:
        if way["weights"] in _BYTES and not can_pack:
            continue
        here = way | {"offload": "none"} if device.type == "cpu" else dict(way)
        asked = {name: getattr(config, name) for name in here}
        own = here | {name: value for name, value in asked.items() if value is not None}
        try:
            candidate = replace(config, **own)
        except ValueError:  # the settings contradict each other
            continue
        if candidate not in found:
            found.append(candidate)
    return found
