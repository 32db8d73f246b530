"""``oneword microworld train``: the recipe that makes the embedded model."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from oneword.cli import options, screen
from oneword.cli.arguments import MicroworldTrainArguments
from oneword.microworld import weights
from oneword.microworld.making import train as recipe
from oneword.microworld.making.recipe import recipe_for


def run(arguments: MicroworldTrainArguments, _words: Sequence[str]) -> int:
    """Train, and say whether there is more to do."""
    world = weights.world(arguments.model) if arguments.world is None else arguments.world
    made = recipe_for(arguments.model, seed=arguments.seed, world=world)
    if arguments.denoiser_samples is not None:
        denoiser = dataclasses.replace(made.denoiser, num_samples=arguments.denoiser_samples)
        made = dataclasses.replace(made, denoiser=denoiser)
    if arguments.oracle_samples is not None:
        oracle = dataclasses.replace(made.oracle, num_samples=arguments.oracle_samples)
        made = dataclasses.replace(made, oracle=oracle)
    with screen.display() as shown:

        def show(stage: str, done: int, total: int, metrics: dict[str, float]) -> None:
            numbers = "  ".join(f"{name} {value:.4g}" for name, value in metrics.items())
            speed = metrics.get("steps_per_s", 0.0)
            left_s = (total - done) / speed if speed else None
            shown.bar(stage, total).show(done, numbers, left_s=left_s)

        complete = recipe.train(
            arguments.output_dir,
            recipe=made,
            stages=arguments.stages or recipe.stages_of(made),
            minutes=arguments.minutes,
            device=arguments.device,
            num_processes=arguments.num_processes,
            from_scratch=arguments.from_scratch,
            further_oracle=arguments.oracle_samples is not None,
            on_progress=show,
        )
    if arguments.land is not None:
        recipe.land(arguments.output_dir, arguments.land, made)
        options.say(f"The model is in {arguments.land}.")
    if not complete:
        options.say("Time is up. To continue, run the same command again.")
    return 0
