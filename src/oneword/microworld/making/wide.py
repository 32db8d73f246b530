r"""Trains the denoiser and its text encoder on the second world, from the landed first ones.

    python -m oneword.microworld.making.packing world.zip        # once, where skia is
    python -m oneword.microworld.making.wide --parts world.zip --state wide --minutes 9 \
        --device cuda --num-workers 14

The same command goes on from the state, which is written every minute and at the end, until all
samples are seen. It needs torch, transformers, safetensors and pillow. The first part of the
samples has 64 px pictures, a quarter of the work. ``--export FOLDER`` writes the averaged weights
as ``unet``, ``text_encoder`` and ``tokenizer`` folders; that needs diffusers.
"""

# The libraries' own annotations are narrower than what they take and return.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false

from __future__ import annotations

import argparse
import copy
import json
import math
import multiprocessing
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from oneword._devices import computes
from oneword.errors import UserError
from oneword.microworld.making import plain, spelling
from oneword.microworld.making.collage import Collage, Parts, Plan
from oneword.microworld.making.muon import PlainMuon, as_matrix, hidden_matrices
from oneword.microworld.world import wide_captions, wide_scenes
from oneword.microworld.world.inventory import Scene


STATE = "wide.safetensors"
SAVE_EVERY_S = 60.0
"""How often the state is written."""
CONTEXT = 77


class StateError(UserError):
    """The state is of another recipe."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WideRecipe:
    """Everything that decides the weights."""

    model: str = "microworld"
    """Landed model from which training starts."""
    world: int = wide_scenes.VERSION
    """Version of the world."""
    seed: int = 0
    """Of every batch and of the new words' rows."""
    num_samples: int = 2_500_000
    """Pictures seen in all."""
    small_fraction: float = 0.4
    """First part of them, with pictures of half the side."""
    batch_size: int = 64
    """Pictures a step."""
    learning_rate: float = 1e-3
    """Peak rate of AdamW."""
    matrix_learning_rate: float = 4e-3
    """Peak rate of Muon."""
    text_rate_factor: float = 0.3
    """The text encoder's rates in units of the denoiser's."""
    warmup_steps: int = 200
    """Steps of linear warm-up."""
    decay_fraction: float = 0.3
    """Last part of the steps, over which the rates fall to zero."""
    weight_decay: float = 0.01
    """Of both optimisers."""
    ema: float = 0.999
    """Decay of the averaged weights."""
    caption_dropout: float = 0.1
    """Fraction of samples without a caption, for guidance."""

    @property
    def num_steps(self) -> int:
        """Optimiser steps in all."""
        return self.num_samples // self.batch_size

    def rate_factor(self, step: int) -> float:
        """Part of the peak rates: linear warm-up, constant, linear decay to zero."""
        left = (self.num_steps - step) / max(1.0, self.num_steps * self.decay_fraction)
        return min(1.0, (step + 1) / self.warmup_steps, max(0.0, left))

    def is_small(self, step: int) -> bool:
        """Whether a step sees pictures of half the side."""
        return step < self.num_steps * self.small_fraction


# --- batches, functions of (seed, step)


@dataclass(frozen=True, slots=True)
class Batch:
    """What a step sees, before anything is drawn."""

    plans: list[Plan]
    ids: np.ndarray
    """(batch, CONTEXT)."""
    seed: int
    """Of the noise and the times."""


class Planner:
    """Makes batches; each process has its own."""

    def __init__(self, path: Path, recipe: WideRecipe) -> None:
        self.parts, self.recipe = Parts(path), recipe
        self.tokens = tokenizer()

    def __call__(self, step: int) -> Batch:
        """The batch of a step."""
        recipe = self.recipe
        rng = np.random.default_rng(np.random.SeedSequence((recipe.seed, 67, step)))
        plans, texts = [], []
        for seed in rng.integers(0, 2**40, recipe.batch_size).tolist():
            scene = self.parts.sample(seed)
            dropped = rng.random() < recipe.caption_dropout
            texts.append("" if dropped else wide_captions.caption(scene, rng))
            drawn = self.parts.drawn_seed(seed) if isinstance(scene, Scene) else None
            plans.append(self.parts.plan(scene, drawn))
        ids = self.tokens(texts, padding="max_length", truncation=True, return_tensors="np")
        return Batch(plans, ids.input_ids, int(rng.integers(2**62)))


_planner: list[Planner] = []
"""This process's own, in a worker."""


def _start_worker(path: Path, recipe: WideRecipe) -> None:
    torch.set_num_threads(1)
    _planner[:] = [Planner(path, recipe)]


