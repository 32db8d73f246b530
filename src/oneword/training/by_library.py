"""Optimisers of other libraries by name: one for each word, with its state as plain tensors."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from oneword.config.inversion import ResolvedConfig
from oneword.errors import ConfigError
from oneword.training.job import below


_PACKAGES = {"prodigy": "prodigyopt", "lion": "lion_pytorch", "adamw8bit": "bitsandbytes"}
"""Packages of optimisers that are extras of this package with the same name."""
_KINDS = {bool: torch.bool, int: torch.int64, float: torch.float64}
"""Types of the numbers of a state, so that they are restored with the same type."""
_STATE, _NUMBER, _GROUP = "state/", "number/", "group/"  # before the names of a state's tensors


def check_optimizer(name: str) -> None:
    """Refuse an optimiser whose library is not installed.

    Raises:
        ConfigError: it is not installed.
    """
    package = _PACKAGES.get(name)
    if package is not None and importlib.util.find_spec(package) is None:
        raise ConfigError(
            f"Cannot use the optimizer {name!r} because its package is not installed; pip install "
            f"'oneword[{name}]'."
        )


class ByLibrary:
    """A library's optimiser for the tensors of one word, not shared with any other word."""

    def __init__(self, config: ResolvedConfig, rows: Mapping[str, nn.Parameter]) -> None:
        """Make it, before the first step.

        Args:
            config: The word's settings, with an ``optimizer`` of another library.
            rows: The trained tensors, by name.

        Raises:
            ConfigError: the library is not installed.
        """
        self.rows = dict(rows)
        groups = [
            {"params": [parameter], "weight_decay": config.adam_weight_decay}
            for parameter in self.rows.values()
        ]
        self.optimizer = _made(config, groups)
        self._start = self.tensors()

    def step(self, gradients: Sequence[Tensor | None], rates: Sequence[float]) -> None:
        """Move the tensors.

        Args:
            gradients: One for each tensor, in order; with ``None`` it neither decays nor moves.
            rates: Absolute rates, one for each tensor.
        """
        groups = self.optimizer.param_groups
        for parameter, group, gradient, rate in zip(
            self.rows.values(), groups, gradients, rates, strict=True
        ):
            parameter.grad, group["lr"] = gradient, rate
        self.optimizer.step()
        for parameter in self.rows.values():
            parameter.grad = None

    @property
    def factor(self) -> float:
        """The optimiser's own factor for the rate: 1, except for Prodigy."""
        return float(self.optimizer.param_groups[0].get("d", 1.0))

    def tensors(self) -> dict[str, Tensor]:
        """A copy of everything that a step changes, except the trained tensors."""
        found: dict[str, Tensor] = {}
        for (name, parameter), group in zip(
            self.rows.items(), self.optimizer.param_groups, strict=True
        ):
            for key, value in self.optimizer.state.get(parameter, {}).items():
                if isinstance(value, Tensor):
                    found[f"{_STATE}{key}/{name}"] = value.detach().clone()
                elif type(value) in _KINDS:
                    found[f"{_NUMBER}{key}/{name}"] = _kept(value)
            for key, value in group.items():
                if type(value) in _KINDS and key != "lr":
                    found[f"{_GROUP}{key}/{name}"] = _kept(value)
        return found

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Undo every step since ``tensors`` were copied."""
        states: dict[str, dict[str, Any]] = {name: {} for name in self.rows}
        for key, name, value in _parted(tensors, _STATE):
            states[name][key] = value.to(self.rows[name].device, copy=True)
        for key, name, value in _parted(tensors, _NUMBER):
            states[name][key] = value.item()
        self.optimizer.state.clear()
        for name, parameter in self.rows.items():
            if states[name]:
                self.optimizer.state[parameter] = states[name]
        groups = dict(zip(self.rows, self.optimizer.param_groups, strict=True))
        for key, name, value in _parted(self._start | dict(tensors), _GROUP):
            groups[name][key] = value.item()


def _kept(value: float) -> Tensor:
    return torch.tensor(value, dtype=_KINDS[type(value)])


def _parted(tensors: Mapping[str, Tensor], kind: str) -> list[tuple[str, str, Tensor]]:
    """The tensors of one kind: key in the library's state, name of the trained tensor, value."""
    found: list[tuple[str, str, Tensor]] = []
    for name, value in below(tensors, kind).items():
        key, _, own = name.partition("/")
        found.append((key, own, value))
    return found


def _made(config: ResolvedConfig, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """The optimiser by its name; its rate is set with each step."""
    check_optimizer(config.optimizer)
    adam = {"betas": (config.adam_beta1, config.adam_beta2), "eps": config.adam_epsilon}
    if config.optimizer == "prodigy":
        from prodigyopt import Prodigy  # needs the optional extra

        # the two settings that its authors recommend for diffusion models, as in diffusers' scripts
        return Prodigy(groups, **adam, use_bias_correction=True, safeguard_warmup=True)
    if config.optimizer == "lion":
        from lion_pytorch import Lion  # needs the optional extra

        return Lion(groups)
    if config.optimizer == "adamw8bit":
        from bitsandbytes.optim import AdamW8bit  # needs the optional extra

        return AdamW8bit(groups, **adam)
    # of its two modes, the one with a given rate
    return transformers.Adafactor(groups, lr=1.0, scale_parameter=False, relative_step=False)
