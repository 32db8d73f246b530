"""Words on the way: saved while a run goes, asked for between steps, exact through kills."""

from __future__ import annotations

import errno
import json
import os
import signal
from pathlib import Path

import pytest

from oneword import _files
from oneword._files import OutputError
from oneword.concepts import formats
from oneword.config.tuning import TuningConfig
from oneword.errors import UserError
from oneword.runs import requests
from oneword.runs.events import Message, Preview, Saved, Stepped
from oneword.runs.many import train_many
from oneword.runs.requests import Requests
from oneword.runs.train import train


pytestmark = pytest.mark.usefixtures("few_steps")


def word(folder, step):
    return formats.load_concept(folder / f"learned_embeds-steps-{step}.safetensors")


def numbered(folder):
    """The saved words' bytes, by step."""
    found = folder.glob("learned_embeds-steps-*.safetensors")
    return {int(path.stem.rpartition("-")[2]): path.read_bytes() for path in found}


def course(folder):
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [line | {"time_s": 0} for line in lines]


def at(step, do, job=None):
    """Calls ``do`` when a run tells of a step."""
    told = []

    def on_event(event):
        told.append(event)
        if isinstance(event, Stepped) and event.step == step and job in (None, event.job):
            do()

    on_event.told = told
    return on_event


def interrupt():
    os.kill(os.getpid(), signal.SIGINT)


def fail():
    raise ZeroDivisionError


# --- what is saved


def test_saving_words_changes_nothing_else_of_a_run(make, tmp_path):
    plain, told = train(make("plain")), []
    outcome = train(make(save_steps=6), on_event=told.append)
    assert [*numbered(tmp_path / "run")]
    assert sorted(numbered(tmp_path / "run")) == [6, 12]
    assert [event.path.name for event in told if isinstance(event, Saved)] == [
        "learned_embeds-steps-6.safetensors", "learned_embeds-steps-12.safetensors",
    ]  # fmt: skip
    assert outcome.result.concept.sha256() == plain.result.concept.sha256()
    assert outcome.result.losses == plain.result.losses
    assert course(tmp_path / "run") == course(tmp_path / "plain")
    losses = dict(outcome.result.losses)
    for step in (6, 12):
        found = word(tmp_path / "run", step).provenance
        assert (found["steps"], found["loss"]) == (step, losses[step])
        assert found["base_model"] == plain.result.concept.provenance["base_model"]


@pytest.mark.parametrize(
    "settings",
    [
        {"keep": "last"},
        {"keep": "average", "average_decay": 0.9},
        {"keep": "last", "form": "xti"},
        {"keep": "last", "form": "dreamartist"},
        {"keep": "last", "setup": "lora-dreambooth", "tuning": TuningConfig(num_class_images=2)},
    ],
)
def test_a_saved_word_is_that_of_a_run_of_so_many_steps(make, tmp_path, settings):
    train(make(inversion=settings, save_steps=6))
    short = train(make("short", inversion=settings | {"max_train_steps": 6}))
    found = word(tmp_path / "run", 6)
    assert found.sha256() == short.result.concept.sha256()
    assert found.kind == short.result.concept.kind
    assert found.deltas.keys() == short.result.concept.deltas.keys()
    assert word(tmp_path / "run", 12).sha256() == formats.load_concept(tmp_path / "run").sha256()


def test_a_step_that_will_be_rolled_back_is_saved_as_the_word_before(make, tmp_path):
    settings = {"learning_rate": 1e30, "keep": "last", "max_train_steps": 3}
    train(make(inversion=settings, save_steps=1))
    start = train(make("start", inversion=settings | {"learning_rate": 0.0}, save_steps=1))
    assert start.result.steps == 3
    assert word(tmp_path / "run", 2).sha256() == word(tmp_path / "start", 2).sha256()
    assert word(tmp_path / "run", 1).sha256() != word(tmp_path / "start", 1).sha256()


# --- kills


