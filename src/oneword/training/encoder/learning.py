"""How an encoder is trained: with equation 2, through a frozen denoiser.

The denoised picture is left out of the encoded set, so that no copy of it can leak.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from oneword._devices import sent
from oneword._typing import PerSample
from oneword.concepts.concept import ROWS
from oneword.config.encoder import EncoderConfig
from oneword.config.inversion import InversionConfig
from oneword.models.contract import Backbone, Moments
from oneword.models.speed.narrow_cpu import widened
from oneword.prompts import COMMON_WORDS, of_family
from oneword.training import extensions
from oneword.training.encoder.files import EncoderError
from oneword.training.encoder.network import SetEncoder, Shape
from oneword.training.encoder.things import Drawn, Things, step_sets, unseen_sets
from oneword.training.job import Job, below
from oneword.training.learner import slot_token
from oneword.training.loop import HALF_SCALE
from oneword.training.prediction import predictions, scoring_chunk
from oneword.training.samples import Batch, Samples
from oneword.vocabulary.inject import injected


_DECAY_FRACTION = 0.3  # last part of the steps, over which the rate falls to zero
_WARMUP_STEPS = 100  # at most; in a short training a tenth of the steps
_MOST_NORM = 1.0  # of the gradient
_WEIGHT_DECAY = 0.01
_SETBACKS = 10  # consecutive steps without a finite gradient that end the training


@dataclass(slots=True, kw_only=True)
class Standing:
    """The progress of a training."""

    step: int = 0
    losses: list[tuple[int, float, float]] = field(default_factory=list)
    """(step, mean loss of the steps before, loss on held-out things); NaN if there is none."""
    recent: list[float] = field(default_factory=list)
    """Losses of the steps since the last entry of ``losses``."""
    setbacks: int = 0
    """Consecutive steps without a finite gradient."""

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "step": self.step,
            "losses": self.losses,
            "recent": self.recent,
            "setbacks": self.setbacks,
        }

    @classmethod
    def read(cls, plain: Mapping[str, Any]) -> Standing:
        """Restore from the output of ``plain``."""
        losses = [(int(step), float(own), float(unseen)) for step, own, unseen in plain["losses"]]
        return cls(
            step=plain["step"],
            losses=losses,
            recent=list(plain["recent"]),
            setbacks=plain["setbacks"],
        )


class _Made:
    """A word with the rows that the encoder has just made, for ``injected``."""

    kind = ROWS
    tensors: Mapping[str, Tensor] = {}
    provenance: Mapping[str, Any] = {}

    def __init__(self, slot: int, made: dict[str, Tensor], num_vectors: int) -> None:
        self.slot, self._made, self.num_vectors = slot, made, num_vectors
        self.placeholder_token = slot_token(slot)

    @property
    def rows(self) -> Mapping[str, Tensor]:
        return {name: rows[self.slot] for name, rows in self._made.items()}


class Training:
    """An encoder in training.

    Every draw is a function of (seed, step), so a training that was stopped resumes to the same
    bits (on the same machine, with the same number of threads).

    Args:
        backbone: The model, which is not changed.
        things: The training data.
        config: The settings.
    """

    def __init__(self, backbone: Backbone, things: Things, config: EncoderConfig) -> None:
        self.backbone, self.things, self.config = backbone, things, config
        vocabularies = backbone.vocabularies
        shape = Shape(
            features=things.features.shape[1],
            width=config.width,
            num_vectors=config.num_vectors,
            encoders={name: vocabulary.dim for name, vocabulary in vocabularies.items()},
        )
        self.network = SetEncoder(shape, config.seed)
        self.seen, self.unseen = things.parted(config.seed)
        at = torch.cat([things.places[i].flatten() for i in self.seen.tolist()])
        self.network.fit(things.features[at], _common_rows(backbone, config.learnable_property))
        self.network.to(backbone.device)
        self.optimiser = torch.optim.AdamW(
            self.network.parameters(), lr=config.learning_rate, weight_decay=_WEIGHT_DECAY
        )
        self.inversion = InversionConfig(seed=config.seed).resolved(backbone.family)
        side = backbone.resolution
        self.job = Job(
            name="encoder", pictures=torch.zeros(0, 3, side, side), config=self.inversion
        )
        self.standing = Standing()
        self._made: dict[str, Tensor] = {}
        self._at_once = backbone.micro_batch_size or config.train_batch_size

    def run(
        self,
        *,
        on_step: Callable[[Standing], None] | None = None,
        save: Callable[[], None] | None = None,
    ) -> bool:
        """Train to the last step.

        Args:
            on_step: Called after every step; a ``KeyboardInterrupt`` that it raises ends the
                training.
            save: Called at regular steps and at the end, also if training is stopped.

        Returns:
            Whether the last step was done.

        Raises:
            EncoderError: the gradients are repeatedly not finite.
        """
        config, standing = self.config, self.standing
        slots = max(self._at_once, scoring_chunk(self._at_once))
        words = [_Made(slot, self._made, config.num_vectors) for slot in range(slots)]
        self._make(torch.zeros(slots, 1, self.things.features.shape[1]), None)
        try:
            with injected(self.backbone, words), widened(self.backbone):
                if standing.step == 0 and not standing.losses:
                    self._score()
                while standing.step < config.max_train_steps:
                    self._learn()
                    last = standing.step == config.max_train_steps
                    if last or standing.step % config.evaluation_steps == 0:
                        self._score()
                    if on_step is not None:
                        on_step(standing)
                    is_turn = standing.step % config.checkpointing_steps == 0
                    if save is not None and is_turn and not last:
                        save()
        except KeyboardInterrupt:
            if save is not None:
                save()
            return False
        if save is not None:
            save()
        return True

    # --- one step

    def _learn(self) -> None:
        """Draw things, denoise a picture of each with the word of its other pictures, and step."""
        config, standing, device = self.config, self.standing, self.backbone.device
        batch = config.train_batch_size
        drawn = step_sets(
            self.things, self.seen, config.seed, standing.step, batch, config.most_pictures
        )
        scale = HALF_SCALE if self.backbone.dtype == torch.float16 else 1.0
        self.optimiser.zero_grad()
        total = torch.zeros((), device=device)
        for first in range(0, batch, self._at_once):
            part = drawn.of(range(first, min(first + self._at_once, batch)))
            loss = self._losses(part, training=True).sum() / batch
            (scale * loss).backward()
            total = total + loss.detach()
        for parameter in self.network.parameters():
            if parameter.grad is not None:
                parameter.grad.div_(scale)
        norm = clip_grad_norm_(self.network.parameters(), _MOST_NORM)
        if math.isfinite(float(norm)):
            for group in self.optimiser.param_groups:
                group["lr"] = config.learning_rate * rate_factor(
                    standing.step, config.max_train_steps
                )
            self.optimiser.step()
            standing.recent.append(float(total))
            standing.setbacks = 0
        else:
            standing.setbacks += 1
            if standing.setbacks >= _SETBACKS:
                raise EncoderError(
                    f"Training stopped at step {standing.step} because the gradients were not "
                    f"finite in {_SETBACKS} steps; lower --learning-rate, or pass --dtype fp32."
                )
        standing.step += 1

    def _losses(self, drawn: Drawn, *, training: bool) -> PerSample:
        """Equation 2 for each thing's left-out picture, with the words of the sets.

        Source:
            Gal et al. 2022, arXiv:2208.01618, equation 2, whose embedding an encoder gives here.
        """
        backbone, things, device = self.backbone, self.things, self.backbone.device
        sets = [things.features[own] for own in drawn.shown]
        counts = torch.tensor([len(own) for own in sets])
        padded = torch.nn.utils.rnn.pad_sequence(sets, batch_first=True)
        self._make(padded, counts)

        times, noise = drawn.times, drawn.noise
        if training:
            times = extensions.TIMESTEPS(times, self.inversion)
            noise = extensions.NOISE(noise, drawn.offsets, self.inversion)
        noise = sent(noise, device)
        size = things.latent_shape[-2], things.latent_shape[-1]
        t = backbone.sample_t(sent(times, device), size)
        own = things.moments[drawn.targets]
        moments = Moments(sent(own.mean.float(), device), sent(own.std.float(), device))
        x0 = moments.sample(sent(drawn.posterior_noise, device))
        side = backbone.resolution
        samples = Samples(
            job=self.job,
            pictures=drawn.targets,
            flips=torch.zeros(len(sets), dtype=torch.bool),
            t=t,
            x0=x0,
            noise=noise,
            x_t=backbone.add_noise(x0, noise, t),
            crops=torch.tensor([[side, side, 0, 0]] * len(sets)),
        )
        target = backbone.target(x0, noise, t)
        sentences = [s.replace("{}", slot_token(i)) for i, s in enumerate(drawn.sentences)]
        (found,) = predictions(backbone, [(str, Batch(sentences, target, samples))])
        return extensions.LOSS(found, target, samples)

    def _make(self, features: Tensor, counts: Tensor | None) -> None:
        """Give the words the rows of some sets.

        Args:
            features: (sets, most, dim).
            counts: Pictures of each set; ``None``: all.
        """
        sets, most, _ = features.shape
        counts = torch.full((sets,), most) if counts is None else counts
        here = torch.arange(most) < counts[:, None]
        device = self.backbone.device
        made = self.network(sent(features, device), sent(here, device))
        for name, rows in made.items():
            before = self._made.get(name)
            # words without a set keep their rows
            rest = [] if before is None else [before[len(rows) :].detach()]
            self._made[name] = torch.cat([rows, *rest])

    @torch.no_grad()
    def _score(self) -> None:
        """Record the losses since the last time, and the loss on held-out things."""
        standing, config = self.standing, self.config
        recent = standing.recent
        own = math.fsum(recent) / len(recent) if recent else math.nan
        unseen = math.nan
        if len(self.unseen):
            drawn = unseen_sets(self.things, self.unseen, config.seed, config.most_pictures)
            chunk = scoring_chunk(self._at_once)
            parts = [
                self._losses(drawn.of(range(i, min(i + chunk, len(drawn.shown)))), training=False)
                for i in range(0, len(drawn.shown), chunk)
            ]
            unseen = float(torch.cat(parts).mean())
        standing.losses.append((standing.step, own, unseen))
        standing.recent = []

    # --- its state

    def tensors(self) -> dict[str, Tensor]:
        """All that a step changes, on the CPU."""
        found = {f"network/{name}": value for name, value in self.network.state_dict().items()}
        for index, parameter in enumerate(self.network.parameters()):
            own = self.optimiser.state.get(parameter, {})
            found |= {f"optimiser/{index}/{name}": value for name, value in own.items()}
        return {name: value.detach().cpu().contiguous() for name, value in found.items()}

    def restore(self, tensors: Mapping[str, Tensor], standing: Standing) -> None:
        """Continue from the output of ``tensors`` and ``standing``.

        Raises:
            EncoderError: they belong to another training.
        """
        try:
            self.network.load_state_dict(below(tensors, "network/"))
        except RuntimeError as error:
            raise EncoderError(
                "Cannot resume because the saved state is of an encoder with other sizes; pass "
                "another --output-dir."
            ) from error
        for index, parameter in enumerate(self.network.parameters()):
            own = below(tensors, f"optimiser/{index}/")
            # the count of steps stays on the CPU
            self.optimiser.state[parameter] = {
                name: value.clone() if value.ndim == 0 else value.to(parameter.device, copy=True)
                for name, value in own.items()
            }
        self.standing = standing


def rate_factor(step: int, num_steps: int) -> float:
    """Factor on the rate at a step: a linear warm-up, then 1, then a linear fall to zero."""
    warmup = min(_WARMUP_STEPS, max(1, num_steps // 10))
    left = (num_steps - step) / max(1.0, num_steps * _DECAY_FRACTION)
    return min(1.0, (step + 1) / warmup, left)


def _common_rows(backbone: Backbone, learnable_property: str) -> dict[str, Tensor]:
    """Rows of common words that the model knows, on the CPU, each (words, dim)."""
    common = of_family(COMMON_WORDS, backbone.family, learnable_property)
    found = {}
    for name, vocabulary in backbone.vocabularies.items():
        known = [word for word in common if vocabulary.is_word(word)]
        rows = [vocabulary.rows_of(word).mean(0) for word in known]
        if not rows:  # a vocabulary of another language: any of its words
            rows = list(vocabulary.rows_of(" ".join(common)))
        found[name] = torch.stack(rows).cpu()
    return found
