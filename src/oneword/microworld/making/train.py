"""The recipe that makes the embedded model from nothing but drawn pictures.

Stages run in order, and each keeps a resumable state in the work folder, so that the recipe
survives being stopped at any moment: run it again. Without ``from_scratch`` the landed VAE, judge
and oracle are taken as they are, unless the oracle is to be trained further, and the denoiser goes
on from its landed weights with a fresh optimiser.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import platform
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from oneword.microworld import weights
from oneword.microworld.making import oracle_pictures, pairs, processes, stages as making
from oneword.microworld.making.recipe import Recipe
from oneword.microworld.making.run import CHECKSUMS, STAGES, Progress, Workshop
from oneword.microworld.world.sets import FIRST_WORLD


_TRAIN: dict[str, Callable[[Workshop], bool]] = {
    "vae": making.train_vae,
    "clip": lambda shop: pairs.train_clip(shop, "clip"),
    "judge": lambda shop: pairs.train_clip(shop, "judge"),
    "oracle": lambda shop: _reading(shop.recipe).train_oracle(shop),
    "latents": making.make_latents,
    "denoiser": making.train_denoiser,
    "guide": lambda shop: pairs.train_clip(shop, "guide"),
}


_OF_EVERY_WORLD = ("vae", "judge", "oracle", "guide")
"""Stages that the recipe of a later world has; the VAE is taken as it has landed."""


def _reading(recipe: Recipe) -> Any:
    """The module that trains and measures the oracle of the recipe's world."""
    return making if recipe.world == FIRST_WORLD else oracle_pictures


def stages_of(recipe: Recipe) -> tuple[str, ...]:
    """The stages that a recipe has."""
    return STAGES if recipe.world == FIRST_WORLD else _OF_EVERY_WORLD


def _check_stages(recipe: Recipe, stages: tuple[str, ...], *, from_scratch: bool) -> None:
    """Refuse what is not done for a later world.

    Raises:
        WeightsError: it is not.
    """
    landed = weights.world(recipe.model)
    if recipe.world < landed and not from_scratch:
        raise weights.WeightsError(
            "The recipe must be of the landed model's world to go on from it, got world "
            f"{recipe.world} and a model of world {landed}; pass --world {landed}, or "
            "--from-scratch."
        )
    if recipe.world == FIRST_WORLD:
        return
    other = [stage for stage in stages if stage not in _OF_EVERY_WORLD]
    if other:
        raise weights.WeightsError(
            f"The stages of world {recipe.world} must be some of {', '.join(_OF_EVERY_WORLD)}, got "
            f"{', '.join(other)}; its denoiser is trained by "
            "`python -m oneword.microworld.making.wide`."
        )
    if from_scratch:
        raise weights.WeightsError(
            f"Cannot make world {recipe.world} from scratch because its oracle starts from the "
            "landed model's, and its VAE is the landed one; leave out --from-scratch."
        )


