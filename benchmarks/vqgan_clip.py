r"""Whether VQGAN-CLIP shows a concept that it is given in pictures, beside a learned word.

    python benchmarks/vqgan_clip.py --json vqgan-clip.json

The paper's use for pictures: the text with the class word, and the training pictures, jointly. Each
concept and seed is paired with the row of ``benchmarks/concepts.py`` for the same pictures: how
often the oracle sees the concept in drawings of the learned word and of its initialiser. Means are
over concepts; intervals are paired, 95 % (Student's t). The judge guides nothing here.
"""

from __future__ import annotations

import _briefly  # noqa: F401  (before torch)


# isort: split

import dataclasses
import json
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from _common import record, recorded

from oneword._devices import pick_device
from oneword.config.vqgan_clip import VQGANCLIPConfig, VQGANPreset
from oneword.evaluation import world
from oneword.evaluation.metrics import mean_interval
from oneword.generation import vqgan_clip
from oneword.generation.generate import save_drawing
from oneword.generation.guide import Guide
from oneword.images import from_uint8
from oneword.microworld import weights
from oneword.microworld.world import learnable
from oneword.microworld.world.sets import FIRST_WORLD
from oneword.models import quantised


ROWS = Path(__file__).parents[1] / "docs" / "data" / "concepts.json"
CONCEPTS = (
    "midnight-teapot", "candy-house", "racer", "fairy-mushroom", "parade-drum", "rocket", "guitar",
    "lantern",
)  # fmt: skip
"""Things of the test half, of both kinds: recombinations and shapes of their own."""


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Draw concepts by VQGAN-CLIP and read them back."""

    model: str = "microworld"
    """An embedded model, or the folder of one, whose rows are then given with --rows."""
    names: tuple[str, ...] = CONCEPTS
    """Held-out things."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of the training pictures and of the first drawing."""
    num_images: int = 2
    """Pictures of each concept and seed."""
    shares: tuple[float, ...] = (0.5,)
    """Shares of the pictures in the loss, of which the paper names none; 0.25 0.5 0.75 sweeps."""
    preset: VQGANPreset = "crowson"
    """Whose constants."""
    steps: int | None = None
    """Steps of each picture; unset: the embedded models'."""
    rows: Path = ROWS
    """Rows of benchmarks/concepts.py to pair with."""
    device: str = "auto"
    """Where it runs."""
    json: Path | None = None
    """File for the runs; what it holds already is not drawn again."""
    sheets: Path | None = None
    """Folder for the pictures."""


def main() -> None:
    """Draw, read, compare."""
    arguments = tyro.cli(Arguments)
    device = pick_device(arguments.device)
    vq = quantised.embedded(arguments.model, device)
    guide = Guide.load(None, arguments.model, device=device)
    oracle, version = weights.load_oracle(arguments.model), weights.world(arguments.model)
    others = {(r["concept"], r["seed"]): r for r in json.loads(arguments.rows.read_text())["runs"]}
    if version not in {row.get("world", FIRST_WORLD) for row in others.values()}:
        raise SystemExit(
            f"{arguments.rows} must hold rows of the model's world, version {version}; make them "
            "with benchmarks/concepts.py --model and --json, and pass that file as --rows."
        )
    runs = recorded(arguments.json, model=arguments.model).get("runs", [])
    done = {(run["concept"], run["seed"], run["share"]) for run in runs}
    waiting = [
        (name, seed, share)
        for name in arguments.names
        for seed in arguments.seeds
        for share in arguments.shares
        if (name, seed, share) not in done
    ]
    started = time.monotonic()
    for number, (name, seed, share) in enumerate(waiting, 1):
        concept, row = learnable.find(name, version), others[name, seed]
        size = vq.resolution
        assert size is not None
        pictures = from_uint8(concept.pictures(seed=seed, size=size))
        prompt = row["photo_prompt"].replace("{}", row["words"]["initializer"])
        first = 1000 * seed
        config = VQGANCLIPConfig(
            prompts=(prompt,),
            pictures=Path(name),  # not read: they are drawn
            image_share=share,
            preset=arguments.preset,
            steps=arguments.steps,
            seeds=tuple(str(first + i) for i in range(arguments.num_images)),
        )
        drawing = vqgan_clip.draw_all(vq, guide, config, [prompt], pictures=pictures)
        if arguments.sheets is not None:
            save_drawing(drawing, arguments.sheets / f"{name}-{seed}-{share}")
        read = {prompt: oracle.read(drawing.pixels)}
        seen = world.seen_as(read, *concept.read_as)[prompt]
        losses = [facts["guide_loss"] for facts in drawing.facts]
        runs.append(
            {
                "concept": name, "seed": seed, "share": share, "seen": seen, "losses": losses,
                "word": row["seen"]["concept"], "initializer": row["seen"]["initializer"],
            }
        )  # fmt: skip
        left = (time.monotonic() - started) / number * (len(waiting) - number)
        print(f"{name} seed {seed} share {share}: seen {seen:.0%}; {left / 60:.0f} min left",
              file=sys.stderr)  # fmt: skip
        constants = dataclasses.asdict(config.constants(size))
        record(arguments.json, model=arguments.model, runs=runs, settings=constants)
    for share in arguments.shares:
        print(verdict([run for run in runs if run["share"] == share], share))


def verdict(runs: Sequence[dict[str, Any]], share: float) -> str:
    """How often the concept is seen, and whether the paper's claim holds with its interval."""
    names = list(dict.fromkeys(run["concept"] for run in runs))

    def told(column: Any) -> str:
        of = [[column(run) for run in runs if run["concept"] == name] for name in names]
        found = mean_interval([math.fsum(values) / len(values) for values in of])
        return f"{found.value:+.2f} ± {found.half_width:.2f}"

    return "\n".join(
        [
            f"share of the pictures {share}, {len(names)} concepts, {len(runs)} runs:",
            f"  seen by VQGAN-CLIP {told(lambda r: r['seen'])}",
            f"  seen with the word {told(lambda r: r['word'])}",
            f"  VQGAN-CLIP less the initialiser {told(lambda r: r['seen'] - r['initializer'])} "
            "(claim: at most .1)",
            f"  word less VQGAN-CLIP {told(lambda r: r['word'] - r['seen'])} (claim: above 0)",
        ]
    )


if __name__ == "__main__":
    main()
