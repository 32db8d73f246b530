"""``oneword microworld``: make, measure and describe the embedded model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from oneword.cli import options
from oneword.config import ConfigError


HELP = """usage: oneword microworld {train,evaluate,card} [options]

  train     run the recipe: draws pictures and trains every part, resumable, within --minutes
  evaluate  noun, colour, scene and style accuracy of generated pictures beside drawn ones
  card      how the embedded model was made and what it scores"""


@dataclass(frozen=True, kw_only=True)
class TrainArguments:
    """Run the recipe that makes the embedded model; run it again to go on."""

    output_dir: Path = Path("microworld-work")
    """Work folder: resumable states, finished parts, latents."""
    minutes: float = 60.0
    """Time budget of this call, minutes."""
    stages: tuple[str, ...] = ()
    """Stages to run, in order: vae clip judge reader latents denoiser; none: all."""
    from_scratch: bool = False
    """Ignore the landed weights; otherwise every finished stage starts from them."""
    device: str = "cpu"
    """torch device."""
    num_processes: int = 1
    """CPU processes of one thread each that share a batch."""
    seed: int = 0
    """Seed of the weights and of every batch."""
    land: Path | None = None
    """Folder in which to put the finished model together afterwards."""


@dataclass(frozen=True, kw_only=True)
class EvaluateArguments:
    """Read generated pictures back and compare with the truth of their prompts."""

    model: str = "microworld"
    """The embedded model, or another one made by the recipe."""
    num_prompts: int = 200
    """Prompts, one picture each."""
    seed: int = 0
    """Seed of the prompts and pictures."""
    guidance_scale: float | None = None
    """Classifier-free guidance; unset: the model's default."""
    num_inference_steps: int | None = None
    """Denoising steps; unset: the model's default."""
    batch_size: int = 16
    """Pictures drawn at once."""
    json: Path | None = None
    """File for the numbers."""
    output_dir: Path | None = None
    """Folder for the contact sheets: generated and drawn."""


def run(arguments: Sequence[str]) -> int:
    """Run one of the sub-verbs."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(HELP)
        return 0 if arguments else 2
    verb, rest = arguments[0], arguments[1:]
    if verb == "train":
        return _train(options.parse(TrainArguments, "microworld train", rest)[0])
    if verb == "evaluate":
        return _evaluate(
            options.parse(EvaluateArguments, "microworld evaluate", rest)[0]
        )
    if verb == "card":
        from oneword.microworld import weights

        print(json.dumps(weights.card(), indent=1))
        return 0
    raise ConfigError(f"The sub-verb must be train, evaluate or card, got {verb!r}.")


def _train(arguments: TrainArguments) -> int:
    from oneword.microworld import recipe

    unknown = set(arguments.stages) - set(recipe.STAGES)
    if unknown:
        raise ConfigError(
            f"stages must be among {', '.join(recipe.STAGES)}, got {', '.join(sorted(unknown))}."
        )
    complete = recipe.train(
        arguments.output_dir,
        recipe=recipe.Recipe(seed=arguments.seed),
        stages=arguments.stages or recipe.STAGES,
        minutes=arguments.minutes,
        device=arguments.device,
        num_processes=arguments.num_processes,
        from_scratch=arguments.from_scratch,
        on_progress=_report,
    )
    if arguments.land is not None:
        recipe.land(arguments.output_dir, arguments.land)
        options.say(f"The model lies in {arguments.land}.")
    if not complete:
        options.say("Time is up; the same command goes on from here.")
    return 0


def _report(stage: str, done: int, total: int, metrics: dict[str, float]) -> None:
    numbers = "  ".join(f"{name} {value:.4g}" for name, value in metrics.items())
    speed = metrics.get("steps_per_s", 0.0)
    left = f"  {(total - done) / speed / 60:.0f} min left" if speed else ""
    options.say(f"{stage}: {done}/{total}  {numbers}{left}")


def _evaluate(arguments: EvaluateArguments) -> int:
    raise NotImplementedError
