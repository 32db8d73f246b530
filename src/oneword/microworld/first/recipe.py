"""The recipe that makes the embedded model from nothing but drawn pictures.

Stages run in order, and each keeps a resumable state in the work folder, so that the recipe
survives being stopped at any moment: run it again. Without ``from_scratch``
the landed VAE, judge and reader are taken as they are, and the denoiser goes on from its landed
weights with a fresh optimiser. Every batch is a function of (seed, stage, step, process).
"""

# The libraries' own annotations are narrower than what they take and return.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportOptionalMemberAccess=false, reportOptionalSubscript=false, reportOperatorIssue=false

from __future__ import annotations

import dataclasses
import json
import math
import os
import platform
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from diffusers import AutoencoderKL
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import CLIPModel

from oneword.microworld.first import captions, models, scenes, weights


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

    seed: int = 0
    """Seed of initialisation and of every batch."""
    vae: Stage = field(
        default_factory=lambda: Stage(
            num_samples=88_000,
            batch_size=16,
            learning_rate=2e-3,
            weight_decay=0.0,
            ema=0.998,
        )
    )
    clip: Stage = field(
        default_factory=lambda: Stage(num_samples=200_000, batch_size=128, learning_rate=1.2e-3)
    )
    judge: Stage = field(
        default_factory=lambda: Stage(num_samples=200_000, batch_size=128, learning_rate=1e-3)
    )
    reader: Stage = field(
        default_factory=lambda: Stage(num_samples=200_000, batch_size=64, learning_rate=1.5e-3)
    )
    denoiser: Stage = field(
        default_factory=lambda: Stage(
            num_samples=307_200,
            batch_size=64,
            learning_rate=1e-3,
            warmup_steps=200,
            decay_fraction=0.3,
            ema=0.999,
        )
    )
    num_pictures: int = 65_536
    """Drawn pictures whose latents are made once for the denoiser; captions are new each time."""
    shard_size: int = 4096
    """Pictures whose latents share a file; it divides num_pictures."""
    text_rate_factor: float = 0.3
    """The text encoder's rate in units of the denoiser's."""
    caption_dropout: float = 0.1
    """Fraction of samples trained without a caption, for guidance."""


STAGES = ("vae", "clip", "judge", "reader", "latents", "denoiser")
_STREAM = {name: index for index, name in enumerate((*STAGES, "check"))}
Progress = Callable[[str, int, int, dict[str, float]], None]


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
            for key, part in self.parts.items():
                landed = weights.landed_denoiser(key)
                if landed is not None:
                    part.load_state_dict({n: t.float() for n, t in landed.items()})
                    self.earlier_samples = weights.card()["denoiser_samples"]
                    self.history = weights.card()["history"]
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


def _seed_weights(recipe: Recipe, stage: str) -> None:
    # layers take their first weights from the global generator alone
    torch.manual_seed(recipe.seed * len(STAGES) + _STREAM[stage])  # noqa: TID251


def pixels_of(pictures: np.ndarray, device: torch.device) -> Tensor:
    """uint8 (batch, size, size, 3) to float32 (batch, 3, size, size) in [-1, 1], channels last."""
    pixels = torch.from_numpy(pictures).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1
    return pixels.contiguous(memory_format=torch.channels_last)


def _draw(rng: np.random.Generator, num: int) -> tuple[np.ndarray, list[scenes.Scene]]:
    return scenes.render_batch(rng.integers(0, 2**40, num).tolist(), size=models.SIZE_PX)


# --- autoencoder


