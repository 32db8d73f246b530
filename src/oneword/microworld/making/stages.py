"""The stages of the recipe, each from what those before it left in the work folder."""

# The libraries' own annotations are narrower than what they take and return.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportOptionalMemberAccess=false, reportOptionalSubscript=false, reportOperatorIssue=false

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from diffusers import AutoencoderKL
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import CLIPModel, CLIPTokenizer

from oneword.microworld import weights
from oneword.microworld.making import models, oracle, shards, wide_oracle
from oneword.microworld.making.recipe import Recipe
from oneword.microworld.making.run import Run, Workshop, seed_weights
from oneword.microworld.world import captions, concepts, drawing, held_out, inventory, scenes


_Reader = TypeVar("_Reader", oracle.Oracle, wide_oracle.WideOracle)


def pixels_of(pictures: np.ndarray, device: torch.device) -> Tensor:
    """uint8 (batch, size, size, 3) to float32 (batch, 3, size, size) in [-1, 1], channels last."""
    pixels = torch.from_numpy(pictures).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1
    return pixels.contiguous(memory_format=torch.channels_last)


def _draw(shop: Workshop, seeds: list[int]) -> tuple[np.ndarray, list[inventory.Scene]]:
    return drawing.render_batch(seeds, size=shop.recipe.sizes.size_px)


def _seeds(rng: np.random.Generator, num: int) -> list[int]:
    return rng.integers(0, 2**40, num).tolist()


# --- autoencoder


