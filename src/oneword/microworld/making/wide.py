r"""Trains the denoiser and its text encoder on the second world, from the landed first ones.

On CPUs, from latents that are drawn once, where skia and diffusers are:

    python -m oneword.microworld.making.wide --latents latents --state wide --num-processes 2

On a GPU, from pictures put together on it, which needs torch, transformers, safetensors and pillow:

    python -m oneword.microworld.making.packing world.zip        # once, where skia is
    python -m oneword.microworld.making.wide --parts world.zip --state wide --minutes 9 \
        --device cuda --num-workers 14

The same command goes on from the state, which is written every minute on a GPU, every five minutes
on CPUs, at SIGTERM and at the end, until all samples are seen; a state may go from one to the
other. The first part of the samples has pictures of half the side, a quarter of the work.
``--read`` takes a reading (``wide_reading``), and ``--export FOLDER`` writes the averaged weights
as a pipeline; both need diffusers. The averaged weights of each reading on the way are kept beside
the state, and ``--at SAMPLES`` exports those.
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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from oneword._devices import computes
from oneword.errors import UserError
from oneword.microworld.making import grow, plain, processes, spelling, wide_latents, wide_reading
from oneword.microworld.making.collage import Collage, Parts, Plan
from oneword.microworld.making.muon import PlainMuon, as_matrix, hidden_matrices
from oneword.microworld.making.processes import Ending
from oneword.microworld.making.sizes import SIZES, WIDE, Sizes
from oneword.microworld.making.wide_latents import Gallery, Latents
from oneword.microworld.world import wide_captions, wide_scenes
from oneword.microworld.world.inventory import Scene


STATE = "wide.safetensors"
SAVE_EVERY_S = {"cuda": 60.0, "cpu": 300.0}
"""How often the state is written, by device."""
CONTEXT = 77
_SLOWER = 3.0
"""How much longer a whole picture takes than one of half the side, until it is known."""


class StateError(UserError):
    """The state is of another recipe."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WideRecipe:
    """Everything that decides the weights."""

    model: str = "microworld"
    """Landed model from which training starts."""
    size: Literal["wide", "landed"] = "wide"
    """Whether the model grows to ``sizes.WIDE``, or stays as wide as it landed."""
    start: Literal["landed", "denoiser", "nothing"] = "landed"
    """What is taken from the landed model: all, the denoiser without its text, or nothing."""
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
    short_context: int = 32
    """Tokens of a caption in most steps, which holds every caption."""
    full_context_every: int = 4
    """Of so many steps one has all ``CONTEXT`` tokens, as drawing has them."""

    @property
    def sizes(self) -> Sizes:
        """Widths and depths of what is trained."""
        return (WIDE if self.size == "wide" else SIZES)[self.model]

    def context(self, step: int) -> int:
        """Tokens of a caption in a step."""
        return self.short_context if (step + 1) % self.full_context_every else CONTEXT

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


def recipe_for(model: str, seed: int = 0) -> WideRecipe:
    """The recipe of an embedded model; the tiny one stays as wide as it is and sees fewer pictures.

    Its captions are longer, since it spells many words in pieces.
    """
    recipe = WideRecipe(model=model, seed=seed)
    if model == "microworld":
        return recipe
    return replace(recipe, size="landed", num_samples=640_000, short_context=48)


# --- batches, functions of (seed, step)


@dataclass(frozen=True, slots=True)
class Batch:
    """What a step sees, before anything is drawn."""

    plans: list[Plan]
    ids: np.ndarray
    """(batch, tokens)."""
    seed: int
    """Of the noise and the times."""


class Planner:
    """Makes batches; each process has its own."""

    def __init__(self, path: Path, recipe: WideRecipe) -> None:
        self.parts, self.recipe = Parts(path), recipe
        self.tokens = tokenizer(recipe.model)

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
        ids = _ids(self.tokens, texts, recipe.context(step))
        return Batch(plans, ids, int(rng.integers(2**62)))


def _ids(tokens: CLIPTokenizer, texts: list[str], context: int) -> np.ndarray:
    """(texts, context)."""
    return tokens(
        texts, padding="max_length", max_length=context, truncation=True, return_tensors="np"
    ).input_ids


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


