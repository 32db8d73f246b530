"""Messages about a run that gets more steps than it had."""

from __future__ import annotations

import dataclasses

from oneword.config.inversion import ResolvedConfig
from oneword.config.tuning import ResolvedTuning
from oneword.runs.folder import STEPS, TUNING_STEPS, HowFar, changed
from oneword.training.extensions.progressive import num_active, stage_steps
from oneword.training.rates import schedule


def notes(found: HowFar, config: ResolvedConfig) -> list[str]:
    """Messages about a run whose steps have been raised; empty for other runs.

    Args:
        found: The run in its folder.
        config: Its settings, with the present number of steps.
    """
    if not found.before:
        return []
    now = {STEPS: config.max_train_steps}
    if isinstance(config.tuning, ResolvedTuning):
        now[TUNING_STEPS] = config.tuning.tuning_steps
    said = changed(found.before, now)
    if found.run == "finished":
        return [f"{said}: even with more steps, the run would have ended at step {found.step}."]
    # of the present stage
    new = dataclasses.replace(config, max_train_steps=now[found.setting])
    before = found.before.get(found.setting, new.max_train_steps)
    changes = _changes(new, dataclasses.replace(new, max_train_steps=before), found.step)
    if not changes:
        return [f"{said}: the run continues as if it had this number from the start."]
    return [
        f"{said}: {'; '.join(changes)}. The result will differ from a run with this number of "
        "steps from the start."
    ]


def _changes(new: ResolvedConfig, old: ResolvedConfig, step: int) -> list[str]:
    """What depends on the number of steps, besides the end."""
    found = []
    if new.lr_scheduler not in ("constant", "constant_with_warmup", "piecewise_constant"):
        found.append(
            f"from step {step} on, the learning rate follows {new.lr_scheduler} over "
            f"{new.max_train_steps} steps, where it is {schedule(new, step):.3g} of the full "
            f"rate; before it was {schedule(old, step):.3g}"
        )
    if new.form == "progressive" and stage_steps(new) != stage_steps(old):
        found.append(
            f"a vector is added every {stage_steps(new):.0f} steps instead of every "
            f"{stage_steps(old):.0f}: at step {step} the word has {num_active(new, step)} of its "
            f"{new.num_vectors} vectors instead of {num_active(old, step)}"
        )
    return found
