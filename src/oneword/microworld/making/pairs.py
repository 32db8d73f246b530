"""The CLIP pairs: the text encoder's teacher, the judge that scores, the guide that steers."""

# The libraries' own annotations are narrower than what they take and return.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportOptionalMemberAccess=false, reportOptionalSubscript=false, reportOperatorIssue=false

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from transformers import CLIPModel

from oneword.microworld import weights
from oneword.microworld.making import models, oracle
from oneword.microworld.making.recipe import Recipe
from oneword.microworld.making.run import Run, Workshop, seed_weights
from oneword.microworld.making.stages import draw, pixels_of, seeds_of
from oneword.microworld.world import captions, drawing, scenes


_CLIP_HEADS = ("noun", "second_noun", "colour", "pattern", "scene", "style", "count", "relation")


def _alike(rng: np.random.Generator, num: int) -> list[int]:
    """Seeds of a batch in groups that share scene, style and colour, so that shape must be learnt.

    Random batches can be told apart by colour, scene and style: a CLIP trained on them was blind to
    nouns.
    """
    seeds = seeds_of(rng, 6 * num)
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
    seed_weights(recipe, name)
    tokens = models.tokenizer()
    pair = models.clip(tokens, recipe.sizes, judge=name == "judge").to(shop.device)
    heads = nn.ModuleDict(
        {n: nn.Linear(recipe.sizes.text_dim, len(oracle.HEADS[n])) for n in _CLIP_HEADS}
    ).to(shop.device)
    stage = getattr(recipe, name)
    run = Run(shop, name, stage, {"clip": pair, "heads": heads})
    for rng in run.steps():
        num = stage.batch_size // shop.num_processes
        hard = run.step % 4 != 0
        pictures, drawn = draw(shop, _alike(rng, num) if hard else seeds_of(rng, num))
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
            read = {n: head(image * 8) for n, head in heads.items()}
            loss = loss + 0.3 * oracle.attribute_loss(read, [oracle.truth(s) for s in drawn])
        run.update(loss)
    if shop.rank == 0:
        weights.save_part(shop.folder, name, pair)
    return run.done


@torch.no_grad()
def pair_retrieval(folder: Path, recipe: Recipe) -> float:
    """Share of unseen drawings whose own caption is the nearest of all their captions.

    Args:
        folder: A CLIP pair's, of the recipe's world.
        recipe: Whose ``num_check_pictures`` are drawn.
    """
    pair, tokens = CLIPModel.from_pretrained(folder).float().eval(), weights.pair_tokenizer(folder)
    rng = np.random.default_rng(np.random.SeedSequence((recipe.seed, 53)))
    pictures, drawn = drawing.render_batch(
        seeds_of(rng, recipe.num_check_pictures), size=recipe.sizes.size_px
    )
    texts = [captions.caption(scene, rng) for scene in drawn]
    images = []
    for pixels in pixels_of(pictures, torch.device("cpu")).split(64):
        seen = pair.vision_model(pixel_values=pixels).pooler_output
        images.append(F.normalize(pair.visual_projection(seen), dim=-1))
    batch = tokens(texts, padding=True, truncation=True, return_tensors="pt")
    read = F.normalize(pair.text_projection(pair.text_model(**batch).pooler_output), dim=-1)
    nearest = (torch.cat(images) @ read.T).argmax(dim=1).tolist()
    return sum(texts[n] == text for n, text in zip(nearest, texts, strict=True)) / len(texts)