@dataclass(frozen=True, slots=True)
class Known:
    """What a step sees of latents on disk."""

    numbers: list[int]
    """Of the whole batch's pictures."""
    ids: np.ndarray
    """Of this process's captions, (batch / processes, tokens)."""
    seed: int
    """Of the noise and the times."""


class Picker:
    """Picks the pictures of a step and writes the captions of this process's part of them."""

    def __init__(self, recipe: WideRecipe, gallery: Gallery, part: slice) -> None:
        self.recipe, self.gallery, self.part = recipe, gallery, part
        self.tokens = tokenizer(recipe.model)

    def __call__(self, step: int) -> Known:
        """What a step sees."""
        recipe = self.recipe
        key = (recipe.seed, 73, step)
        rng = np.random.default_rng(np.random.SeedSequence(key))
        numbers = rng.integers(0, self.gallery.num_pictures, recipe.batch_size).tolist()
        dropped = rng.random(recipe.batch_size) < recipe.caption_dropout
        texts = []
        for i in range(recipe.batch_size)[self.part]:
            # of its own, so that no process needs to write the others' captions
            own = np.random.default_rng(np.random.SeedSequence((*key, i)))
            scene = self.gallery.scene(numbers[i])
            texts.append("" if dropped[i] else wide_captions.caption(scene, own))
        ids = _ids(self.tokens, texts, recipe.context(step))
        return Known(numbers, ids, int(rng.integers(2**62)))


def tokenizer(model: str = "microworld") -> CLIPTokenizer:
    """The second world's tokenizer of a model."""
    return spelling.wide_tokenizer(model)


# --- model and optimiser


def unet_config(recipe: WideRecipe) -> dict[str, Any]:
    """Configuration of the denoiser that is trained."""
    own = {
        "block_out_channels": list(recipe.sizes.unet_channels),
        "cross_attention_dim": recipe.sizes.text_dim,
    }
    return plain.config_of(plain.landed(recipe.model) / "unet") | own


def denoiser(recipe: WideRecipe) -> plain.PlainUNet:
    """The denoiser before the first step."""
    landed, config = plain.landed(recipe.model) / "unet", unet_config(recipe)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)  # noqa: TID251  (a layer's first weights)
        unet = plain.PlainUNet(config)
    if recipe.start == "nothing":
        return unet
    generator = torch.Generator().manual_seed(recipe.seed)
    state = grow.widened_unet(plain.state_of(landed), plain.config_of(landed), config, generator)
    if recipe.start == "denoiser":
        text = (".attn2.to_k.", ".attn2.to_v.")
        state = {n: t for n, t in state.items() if not any(part in n for part in text)}
    unet.load_state_dict(state, strict=recipe.start == "landed")
    return unet


def text_encoder(recipe: WideRecipe, tokens: CLIPTokenizer) -> CLIPTextModel:
    """The text encoder before the first step, with rows for the second world's words.

    The landed one's known words keep their rows, and new ones are small noise.
    """
    folder, width = plain.landed(recipe.model), recipe.sizes.text_dim
    config = CLIPTextConfig.from_pretrained(folder / "text_encoder")
    before = config.to_dict()
    config.vocab_size = len(tokens)
    config.eos_token_id = config.pad_token_id = tokens.eos_token_id
    config.bos_token_id = tokens.bos_token_id
    config.dtype = "float32"
    factor = width // config.hidden_size
    config.num_attention_heads *= factor
    config.intermediate_size *= factor
    config.hidden_size = config.projection_dim = width
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)  # noqa: TID251  (a layer's first weights)
        encoder = CLIPTextModel(config)
    if computes(torch.bfloat16, torch.device("cpu")):
        encoder.set_attn_implementation("eager")  # quicker in bf16, as ``plain.attended``
    if recipe.start == "landed":
        generator = torch.Generator().manual_seed(recipe.seed)
        state = grow.widened_text(plain.state_of(folder / "text_encoder"), before, width, generator)
        _respell(state, CLIPTokenizer.from_pretrained(folder / "tokenizer"), tokens)
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


def _owners(matrices: Sequence[Tensor], num_processes: int) -> list[int]:
    """Which process steps each matrix, so that each has about as much to do."""
    load, found = [0] * num_processes, [0] * len(matrices)
    costs = [matrix.numel() * min(matrix.shape) for matrix in matrices]
    for i in sorted(range(len(matrices)), key=lambda i: -costs[i]):
        found[i] = load.index(min(load))
        load[found[i]] += costs[i]
    return found


