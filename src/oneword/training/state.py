"""Everything that training needs to resume as if it had never stopped, and its form in a file.

A ``State`` covers all jobs of a loop. ``split`` gives each job's share as a run of its own, and
``joined`` combines runs again. A file holds flat tensors and a dict for JSON. Their names and order
must stay the same as in all files written so far, so that old runs can resume.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from oneword.concepts.concept import Concept
from oneword.training.job import Job, Result, Status, below


_MORE, _DELTAS = "tensors/", "deltas/"  # prefix of a result's tensors that are not rows
_LAST = "last/"  # prefix of the tensors from which an ended job could continue
_WORD = "word/"  # prefix of the rows that tuning began with

Losses = Sequence[tuple[int, float]]
"""(step, loss on the fixed batch), oldest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What ``Record`` knows about a job in progress."""

    step: int
    losses: Losses
    first_loss: float
    best_loss: float
    best_step: int
    messages: tuple[str, ...]
    unsaid: tuple[str, ...]
    bad: bool
    setbacks: int = 0
    rate_factor: float = 1.0
    distance: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Active:
    """A job in progress in the word's own loop."""

    index: int
    """Index among the loop's jobs."""
    slot: int
    initializer_token: str | None
    record: Standing
    ranking: dict[str, float]
    """Loss of each word tried as the initialiser."""
    tensors: dict[str, Tensor]
    """On the CPU."""

    @property
    def step(self) -> int:
        """Steps done."""
        return self.record.step

    def packed(self) -> dict[str, Tensor]:
        """All tensors, in the form for a file."""
        return self.tensors

    def plain(self) -> dict[str, Any]:
        """Everything except the tensors, for JSON."""
        record = self.record
        return {
            "index": self.index,
            "slot": self.slot,
            "initializer_token": self.initializer_token,
            "bad": record.bad,
            "step": record.step,
            "setbacks": record.setbacks,
            "rate_factor": record.rate_factor,
            "losses": record.losses,
            "best_loss": record.best_loss,
            "best_step": record.best_step,
            "distance": record.distance,
            "messages": record.messages,
            "unsaid": record.unsaid,
            "ranking": self.ranking,
        }

    @classmethod
    def read(cls, own: Mapping[str, Tensor], plain: Mapping[str, Any]) -> Active:
        """Restore from the output of ``plain`` and the tensors."""
        losses = _losses(plain["losses"])
        names = ("bad", "step", "setbacks", "rate_factor", "best_loss", "best_step", "distance")
        return cls(
            index=plain["index"],
            slot=plain["slot"],
            initializer_token=plain["initializer_token"],
            record=Standing(
                losses=losses,
                first_loss=losses[0][1] if losses else math.inf,
                messages=tuple(plain["messages"]),
                unsaid=tuple(plain["unsaid"]),
                **{name: plain[name] for name in names},
            ),
            ranking=plain["ranking"],
            tensors=dict(own),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """A job that has ended."""

    index: int
    """Index among the loop's jobs."""
    slot: int | None = None
    """0 in the run folder of a job that shared its batch; otherwise unset."""
    status: Status
    steps: int
    best_step: int
    losses: Losses
    reason: str
    messages: tuple[str, ...]
    kind: str | None = None
    """As ``Concept.kind``; ``None`` if there is no concept."""
    provenance: dict[str, Any] = field(default_factory=dict)
    """As ``Concept.provenance``."""
    tensors: dict[str, Tensor] = field(default_factory=dict)
    last: Active | Tuning | None = None
    """The job at its last step, if it ran out of steps and keeps its state for continuing."""
    at_rest: bool = False
    """Whether at its last step it met an end that more steps would not have postponed."""

    @classmethod
    def of(
        cls,
        result: Result,
        index: int = 0,
        last: Active | Tuning | None = None,
        *,
        at_rest: bool = False,
    ) -> Done:
        """Store a result, from which ``result`` rebuilds it."""
        done = cls(
            index=index,
            status=result.status,
            steps=result.steps,
            best_step=result.best_step,
            losses=tuple(result.losses),
            reason=result.reason,
            messages=tuple(result.messages),
            last=last,
            at_rest=at_rest,
        )
        concept = result.concept
        if concept is None:
            return done
        tensors = concept.rows | {f"{_MORE}{name}": t for name, t in concept.tensors.items()}
        tensors |= {f"{_DELTAS}{name}": t for name, t in concept.deltas.items()}
        return dataclasses.replace(
            done, kind=concept.kind, provenance=concept.provenance, tensors=tensors
        )

    def result(self, job: Job) -> Result:
        """The result that was passed to ``of``."""
        concept = None
        if self.kind is not None:
            rows = {n: t for n, t in self.tensors.items() if not n.startswith((_MORE, _DELTAS))}
            concept = Concept(
                placeholder_token=job.config.placeholder_token,
                rows=rows,
                kind=self.kind,
                tensors=below(self.tensors, _MORE),
                deltas=below(self.tensors, _DELTAS),
                provenance=self.provenance,
            )
        return Result(
            job=job,
            status=self.status,
            concept=concept,
            steps=self.steps,
            best_step=self.best_step,
            losses=list(self.losses),
            reason=self.reason,
            messages=list(self.messages),
        )

    @property
    def is_settled(self) -> bool:
        """Whether the job would have ended in the same way with more steps."""
        return self.at_rest or self.status != "finished"

    def more(self, max_steps: int) -> Active | Tuning | None:
        """The job in progress again, if it would not have ended with this many steps.

        Args:
            max_steps: Steps of its own stage.
        """
        last = self.last
        if last is None:
            return None
        done = last.record.step
        # a word is given up at half of its steps; a word that has them all has more than half
        given_up = self.status == "nothing-learned" and isinstance(last, Active)
        return last if max_steps > (2 * done if given_up else done) else None

    def packed(self) -> dict[str, Tensor]:
        """All tensors, in the form for a file."""
        last = {} if self.last is None else self.last.packed()
        return self.tensors | {f"{_LAST}{name}": tensor for name, tensor in last.items()}

    def plain(self) -> dict[str, Any]:
        """Everything except the tensors, for JSON."""
        names = ("status", "steps", "best_step", "losses", "reason", "messages")
        plain = {name: getattr(self, name) for name in names}
        if self.kind is not None:
            plain |= {"kind": self.kind, "provenance": self.provenance}
        if self.last is not None:
            plain["last"] = self.last.plain()
        if self.at_rest:
            plain["at_rest"] = True
        plain["index"] = self.index
        return plain if self.slot is None else plain | {"slot": self.slot}

    @classmethod
    def read(cls, own: Mapping[str, Tensor], plain: Mapping[str, Any]) -> Done:
        """Restore from the output of ``plain`` and the tensors."""
        known = dict(plain) | {
            "losses": _losses(plain["losses"]),
            "messages": tuple(plain["messages"]),
            "tensors": {n: tensor for n, tensor in own.items() if not n.startswith(_LAST)},
        }
        if "last" in plain:
            kind = Tuning if "tuning" in plain["last"] else Active
            known["last"] = kind.read(below(own, _LAST), plain["last"])
        return cls(**known)


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """The start of a method that tunes weights."""

    rows: dict[str, Tensor]
    """The word, by text encoder."""
    num_learned: int = 0
    """How many of its first vectors are trained; the others are fixed."""
    class_prompt: str | None = None
    """A sentence for what the class pictures show; ``None``: no prior preservation."""
    first_step: int = 0
    """Steps that the word was trained for before."""
    losses: Losses = ()
    """Losses of those steps."""
    provenance: dict[str, Any] = field(default_factory=dict)
    """Additional entries of the concept's provenance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """A job whose weights are being tuned."""

    start: Start
    initializer_token: str | None
    record: Standing
    tensors: dict[str, Tensor]
    """On the CPU."""

    @property
    def step(self) -> int:
        """Steps done in all stages."""
        return self.start.first_step + self.record.step

    def packed(self) -> dict[str, Tensor]:
        """All tensors, in the form for a file."""
        return self.tensors | {f"{_WORD}{n}": rows.cpu() for n, rows in self.start.rows.items()}

    def plain(self) -> dict[str, Any]:
        """Everything except the tensors, for JSON."""
        names = ("step", "first_loss", "losses", "best_loss", "best_step", "messages", "unsaid")
        record = {name: getattr(self.record, name) for name in (*names, "bad")}
        names = ("class_prompt", "first_step", "losses", "provenance", "num_learned")
        return {
            "tuning": record | {"initializer_token": self.initializer_token},
            "start": {name: getattr(self.start, name) for name in names},
        }

    @classmethod
    def read(cls, own: Mapping[str, Tensor], plain: Mapping[str, Any]) -> Tuning:
        """Restore from the output of ``plain`` and the tensors."""
        record: dict[str, Any] = dict(plain["tuning"])
        start = plain["start"]
        initializer = record.pop("initializer_token")
        record |= {name: tuple(record[name]) for name in ("messages", "unsaid")}
        record["losses"] = _losses(record["losses"])
        return cls(
            start=Start(**start | {"losses": _losses(start["losses"]), "rows": below(own, _WORD)}),
            initializer_token=initializer,
            record=Standing(**record),
            tensors={name: t for name, t in own.items() if not name.startswith(_WORD)},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Everything for resuming a loop: its jobs in progress, waiting and done."""

    jobs: tuple[str, ...]
    """Names of the loop's jobs."""
    rounds: int = 0
    """Steps of the loop; for tuning, of all its stages."""
    queue: tuple[int, ...] = ()
    """Indices of the jobs that have not begun."""
    active: tuple[Active, ...] = ()
    done: tuple[Done, ...] = ()
    first_stage: State | None = None
    """For a run that tunes weights later: the word's own loop."""
    tuning: Tuning | None = None
    """For a run that tunes weights now."""

    @property
    def step(self) -> int | None:
        """Steps of the run in progress; ``None`` if there is none."""
        if self.tuning is not None:
            return self.tuning.step
        if self.first_stage is not None:
            inner = self.first_stage
            return inner.step if inner.active else inner.done[0].steps
        return self.active[0].step if self.active else None

    @property
    def scored(self) -> int | None:
        """The last step at which the run in progress was scored; ``None`` if there is none."""
        if self.tuning is not None:
            losses = self.tuning.record.losses
        elif self.first_stage is not None:
            inner = self.first_stage
            losses = inner.active[0].record.losses if inner.active else inner.done[0].losses
        else:
            losses = self.active[0].record.losses if self.active else ()
        return losses[-1][0] if losses else None

    def lengthened(self, max_train_steps: int, tuning_steps: int | None = None) -> State:
        """The state in which jobs that ran out of steps and have more now are in progress again.

        Args:
            max_train_steps: Steps of each job in the word's own loop.
            tuning_steps: Steps of a job that tunes weights, without those before.
        """
        if self.first_stage is not None:
            first_stage = self.first_stage.lengthened(max_train_steps)
            return dataclasses.replace(self, first_stage=first_stage)
        active, done, tuning = list(self.active), [], self.tuning
        for one in self.done:
            most = max_train_steps if isinstance(one.last, Active) else tuning_steps
            last = None if most is None else one.more(most)
            if isinstance(last, Active):
                active.append(dataclasses.replace(last, index=one.index))
            elif isinstance(last, Tuning):
                tuning = last
            else:
                done.append(one)
        return dataclasses.replace(self, active=tuple(active), done=tuple(done), tuning=tuning)

    def split(self, names: Sequence[str]) -> dict[int, State]:
        """Each job's share as a run of its own, by index: those in progress, then those done.

        Args:
            names: Name of each job in its own run.
        """
        shares = {}
        for one in self.active:
            alone = dataclasses.replace(one, index=0, slot=0)
            shares[one.index] = State(jobs=(names[one.index],), rounds=self.rounds, active=(alone,))
        for one in self.done:
            alone = dataclasses.replace(one, index=0, slot=0)
            shares[one.index] = State(jobs=(names[one.index],), rounds=self.rounds, done=(alone,))
        return shares

    @classmethod
    def joined(cls, names: Sequence[str], runs: Sequence[State | None]) -> State | None:
        """One loop's state from those of runs in progress; ``None`` if none has begun.

        Args:
            names: Name of each run among the loop's jobs.
            runs: ``None`` for each that has not begun.
        """
        begun = [
            dataclasses.replace(run.active[0], index=index)
            for index, run in enumerate(runs)
            if run is not None
        ]
        begun.sort(key=lambda one: one.slot)  # side by side as before, and so to the same bits
        active = [dataclasses.replace(one, slot=slot) for slot, one in enumerate(begun)]
        if not active:
            return None
        return cls(
            jobs=tuple(names),
            rounds=max(run.rounds for run in runs if run is not None),
            queue=tuple(index for index, run in enumerate(runs) if run is None),
            active=tuple(active),
        )

    def packed(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The contents of a file: tensors, and a dict for JSON."""
        info: dict[str, Any] = {
            "jobs": self.jobs,
            "rounds": self.rounds,
            "queue": self.queue,
            "active": [one.plain() for one in self.active],
            "done": [one.plain() for one in self.done],
        }
        if self.first_stage is not None:
            tensors, inner = self.first_stage.packed()
            return tensors, info | {"active": [{"step": self.step}], "first_stage": inner}
        if self.tuning is not None:
            tensors = {f"0/{name}": t for name, t in self.tuning.packed().items()}
            return tensors, info | {"active": [{"step": self.step}]} | self.tuning.plain()
        tensors = {
            f"{one.index}/{name}": tensor
            for one in (*self.active, *self.done)
            for name, tensor in one.packed().items()
        }
        return tensors, info

    @classmethod
    def unpacked(cls, tensors: Mapping[str, Tensor], info: Mapping[str, Any]) -> State:
        """Restore from the output of ``packed``."""

        def own(plain: Mapping[str, Any]) -> dict[str, Tensor]:
            return below(tensors, f"{plain['index']}/")

        first_stage, tuning, active = None, None, info["active"]
        if "first_stage" in info:
            first_stage, active = cls.unpacked(tensors, info["first_stage"]), ()
        elif "tuning" in info:
            tuning, active = Tuning.read(below(tensors, "0/"), info), ()
        return cls(
            jobs=tuple(info["jobs"]),
            rounds=info["rounds"],
            queue=tuple(info["queue"]),
            active=tuple(Active.read(own(one), one) for one in active),
            done=tuple(Done.read(own(one), one) for one in info["done"]),
            first_stage=first_stage,
            tuning=tuning,
        )


def _losses(plain: Sequence[Sequence[float]]) -> Losses:
    return tuple((int(step), float(loss)) for step, loss in plain)


@runtime_checkable
class Checkpoint(Protocol):
    """Stores the loop's state."""

    steps: int
    """Steps of the loop between two calls of ``save``."""

    def load(self) -> State | None:
        """The state saved last, or ``None`` at a first start."""
        ...

    def save(self, state: State) -> None:
        """Save a state; it must replace the previous one atomically, or not at all."""
        ...