def _work(step: int) -> Batch:
    return _planner[0](step)


def batches(path: Path, recipe: WideRecipe, start: int, num_workers: int) -> Iterator[Batch]:
    """Every batch from a step on, made ahead by worker processes."""
    steps = range(start, recipe.num_steps)
    if not num_workers:
        planner = Planner(path, recipe)
        yield from map(planner, steps)
        return
    context = multiprocessing.get_context("spawn")
    with context.Pool(num_workers, _start_worker, (path, recipe)) as pool:
        # a window, since a pool takes all steps of an iterable at once
        ahead = 4 * num_workers
        waiting = [pool.apply_async(_work, (step,)) for step in steps[:ahead]]
        for step in steps:
            batch = waiting.pop(0).get()
            if step + ahead < recipe.num_steps:
                waiting.append(pool.apply_async(_work, (step + ahead,)))
            yield batch


def tokenizer() -> CLIPTokenizer:
    """The second world's tokenizer."""
    return spelling.tokenizer(wide_captions.vocabulary(), CONTEXT)


# --- model and optimiser


def text_encoder(recipe: WideRecipe, tokens: CLIPTokenizer) -> CLIPTextModel:
    """The landed text encoder with rows for the second world's words; new ones are small noise."""
    folder = plain.landed(recipe.model)
    config = CLIPTextConfig.from_pretrained(folder / "text_encoder")
    config.vocab_size = len(tokens)
    config.eos_token_id = config.pad_token_id = tokens.eos_token_id
    config.bos_token_id = tokens.bos_token_id
    config.dtype = "float32"
    state = plain.state_of(folder / "text_encoder")
    _respell(state, CLIPTokenizer.from_pretrained(folder / "tokenizer"), tokens)
    encoder = CLIPTextModel(config)
    encoder.load_state_dict(state)
    return encoder


def _respell(state: dict[str, Tensor], old: CLIPTokenizer, new: CLIPTokenizer) -> None:
    """Move the table's rows to where another tokenizer has their pieces."""
    key = next(name for name in state if name.endswith("token_embedding.weight"))
    before = old.get_vocab()
    known = [(index, before[piece]) for piece, index in new.get_vocab().items() if piece in before]
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(len(new), state[key].shape[1], generator=generator) * 0.02
    to, source = torch.tensor(known).T
    table[to] = state[key][source]
    state[key] = table