class Trainer:
    """The parts that learn, their optimisers and averages, with their state on disk.

    Args:
        recipe: What to train.
        folder: For the state; where there is one, it goes on.
        device: Where.
        rank: Which of several processes this is.
        num_processes: How many share every batch.
    """

    def __init__(
        self,
        recipe: WideRecipe,
        folder: Path,
        device: torch.device,
        rank: int = 0,
        num_processes: int = 1,
    ) -> None:
        self.recipe, self.path, self.device = recipe, folder / STATE, device
        self.rank, self.num_processes = rank, num_processes
        landed = plain.landed(recipe.model)
        unet = denoiser(recipe)
        self.parts = nn.ModuleDict(
            {"unet": unet, "text": text_encoder(recipe, tokenizer(recipe.model))}
        )
        self.parts.to(device)
        unet.to(memory_format=torch.channels_last)
        self.average = copy.deepcopy(self.parts).requires_grad_(False)
        self.encoder = plain.load_encoder(landed / "vae").to(device)
        self.alphas = plain.alphas(landed).to(device)
        self.matrices: list[tuple[nn.Parameter, Tensor]] = []
        muon, adam = [], []
        for name, factor in (("unet", 1.0), ("text", recipe.text_rate_factor)):
            found = hidden_matrices(self.parts[name])
            chosen = {id(p) for p, _ in found}
            self.matrices += found
            muon.append({"params": [view for _, view in found], "factor": factor})
            rest = [p for p in self.parts[name].parameters() if id(p) not in chosen]
            adam.append({"params": rest, "factor": factor})
        self.owners = _owners([view for _, view in self.matrices], num_processes)
        kind = torch.optim.Muon if computes(torch.bfloat16, device) else PlainMuon
        settings = {"weight_decay": recipe.weight_decay}
        self.muon = kind(muon, adjust_lr_fn="match_rms_adamw", **settings)
        self.adam = torch.optim.AdamW(adam, betas=(0.9, 0.99), fused=True, **settings)
        self.step, self.history = 0, []
        if self.path.exists():
            self._load()

    @property
    def part(self) -> slice:
        """This process's part of a batch."""
        num = self.recipe.batch_size // self.num_processes
        return slice(self.rank * num, (self.rank + 1) * num)

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
        """Write the state atomically; every process calls this at the same step."""
        if self.num_processes > 1 and self.step:
            states = [(self.muon.state[view], view) for _, view in self.matrices]
            key = "momentum_buffer"
            self._share([state.setdefault(key, torch.zeros_like(v)) for state, v in states])
        if self.rank:
            return
        part = self.path.with_suffix(".part")
        meta = {
            "step": str(self.step),
            "recipe": json.dumps(asdict(self.recipe)),
            "history": json.dumps(self.history),
        }
        save_file(self._tensors(), part, metadata=meta)
        os.replace(part, self.path)

    def _load(self) -> None:
        check_state(self.path.parent, self.recipe)
        with safe_open(self.path, "pt") as file:
            meta = file.metadata()
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
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

    def update(self, batch: Batch, pictures: Tensor) -> Tensor:
        """One step on pictures in [-1, 1], encoded at half their side where the step is small."""
        if self.recipe.is_small(self.step):
            pictures = F.avg_pool2d(pictures, 2)
        with torch.no_grad(), self.amp:
            mean, std = self.encoder(pictures.contiguous(memory_format=torch.channels_last))
        return self.learn(mean.float(), std.float(), batch.ids, batch.seed)

    def recall(self, known: Known, latents: Latents) -> Tensor:
        """One step on latents from disk."""
        numbers = known.numbers[self.part]
        mean, std = latents.moments(numbers, small=self.recipe.is_small(self.step))
        return self.learn(mean.to(self.device), std.to(self.device), known.ids, known.seed)

    def read(self, mark: int | None = None) -> dict[str, Any]:
        """Take a reading of the averaged weights; see ``wide_reading.read``."""
        whole, cpu = self.recipe.sizes.size_px, torch.device("cpu")
        average = copy.deepcopy(self.average).to(cpu).eval()
        return wide_reading.read(
            average,
            tokenizer(self.recipe.model),
            self.path.parent,
            model=self.recipe.model,
            samples=self.samples,
            side=whole // 2 if self.recipe.is_small(self.step - 1) else whole,
            amp=torch.autocast("cpu", torch.bfloat16, enabled=computes(torch.bfloat16, cpu)),
            mark=mark,
        )

    def read_where_due(self, marks: Sequence[int], tell: Callable[[str], None]) -> None:
        """Take the reading of the last mark that is passed, if there is none yet.

        The first process reads, and the others wait; the state and the averaged weights, under the
        mark's name, are written before.
        """
        due = wide_reading.due(self.path.parent, marks, self.samples)
        if not processes.any_of(self.rank == 0 and due is not None, self.num_processes):
            return
        self.save()
        if self.rank == 0:
            assert due is not None  # or this process would have returned
            self.keep(due)
            tell(json.dumps(self.read(due)))
        processes.any_of(False, self.num_processes)

    def keep(self, mark: int) -> None:
        """Write the averaged weights under a mark's name, fp16."""
        path = _kept(self.path.parent, mark)
        tensors = {n: t.half().cpu().contiguous() for n, t in self.average.state_dict().items()}
        meta = {"recipe": json.dumps(asdict(self.recipe)), "samples": str(self.samples)}
        save_file(tensors, path.with_suffix(".part"), metadata=meta)
        path.with_suffix(".part").replace(path)

    def recall_kept(self, mark: int) -> None:
        """Put the averaged weights of a mark in place, with the history until then.

        Raises:
            StateError: there are none, or they are of another recipe.
        """
        path = _kept(self.path.parent, mark)
        if not path.exists():
            there = sorted(int(p.stem.rpartition("-")[2]) for p in path.parent.glob("average-*"))
            raise StateError(
                f"--at must be one of the readings whose weights are kept in {path.parent}, "
                f"{', '.join(map(str, there)) or 'of which there are none'}, got {mark}."
            )
        _check_recipe(path, self.recipe)
        with safe_open(path, "pt") as file:
            state = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
            samples = int(file.metadata()["samples"])
        self.average.load_state_dict(state)
        self.step = samples // self.recipe.batch_size
        self.history = [row for row in self.history if row["samples"] <= samples]

    def _share(self, tensors: Sequence[Tensor]) -> None:
        """Give every process what the others have of their own matrices.

        Args:
            tensors: One for each matrix.
        """
        for rank in range(self.num_processes):
            own = [t for t, owner in zip(tensors, self.owners, strict=True) if owner == rank]
            flat = torch._utils._flatten_dense_tensors(own)
            dist.broadcast(flat, rank)
            if rank != self.rank:
                new = torch._utils._unflatten_dense_tensors(flat, own)
                for mine, theirs in zip(own, new, strict=True):
                    mine.copy_(theirs)

    @property
    def amp(self) -> Any:
        """bf16 where the device computes in it."""
        enabled = computes(torch.bfloat16, self.device)
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled)

    def learn(self, mean: Tensor, std: Tensor, ids: np.ndarray, seed: int) -> Tensor:
        """One step; returns the loss of this process's part of it.

        Args:
            mean: Of this part's latents, (part, channels, cells, cells).
            std: Their deviations.
            ids: Of this part's captions, (part, tokens).
            seed: Of the whole batch's noise and times.
        """
        generator = torch.Generator().manual_seed(seed)
        num, part = self.recipe.batch_size, self.part
        shape = (num, *mean.shape[1:])
        x0 = mean + std * torch.randn(shape, generator=generator)[part].to(self.device)
        noise = torch.randn(shape, generator=generator)[part].to(self.device)
        # stratified over the batch: the same distribution with less variance
        u = (torch.arange(num) + torch.rand(num, generator=generator)) / num
        t = (u[torch.randperm(num, generator=generator)] * len(self.alphas)).long()
        t = t[part].to(self.device)
        a = self.alphas[t].sqrt()[:, None, None, None]
        s = (1 - self.alphas[t]).sqrt()[:, None, None, None]
        x_t = (a * x0 + s * noise).contiguous(memory_format=torch.channels_last)
        with self.amp:
            states = self.parts["text"](torch.from_numpy(ids).to(self.device)).last_hidden_state
            predicted = self.parts["unet"](x_t, t, states)
        loss = F.mse_loss(predicted.float(), a * noise - s * x0)
        parameters = list(self.parts.parameters())
        for p in parameters:
            p.grad = None
        loss.backward()
        processes.average_gradients(parameters, self.num_processes)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        for (p, view), owner in zip(self.matrices, self.owners, strict=True):
            own = owner == self.rank and p.grad is not None
            view.grad = as_matrix(p.grad, p) if own else None
        factor = self.recipe.rate_factor(self.step)
        for optimizer, peak in (
            (self.muon, self.recipe.matrix_learning_rate),
            (self.adam, self.recipe.learning_rate),
        ):
            for group in optimizer.param_groups:
                group["lr"] = factor * peak * group["factor"]
            optimizer.step()
        if self.num_processes > 1:
            self._share([view for _, view in self.matrices])
        # a short memory at first, so that the average is useful early
        decay = min(self.recipe.ema, (1 + self.step) / (10 + self.step))
        averaged = [p.data for p in self.average.parameters()]
        torch._foreach_lerp_(averaged, [p.data for p in parameters], 1 - decay)
        self.step += 1
        return loss.detach()


