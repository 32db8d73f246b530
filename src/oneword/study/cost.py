"""The cost of a study, estimated from a few timed and counted steps and pictures on this machine.

Both costs are passes of the denoiser (``plan``) times the cost of one: seconds here, or operations,
which a card does at a known rate. Counted is everything a step and a picture do, with text encoder,
autoencoder and scoring: matrix products, convolutions and attention, a product and a sum as two
operations. Not counted are loading, encoding the training pictures, networks that a setup adds, and
gradients of weights that it changes.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from oneword.config.model import is_embedded
from oneword.evaluation import harness
from oneword.study import methods, work
from oneword.study.plan import GUIDED, Spec, Study
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
    guided_s: dict[str, float]
    """Time of all drawing of the methods that optimise each picture, by setup. A method that is not
    available is left out, and counted as drawings of the model."""
    training_flop: float | None
    """Operations of all training, counted; ``None`` on a GPU, which is timed itself."""
    drawing_flop: float | None
    peak_mb: float | None
    """GPU memory used by the timing; ``None`` on a CPU."""

    def wall_s(self, hands: int) -> float:
        """Time until the end with this number of processes."""
        return (self.training_s + self.drawing_s + sum(self.guided_s.values())) / hands

    def gpu_hours(self, tflops: float) -> tuple[float, float]:
        """Hours of a GPU for training and for drawing.

        Args:
            tflops: Rate of the card, TFLOP/s; of no account where a GPU was timed.
        """
        if self.training_flop is None or self.drawing_flop is None:
            drawing_s = self.drawing_s + sum(self.guided_s.values())
            return self.training_s / 3600, drawing_s / 3600
        per_hour = 3600e12 * tflops
        return self.training_flop / per_hour, self.drawing_flop / per_hour


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
    training_pass_flop = drawing_pass_flop = None
    try:
        if not cuda:  # also warms up
            training_pass_flop = _training_pass(study, specs[0], _flop, 1)
            drawing_pass_flop = _drawing_pass(study, _flop, 1)
        training_pass_s = _training_pass(study, specs[0], _seconds, _STEPS, warm=not cuda)
        drawing_pass_s = _drawing_pass(study, _seconds, _STEPS, warm=not cuda)
        guided_s = _guided(study, specs)
    finally:
        torch.set_num_threads(threads)
    family = backbone.family
    trained = sum({s.run: study.training_passes(s, family) for s in specs}.values())
    drawn = sum(study.drawing_passes(s) for s in specs if s.setup not in guided_s)
    return Cost(
        training_pass_s=training_pass_s,
        drawing_pass_s=drawing_pass_s,
        picture_s=drawing_pass_s * 2 * study.num_inference_steps,
        training_s=training_pass_s * trained,
        drawing_s=drawing_pass_s * drawn,
        guided_s=guided_s,
        training_flop=None if training_pass_flop is None else training_pass_flop * trained,
        drawing_flop=None if drawing_pass_flop is None else drawing_pass_flop * drawn,
        peak_mb=torch.cuda.max_memory_allocated(backbone.device) / 1e6 if cuda else None,
    )


Measure = Callable[[Callable[[], object]], float]
"""What some work takes: ``_seconds`` or ``_flop``."""


def _seconds(work: Callable[[], object]) -> float:
    started = time.monotonic()
    work()
    return time.monotonic() - started


def _flop(work: Callable[[], object]) -> float:
    # attention in plain products, since not every kernel of it is counted
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops())


def _training_pass(
    study: Study, spec: Spec, measure: Measure, steps: int, *, warm: bool = True
) -> float:
    """What a pass of training takes: what ``steps`` more take, a step being three passes."""
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

    def run(steps: int) -> None:
        invert_many(backbone, [job(steps, i) for i in range(slots)], slots=slots)

    if not warm:
        run(1)
    batch = job(1, 0).config.resolved(backbone.family).train_batch_size
    more, one = measure(lambda: run(1 + steps)), measure(lambda: run(1))
    # the cost of a run besides its steps cancels out
    return max(1e-9, more - one) / (3.0 * steps * batch * slots)


def _guided(study: Study, specs: Sequence[Spec]) -> dict[str, float]:
    """Seconds of all pictures of each guided method that is available here."""
    found: dict[str, float] = {}
    for setup in (name for name in GUIDED if name in study.arms):
        own = [spec for spec in specs if spec.setup == setup]
        if own and (each := _guided_picture(study, own[0])) is not None:
            found[setup] = each * sum(map(study.pictures, own))
    return found


def _guided_picture(study: Study, spec: Spec) -> float | None:
    """Seconds of one picture of a guided method; ``None`` if it is not available, or takes minutes.

    PALAVRA's word takes no longer to draw than another; learning it is left out. Of large models
    without a GPU a few steps would take minutes.
    """
    config, subject = study.config, study.subjects[spec.concept]
    backbone = work.bench(config.model, config.judge, config.dino).backbone
    lacks_maps = spec.setup.startswith("palavra") and config.baselines.palavra is None
    is_quick = is_embedded(config.model.model) or backbone.device.type == "cuda"
    if lacks_maps or not is_quick or methods.downloads(config, [spec.setup]):
        return None
    pictures = subject.pixels(spec.seed, backbone.resolution)
    setup = spec.setup.removeprefix("palavra-")

    def given(steps: int | None) -> methods.Given:
        own = config.baselines
        if steps is not None:
            own = dataclasses.replace(own, vqgan_steps=steps, diffusion_steps=steps)
        return methods.Given(
            config=dataclasses.replace(config, baselines=own),
            backbone=backbone,
            subject=subject,
            seed=spec.seed,
            sampling=config.sampling,
            pictures_dir=study.folder,  # for PALAVRA's word alone
        )

    def seconds(steps: int) -> float:
        draw = methods.method(setup, given(steps), pictures)
        return _seconds(lambda: draw("a photo of a {}", [0]))

    try:
        seconds(1)  # loads
        few, more = seconds(2), seconds(2 + _STEPS)
        total = methods.steps_of(setup, given(None))
    except methods.NotAvailableError:
        return None
    return max(1e-9, more - few) / _STEPS * total


def _drawing_pass(study: Study, measure: Measure, steps: int, *, warm: bool = True) -> float:
    """What a pass of drawing takes, with its share of decoding and scoring."""
    config = study.config
    tools = work.bench(config.model, config.judge, config.dino)
    size = min(config.batch_size, config.num_images_per_prompt)
    wanted = study.num_inference_steps
    steps = min(steps, wanted)

    def draw(num: int) -> None:
        sampling = dataclasses.replace(config.sampling, num_inference_steps=num)
        method = harness.word(tools.backbone, "thing", sampling=sampling, batch_size=size)
        tools.judge.images(method("a photo of a {}", range(size)))

    if not warm:
        draw(1)
    one, more = measure(lambda: draw(1)), measure(lambda: draw(1 + steps))
    step = max(1e-9, more - one) / steps
    # decoding and scoring, spread over the steps
    rest = max(0.0, one - step) / wanted
    return (step + rest) / (2.0 * size)
