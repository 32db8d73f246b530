"""One run in several processes: its rows are those of one, and none waits for the dead."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import signal
import socket
import sys
import time

import numpy as np
import pytest
import torch

from oneword.concepts import formats
from oneword.config.inversion import InversionConfig
from oneword.errors import ConfigError, UserError
from oneword.runs.events import Message, Stepped
from oneword.runs.many import train_many
from oneword.runs.train import dry_run, train
from oneword.training.job import Job, JobError
from oneword.training.loop import invert, invert_many
from oneword.training.parts import squared_error
from oneword.training.processes import ProcessError, Processes, check_device, joined
from oneword.training.started import Started


pytestmark = [
    pytest.mark.skipif(
        sys.platform != "linux" or torch.cuda.is_available(),
        reason="here processes are forked, which those of other systems and with CUDA cannot be",
    ),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]
_LONGEST_S = 120


@pytest.fixture(autouse=True)
def one_thread():
    """As each of the processes has, so that they round alike."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def in_processes(count, work):
    """What ``work(processes)`` gives in each of some processes, or raises; ``None``: it died."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def live(rank, sender):
        torch.set_num_threads(1)
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        try:
            with joined(Started(rank, count, rank, count), "cpu") as processes:
                found = work(processes)
        except BaseException as error:
            found = f"{type(error).__name__}: {error}"
        sender.send(found)

    fork = multiprocessing.get_context("fork")
    pipes = [fork.Pipe(duplex=False) for _ in range(count)]
    processes = [
        fork.Process(target=live, args=(rank, sender), daemon=True)
        for rank, (_, sender) in enumerate(pipes)
    ]
    for process in processes:
        process.start()
    until = time.monotonic() + _LONGEST_S
    try:
        return [received(*own, until) for own in pipes]
    finally:
        for process in processes:
            process.kill()
            process.join()


def received(receiver, sender, until):
    sender.close()
    assert receiver.poll(max(0.0, until - time.monotonic())), "a process waits for ever"
    try:
        return receiver.recv()
    except EOFError:
        return None


def facts(result):
    """A result as plain numbers."""
    tensors = {} if result.concept is None else result.concept.rows | result.concept.tensors
    return {
        "end": (result.status, result.steps, result.best_step),
        "losses": result.losses,
        "tensors": {name: tensor.numpy() for name, tensor in tensors.items()},
    }


def assert_alike(found, expected, *, atol=1e-6):
    assert found["end"] == expected["end"]
    assert found["losses"] == [
        (step, pytest.approx(loss, rel=1e-5)) for step, loss in expected["losses"]
    ]
    assert found["tensors"].keys() == expected["tensors"].keys()
    for name, tensor in expected["tensors"].items():
        np.testing.assert_allclose(found["tensors"][name], tensor, rtol=0, atol=atol)


def job(name="a", seed=0, **fields):
    settings = {
        "placeholder_token": f"<{name}>",
        "initializer_token": "cat",
        "max_train_steps": 6,
        "train_batch_size": 4,
        "evaluation_steps": 2,
        "num_evaluation_samples": 5,
        "learning_rate": 5e-3,
        # with the usual one AdamW would blow up the rounding of the smallest gradients
        "adam_epsilon": 1e-3,
        "seed": seed,
    }
    draws = torch.Generator().manual_seed(seed)
    pictures = torch.rand(3, 3, 32, 32, generator=draws) * 2 - 1
    return Job(name=name, pictures=pictures, config=InversionConfig(**settings | fields))


def in_sizes(task):
    """The job with its pictures of three sizes, each in the upper left of its frame."""
    sizes = torch.tensor([[32, 32], [16, 32], [32, 16]])
    pictures = task.pictures.clone()
    pictures[1, :, 16:], pictures[2, :, :, 16:] = 1, 1
    return dataclasses.replace(task, pictures=pictures, sizes=sizes)


# --- the same rows


def test_every_form_of_a_word_learns_the_same_in_two_processes(tiny_sd):
    masks = torch.ones(3, 1, 32, 32)
    masks[0, :, :, :20] = 0
    jobs = [
        dataclasses.replace(job(num_vectors=2, regularization_weight=1e-3), masks=masks),
        job("chosen", initializer_token=None),
        *(
            job(setup, seed, setup=setup, train_batch_size=3)
            for seed, setup in enumerate(["progressive", "per-image", "xti", "neti", "dreamartist"])
        ),
        job("outputs", vectors_at="output", learning_rate=None),
        job("average", keep="average", max_train_steps=4),
        job("crops", random_crops=2, random_flip=True),
        in_sizes(job("sizes", train_batch_size=5)),
        in_sizes(job("crops-of-sizes", random_crops=2, train_batch_size=3)),
    ]

    def work(processes):
        return [facts(invert(tiny_sd, one, processes=processes)) for one in jobs]

    alone = [facts(invert(tiny_sd, one)) for one in jobs]
    first, second = in_processes(2, work)
    for one, other, expected in zip(first, second, alone, strict=True):
        assert_alike(one, expected)
        assert_alike(other, one, atol=0)


@pytest.mark.parametrize("count", [3, 5])
def test_samples_that_do_not_divide_evenly_give_the_same_rows(tiny_sd, count):
    """Of five processes one has no sample of a step of four, and the loop does not mind."""
    jobs = [job(), job("b", seed=1, train_batch_size=2, num_vectors=2)]

    def work(processes):
        return [facts(r) for r in invert_many(tiny_sd, jobs, slots=2, processes=processes)]

    alone = [facts(result) for result in invert_many(tiny_sd, jobs, slots=2)]
    for found in in_processes(count, work):
        for one, expected in zip(found, alone, strict=True):
            assert_alike(one, expected)


def test_shares_are_all_samples_and_differ_by_one_at_most():
    for size in range(9):
        for count in range(1, 6):
            shares = [Processes(rank, count).share(size) for rank in range(count)]
            assert [i for share in shares for i in share] == [*range(size)]
            assert max(map(len, shares)) - min(map(len, shares)) <= 1


# --- ends


def faulty(processes, fault, *, rank=1, call=3):
    """A loss that does something in one process, at its n-th call."""
    calls = []

    def loss(prediction, target, samples):
        calls.append(samples.job.name)
        if processes.rank == rank and calls.count("b") == call and calls[-1] == "b":
            fault()
        return squared_error(prediction, target, samples)

    return loss


def test_a_fault_in_one_process_is_a_fault_in_all_and_ends_that_job_alone(tiny_sd):
    def fault():
        raise ZeroDivisionError("of the second")

    def work(processes):
        jobs = [job("a"), job("b", seed=1)]
        results = invert_many(
            tiny_sd, jobs, slots=1, loss=faulty(processes, fault), processes=processes
        )
        return [(result.status, result.reason) for result in results]

    first, second = in_processes(2, work)
    assert first == [
        ("finished", ""),
        ("failed", "Process 1 of 2 failed: ZeroDivisionError: of the second"),
    ]
    assert second == [("finished", ""), ("failed", "ZeroDivisionError: of the second")]


def test_nobody_waits_for_a_process_that_has_died(make, tmp_path):
    """The first says so; one process goes on from the state of the last writing."""
    config = make(checkpointing_steps=2)

    def work(processes):
        def told(event):
            if isinstance(event, Stepped) and event.step == 5:
                os.kill(second, signal.SIGKILL)

        (second,) = processes.highest([os.getpid() if processes.rank == 1 else 0])
        return train(config, processes=processes, on_event=told).result.status

    first, second = in_processes(2, work)
    assert second is None
    assert "Error: Another process of this run ended too early" in first
    assert train(config).result.status == "finished"
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [0, 3, 6, 9, 12]


@pytest.mark.parametrize(("asked", "number"), [(0, signal.SIGINT), (1, signal.SIGTERM)])
def test_a_signal_to_any_process_stops_all_at_one_step(make, tmp_path, asked, number):
    """Then another number of processes goes on, to the same rows and losses."""
    common = {"train_batch_size": 4, "adam_epsilon": 1e-3}
    whole = train(make("whole", common)).result

    def work(processes):
        pids = processes.highest([os.getpid() * (processes.rank == rank) for rank in range(2)])

        def told(event):
            if isinstance(event, Stepped) and event.step == 5:
                os.kill(pids[asked], number)

        outcome = train(make(inversion=common), processes=processes, on_event=told)
        return outcome.result.status, outcome.result.steps

    first, second = in_processes(2, work)
    assert first == second
    status, step = first
    assert status == "interrupted"
    assert 5 <= step <= 7
    record = tmp_path / "run" / "config.json"
    assert json.loads(record.read_text())["config"]["num_processes"] == 2
    assert not list((tmp_path / "run").glob("learned_embeds*"))
    events = []
    outcome = train(make(inversion=common), on_event=events.append)
    assert Message("run", f"Resuming from step {step}.") in events
    said = "num_processes was 2 and is 1: the run continues; its result is the same up to rounding."
    assert Message("run", said) in events
    assert json.loads(record.read_text())["config"]["num_processes"] == 1
    assert_alike(facts(outcome.result), facts(whole))


@pytest.mark.slow
def test_a_run_of_one_process_goes_on_in_three_and_is_found_ended(make, tmp_path):
    common = {"train_batch_size": 4, "adam_epsilon": 1e-3}
    whole = train(make("whole", common)).result

    def stop(event):
        if isinstance(event, Stepped) and event.step == 4:
            os.kill(os.getpid(), signal.SIGINT)

    assert train(make(inversion=common), on_event=stop).result.status == "interrupted"

    def work(processes):
        went_on = train(make(inversion=common), processes=processes)
        again = train(make(inversion=common), processes=processes)
        return facts(went_on.result), again.was_finished, facts(again.result)

    first, *others = in_processes(3, work)
    assert_alike(first[0], facts(whole))
    assert first[1]
    for found in others:
        assert_alike(found[0], first[0], atol=0)
        assert_alike(found[2], first[0], atol=0)
    rows = formats.load_concept(tmp_path / "run").rows["clip"]
    np.testing.assert_array_equal(rows.numpy(), first[0]["tensors"]["clip"])


# --- refusals


def test_what_one_process_is_refused_all_are(make, photos, tmp_path):
    """Before training, and the folder is as it was."""
    other = tmp_path / "other"
    other.mkdir()
    (photos / "0.png").rename(other / "0.png")

    def own(fields):
        def work(processes):
            return train(make(**fields[processes.rank]), processes=processes)

        return work

    first, second = in_processes(2, own([{}, {"train_data_dir": tmp_path / "nowhere"}]))
    assert first.startswith("ProcessError: Process 1 of 2 failed: ")
    assert "nowhere" in first
    assert "nowhere" in second
    assert not (tmp_path / "run").exists()
    first, second = in_processes(2, own([{}, {"train_data_dir": other}]))
    assert "must see the same pictures and captions" in first
    assert "must see the same pictures and captions" in second
    assert not (tmp_path / "run").exists()


def test_a_step_of_fewer_samples_than_processes_is_refused(make):
    assert (
        "2 processes share each step's 2 samples, 1 per process"
        in dry_run(make(num_processes=2))["notes"]
    )
    with pytest.raises(JobError, match=r"at most train_batch_size, 2, .*got 3.*-size 3 for"):
        dry_run(make(num_processes=3))
    plan = dry_run(make(inversion={"train_batch_size": 5}, num_processes=3))
    assert "3 processes share each step's 5 samples, 1 or 2 per process" in plan["notes"]


def test_setups_that_change_weights_train_in_one_process(make):
    with pytest.raises(JobError, match="Cannot use 2 processes with setup"):
        dry_run(make(inversion={"setup": "lora-dreambooth"}, num_processes=2))


def test_words_of_a_batch_train_in_one_process(make):
    with pytest.raises(
        ConfigError, match=r"num_processes 2 for words .* --cluster local --workers 2"
    ):
        train_many([make("a"), make("b", num_processes=2)])


def test_processes_that_nobody_started_are_refused(make):
    with pytest.raises(ConfigError, match="must be the number of running processes, 1, got 2"):
        train(make(num_processes=2))
    with pytest.raises(ConfigError, match="num_processes must be 1 or more, got 0"):
        make(num_processes=0)


def test_a_device_for_each_process(monkeypatch):
    assert check_device("cpu", 64).type == "cpu"
    with pytest.raises(ConfigError, match=r"on the device 'cpu:0' .*; pass --device cuda or cpu"):
        check_device("cpu:0", 2)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert check_device("cuda", 1).type == "cuda"
    with pytest.raises(ConfigError, match="at most the number of GPUs, 1, got 2"):
        check_device("cuda", 2)
    with pytest.raises(ConfigError, match="on the device 'mps'"):
        check_device("mps", 2)


def test_the_error_of_others_is_a_users(tiny_sd):
    assert issubclass(ProcessError, UserError)