def _all_of(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]


@dataclass(frozen=True, slots=True)
class Shelf:
    """Latents on disk; what is missing of them is made before the first step."""

    folder: Path
    gallery: Gallery


def check_state(folder: Path, recipe: WideRecipe) -> None:
    """Refuse the state of another recipe.

    Raises:
        StateError: it is one.
    """
    if (folder / STATE).exists():
        _check_recipe(folder / STATE, recipe)


def _kept(folder: Path, mark: int) -> Path:
    """The file of a mark's averaged weights."""
    return folder / f"average-{mark}.safetensors"


def _check_recipe(path: Path, recipe: WideRecipe) -> None:
    with safe_open(path, "pt") as file:
        theirs = json.loads(file.metadata()["recipe"])
    for name, value in asdict(recipe).items():
        if theirs.get(name) != value:
            raise StateError(
                f"The state must be of the same recipe, got {name} {theirs.get(name)} in {path} "
                f"and {name} {value} now; take another folder for --state."
            )


def train(
    source: Path | Shelf,
    folder: Path,
    recipe: WideRecipe,
    *,
    device: str = "cpu",
    minutes: float = math.inf,
    num_workers: int = 0,
    num_processes: int = 1,
    compiled: bool = False,
    marks: Sequence[int] = (),
    tell: Callable[[str], None] = print,
) -> Trainer:
    """Train on from the state in a folder, until the samples or the minutes are used up.

    Args:
        source: File of parts, as ``packing`` writes it, or latents.
        folder: For the state.
        recipe: What to train; that of an existing state.
        device: torch device.
        minutes: Time budget, what comes before the first step included.
        num_workers: Processes that plan and caption ahead, for parts; 0: none.
        num_processes: CPU processes of one thread each that share every batch, for latents.
        compiled: Whether torch compiles the denoiser.
        marks: Samples after which a reading is taken; needs skia and diffusers.
        tell: Called with lines on the progress.

    Raises:
        PackError: the parts are of no use.
        LatentsError: the latents are of no use.
        StateError: the state is of another recipe, or the batch cannot be shared evenly.
    """
    deadline_s = time.monotonic() + 60 * minutes
    folder.mkdir(parents=True, exist_ok=True)
    check_state(folder, recipe)
    if recipe.batch_size % num_processes or (num_processes > 1 and not isinstance(source, Shelf)):
        raise StateError(
            "A batch must be shared evenly, and be one of latents where several processes share "
            f"it, got batch_size {recipe.batch_size} and num_processes {num_processes}."
        )
    if isinstance(source, Shelf) and not wide_latents.make(
        source.folder,
        source.gallery,
        minutes=minutes,
        num_processes=num_processes,
        on_progress=lambda *some: tell(wide_latents.progress(*some)),
    ):
        return Trainer(recipe, folder, torch.device(device))
    job = (
        source, folder, recipe, device, deadline_s, num_workers, num_processes, compiled,
        tuple(marks),
    )  # fmt: skip
    trainer = processes.launch(_train_process, job, num_processes, tell, patient=True)
    return trainer or Trainer(recipe, folder, torch.device(device))