def train(
    folder: Path,
    *,
    recipe: Recipe | None = None,
    stages: tuple[str, ...] = STAGES,
    minutes: float = math.inf,
    device: str = "cpu",
    num_processes: int = 1,
    from_scratch: bool = False,
    further_oracle: bool = False,
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
        further_oracle: Train the oracle on from its landed weights, with a fresh optimiser.
        on_progress: Called with (stage, done steps, all steps, metrics), always in this process.

    Returns:
        Whether every stage is complete.

    Raises:
        WeightsError: a stage is asked for that the recipe's world does not have.
    """
    recipe = recipe or Recipe()
    _check_stages(recipe, stages, from_scratch=from_scratch)
    folder.mkdir(parents=True, exist_ok=True)
    tell = on_progress or _tell_nobody
    job = (
        folder, recipe, stages, time.monotonic() + 60 * minutes, device, num_processes,
        from_scratch, further_oracle,
    )  # fmt: skip
    complete = processes.launch(_train_process, job, num_processes, tell)
    if num_processes == 1:
        return complete
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
    further_oracle: bool,
    on_progress: Progress,
) -> bool:
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
        trained = from_scratch or (further_oracle and stage == "oracle")
        if trained or not weights.take(stage, folder, recipe.model, recipe.world):
            complete = _TRAIN[stage](shop)
        if not complete:
            break
        if rank == 0:
            done.touch()
    return complete


def _tell_nobody(stage: str, done: int, total: int, metrics: dict[str, float]) -> None:
    """Stand in for an absent ``on_progress``."""


def land(folder: Path, target: Path, recipe: Recipe) -> Path:
    """Put a work folder's model together in ``target``, with the card of how it was made.

    A work folder with only a guide adds it to the model in ``target``.

    Raises:
        WeightsError: a part is missing or of another world, or ``target`` holds something else.
    """
    path = folder / CHECKSUMS
    checksums = json.loads(path.read_text()) if path.exists() else {}
    if weights.holds_guide_alone(folder):
        pairs.check_pairs(folder, recipe, ("guide",))
        return weights.add_guide(folder, target, _of_guide(folder, target, recipe, checksums))
    weights.check_landing(folder, target)
    begun = folder / "denoiser.json"
    made = json.loads(begun.read_text()) if begun.exists() else {"samples": 0, "history": []}
    if begun.exists() and made.get("world", FIRST_WORLD) != recipe.world:
        raise weights.WeightsError(
            f"A model's denoiser and oracle must be of one world, got a denoiser of world "
            f"{made.get('world', FIRST_WORLD)} in {folder} and the recipe of world {recipe.world}; "
            "pass the denoiser's as --world."
        )
    pairs.check_pairs(folder, recipe)
    wide = made.get("recipe")
    details = {
        "name": recipe.model,
        "world": recipe.world,
        "made_by": _commands(recipe),
        "recipe": dataclasses.asdict(recipe) | ({} if wide is None else {"denoiser": wide}),
        "sizes": dataclasses.asdict(recipe.sizes) | weights.denoiser_sizes(folder),
        "pair_sizes": dataclasses.asdict(recipe.pair_sizes),
        "denoiser_samples": made["samples"],
        "history": made["history"],
        "readings": made.get("readings", []),
        "checksums": weights.card(recipe.model).get("checksums", {}) | checksums,
        "commit": _commit(),
        "torch": torch.__version__,
        "compute": f"{platform.machine()}, {os.cpu_count()} cores",
        "vae_psnr_db": making.vae_psnr(folder, recipe),
        "oracle_accuracy": _reading(recipe).oracle_accuracy(folder, recipe),
        "retrieval": {
            name: pairs.pair_retrieval(folder / name, recipe) for name in ("judge", "guide")
        },
        "scores": {},
    }
    return weights.land(folder, target, details)


def _commands(recipe: Recipe) -> str:
    """What makes a model of a recipe."""
    train = f"oneword microworld train --model {recipe.model}"
    if recipe.world == FIRST_WORLD:
        return f"{train} --from-scratch"
    return (
        f"python -m oneword.microworld.making.wide --model {recipe.model}, "
        f"{train} --world {recipe.world}"
    )


def _of_guide(
    folder: Path, target: Path, recipe: Recipe, checksums: dict[str, Any]
) -> dict[str, Any]:
    """The landed model's card with what a guide that is added to it changes.

    Raises:
        WeightsError: the model is of another world than the guide.
    """
    before = weights.card_of(weights.checked(target))
    if before.get("world", FIRST_WORLD) != recipe.world:
        raise weights.WeightsError(
            f"A guide must be of its model's world, got one of world {recipe.world} and a model of "
            f"world {before.get('world', FIRST_WORLD)} in {target}; pass the model's as --world "
            "when the guide is trained."
        )
    retrieval = {
        "judge": pairs.pair_retrieval(target / "judge", recipe),
        "guide": pairs.pair_retrieval(folder / "guide", recipe),
    }
    made = {
        "from": f"oneword microworld train --model {recipe.model} --stages guide"
        + (f" --world {recipe.world}" if recipe.world != FIRST_WORLD else ""),
        "seed": recipe.seed,
        "commit": _commit(),
        "torch": torch.__version__,
    }
    return before | {
        "recipe": before["recipe"] | {"guide": dataclasses.asdict(recipe.guide)},
        "checksums": before["checksums"] | checksums,
        "guide": made,
        "retrieval": retrieval,
    }


def _commit() -> str:
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"
