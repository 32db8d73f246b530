"""What every stage of the recipe works with: its settings, its state on disk, its optimiser.

A stage can be stopped at any moment and goes on to the same bits: every batch is a function of
(seed, stage, step, process), and the state is written atomically.
"""

# The libraries' own annotations are narrower than what they take and return.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from oneword.microworld import models, weights


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """One stage of the recipe."""

    num_samples: int
    """Pictures seen in all."""
    batch_size: int
    """Pictures per step, all processes together."""
    learning_rate: float
    """Peak rate of AdamW."""
    warmup_steps: int = 100
    """Steps of linear warm-up."""
    decay_fraction: float = 0.3
    """Last part of the stage, over which the rate falls to zero."""
    weight_decay: float = 0.01
    """Of AdamW."""
    ema: float = 0.0
    """Decay of the averaged weights; 0: none."""

    @property
    def num_steps(self) -> int:
        """Optimiser steps of the whole stage."""
        return self.num_samples // self.batch_size

    def rate(self, step: int) -> float:
        """Learning rate: linear warm-up, constant, linear decay to zero."""
        left = (self.num_steps - step) / max(1.0, self.num_steps * self.decay_fraction)
        return self.learning_rate * min(1.0, (step + 1) / self.warmup_steps, max(0.0, left))


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """Everything that decides the weights."""

    model: str = "microworld"
    """Which of ``models.SIZES``."""
    seed: int = 0
    """Seed of initialisation and of every batch."""
    vae: Stage = Stage(
        num_samples=160_000, batch_size=16, learning_rate=2e-3, weight_decay=0.0, ema=0.998
    )
    clip: Stage = Stage(num_samples=200_000, batch_size=128, learning_rate=1.2e-3)
    judge: Stage = Stage(num_samples=200_000, batch_size=128, learning_rate=1e-3)
    oracle: Stage = Stage(num_samples=200_000, batch_size=64, learning_rate=1.5e-3)
    denoiser: Stage = Stage(
        num_samples=640_000, batch_size=64, learning_rate=1e-3, warmup_steps=200, ema=0.999
    )
    num_pictures: int = 65_536
    """Drawn pictures whose latents are made once for the denoiser; captions are new each time."""
    shard_size: int = 4096
    """Pictures whose latents share a file; it divides num_pictures."""
    num_check_pictures: int = 1024
    """Unseen drawings on which the VAE and the oracle are measured for the card."""
    text_rate_factor: float = 0.3
    """The text encoder's rate in units of the denoiser's."""
    caption_dropout: float = 0.1
    """Fraction of samples trained without a caption, for guidance."""

    @property
    def sizes(self) -> models.Sizes:
        """Widths and depths of the model that is made."""
        return models.SIZES[self.model]


STAGES = ("vae", "clip", "judge", "oracle", "latents", "denoiser")
_STREAM = {name: index for index, name in enumerate((*STAGES, "check"))}
Progress = Callable[[str, int, int, dict[str, float]], None]


def seed_weights(recipe: Recipe, stage: str) -> None:
    """Seed the global generator, from which alone layers take their first weights."""
    torch.manual_seed(recipe.seed * len(STAGES) + _STREAM[stage])  # noqa: TID251


@dataclass(frozen=True, slots=True)
class Workshop:
    """Where and how a stage runs."""

    recipe: Recipe
    folder: Path
    device: torch.device
    deadline_s: float
    """``time.monotonic()`` at which a stage saves its state and ends."""
    on_progress: Progress
    rank: int = 0
    num_processes: int = 1
    from_scratch: bool = False
    """Ignore the landed weights."""

    @property
    def amp(self) -> Any:
        """bf16 pays on CPUs with AVX512-BF16 and on GPUs."""
        return torch.autocast(self.device.type, torch.bfloat16)

    def rng(self, stage: str, step: int) -> np.random.Generator:
        """Generator of one step of one process."""
        key = (self.recipe.seed, _STREAM[stage], step, self.rank)
        return np.random.default_rng(np.random.SeedSequence(key))

    def late(self) -> bool:
        """Whether the time is up, for every process at once."""
        up = torch.tensor(float(time.monotonic() >= self.deadline_s))
        if self.num_processes > 1:
            dist.all_reduce(up, dist.ReduceOp.MAX)
        return bool(up.item())