def _train_process(
    rank: int,
    source: Path | Shelf,
    folder: Path,
    recipe: WideRecipe,
    device: str,
    deadline_s: float,
    num_workers: int,
    num_processes: int,
    compiled: bool,
    marks: tuple[int, ...],
    tell: Callable[[str], None],
) -> Trainer:
    if device == "cpu":
        torch.backends.cuda.enable_flash_sdp(False)  # slower backwards for small heads
    trainer = Trainer(recipe, folder, torch.device(device), rank, num_processes)
    if compiled:
        trainer.parts["unet"].compile()
    every_s = SAVE_EVERY_S["cpu" if device == "cpu" else "cuda"]
    pace = _Pace(trainer)
    with Ending() as ending:
        trainer.read_where_due(marks, tell)
        for step in _steps(trainer, source, num_workers):
            late = ending.asked or time.monotonic() >= deadline_s
            if processes.any_of(late, num_processes):
                break
            pace.losses.append(step())
            if (trainer.step % 100 == 0 or trainer.step == recipe.num_steps) and rank == 0:
                tell(pace.told())
            if processes.any_of(pace.unsaved_s() > every_s, num_processes):
                trainer.save()
                pace.saved_s = time.monotonic()
            passed = range(trainer.samples - recipe.batch_size + 1, trainer.samples + 1)
            if any(mark in passed for mark in marks):
                trainer.read_where_due(marks, tell)
    trainer.save()
    return trainer


