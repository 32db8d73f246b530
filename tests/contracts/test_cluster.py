"""Many words on Ray: what each ends with does not depend on the workers, nor on their deaths."""

from __future__ import annotations

import os
import signal
import sys

import pytest
import torch

from oneword.concepts import formats
from oneword.runs import threads
from oneword.runs.cluster import ClusterError, map_chunks, train_on_cluster
from oneword.runs.events import Ended, Message, Stepped, WorkerStarted
from oneword.runs.many import train_many


pytest.importorskip("ray")


def rows(folder):
    return formats.load_concept(folder).rows["clip"]


STEPS = (30, 12, 12)  # the first for long enough to be killed


@pytest.mark.long
def test_a_killed_worker_loses_no_word_and_changes_none(make, tmp_path):
    def jobs(output):
        good = [
            make(f"{output}/{i}", inversion={"max_train_steps": steps, "seed": i},
                 checkpointing_steps=3)
            for i, steps in enumerate(STEPS)
        ]  # fmt: skip
        return [*good, make(f"{output}/bad", train_data_dir=tmp_path / "nowhere")]

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as a worker has
    try:
        train_many(jobs("alone"), slots=1)
    finally:
        torch.set_num_threads(threads)
    workers, killed, ended, said = [], [], [], []

    def tell(event):
        match event:
            case WorkerStarted():
                workers.append(event.pid)
            case Message():
                said.append(event.text)
            case Ended(failed=False):
                ended.append(event.job)
            case Stepped() if event.step >= 6 and not killed:
                killed.append(workers[-1])
                os.kill(workers[-1], signal.SIGKILL if sys.platform != "win32" else signal.SIGTERM)

    outcomes = train_on_cluster(jobs("many"), workers=1, slots=1, on_event=tell)
    assert killed
    assert len(set(workers)) == 2
    assert any(text.startswith("Resuming from step") for text in said)
    assert [o.outcome and o.outcome.result.status for o in outcomes] == [*["finished"] * 3, None]
    assert "nowhere" in outcomes[3].error
    assert set(ended) == {"0", "1", "2"}
    for i, steps in enumerate(STEPS):
        # matrix libraries round by a buffer's place in memory; a step lost or done twice is 1e-3
        found, expected = rows(tmp_path / "many" / str(i)), rows(tmp_path / "alone" / str(i))
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
        lines = (tmp_path / "many" / str(i) / "metrics.jsonl").read_text().splitlines()
        assert len(lines) == 1 + steps // 3


@pytest.mark.slow
def test_workers_bound_how_long_threads_spin(monkeypatch):
    import ray

    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")
    for name in names:
        monkeypatch.delenv(name, raising=False)

    def told(chunk, tell):
        return {name: os.environ[name] for name in chunk if name in os.environ}

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    assert [*map_chunks(told, [names], workers=1)] == [threads.waiting()]
    assert threads.waiting() == {"GOMP_SPINCOUNT": "1000", "KMP_BLOCKTIME": "1"}


def test_a_cluster_that_is_not_there_is_one_sentence(make):
    with pytest.raises(ClusterError, match="must be local, auto or the address"):
        train_on_cluster([make("a")], address="nowhere at all")


def test_more_workers_than_cores_are_refused(make):
    with pytest.raises(ClusterError, match="got 1000 workers for"):
        train_on_cluster([make("a")], workers=1000)