class Trainer:
    """The parts that learn, their optimisers and averages, with their state on disk."""

    def __init__(self, recipe: WideRecipe, folder: Path, device: torch.device) -> None:
        self.recipe, self.path, self.device = recipe, folder / STATE, device
        landed = plain.landed(recipe.model)
        unet = plain.PlainUNet(plain.config_of(landed / "unet"))
        unet.load_state_dict(plain.state_of(landed / "unet"))
        tokens = tokenizer()
        self.parts = nn.ModuleDict({"unet": unet, "text": text_encoder(recipe, tokens)})
        self.parts.to(device)
        unet.to(memory_format=torch.channels_last)
        self.average = copy.deepcopy(self.parts).requires_grad_(False)
        self.encoder = plain.load_encoder(landed / "vae").to(device)
        scheduler = json.loads((landed / "scheduler/scheduler_config.json").read_text())
        root = torch.linspace(
            scheduler["beta_start"] ** 0.5, scheduler["beta_end"] ** 0.5,
            scheduler["num_train_timesteps"],
        )  # fmt: skip
        self.alphas = torch.cumprod(1 - root**2, dim=0).to(device)
        self.matrices: list[tuple[nn.Parameter, Tensor]] = []
        muon, adam = [], []
        for name, factor in (("unet", 1.0), ("text", recipe.text_rate_factor)):
            found = hidden_matrices(self.parts[name])
            chosen = {id(p) for p, _ in found}
            self.matrices += found
            muon.append({"params": [view for _, view in found], "factor": factor})
            rest = [p for p in self.parts[name].parameters() if id(p) not in chosen]
            adam.append({"params": rest, "factor": factor})
        kind = torch.optim.Muon if computes(torch.bfloat16, device) else PlainMuon
        settings = {"weight_decay": recipe.weight_decay}
        self.muon = kind(muon, adjust_lr_fn="match_rms_adamw", **settings)
        self.adam = torch.optim.AdamW(adam, betas=(0.9, 0.99), fused=True, **settings)
        self.step, self.history = 0, []
        if self.path.exists():
            self._load()

    @property
    def samples(self) -> int:
        """Pictures seen."""
        return self.step * self.recipe.batch_size

    def _tensors(self) -> dict[str, Tensor]:
        found = {f"parts.{n}": t for n, t in self.parts.state_dict().items()}
        found |= {f"average.{n}": t for n, t in self.average.state_dict().items()}
        for name, optimizer in (("muon", self.muon), ("adam", self.adam)):
            for i, p in enumerate(_all_of(optimizer)):
                found |= {f"{name}.{i}.{n}": t for n, t in optimizer.state.get(p, {}).items()}
        return {n: t.detach().cpu().contiguous() for n, t in found.items()}

    def save(self) -> None:
        """Write the state atomically."""
        part = self.path.with_suffix(".part")
        meta = {
            "step": str(self.step),
            "recipe": json.dumps(asdict(self.recipe)),
            "history": json.dumps(self.history),
        }
        save_file(self._tensors(), part, metadata=meta)
        os.replace(part, self.path)

    def _load(self) -> None:
        with safe_open(self.path, "pt") as file:
            meta = file.metadata()
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        theirs = json.loads(meta["recipe"])
        mine = asdict(self.recipe)
        other = [name for name in mine if mine[name] != theirs.get(name)]
        if other:
            name = other[0]
            raise StateError(
                f"The state must be of the same recipe, got {name} {theirs.get(name)} in "
                f"{self.path} and {name} {mine[name]} now; take another folder for --state."
            )
        for name, part in (("parts", self.parts), ("average", self.average)):
            prefix = f"{name}."
            part.load_state_dict(
                {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}
            )
        for name, optimizer in (("muon", self.muon), ("adam", self.adam)):
            for i, p in enumerate(_all_of(optimizer)):
                prefix = f"{name}.{i}."
                # the fused optimiser walks a parameter and its moments side by side in memory
                optimizer.state[p] = {
                    n.removeprefix(prefix): torch.empty_like(p.data).copy_(t)
                    if t.ndim
                    else t.to(p.device)
                    for n, t in state.items()
                    if n.startswith(prefix)
                }
        self.step, self.history = int(meta["step"]), json.loads(meta["history"])

    def latents(self, pictures: Tensor, generator: torch.Generator) -> Tensor:
        """Latents of pictures in [-1, 1], of half the side where the step's are small."""
        if self.recipe.is_small(self.step):
            pictures = F.avg_pool2d(pictures, 2)
        with torch.no_grad(), self.amp:
            mean, std = self.encoder(pictures.contiguous(memory_format=torch.channels_last))
        return mean.float() + std.float() * _noise(mean.shape, generator, self.device)

    @property
    def amp(self) -> Any:
        """bf16 where the device computes in it."""
        enabled = computes(torch.bfloat16, self.device)
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled)

    def update(self, batch: Batch, pictures: Tensor) -> Tensor:
        """One step; returns its loss."""
        generator = torch.Generator().manual_seed(batch.seed)
        x0 = self.latents(pictures, generator)
        noise = _noise(x0.shape, generator, self.device)
        num = len(x0)
        # stratified over the batch: the same distribution with less variance
        u = (torch.arange(num) + torch.rand(num, generator=generator)) / num
        t = (u[torch.randperm(num, generator=generator)] * len(self.alphas)).long().to(self.device)
        a = self.alphas[t].sqrt()[:, None, None, None]
        s = (1 - self.alphas[t]).sqrt()[:, None, None, None]
        x_t = (a * x0 + s * noise).contiguous(memory_format=torch.channels_last)
        with self.amp:
            states = self.parts["text"](
                torch.from_numpy(batch.ids).to(self.device)
            ).last_hidden_state
            predicted = self.parts["unet"](x_t, t, states)
        loss = F.mse_loss(predicted.float(), a * noise - s * x0)
        parameters = list(self.parts.parameters())
        for p in parameters:
            p.grad = None
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        for p, view in self.matrices:
            view.grad = None if p.grad is None else as_matrix(p.grad, p)
        factor = self.recipe.rate_factor(self.step)
        for optimizer, peak in (
            (self.muon, self.recipe.matrix_learning_rate),
            (self.adam, self.recipe.learning_rate),
        ):
            for group in optimizer.param_groups:
                group["lr"] = factor * peak * group["factor"]
            optimizer.step()
        # a short memory at first, so that the average is useful early
        decay = min(self.recipe.ema, (1 + self.step) / (10 + self.step))
        averaged = [p.data for p in self.average.parameters()]
        torch._foreach_lerp_(averaged, [p.data for p in parameters], 1 - decay)
        self.step += 1
        return loss.detach()