def train_vae(shop: Workshop) -> bool:
    """Autoencoder on quarter-size crops first (four times the steps), then whole pictures.

    A multi-scale colour loss keeps flat colours true where plain L1 let them collapse in a trial.
    """
    seed_weights(shop.recipe, "vae")
    sizes = shop.recipe.sizes
    vae = models.autoencoder(sizes).to(shop.device, memory_format=torch.channels_last)
    stage = shop.recipe.vae
    run = Run(shop, "vae", stage, {"vae": vae})
    for rng in run.steps():
        crops = run.step < 0.8 * stage.num_steps
        pictures, _ = _draw(shop, _seeds(rng, stage.batch_size // 2 // shop.num_processes))
        pixels = pixels_of(pictures, shop.device)
        if crops:
            half = sizes.size_px // 2
            corners = rng.integers(0, half + 1, (2 * len(pixels), 2))
            pixels = torch.stack(
                [
                    pixels[i // 2, :, y : y + half, x : x + half]
                    for i, (y, x) in enumerate(corners.tolist())
                ]
            ).contiguous(memory_format=torch.channels_last)
        noise_seed = torch.Generator().manual_seed(int(rng.integers(2**62)))
        shape = (len(pixels), sizes.latent_channels, *(n // sizes.factor for n in pixels.shape[2:]))
        noise = torch.randn(shape, generator=noise_seed).to(shop.device)
        with shop.amp:
            posterior = vae.encode(pixels).latent_dist
            decoded = vae.decode(posterior.mean + posterior.std * noise).sample
        kl = posterior.kl().float().mean() / noise[0].numel()
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
    pictures, _ = _draw(shop, _seeds(shop.rng("check", 0), 512))
    latents = torch.cat(
        [vae.encode(pixels_of(p, shop.device)).latent_dist.mean for p in np.split(pictures, 16)]
    )
    mean = latents.mean(dim=(0, 2, 3))
    std = latents.std(dim=(0, 2, 3))
    quant, post = vae.quant_conv, vae.post_quant_conv
    channels = shop.recipe.sizes.latent_channels
    quant.weight[:channels] /= std[:, None, None, None]
    quant.bias[:channels] = (quant.bias[:channels] - mean) / std
    quant.bias[channels:] -= 2 * std.log()  # the posterior's log-variance scales along
    kernel = post.weight[:, :, 0, 0].clone()
    post.bias += kernel @ mean
    post.weight.copy_((kernel * std)[:, :, None, None])


@torch.no_grad()
def vae_psnr(folder: Path, recipe: Recipe) -> dict[str, float]:
    """Peak signal-to-noise ratio of unseen drawings through the VAE, dB, by style."""
    vae = weights.load_vae(folder)
    rng = np.random.default_rng(np.random.SeedSequence((recipe.seed, 51)))
    seeds = _seeds(rng, recipe.num_check_pictures)
    pictures, drawn = drawing.render_batch(seeds, size=recipe.sizes.size_px)
    errors: list[float] = []
    for pixels in pixels_of(pictures, torch.device("cpu")).split(16):
        decoded = vae.decode(vae.encode(pixels).latent_dist.mean).sample.clamp(-1, 1)
        errors += (decoded - pixels).square().flatten(1).mean(1).tolist()
    found: dict[str, list[float]] = {}
    for scene, error in zip(drawn, errors, strict=True):
        found.setdefault(scene.style, []).append(10 * math.log10(4 / error))
    every = [value for values in found.values() for value in values]
    means = {style: sum(values) / len(values) for style, values in sorted(found.items())}
    return means | {"all": sum(every) / len(every)}


# --- CLIP pairs


_CLIP_HEADS = ("noun", "second_noun", "colour", "pattern", "scene", "style", "count", "relation")


@dataclass(frozen=True, slots=True)
class Lessons:
    """What a CLIP pair learns from: the pictures of a world and what is said of them."""

    tokens: CLIPTokenizer
    heads: Mapping[str, Sequence[str]]
    """Attributes that are read from pictures while it learns, and the values of each."""
    alike: Callable[[int], tuple[str, ...]]
    """What the scene of a seed shares with others besides its things."""
    draw: Callable[[list[int], int], tuple[np.ndarray, list[Any]]]
    """Pictures of seeds, of a side in px, with their scenes."""
    caption: Callable[[Any, np.random.Generator], str]
    truth: Callable[[Any], dict[str, str]]
    """What the heads should read."""


def lessons() -> Lessons:
    """Those of the first world."""

    def alike(seed: int) -> tuple[str, ...]:
        scene = scenes.sample_scene(seed)
        return scene.place, scene.style, scene.things[0].colours[0]

    return Lessons(
        tokens=models.tokenizer(),
        heads={name: oracle.HEADS[name] for name in _CLIP_HEADS},
        alike=alike,
        draw=lambda seeds, size_px: drawing.render_batch(seeds, size=size_px),
        caption=captions.caption,
        truth=oracle.truth,
    )


def _alike(
    rng: np.random.Generator, num: int, alike: Callable[[int], tuple[str, ...]]
) -> list[int]:
    """Seeds of a batch in groups that share scene, style and colour, so that shape must be learnt.

    Random batches can be told apart by colour, scene and style: a CLIP trained on them was blind to
    nouns.
    """
    seeds = _seeds(rng, 6 * num)
    groups: dict[tuple[str, ...], list[int]] = {}
    for seed in seeds:
        groups.setdefault(alike(seed), []).append(seed)
    order = sorted(groups, key=lambda key: (-min(len(groups[key]), 8), rng.random()))
    picked = [seed for key in order for seed in groups[key][:8]]
    return picked[:num]


def train_clip(shop: Workshop, name: str, taught: Lessons | None = None) -> bool:
    """A CLIP pair: contrastive loss on hard groups, and attribute heads that are thrown away.

    Args:
        shop: Where and how.
        name: Of the stage.
        taught: What it learns from; ``None``: the first world. A later world's tokenizer is kept
            beside the pair.
    """
    recipe = shop.recipe
    seed_weights(recipe, name)
    own = lessons() if taught is None else taught
    tokens = own.tokens
    pair = models.clip(tokens, recipe.sizes, judge=name == "judge").to(shop.device)
    heads = nn.ModuleDict(
        {n: nn.Linear(recipe.sizes.text_dim, len(v)) for n, v in own.heads.items()}
    ).to(shop.device)
    stage = getattr(recipe, name)
    run = Run(shop, name, stage, {"clip": pair, "heads": heads})
    for rng in run.steps():
        num = stage.batch_size // shop.num_processes
        hard = run.step % 4 != 0
        seeds = _alike(rng, num, own.alike) if hard else _seeds(rng, num)
        pictures, drawn = own.draw(seeds, recipe.sizes.size_px)
        texts = [own.caption(scene, rng) for scene in drawn]
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
            read = {n: head(image * 8) for n, head in heads.items()}
            told = [own.truth(scene) for scene in drawn]
            loss = loss + 0.3 * oracle.attribute_loss(read, told, own.heads)
        run.update(loss)
    if shop.rank == 0:
        weights.save_part(shop.folder, name, pair)
        if taught is not None:
            tokens.save_pretrained(shop.folder / name)
    return run.done


@torch.no_grad()
def pair_retrieval(folder: Path, recipe: Recipe, taught: Lessons | None = None) -> float:
    """Share of unseen drawings whose own caption is the nearest of all their captions.

    Args:
        folder: A CLIP pair's.
        recipe: Whose ``num_check_pictures`` are drawn.
        taught: What it learned from; ``None``: the first world.
    """
    own = lessons() if taught is None else taught
    pair, tokens = CLIPModel.from_pretrained(folder).float().eval(), weights.pair_tokenizer(folder)
    rng = np.random.default_rng(np.random.SeedSequence((recipe.seed, 53)))
    pictures, drawn = own.draw(_seeds(rng, recipe.num_check_pictures), recipe.sizes.size_px)
    texts = [own.caption(scene, rng) for scene in drawn]
    images = []
    for pixels in pixels_of(pictures, torch.device("cpu")).split(64):
        seen = pair.vision_model(pixel_values=pixels).pooler_output
        images.append(F.normalize(pair.visual_projection(seen), dim=-1))
    batch = tokens(texts, padding=True, truncation=True, return_tensors="pt")
    read = F.normalize(pair.text_projection(pair.text_model(**batch).pooler_output), dim=-1)
    nearest = (torch.cat(images) @ read.T).argmax(dim=1).tolist()
    return sum(texts[n] == text for n, text in zip(nearest, texts, strict=True)) / len(texts)


# --- oracle


def oracle_batch(
    rng: np.random.Generator, num: int, size_px: int
) -> tuple[np.ndarray, list[dict[str, str]]]:
    """Drawn pictures with their truth: the world, and for a third the held-out concepts."""
    pictures, truths = drawing.render_batch(_seeds(rng, num - num // 3), size=size_px)
    told = [oracle.truth(scene) for scene in truths]
    shown = []
    for _ in range(num // 3):
        concept = held_out.HELD_OUT[int(rng.integers(len(held_out.HELD_OUT)))]
        scene = held_out_scene(concept, rng)
        shown.append(drawing.render(scene, size_px))
        told.append(oracle.truth(scene, concept.name if concept.thing else oracle.NONE))
    return np.concatenate([pictures, np.stack(shown)]), told


def held_out_scene(concept: held_out.HeldOut, rng: np.random.Generator) -> inventory.Scene:
    """A concept in any place, now and then in another style or beside something known."""
    scene = concepts.concept_scene(concept, str(rng.choice(inventory.PLACES)), rng)
    if concept.thing is None:
        return scene
    if rng.random() < 0.4:
        scene = replace(scene, style=str(rng.choice(inventory.STYLES)))
    if rng.random() < 0.15:
        beside = scenes.sample_thing(rng, str(rng.choice(inventory.NOUNS)))
        scene = replace(scene, things=(*scene.things, beside), relation="beside")
    return scene


def train_oracle(shop: Workshop) -> bool:
    """The classifier that scores, trained on drawings of which some have gone through the VAE."""
    return train_reader(shop, oracle.Oracle, oracle_batch, oracle.attribute_loss)


def train_reader(
    shop: Workshop,
    kind: type[_Reader],
    batch: Callable[[np.random.Generator, int, int], tuple[np.ndarray, list[dict[str, str]]]],
    loss: Callable[[Mapping[str, Tensor], Sequence[Mapping[str, str]]], Tensor],
    finish: Callable[[_Reader, AutoencoderKL], None] | None = None,
) -> bool:
    """Train an oracle of either world.

    Args:
        shop: Where and how.
        kind: Of the oracle.
        batch: Draws so many pictures of a side in pixels, and says what is true of them.
        loss: Of what is read against what is true.
        finish: What is done to the trained oracle, by means of the VAE, before it is written.
    """
    recipe = shop.recipe
    seed_weights(recipe, "oracle")
    vae = weights.load_vae(shop.folder).to(shop.device).eval().requires_grad_(False)
    reader = kind(recipe.sizes.oracle_width, recipe.sizes.size_px)
    reader = reader.to(shop.device, memory_format=torch.channels_last)
    run = Run(shop, "oracle", recipe.oracle, {"oracle": reader})
    for rng in run.steps():
        num = recipe.oracle.batch_size // shop.num_processes
        pictures, told = batch(rng, num, recipe.sizes.size_px)
        order = rng.permutation(num)
        pixels, told = pixels_of(pictures[order], shop.device), [told[i] for i in order]
        seed = torch.Generator().manual_seed(int(rng.integers(2**62)))
        with shop.amp, torch.no_grad():
            some = slice(0, num // 3)
            pixels[some] = softened(vae, pixels[some], seed)
        shift = torch.randn(num, 3, 1, 1, generator=seed).to(pixels) * 0.03
        with shop.amp:
            found = loss(reader(pixels + shift), told)
        run.update(found)
    if shop.rank == 0:
        if finish is not None and run.done:
            finish(reader, vae)
        weights.save_part(shop.folder, "oracle", reader)
    return run.done


def softened(vae: AutoencoderKL, pixels: Tensor, seed: torch.Generator) -> Tensor:
    """Pictures through the VAE, with noise in the latents as a generator leaves it."""
    latents = vae.encode(pixels).latent_dist.mean
    amount = 0.3 * torch.rand(len(latents), 1, 1, 1, generator=seed)
    noise = torch.randn(latents.shape, generator=seed)
    return vae.decode(latents + (amount * noise).to(latents)).sample.float()


def oracle_accuracy(folder: Path, recipe: Recipe) -> dict[str, float]:
    """How well the oracle reads unseen drawings that have gone through the VAE, by attribute."""
    rng = np.random.default_rng(np.random.SeedSequence((recipe.seed, 52)))
    pictures, told = oracle_batch(rng, recipe.num_check_pictures, recipe.sizes.size_px)
    return oracle.agreement(read_back(folder, recipe, pictures), told)


@torch.no_grad()
def read_back(folder: Path, recipe: Recipe, pictures: np.ndarray) -> list[dict[str, str]]:
    """What a work folder's oracle reads from drawings that have gone through its VAE."""
    vae = weights.load_vae(folder)
    file = folder / "oracle" / "model.safetensors"
    reader = weights.load_oracle(recipe.model, file, recipe.world)
    read: list[dict[str, str]] = []
    for pixels in pixels_of(pictures, torch.device("cpu")).split(16):
        read += reader.read(through(vae, pixels))
    return read


def through(vae: AutoencoderKL, pixels: Tensor) -> Tensor:
    """Pictures, (batch, 3, height, width) in [-1, 1], through the VAE."""
    return vae.decode(vae.encode(pixels).latent_dist.mean).sample.clamp(-1, 1)


# --- latents and denoiser


def make_latents(shop: Workshop) -> bool:
    """Encode the drawn pictures once, in shards that are skipped when they exist."""
    vae = weights.load_vae(shop.folder).to(shop.device).eval()
    shard_size = shop.recipe.shard_size
    num_shards = shop.recipe.num_pictures // shard_size
    started = time.monotonic()

    def made(shard: int) -> dict[str, Tensor]:
        moments = []
        for start in range(shard * shard_size, (shard + 1) * shard_size, 64):
            seeds = [_picture_seed(shop.recipe, i) for i in range(start, start + 64)]
            pictures, _ = _draw(shop, seeds)
            with torch.inference_mode(), shop.amp:
                posterior = vae.encode(pixels_of(pictures, shop.device)).latent_dist
            moments.append(torch.cat([posterior.mean, posterior.std], dim=1).half().cpu())
        return {"moments": torch.cat(moments)}

    def told(shard: int) -> bool:
        speed = (shard + 1) / (time.monotonic() - started)
        if shop.rank == 0:
            shop.on_progress("latents", shard + 1, num_shards, {"steps_per_s": speed})
        return time.monotonic() >= shop.deadline_s

    shards.make(
        shop.folder,
        num_shards,
        made,
        rank=shop.rank,
        num_processes=shop.num_processes,
        on_shard=told,
    )
    if shop.num_processes > 1:
        dist.barrier()
    return not shards.missing(shop.folder, num_shards)


def _picture_seed(recipe: Recipe, index: int) -> int:
    return recipe.seed * 2**32 + index


def train_denoiser(shop: Workshop) -> bool:
    """Train the UNet and the text encoder on latents; captions are written again each time."""
    recipe, stage = shop.recipe, shop.recipe.denoiser
    seed_weights(recipe, "denoiser")
    tokens = models.tokenizer()
    unet = models.denoiser(recipe.sizes).to(shop.device, memory_format=torch.channels_last)
    if (shop.folder / "clip").exists():
        pair = CLIPModel.from_pretrained(shop.folder / "clip")
    else:  # the landed text encoder takes its place
        pair = models.clip(tokens, recipe.sizes, judge=False)
    encoder = models.text_encoder_of(pair)
    encoder = encoder.to(shop.device)
    moments = torch.cat(
        [
            load_file(shards.path_of(shop.folder, i))["moments"]
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
