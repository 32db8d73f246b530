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
from oneword.microworld.making import processes, stages as making
from oneword.microworld.making.recipe import Recipe
from oneword.microworld.making.run import CHECKSUMS, STAGES, Progress, Workshop


_TRAIN: dict[str, Callable[[Workshop], bool]] = {
    "vae": making.train_vae,
    "clip": lambda shop: making.train_clip(shop, "clip"),
    "judge": lambda shop: making.train_clip(shop, "judge"),
    "oracle": making.train_oracle,
    "latents": making.make_latents,
    "denoiser": making.train_denoiser,
    "guide": lambda shop: making.train_clip(shop, "guide"),
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
    """
    folder.mkdir(parents=True, exist_ok=True)
    tell = on_progress or _tell_nobody
    job = (
        folder, recipe or Recipe(), stages, time.monotonic() + 60 * minutes, device, num_processes,
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
        if trained or not weights.take(stage, folder, recipe.model):
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

    A work folder in which the guide alone was made adds it to the model that lies in ``target``.
    """
    path = folder / CHECKSUMS
    checksums = json.loads(path.read_text()) if path.exists() else {}
    if weights.holds_guide_alone(folder):
        return weights.add_guide(folder, target, _of_guide(folder, target, recipe, checksums))
    weights.check_landing(folder, target)
    begun = folder / "denoiser.json"
    made = json.loads(begun.read_text()) if begun.exists() else {"samples": 0, "history": []}
    details = {
        "name": recipe.model,
        "made_by": f"oneword microworld train --model {recipe.model} --from-scratch",
        "recipe": dataclasses.asdict(recipe),
        "sizes": dataclasses.asdict(recipe.sizes),
        "denoiser_samples": made["samples"],
        "history": made["history"],
        "checksums": weights.card(recipe.model).get("checksums", {}) | checksums,
        "commit": _commit(),
        "torch": torch.__version__,
        "compute": f"{platform.machine()}, {os.cpu_count()} cores",
        "vae_psnr_db": making.vae_psnr(folder, recipe),
        "oracle_accuracy": making.oracle_accuracy(folder, recipe),
        "retrieval": {
            name: making.pair_retrieval(folder / name, recipe) for name in ("judge", "guide")
        },
        "scores": {},
    }
    return weights.land(folder, target, details)


def _of_guide(
    folder: Path, target: Path, recipe: Recipe, checksums: dict[str, Any]
) -> dict[str, Any]:
    """The landed model's card with what a guide that is added to it changes."""
    before = weights.card_of(weights.checked(target))
    retrieval = {
        "judge": making.pair_retrieval(target / "judge", recipe),
        "guide": making.pair_retrieval(folder / "guide", recipe),
    }
    made = {
        "from": f"oneword microworld train --model {recipe.model} --stages guide",
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