def _all_of(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def _noise(shape: Sequence[int], generator: torch.Generator, device: torch.device) -> Tensor:
    """Noise that is the same on every device."""
    return torch.randn(tuple(shape), generator=generator).to(device)


def train(
    path: Path,
    folder: Path,
    recipe: WideRecipe,
    *,
    device: str = "cpu",
    minutes: float = math.inf,
    num_workers: int = 0,
    compiled: bool = False,
) -> Trainer:
    """Train on from the state in a folder, until the samples or the minutes are used up.

    Args:
        path: File of parts, as ``packing`` writes it.
        folder: For the state.
        recipe: What to train; that of an existing state.
        device: torch device.
        minutes: Time budget, reading the parts included.
        num_workers: Processes that plan and caption ahead; 0: none.
        compiled: Whether torch compiles the denoiser.

    Raises:
        PackError: the parts are of no use.
        StateError: the state is of another recipe.
    """
    deadline = time.monotonic() + 60 * minutes
    folder.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(recipe, folder, torch.device(device))
    collage = Collage(Parts(path), trainer.device)
    if compiled:
        trainer.parts["unet"].compile()
    saved = told = time.monotonic()
    losses: list[Tensor] = []
    before = trainer.step
    for batch in batches(path, recipe, trainer.step, num_workers):
        if time.monotonic() >= deadline:
            break
        losses.append(trainer.update(batch, collage.pictures(batch.plans)))
        now = time.monotonic()
        if trainer.step % 100 == 0 or trainer.step == recipe.num_steps:
            loss = torch.stack(losses).mean().item()
            speed = (trainer.step - before) * recipe.batch_size / max(now - told, 1e-9)
            trainer.history.append({"samples": trainer.samples, "loss": loss})
            print(f"{trainer.samples:,} samples: loss {loss:.4f}, {speed:.0f} a second", flush=True)  # noqa: T201
            losses.clear()
            told, before = now, trainer.step
        if now - saved > SAVE_EVERY_S:
            trainer.save()
            saved = now
    trainer.save()
    return trainer


def export(folder: Path, target: Path, recipe: WideRecipe) -> None:
    """Write the averaged weights of a state as folders that diffusers and transformers read."""
    from diffusers import UNet2DConditionModel

    trainer = Trainer(recipe, folder, torch.device("cpu"))
    config = plain.config_of(plain.landed(recipe.model) / "unet")
    unet = UNet2DConditionModel.from_config(config)
    unet.load_state_dict(trainer.average["unet"].state_dict())
    unet.save_pretrained(target / "unet")
    trainer.average["text"].save_pretrained(target / "text_encoder")
    tokenizer().save_pretrained(target / "tokenizer")
    (target / "denoiser.json").write_text(
        json.dumps(
            {
                "samples": trainer.samples,
                "world": recipe.world,
                "history": trainer.history[:: max(1, len(trainer.history) // 40)],
            }
        )
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run training from the command line."""
    parser = argparse.ArgumentParser(description="Train the denoiser on the second world.")
    parser.add_argument("--parts", type=Path, required=True, help="file that packing wrote")
    parser.add_argument("--state", type=Path, required=True, help="folder for the state")
    parser.add_argument("--device", default="cpu", help="torch device")
    parser.add_argument("--minutes", type=float, default=math.inf, help="time budget")
    parser.add_argument("--num-workers", type=int, default=0, help="processes that plan ahead")
    parser.add_argument("--num-samples", type=int, help="pictures seen in all")
    parser.add_argument("--batch-size", type=int, help="pictures a step")
    parser.add_argument("--seed", type=int, default=0, help="of every batch")
    parser.add_argument("--compile", action="store_true", help="compile the denoiser")
    parser.add_argument("--export", type=Path, help="folder for the averaged weights afterwards")
    options = parser.parse_args(arguments)
    recipe = WideRecipe(seed=options.seed)
    for name in ("num_samples", "batch_size"):
        if getattr(options, name):
            recipe = replace(recipe, **{name: getattr(options, name)})
    if options.device == "cpu":
        torch.backends.cuda.enable_flash_sdp(False)  # slower backwards for small heads
    trainer = train(
        options.parts,
        options.state,
        recipe,
        device=options.device,
        minutes=options.minutes,
        num_workers=options.num_workers,
        compiled=options.compile,
    )
    print(f"{trainer.samples:,} of {recipe.num_samples:,} samples are seen.")  # noqa: T201
    if options.export is not None:
        export(options.state, options.export, recipe)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