@pytest.mark.parametrize("do", [interrupt, fail])
@pytest.mark.parametrize("step", [6, 7])
def test_stopped_and_resumed_the_words_have_the_same_bytes(make, tmp_path, do, step):
    train(make("whole", save_steps=2))
    try:
        train(make(save_steps=2), on_event=at(step, do))
    except ZeroDivisionError:  # as a kill: the state is that of step 4
        pass
    else:
        assert do is interrupt
        assert max(numbered(tmp_path / "run")) == 6  # of the step that it was stopped behind, too
    train(make(save_steps=2))
    assert numbered(tmp_path / "run") == numbered(tmp_path / "whole")
    assert sorted(numbered(tmp_path / "run")) == [2, 4, 6, 8, 10, 12]


def test_the_steps_between_may_change_from_part_to_part(make, tmp_path):
    train(make(save_steps=2), on_event=at(5, interrupt))
    train(make(save_steps=6))
    assert sorted(numbered(tmp_path / "run")) == [2, 4, 6, 12]


def test_a_disk_that_fills_up_leaves_no_half_a_word(make, tmp_path, monkeypatch):
    train(make("whole", save_steps=6))
    real = _files._temporary

    def full(folder, prefix, suffix):
        if "steps-6" in prefix:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(folder, prefix, suffix)

    with monkeypatch.context() as patch:
        patch.setattr(_files, "_temporary", full)
        with pytest.raises(
            OutputError, match=r"steps-6\.safetensors must be writable, got: No space"
        ):
            train(make(save_steps=6))
    assert not numbered(tmp_path / "run")
    assert not [p for p in (tmp_path / "run").iterdir() if p.name.startswith(".")]
    train(make(save_steps=6))
    assert numbered(tmp_path / "run") == numbered(tmp_path / "whole")


def test_a_run_that_is_refused_before_it_has_a_state_leaves_no_word(make, tmp_path):
    def refuse():
        raise UserError("no more")

    with pytest.raises(UserError, match="no more"):
        train(make(save_steps=1), on_event=at(3, refuse))
    assert not (tmp_path / "run").exists()


def test_another_machine_gets_the_words_from_the_mirror(make, tmp_path):
    url = f"file://{tmp_path}/store"
    train(make("here", save_steps=2, mirror=url), on_event=at(7, interrupt))
    train(make("there", save_steps=2, mirror=url))
    assert sorted(numbered(tmp_path / "there")) == [2, 4, 6, 8, 10, 12]
    assert numbered(tmp_path / "here").items() <= numbered(tmp_path / "there").items()


# --- asked for


@pytest.fixture
def at_once(monkeypatch):
    monkeypatch.setattr(requests, "_EVERY_S", 0.0)


ASKED = [
    (lambda folder: (folder / "save-now").touch(), "learned_embeds-steps-5.safetensors", Saved),
    (lambda folder: (folder / "preview-now").touch(), "previews/step-000005.png", Preview),
]


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize(("ask", "name", "kind"), ASKED)
def test_a_file_in_the_folder_asks_for_one_and_is_taken_away(make, tmp_path, ask, name, kind):
    train(make("plain"))
    run = tmp_path / "run"
    listen = at(5, lambda: ask(run))
    train(make(), on_event=listen)
    assert (run / name).is_file()
    assert [event.path for event in listen.told if isinstance(event, kind)] == [run / name]
    assert not list(run.glob("*-now"))
    assert course(run) == course(tmp_path / "plain")
    words = [formats.load_concept(tmp_path / name).sha256() for name in ("run", "plain")]
    assert words[0] == words[1]


@pytest.mark.parametrize(
    ("number", "name"),
    [
        ("SIGUSR2", "learned_embeds-steps-5.safetensors"),
        ("SIGUSR1", "previews/step-000005.png"),
    ],
)
def test_a_signal_asks_for_one(make, tmp_path, number, name):
    signum = getattr(signal, number, None) or pytest.skip(f"there is no {number} here")
    before = signal.getsignal(signum)
    listen = at(5, lambda: os.kill(os.getpid(), signum))
    assert train(make(), on_event=listen).result.status == "finished"
    assert (tmp_path / "run" / name).is_file()
    assert signal.getsignal(signum) == before
    assert len(numbered(tmp_path / "run")) + len(list(tmp_path.glob("run/previews/*"))) == 1