def _steps(
    trainer: Trainer, source: Path | Shelf, num_workers: int
) -> Iterator[Callable[[], Tensor]]:
    """What takes each step that is left."""
    recipe = trainer.recipe
    if isinstance(source, Shelf):
        latents = Latents(source.folder, source.gallery)
        pick = Picker(recipe, source.gallery, trainer.part)
        for step in range(trainer.step, recipe.num_steps):
            yield partial(trainer.recall, pick(step), latents)
        return
    collage = Collage(Parts(source), trainer.device)
    for batch in batches(source, recipe, trainer.step, num_workers):
        yield partial(trainer.update, batch, collage.pictures(batch.plans))


class _Pace:
    """How quick a training is, and what it says of itself."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self.losses: list[Tensor] = []
        self.saved_s = self.told_s = time.monotonic()
        self.step = trainer.step
        self.seconds: dict[bool, float] = {}
        """Of a step, by whether its pictures are small."""

    def unsaved_s(self) -> float:
        """Seconds since the state was written."""
        return time.monotonic() - self.saved_s

    def told(self) -> str:
        """A line on the steps since the last one; it goes into the history, too."""
        trainer, now = self.trainer, time.monotonic()
        loss = torch.stack(self.losses).mean().item()
        trainer.history.append({"samples": trainer.samples, "loss": loss})
        num = max(1, trainer.step - self.step)
        small = trainer.recipe.is_small(trainer.step - 1)
        self.seconds[small] = (now - self.told_s) / num
        speed = trainer.recipe.batch_size / max(self.seconds[small], 1e-9)
        self.losses.clear()
        self.told_s, self.step = now, trainer.step
        return (
            f"{trainer.samples:,} samples: loss {loss:.4f}, {speed:.0f} a second, "
            f"{self._left_s() / 3600:.1f} hours left"
        )

    def _left_s(self) -> float:
        recipe, step = self.trainer.recipe, self.trainer.step
        small = max(0, math.ceil(recipe.num_steps * recipe.small_fraction) - step)
        whole_s = self.seconds.get(False, _SLOWER * self.seconds.get(True, 0.0))
        small_s = self.seconds.get(True, whole_s / _SLOWER)
        return small * small_s + (recipe.num_steps - step - small) * whole_s


def pipeline(recipe: WideRecipe, parts: nn.ModuleDict) -> Any:
    """Weights as a ``StableDiffusionPipeline`` with the landed autoencoder; needs diffusers."""
    from diffusers import (
        AutoencoderKL,
        DDIMScheduler,
        StableDiffusionPipeline,
        UNet2DConditionModel,
    )

    landed = plain.landed(recipe.model)
    unet = UNet2DConditionModel.from_config(unet_config(recipe))
    unet.load_state_dict(parts["unet"].state_dict())
    return StableDiffusionPipeline(
        vae=AutoencoderKL.from_pretrained(landed / "vae"),
        text_encoder=parts["text"],
        tokenizer=tokenizer(recipe.model),
        unet=unet,
        scheduler=DDIMScheduler.from_pretrained(landed / "scheduler"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def export(folder: Path, target: Path, recipe: WideRecipe, at: int | None = None) -> None:
    """Write averaged weights as a pipeline's folder, fp16; needs diffusers.

    Args:
        folder: Of the state.
        target: For the pipeline, and "denoiser.json" on how it was made.
        recipe: That of the state.
        at: Mark whose weights are written; unset: the state's.

    Raises:
        StateError: there are no weights of the mark.
    """
    trainer = Trainer(recipe, folder, torch.device("cpu"))
    if at is not None:
        trainer.recall_kept(at)
    made = pipeline(recipe, trainer.average)
    made.to(dtype=torch.float16)
    made.save_pretrained(target, max_shard_size="14MB")
    (target / "denoiser.json").write_text(
        json.dumps(
            {
                "samples": trainer.samples,
                "world": recipe.world,
                "recipe": asdict(recipe),
                "history": trainer.history[:: max(1, len(trainer.history) // 40)],
                "readings": wide_reading.taken(folder, trainer.samples),
            }
        )
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run training from the command line."""
    parser = argparse.ArgumentParser(description="Train the denoiser on the second world.")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--parts", type=Path, help="file that packing wrote; draws on the device")
    source.add_argument("--latents", type=Path, help="folder of latents; missing ones are made")
    parser.add_argument("--state", type=Path, required=True, help="folder for the state")
    parser.add_argument("--model", choices=SIZES, default="microworld", help="what it starts from")
    parser.add_argument("--device", default="cpu", help="torch device")
    parser.add_argument("--minutes", type=float, default=math.inf, help="time budget")
    parser.add_argument("--num-workers", type=int, default=0, help="processes that plan ahead")
    parser.add_argument("--num-processes", type=int, default=1, help="CPU processes that train")
    parser.add_argument("--num-samples", type=int, help="pictures seen in all")
    parser.add_argument("--num-pictures", type=int, help="pictures of which there are latents")
    parser.add_argument("--batch-size", type=int, help="pictures a step")
    parser.add_argument("--size", choices=("wide", "landed"), help="width of the model")
    parser.add_argument(
        "--start", choices=("landed", "denoiser", "nothing"), help="what is taken from the landed"
    )
    parser.add_argument("--seed", type=int, default=0, help="of every batch")
    parser.add_argument("--compile", action="store_true", help="compile the denoiser")
    parser.add_argument(
        "--readings",
        type=int,
        nargs="*",
        help="samples after which a reading is taken; with latents every 500,000 unless set",
    )
    parser.add_argument("--read", action="store_true", help="take a reading afterwards")
    parser.add_argument("--export", type=Path, help="folder for the averaged weights afterwards")
    parser.add_argument("--at", type=int, help="reading whose weights are exported")
    options = parser.parse_args(arguments)
    recipe = recipe_for(options.model, options.seed)
    for name in ("num_samples", "batch_size", "size", "start"):
        if getattr(options, name):
            recipe = replace(recipe, **{name: getattr(options, name)})
    if not (options.parts or options.latents or options.read or options.export):
        parser.error("there is nothing to do; pass --latents or --parts, --read or --export")
    if options.parts or options.latents:
        gallery = Gallery(model=recipe.model, **_PICTURES[recipe.model])
        if options.num_pictures:
            gallery = replace(gallery, num_pictures=options.num_pictures)
        trainer = train(
            options.parts or Shelf(options.latents, gallery),
            options.state,
            recipe,
            device=options.device,
            minutes=options.minutes,
            num_workers=options.num_workers,
            num_processes=options.num_processes,
            compiled=options.compile,
            marks=_marks(options.readings, drawn=options.latents is not None),
            tell=_say,
        )
        _say(f"{trainer.samples:,} of {recipe.num_samples:,} samples are seen.")
    if options.read:
        trainer = Trainer(recipe, options.state, torch.device("cpu"))
        _say(json.dumps(trainer.read(), indent=1))
    if options.export is not None:
        export(options.state, options.export, recipe, options.at)
    return 0


_PICTURES = {"microworld": {}, "microworld-nano": {"num_pictures": 64_000}}
"""What the galleries of the models have other than ``Gallery`` says."""


def _marks(chosen: Sequence[int] | None, *, drawn: bool) -> tuple[int, ...]:
    """Samples after which a reading is taken; a machine that draws nothing takes none by itself."""
    if chosen is not None:
        return tuple(sorted(chosen))
    return wide_reading.MARKS if drawn else ()


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201


if __name__ == "__main__":
    raise SystemExit(main())