class Run:
    """One stage's modules, optimiser, average and step, with their state on disk."""

    def __init__(
        self,
        shop: Workshop,
        name: str,
        stage: Stage,
        parts: dict[str, nn.Module],
        **rates: float,
    ) -> None:
        self.shop, self.name, self.stage, self.parts = shop, name, stage, parts
        groups = [
            {"params": list(part.parameters()), "factor": rates.get(key, 1.0)}
            for key, part in parts.items()
        ]
        self.optimizer = torch.optim.AdamW(
            groups,
            lr=stage.learning_rate,
            betas=(0.9, 0.99),
            weight_decay=stage.weight_decay,
            fused=True,
        )
        self.parameters = [p for group in groups for p in group["params"]]
        self.average = [p.detach().clone() for p in self.parameters] if stage.ema else []
        self.step = 0
        self.earlier_samples = 0  # that the landed weights had seen
        self.saved_s = time.monotonic()
        self.losses: list[Tensor] = []
        self.history: list[dict[str, float]] = []
        if self.path.exists():
            self._load()
        else:
            self._start_from_landed()

    @property
    def path(self) -> Path:
        return self.shop.folder / f"{self.name}.state.safetensors"

    def _tensors(self) -> dict[str, Tensor]:
        found = {}
        for key, part in self.parts.items():
            found |= {f"{key}.{n}": t for n, t in part.state_dict().items()}
        for i, p in enumerate(self.parameters):
            found |= {f"adam.{i}.{n}": t for n, t in self.optimizer.state.get(p, {}).items()}
        for i, t in enumerate(self.average):
            found[f"average.{i}"] = t
        return {n: t.detach().cpu().contiguous() for n, t in found.items()}

    def save(self) -> None:
        """Write the state atomically."""
        if self.shop.rank == 0:
            part = self.path.with_suffix(".part")
            meta = {
                "step": str(self.step),
                "history": json.dumps(self.history),
                "earlier_samples": str(self.earlier_samples),
            }
            save_file(self._tensors(), part, metadata=meta)
            os.replace(part, self.path)
        self.saved_s = time.monotonic()

    def _start_from_landed(self) -> None:
        if self.shop.from_scratch:
            return
        if self.name == "denoiser":
            name = self.shop.recipe.model
            for key, part in self.parts.items():
                landed = weights.landed_denoiser(key, name)
                if landed is not None:
                    part.load_state_dict({n: t.float() for n, t in landed.items()})
            self.earlier_samples = weights.card(name).get("denoiser_samples", 0)
            self.history = weights.card(name).get("history", [])
        if self.average:
            self.average = [p.detach().clone() for p in self.parameters]

    def _load(self) -> None:
        with safe_open(self.path, "pt") as file:
            meta = file.metadata()
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        for key, part in self.parts.items():
            prefix = key + "."
            part.load_state_dict(
                {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}
            )
        for i, p in enumerate(self.parameters):
            prefix = f"adam.{i}."
            adam = {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}
            # the fused optimiser walks a parameter and its moments in memory side by side, so they
            # must be laid out alike
            self.optimizer.state[p] = {
                n: torch.empty_like(p.data).copy_(t) if t.ndim else t.to(p.device)
                for n, t in adam.items()
            }
        self.average = [
            torch.empty_like(p.data).copy_(state[f"average.{i}"])
            for i, p in enumerate(self.parameters[: len(self.average)])
        ]
        self.step = int(meta["step"])
        self.history = json.loads(meta["history"])
        self.earlier_samples = int(meta["earlier_samples"])

    @property
    def samples(self) -> int:
        """Pictures seen, by the landed weights before too."""
        return self.earlier_samples + self.step * self.stage.batch_size

    def steps(self) -> Iterator[np.random.Generator]:
        """Yield each step's generator until the stage is done or the time is up."""
        last, start = time.monotonic(), self.step
        while self.step < self.stage.num_steps:
            rate = self.stage.rate(self.step)
            for group in self.optimizer.param_groups:
                group["lr"] = rate * group["factor"]
            yield self.shop.rng(self.name, self.step)
            if self.step % 20 == 0 and (self.shop.late() or self.step == self.stage.num_steps):
                break
            if self.step % 100 == 0:
                now = time.monotonic()
                speed = (self.step - start) / max(now - last, 1e-9)
                last, start = now, self.step
                loss = torch.stack(self.losses).mean().item()
                self.losses.clear()
                metrics = {"loss": loss, "steps_per_s": speed}
                self.history.append({"samples": self.samples, "loss": loss})
                if self.shop.rank == 0:
                    self.shop.on_progress(self.name, self.step, self.stage.num_steps, metrics)
            if time.monotonic() - self.saved_s > 120:
                self.save()
        self.save()

    def update(self, loss: Tensor) -> None:
        """One optimiser step; gradients are averaged over processes."""
        self.optimizer.zero_grad()
        loss.backward()
        if self.shop.num_processes > 1:
            grads = [p.grad for p in self.parameters if p.grad is not None]
            flat = torch._utils._flatten_dense_tensors(grads)
            dist.all_reduce(flat)
            flat /= self.shop.num_processes
            for grad, mean in zip(
                grads, torch._utils._unflatten_dense_tensors(flat, grads), strict=True
            ):
                grad.copy_(mean)
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        if self.average:
            # a short memory at first, so that the average is useful early
            decay = min(self.stage.ema, (1 + self.step) / (10 + self.step))
            torch._foreach_lerp_(self.average, [p.detach() for p in self.parameters], 1 - decay)
        self.losses.append(loss.detach())
        self.step += 1

    @property
    def done(self) -> bool:
        """Whether the whole stage has been seen."""
        return self.step >= self.stage.num_steps

    def use_average(self) -> None:
        """Put the averaged weights in place, for writing."""
        for p, mean in zip(self.parameters, self.average, strict=False):
            p.data.copy_(mean)