@pytest.mark.usefixtures("at_once")
def test_each_word_of_a_batch_is_asked_by_its_own_folder(make, tmp_path):
    configs = [make(name, {"seed": seed}) for seed, name in enumerate("ab")]
    listen = at(5, lambda: [ask(tmp_path / "a") for ask, *_ in ASKED], job="a")
    assert all(one.outcome for one in train_many(configs, on_event=listen))
    assert sorted(numbered(tmp_path / "a")) == [5]
    assert (tmp_path / "a" / "previews" / "step-000005.png").is_file()
    assert not numbered(tmp_path / "b")
    assert not (tmp_path / "b" / "previews").exists()
    if hasattr(signal, "SIGUSR2"):
        again = [make(name, {"seed": seed}) for seed, name in enumerate("cd")]
        listen = at(5, lambda: os.kill(os.getpid(), signal.SIGUSR2), job="d")
        train_many(again, on_event=listen)
        assert sorted(numbered(tmp_path / "d")) == [5]
        assert len(numbered(tmp_path / "c")) == 1


@pytest.mark.usefixtures("at_once")
def test_what_is_asked_for_at_a_step_of_its_own_turn_is_done_once(make, tmp_path):
    def ask():
        (tmp_path / "run" / "save-now").touch()
        interrupt()

    train(make(save_steps=5), on_event=at(5, ask))
    assert not (tmp_path / "run" / "save-now").exists()
    train(make(save_steps=5))
    assert sorted(numbered(tmp_path / "run")) == [5, 10]


@pytest.mark.usefixtures("at_once")
def test_what_was_asked_for_when_nothing_ran_is_done_when_it_goes_on(make, tmp_path):
    train(make(), on_event=at(5, interrupt))
    (tmp_path / "run" / "save-now").touch()
    train(make())
    assert sorted(numbered(tmp_path / "run")) == [6]
    assert not (tmp_path / "run" / "save-now").exists()


@pytest.mark.usefixtures("at_once")
def test_what_cannot_be_done_is_said_and_the_run_goes_on(make, tmp_path):
    def ask():
        (tmp_path / "run" / "learned_embeds-steps-5.safetensors" / "in the way").mkdir(parents=True)
        (tmp_path / "run" / "save-now").touch()

    listen = at(5, ask)
    assert train(make(), on_event=listen).result.status == "finished"
    said = [event.text for event in listen.told if isinstance(event, Message)]
    assert any("Cannot do what was asked: " in text and "must be writable" in text for text in said)
    assert not (tmp_path / "run" / "save-now").exists()


def test_files_are_looked_for_once_a_second_at_most(tmp_path, monkeypatch):
    clock, looked = [0.0], []
    monkeypatch.setattr(requests.time, "monotonic", lambda: clock[0])
    is_file = Path.is_file
    monkeypatch.setattr(Path, "is_file", lambda self: looked.append(self) or is_file(self))
    asked = Requests(tmp_path, {}, print)
    for _ in range(1000):
        assert not asked.due()
        clock[0] += 0.001
    assert len(looked) == 2
    (tmp_path / "save-now").touch()
    clock[0] += 0.1
    assert asked.due() == {"save"}
    asked.served("save")
    assert not asked.due()


def test_a_file_that_cannot_be_removed_is_served_once(tmp_path, monkeypatch):
    monkeypatch.setattr(requests, "_EVERY_S", 0.0)
    said = []
    asked = Requests(tmp_path, {}, said.append)
    (tmp_path / "save-now").touch()

    def unlink(self, **_):
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", unlink)
        assert asked.due() == {"save"}
        asked.served("save")
    assert "cannot be removed (Permission denied)" in said[0]
    assert not asked.due()
    (tmp_path / "preview-now").touch()
    assert asked.due() == {"preview"}


def test_signals_count_while_a_run_listens_and_do_nothing_around_it():
    number = getattr(signal, "SIGUSR1", None) or pytest.skip("there is no SIGUSR1 here")
    with requests.unheard():
        os.kill(os.getpid(), number)
        with requests.by_signal() as asked:
            os.kill(os.getpid(), number)
            assert asked == {"preview": 1}
        os.kill(os.getpid(), number)
    assert asked == {"preview": 1}
    assert signal.getsignal(number) == signal.SIG_DFL


def test_signals_before_the_first_step_asked_others(tmp_path):
    counts = {"save": 3}
    asked = Requests(tmp_path, counts, print)
    assert not asked.due()
    counts["save"] = 4
    assert asked.due() == {"save"}
    asked.served("save")
    assert not asked.due()
