"""What every stage of the recipe works with: its settings, its state on disk, its optimiser.

A stage can be stopped at any moment and goes on to the same bits: every batch is a function of
(seed, stage, step, process), and the state is written atomically.
"""

# The libraries' own annotations are narrower than what they take and return.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from oneword._devices import computes
from oneword.microworld import weights
from oneword.microworld.making.muon import PlainMuon, as_matrix, hidden_matrices
from oneword.microworld.making.processes import any_of, average_gradients
from oneword.microworld.making.recipe import Recipe, Stage


STAGES = ("vae", "clip", "judge", "oracle", "latents", "denoiser", "guide")
CHECKED_STEP = 100
CHECKSUMS = "checksums.json"
"""In the work folder and in the card: by stage, what its weights are after so many steps."""
_STREAM = {
    "vae": 0, "clip": 1, "judge": 2, "oracle": 3, "latents": 4, "denoiser": 5, "check": 6,
    "guide": 1000,  # so that its first weights are no other seed's of the stage "clip"
}  # fmt: skip
_STREAMS = 6  # of a seed's stages, when their first weights were numbered
Progress = Callable[[str, int, int, dict[str, float]], None]


def seed_weights(recipe: Recipe, stage: str) -> None:
    """Seed the global generator, from which alone layers take their first weights."""
    torch.manual_seed(recipe.seed * _STREAMS + _STREAM[stage])  # noqa: TID251


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
        """bf16 pays on CPUs with AVX-512 and on GPUs; others imitate it, tens of times slower."""
        enabled = computes(torch.bfloat16, self.device)
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled)

    def rng(self, stage: str, step: int) -> np.random.Generator:
        """Generator of one step of one process."""
        key = (self.recipe.seed, _STREAM[stage], step, self.rank)
        return np.random.default_rng(np.random.SeedSequence(key))

    def late(self) -> bool:
        """Whether the time is up, for every process at once."""
        return any_of(time.monotonic() >= self.deadline_s, self.num_processes)


def _all_of(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]


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
        self.parameters = [p for part in parts.values() for p in part.parameters()]
        self.matrices: list[tuple[nn.Parameter, Tensor]] = []  # with the view that Muon steps
        muon, adam = [], []
        for key, part in parts.items():
            factor = rates.get(key, 1.0)
            found = hidden_matrices(part)
            chosen = {id(p) for p, _ in found}
            self.matrices += found
            muon.append({"params": [view for _, view in found], "factor": factor})
            rest = [p for p in part.parameters() if id(p) not in chosen]
            adam.append({"params": rest, "factor": factor})
        settings: dict[str, Any] = {"weight_decay": stage.weight_decay}
        kind = torch.optim.Muon if computes(torch.bfloat16, shop.device) else PlainMuon
        self.muon = kind(muon, adjust_lr_fn="match_rms_adamw", **settings)
        self.adam = torch.optim.AdamW(adam, betas=(0.9, 0.99), fused=True, **settings)
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
        for name, optimizer in (("muon", self.muon), ("adam", self.adam)):
            for i, p in enumerate(_all_of(optimizer)):
                found |= {f"{name}.{i}.{n}": t for n, t in optimizer.state.get(p, {}).items()}
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
        name = self.shop.recipe.model
        if self.shop.from_scratch or not (weights.WEIGHTS / name / weights.CARD).exists():
            return
        if self.name == "oracle":
            self.parts["oracle"].start_from(weights.load_oracle(name))
        if self.name == "denoiser":
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
        for name, optimizer in (("muon", self.muon), ("adam", self.adam)):
            for i, p in enumerate(_all_of(optimizer)):
                prefix = f"{name}.{i}."
                kept = {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}
                # the fused optimiser walks a parameter and its moments in memory side by side, so
                # they must be laid out alike
                optimizer.state[p] = {
                    n: torch.empty_like(p.data).copy_(t) if t.ndim else t.to(p.device)
                    for n, t in kept.items()
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
            factor = self.stage.rate_factor(self.step)
            for optimizer, peak in (
                (self.muon, self.stage.matrix_learning_rate),
                (self.adam, self.stage.learning_rate),
            ):
                for group in optimizer.param_groups:
                    group["lr"] = factor * peak * group["factor"]
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
            if self.step == CHECKED_STEP:
                self._note_checksum()
            if time.monotonic() - self.saved_s > 120:
                self.save()
        self.save()

    def _note_checksum(self) -> None:
        """Write what the weights are after the first steps: the same again from the same seed."""
        if self.shop.rank or self.earlier_samples:
            return
        digest = hashlib.sha256()
        for p in self.parameters:
            digest.update(p.detach().cpu().contiguous().numpy().tobytes())
        path = self.shop.folder / CHECKSUMS
        sums = json.loads(path.read_text()) if path.exists() else {}
        sums[self.name] = {
            "step": self.step,
            "num_processes": self.shop.num_processes,
            "sha256": digest.hexdigest(),
        }
        path.write_text(json.dumps(sums, indent=1))

    def update(self, loss: Tensor) -> None:
        """One optimiser step; gradients are averaged over processes."""
        for p in self.parameters:
            p.grad = None
        loss.backward()
        average_gradients(self.parameters, self.shop.num_processes)
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for p, view in self.matrices:
            view.grad = None if p.grad is None else as_matrix(p.grad, p)
        self.muon.step()
        self.adam.step()
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
