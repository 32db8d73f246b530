"""Pivotal tuning on microworld: what it gains, how editing fares under guidance, what else moves.

    python benchmarks/pivotal.py --names gold-mug --markdown docs/pivotal.md

A word is learned from five pictures, then the denoiser is tuned around it, as whole weights and as
a LoRA. Printed are the loss on the fixed batch, image and text similarity at several guidance
scales (the paper reports that editing collapses at high guidance), and how far prompts that name
other things have drifted.
"""

from __future__ import annotations

import _briefly  # noqa: F401  (before torch)


# isort: split

import dataclasses
import time
from pathlib import Path

import tyro
from _common import record

from oneword._files import write_atomic
from oneword.config.drawing import SamplingConfig
from oneword.config.inversion import InversionConfig
from oneword.config.model import ModelConfig
from oneword.config.tuning import TuningConfig
from oneword.evaluation import harness, tuned
from oneword.evaluation.features import load_judge
from oneword.images import from_uint8
from oneword.microworld.world import concepts
from oneword.microworld.world.drawn import concept_pictures
from oneword.models.loading import load_backbone
from oneword.training.job import Job
from oneword.training.loop import invert
from oneword.training.tuning import pivotal


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Tune around held-out concepts' words, and score."""

    names: tuple[str, ...] = ("gold-mug",)
    """Held-out concepts."""
    kinds: tuple[str, ...] = ("full", "lora")
    """What of the denoiser is tuned, as --tuned-weights."""
    scales: tuple[float, ...] = (2.0, 5.0, 10.0)
    """Guidance scales."""
    num_images: int = 8
    """Pictures per prompt."""
    num_inference_steps: int = 20
    """Denoising steps."""
    max_train_steps: int | None = None
    """Steps of each stage; unset: the preset's."""
    seed: int = 0
    """Of training, and the first of drawing."""
    model: str = "microworld"
    """An embedded model."""
    json: Path | None = None
    """File for all numbers."""
    markdown: Path | None = None
    """File for the tables."""


def main(arguments: Arguments) -> None:
    """Print the tables, concept by concept."""
    backbone = load_backbone(ModelConfig(model=arguments.model))
    judge = load_judge(None, backbone)
    sampling = SamplingConfig(num_inference_steps=arguments.num_inference_steps)
    seeds = tuple(range(arguments.seed, arguments.seed + arguments.num_images))
    protocol = harness.protocol_for(backbone.family, seeds=seeds)
    lines, numbers = [], {}
    for name in arguments.names:
        held = concepts.get(name)
        pictures = from_uint8(concept_pictures(held, 5, arguments.seed, size=backbone.resolution))
        settings = {
            "initializer_token": held.noun,
            "max_train_steps": arguments.max_train_steps,
            "seed": arguments.seed,
        }
        word = invert(
            backbone, Job(name=name, pictures=pictures, config=InversionConfig(**settings))
        )
        assert word.concept is not None
        found = {"one-word": word.concept}
        losses = {"one-word": word.concept.provenance["loss"]}
        for kind in arguments.kinds:
            started = time.monotonic()
            config = InversionConfig(
                setup="pivotal", tuning=TuningConfig(tuned_weights=kind), **settings
            )
            job = Job(name=name, pictures=pictures, config=config)
            result = pivotal.invert(backbone, job, word=word.concept)
            assert result.concept is not None
            found[f"pivotal ({kind})"] = result.concept
            losses[f"pivotal ({kind})"] = result.concept.provenance["loss"]
            print(f"{name}, {kind}: tuned in {time.monotonic() - started:.0f} s", flush=True)
        sweep = tuned.guidance_sweep(
            backbone, found, pictures, judge, protocol, arguments.scales, sampling=sampling
        )
        moved = {
            method: {
                "unrelated": tuned.drift(
                    backbone, concept, judge, seeds=seeds, sampling=sampling
                ).plain(),
                "class": tuned.drift(
                    backbone, concept, judge, tuned.class_prompts(backbone, concept), seeds,
                    sampling=sampling,
                ).plain(),
            }
            for method, concept in found.items()
            if concept.deltas
        }  # fmt: skip
        lines += [f"### {name}", ""]
        lines += ["| | loss | " + " | ".join(
            f"image, text at guidance {scale:g}" for scale in arguments.scales
        ) + " | others' similarity | class's similarity |"]  # fmt: skip
        lines += ["|---|" + "---:|" * (len(arguments.scales) + 3)]
        for method in found:
            cells = [f"{losses[method]:.4f}"]
            for scale in arguments.scales:
                scores = sweep[scale].scores[method]
                cells.append(f"{scores.image_similarity:.3f}, {scores.text_similarity:.3f}")
            drift = moved.get(method)
            cells += (
                ["1", "1"]
                if drift is None
                else [f"{drift[which]['similarity']:.3f}" for which in ("unrelated", "class")]
            )
            lines.append(f"| {method} | " + " | ".join(cells) + " |")
        lines.append("")
        numbers[name] = {
            "losses": losses,
            "guidance": {str(scale): one.plain() for scale, one in sweep.items()},
            "drift": moved,
        }
        print("\n".join(lines), flush=True)
    record(arguments.json, model=arguments.model, concepts=numbers)
    if arguments.markdown is not None:
        write_atomic(arguments.markdown, "\n".join(["# Pivotal tuning", "", *lines]).encode())


if __name__ == "__main__":
    main(tyro.cli(Arguments))