def train_vae(shop: Workshop) -> bool:
    """Autoencoder on quarter-size crops first (four times the steps), then whole pictures.

    A multi-scale colour loss keeps flat colours true where plain L1 let them collapse in a trial.
    """
    _seed_weights(shop.recipe, "vae")
    vae = models.autoencoder().to(shop.device, memory_format=torch.channels_last)
    stage = shop.recipe.vae
    run = Run(shop, "vae", stage, {"vae": vae})
    for rng in run.steps():
        crops = run.step < 0.8 * stage.num_steps
        pictures, _ = _draw(rng, stage.batch_size // 2 // shop.num_processes)
        pixels = pixels_of(pictures, shop.device)
        if crops:
            half = models.SIZE_PX // 2
            corners = rng.integers(0, half + 1, (2 * len(pixels), 2))
            pixels = torch.stack(
                [
                    pixels[i // 2, :, y : y + half, x : x + half]
                    for i, (y, x) in enumerate(corners.tolist())
                ]
            ).contiguous(memory_format=torch.channels_last)
        noise_seed = torch.Generator().manual_seed(int(rng.integers(2**62)))
        with shop.amp:
            posterior = vae.encode(pixels).latent_dist
            noise = torch.randn(posterior.mean.shape, generator=noise_seed).to(shop.device)
            decoded = vae.decode(posterior.mean + posterior.std * noise).sample
        kl = posterior.kl().float().mean() / posterior.mean[0].numel()
        run.update(_vae_loss(decoded.float(), pixels) + 3e-4 * kl)
    if shop.rank == 0:
        run.use_average()
        _normalise_latents(shop, vae)
        weights.save_part(shop.folder, "vae", vae)
    return run.done


def _vae_loss(decoded: Tensor, pixels: Tensor) -> Tensor:
    error = decoded - pixels
    loss = error.abs().mean() + error.square().mean()
    for factor in (4, 8):
        loss = loss + 0.5 * F.avg_pool2d(error, factor).abs().mean()
    edges = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
    return loss + 0.2 * edges


@torch.no_grad()
def _normalise_latents(shop: Workshop, vae: AutoencoderKL) -> None:
    """Fold the latents' mean and deviation into the 1 x 1 convolutions around them.

    One scaling factor leaves channels three times apart; after this every channel has mean 0 and
    deviation 1, and the stock pipeline needs no change.
    """
    pictures, _ = _draw(shop.rng("check", 0), 512)
    latents = torch.cat(
        [vae.encode(pixels_of(p, shop.device)).latent_dist.mean for p in np.split(pictures, 8)]
    )
    mean = latents.mean(dim=(0, 2, 3))
    std = latents.std(dim=(0, 2, 3))
    quant, post = vae.quant_conv, vae.post_quant_conv
    channels = models.LATENT_CHANNELS
    quant.weight[:channels] /= std[:, None, None, None]
    quant.bias[:channels] = (quant.bias[:channels] - mean) / std
    quant.bias[channels:] -= 2 * std.log()  # the posterior's log-variance scales along
    kernel = post.weight[:, :, 0, 0].clone()
    post.bias += kernel @ mean
    post.weight.copy_((kernel * std)[:, :, None, None])


# --- CLIP pairs


def _alike(rng: np.random.Generator, num: int) -> list[int]:
    """Seeds of a batch in groups that share scene, style and colour, so that shape must be learnt.

    Random batches can be told apart by colour, scene and style: a CLIP trained on them was blind to
    nouns.
    """
    seeds = rng.integers(0, 2**40, 8 * num).tolist()
    groups: dict[tuple[str, ...], list[int]] = {}
    for seed in seeds:
        scene = scenes.sample_scene(seed)
        first = scene.things[0]
        groups.setdefault((scene.place, scene.style, first.colours[0]), []).append(seed)
    order = sorted(groups, key=lambda key: (-min(len(groups[key]), 8), rng.random()))
    picked = [seed for key in order for seed in groups[key][:8]]
    return picked[:num]


def train_clip(shop: Workshop, name: str) -> bool:
    """A CLIP pair: contrastive loss on hard groups, and attribute heads that are thrown away."""
    recipe = shop.recipe
    _seed_weights(recipe, name)
    tokens = models.tokenizer()
    judge = name == "judge"
    pair = models.clip(
        tokens,
        width=160 if judge else 128,
        layers=4 if judge else 3,
        text_layers=2 if judge else 3,
    ).to(shop.device)
    heads = nn.ModuleDict(
        {n: nn.Linear(models.TEXT_DIM, len(v)) for n, v in models.Reader.HEADS.items()}
        | {"pattern": nn.Linear(models.TEXT_DIM, len(scenes.PATTERNS))}
    ).to(shop.device)
    stage = getattr(recipe, name)
    run = Run(shop, name, stage, {"clip": pair, "heads": heads})
    for rng in run.steps():
        num = stage.batch_size // shop.num_processes
        hard = run.step % 4 != 0
        seeds = _alike(rng, num) if hard else rng.integers(0, 2**40, num).tolist()
        pictures, drawn = scenes.render_batch(seeds, size=models.SIZE_PX)
        texts = [captions.caption(scene, rng) for scene in drawn]
        batch = tokens(texts, padding=True, truncation=True, return_tensors="pt").to(shop.device)
        with shop.amp:
            seen = pair.vision_model(pixel_values=pixels_of(pictures, shop.device)).pooler_output
            read = pair.text_model(**batch).pooler_output
            image = F.normalize(pair.visual_projection(seen).float(), dim=-1)
            text = F.normalize(pair.text_projection(read).float(), dim=-1)
            logits = pair.logit_scale.exp().clamp(max=100.0) * image @ text.T
            same = torch.tensor([[a == b for b in texts] for a in texts], device=shop.device)
            aim = same.float() / same.sum(dim=1, keepdim=True)
            loss = (F.cross_entropy(logits, aim) + F.cross_entropy(logits.T, aim)) / 2
            loss = loss + 0.3 * attribute_loss({n: h(image * 8) for n, h in heads.items()}, drawn)
        run.update(loss)
    if shop.rank == 0:
        weights.save_part(shop.folder, name, pair)
    return run.done


def attribute_loss(logits: dict[str, Tensor], drawn: list[scenes.Scene]) -> Tensor:
    """Cross-entropy of the true attributes; a picture of two things has two nouns, half each."""
    device = next(iter(logits.values())).device
    total = torch.zeros((), device=device)
    single = torch.tensor([len(s.things) == 1 for s in drawn], device=device)
    for name, scores in logits.items():
        if name == "noun":
            aim = torch.zeros(len(drawn), len(scenes.NOUNS))
            for i, scene in enumerate(drawn):
                for thing in scene.things:
                    aim[i, scenes.NOUNS.index(thing.noun)] += 1 / len(scene.things)
            total = total + F.cross_entropy(scores, aim.to(device))
            continue
        truth = torch.tensor([attribute(s, name) for s in drawn], device=device)
        loss = F.cross_entropy(scores, truth, reduction="none")
        if name in ("colour", "pattern"):
            loss = loss[single]
        total = total + loss.mean()
    return total


def attribute(scene: scenes.Scene, name: str) -> int:
    """Index of a scene's attribute (of its first thing): noun, colour, pattern, scene or style."""
    first = scene.things[0]
    if name == "noun":
        return scenes.NOUNS.index(first.noun)
    if name == "colour":
        return scenes.COLOURS.index(first.colours[0])
    if name == "pattern":
        return scenes.PATTERNS.index(first.pattern)
    if name == "scene":
        return scenes.SCENES.index(scene.place)
    return scenes.STYLES.index(scene.style)


# --- reader


def train_reader(shop: Workshop) -> bool:
    """The classifier that scores generated pictures, trained on drawings passed through the VAE."""
    recipe = shop.recipe
    _seed_weights(recipe, "reader")
    vae = weights.load_vae(shop.folder).to(shop.device).eval().requires_grad_(False)
    reader = models.Reader().to(shop.device, memory_format=torch.channels_last)
    run = Run(shop, "reader", recipe.reader, {"reader": reader})
    for rng in run.steps():
        pictures, drawn = _draw(rng, recipe.reader.batch_size // shop.num_processes)
        pixels = pixels_of(pictures, shop.device)
        seed = torch.Generator().manual_seed(int(rng.integers(2**62)))
        with shop.amp, torch.no_grad():
            # a third through the VAE, softened in latent space as a generator softens
            some = slice(0, len(pixels) // 3)
            latents = vae.encode(pixels[some]).latent_dist.mean
            blur = 0.3 * torch.rand(len(latents), 1, 1, 1, generator=seed)
            noise = torch.randn(latents.shape, generator=seed)
            pixels[some] = vae.decode(latents + (blur * noise).to(latents)).sample.float()
        shift = torch.randn(len(pixels), 3, 1, 1, generator=seed).to(pixels) * 0.03
        with shop.amp:
            loss = attribute_loss(reader(pixels + shift), drawn)
        run.update(loss)
    if shop.rank == 0:
        weights.save_part(shop.folder, "reader", reader)
    return run.done


# --- latents and denoiser


def make_latents(shop: Workshop) -> bool:
    """Encode the drawn pictures once, in shards that are skipped when they exist."""
    vae = weights.load_vae(shop.folder).to(shop.device).eval()
    shard_size = shop.recipe.shard_size
    num_shards = shop.recipe.num_pictures // shard_size
    started = time.monotonic()
    for shard in range(shop.rank, num_shards, shop.num_processes):
        path = _shard(shop, shard)
        if path.exists():
            continue
        moments = []
        for start in range(shard * shard_size, (shard + 1) * shard_size, 64):
            seeds = [_picture_seed(shop.recipe, i) for i in range(start, start + 64)]
            pictures, _ = scenes.render_batch(seeds, size=models.SIZE_PX)
            with torch.inference_mode(), shop.amp:
                posterior = vae.encode(pixels_of(pictures, shop.device)).latent_dist
            moments.append(torch.cat([posterior.mean, posterior.std], dim=1).half().cpu())
        part = path.with_suffix(".part")
        save_file({"moments": torch.cat(moments).contiguous()}, part)
        os.replace(part, path)
        speed = (shard + 1) / (time.monotonic() - started)
        if shop.rank == 0:
            shop.on_progress("latents", shard + 1, num_shards, {"steps_per_s": speed})
        if time.monotonic() >= shop.deadline_s:
            break
    if shop.num_processes > 1:
        dist.barrier()
    return all(_shard(shop, i).exists() for i in range(num_shards))


def _shard(shop: Workshop, index: int) -> Path:
    return shop.folder / f"latents-{index:04d}.safetensors"


def _picture_seed(recipe: Recipe, index: int) -> int:
    return recipe.seed * 2**32 + index


def train_denoiser(shop: Workshop) -> bool:
    """The UNet, and the text encoder with it, on latents; captions are written anew each time."""
    recipe, stage = shop.recipe, shop.recipe.denoiser
    _seed_weights(recipe, "denoiser")
    tokens = models.tokenizer()
    unet = models.denoiser().to(shop.device, memory_format=torch.channels_last)
    if (shop.folder / "clip").exists():
        pair = CLIPModel.from_pretrained(shop.folder / "clip")
    else:  # the landed text encoder takes its place
        pair = models.clip(tokens, width=128, layers=3, text_layers=3)
    encoder = models.text_encoder_of(pair)
    encoder = encoder.to(shop.device)
    moments = torch.cat(
        [
            load_file(_shard(shop, i))["moments"]
            for i in range(recipe.num_pictures // recipe.shard_size)
        ]
    )
    alphas = models.scheduler().alphas_cumprod.to(shop.device)
    run = Run(
        shop,
        "denoiser",
        stage,
        {"unet": unet, "text": encoder},
        text=recipe.text_rate_factor,
    )
    num = stage.batch_size // shop.num_processes
    for rng in run.steps():
        index = rng.integers(0, recipe.num_pictures, num)
        texts = [
            ""
            if rng.random() < recipe.caption_dropout
            else captions.caption(scenes.sample_scene(_picture_seed(recipe, int(i))), rng)
            for i in index
        ]
        seed = torch.Generator().manual_seed(int(rng.integers(2**62)))
        mean, std = moments[torch.from_numpy(index)].float().chunk(2, dim=1)
        x0 = mean + std * torch.randn(mean.shape, generator=seed)
        noise = torch.randn(x0.shape, generator=seed)
        # stratified over the batch: the same distribution with less variance
        u = (torch.arange(num) + torch.rand(num, generator=seed)) / num
        t = (u[torch.randperm(num, generator=seed)] * len(alphas)).long().to(shop.device)
        x0, noise = x0.to(shop.device), noise.to(shop.device)
        a = alphas[t].sqrt()[:, None, None, None]
        s = (1 - alphas[t]).sqrt()[:, None, None, None]
        x_t = (a * x0 + s * noise).contiguous(memory_format=torch.channels_last)
        ids = tokens(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids
        with shop.amp:
            states = encoder(ids.to(shop.device)).last_hidden_state
            predicted = unet(x_t, t, states).sample
        run.update(F.mse_loss(predicted.float(), a * noise - s * x0))
    if shop.rank == 0:
        run.use_average()
        weights.save_part(shop.folder, "unet", unet)
        weights.save_part(shop.folder, "text_encoder", encoder)
        (shop.folder / "denoiser.json").write_text(
            json.dumps(
                {
                    "samples": run.samples,
                    "history": run.history[:: max(1, len(run.history) // 40)],
                }
            )
        )
    return run.done


# --- all of it


_TRAIN: dict[str, Callable[[Workshop], bool]] = {
    "vae": train_vae,
    "clip": lambda shop: train_clip(shop, "clip"),
    "judge": lambda shop: train_clip(shop, "judge"),
    "reader": train_reader,
    "latents": make_latents,
    "denoiser": train_denoiser,
}


def train(
    folder: Path,
    *,
    recipe: Recipe | None = None,
    stages: tuple[str, ...] = STAGES,
    minutes: float = math.inf,
    device: str = "cpu",
    num_processes: int = 1,
    from_scratch: bool = False,
    on_progress: Progress | None = None,
) -> bool:
    """Run the stages in order in a work folder, and stop in time.

    Args:
        folder: Work folder: states, finished parts, latents. Kept between calls.
        recipe: What to make; the default makes the landed weights.
        stages: Which stages to run, in the recipe's order.
        minutes: Time budget of this call.
        device: torch device.
        num_processes: CPU processes of one thread each, which share every batch.
        from_scratch: Begin at nothing even where landed weights exist.
        on_progress: Called with (stage, done steps, all steps, metrics).

    Returns:
        Whether every stage is complete.
    """
    folder.mkdir(parents=True, exist_ok=True)
    job = (
        folder, recipe or Recipe(), stages, time.monotonic() + 60 * minutes, device, num_processes,
        from_scratch, on_progress or _tell_nobody,
    )  # fmt: skip
    if num_processes == 1:
        return _train_process(0, *job, None)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    torch.multiprocessing.spawn(_train_process, (*job, port), nprocs=num_processes)
    return all((folder / f"{stage}.done").exists() for stage in stages)


def _train_process(
    rank: int,
    folder: Path,
    recipe: Recipe,
    stages: tuple[str, ...],
    deadline_s: float,
    device: str,
    num_processes: int,
    from_scratch: bool,
    on_progress: Progress,
    port: int | None,
) -> bool:
    if port is not None:
        torch.set_num_threads(1)
        address = f"tcp://127.0.0.1:{port}"
        dist.init_process_group("gloo", init_method=address, rank=rank, world_size=num_processes)
    if device == "cpu":
        # small heads train a quarter faster without the flash kernel's backward pass
        torch.backends.cuda.enable_flash_sdp(False)
    shop = Workshop(
        recipe,
        folder,
        torch.device(device),
        deadline_s,
        on_progress,
        rank,
        num_processes,
        from_scratch,
    )
    complete = True
    for stage in STAGES:
        done = folder / f"{stage}.done"
        skipped = stage not in stages or done.exists()
        if num_processes > 1:
            dist.barrier()  # nobody marks a stage as done before everybody has looked
        if skipped:
            continue
        if from_scratch or not weights.take(stage, folder):
            complete = _TRAIN[stage](shop)
        if not complete:
            break
        if rank == 0:
            done.touch()
    if port is not None:
        dist.destroy_process_group()
    return complete


def _tell_nobody(stage: str, done: int, total: int, metrics: dict[str, float]) -> None:
    """Stand in for an absent ``on_progress``."""


def land(folder: Path, target: Path, recipe: Recipe) -> Path:
    """Put a work folder's model together in ``target``, with the card of how it was made."""
    weights.check_landing(folder, target)
    made = json.loads((folder / "denoiser.json").read_text())
    details = {
        "name": "microworld",
        "made_by": "oneword microworld train --from-scratch",
        "recipe": dataclasses.asdict(recipe),
        "denoiser_samples": made["samples"],
        "history": made["history"],
        "commit": _commit(),
        "torch": torch.__version__,
        "compute": f"{platform.machine()}, {os.cpu_count()} cores",
        "scores": {},
    }
    return weights.land(folder, target, details)


def _commit() -> str:
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"
