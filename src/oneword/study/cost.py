"""The cost of a study, estimated from a few timed steps and pictures on this machine."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from oneword.evaluation import harness
from oneword.study import work
from oneword.study.plan import Spec, Study
from oneword.training.job import Job
from oneword.training.loop import invert_many


_STEPS = 4  # that are timed, after one for warming up
_SLOTS = 4


@dataclass(frozen=True, slots=True)
class Cost:
    """Time of jobs in one process, in s."""

    training_pass_s: float
    """Time of one sample through the denoiser in training; a backward pass counts as two."""
    drawing_pass_s: float
    """Time of one sample through the denoiser in drawing."""
    picture_s: float
    """Time of one picture of the protocol."""
    training_s: float
    drawing_s: float
    peak_mb: float | None
    """GPU memory used by the timing; ``None`` on a CPU."""

    def wall_s(self, hands: int) -> float:
        """Time until the end with this number of processes."""
        return (self.training_s + self.drawing_s) / hands


def estimate(study: Study, specs: Sequence[Spec]) -> Cost:
    """Time the first job's model for a few steps and pictures, and multiply.

    Setups that change weights or add networks take longer than this.

    Raises:
        UserError: the model, or what scores, cannot be loaded.
    """
    config = study.config
    tools = work.bench(config.model, config.judge, config.dino)
    backbone = tools.backbone
    threads = torch.get_num_threads()
    if config.num_processes > 1:  # as each of them has
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // config.num_processes))
    cuda = backbone.device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats(backbone.device)
    try:
        training_pass_s = _training_pass_s(study, specs[0])
        drawing_pass_s = _drawing_pass_s(study)
    finally:
        torch.set_num_threads(threads)
    family = backbone.family
    trained = {s.run: study.training_passes(s, family) for s in specs}
    return Cost(
        training_pass_s=training_pass_s,
        drawing_pass_s=drawing_pass_s,
        picture_s=drawing_pass_s * 2 * study.num_inference_steps,
        training_s=training_pass_s * sum(trained.values()),
        drawing_s=drawing_pass_s * sum(study.drawing_passes(s) for s in specs),
        peak_mb=torch.cuda.max_memory_allocated(backbone.device) / 1e6 if cuda else None,
    )


def _training_pass_s(study: Study, spec: Spec) -> float:
    tools = work.bench(study.config.model, study.config.judge, study.config.dino)
    backbone, subject = tools.backbone, study.subjects[spec.concept]
    pixels = subject.pixels(spec.seed, backbone.resolution)
    slots = study.config.slots or _SLOTS

    def job(steps: int, index: int) -> Job:
        settings = dataclasses.replace(
            study.config.inversion,
            initializer_token=subject.noun,
            learnable_property=subject.learnable_property,
            max_train_steps=steps,
            evaluation_steps=1_000_000,
            keep="last",
        )
        return Job(name=str(index), pictures=pixels, config=settings)

    def seconds(steps: int) -> float:
        started = time.monotonic()
        invert_many(backbone, [job(steps, i) for i in range(slots)], slots=slots)
        return time.monotonic() - started

    seconds(1)
    batch = job(1, 0).config.resolved(backbone.family).train_batch_size
    # the time of a run besides its steps cancels out
    return max(1e-9, seconds(1 + _STEPS) - seconds(1)) / (3.0 * _STEPS * batch * slots)


def _drawing_pass_s(study: Study) -> float:
    config = study.config
    tools = work.bench(config.model, config.judge, config.dino)
    size = min(config.batch_size, config.num_images_per_prompt)
    wanted = study.num_inference_steps
    steps = min(_STEPS, wanted)

    def seconds(num: int) -> float:
        sampling = dataclasses.replace(config.sampling, num_inference_steps=num)
        method = harness.word(tools.backbone, "thing", sampling=sampling, batch_size=size)
        started = time.monotonic()
        tools.judge.images(method("a photo of a {}", range(size)))
        return time.monotonic() - started

    seconds(1)
    one, more = seconds(1), seconds(1 + steps)
    step = max(1e-9, more - one) / steps
    # decoding and scoring, spread over the steps
    rest = max(0.0, one - step) / wanted
    return (step + rest) / (2.0 * size)
