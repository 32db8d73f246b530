"""The server without a browser: who may come in, what survives, and what is said of it."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from oneword.concepts import formats
from oneword.config.drawing import GenerateConfig
from oneword.config.inversion import InversionConfig
from oneword.config.model import ModelConfig
from oneword.config.runs import TrainConfig
from oneword.config.web import WebConfig
from oneword.errors import ModelError, UserError
from oneword.microworld import weights
from oneword.models.loading import needed_memory
from oneword.models.memory.count import Work
from oneword.runs.folder import RunFolder
from oneword.runs.train import train
from waiting import until


pytest.importorskip("gradio")
import gradio as gr

from oneword.web.desk import Desk, WorkerError
from oneword.web.foreseen import Foreseen
from oneword.web.page import changed, saying
from oneword.web.server import ServerError, serving
from oneword.web.tabs.teach import _line
from oneword.web.worker import Rank
from oneword.web.workspace import Workspace, WorkspaceError


pytestmark = pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning")
NANO = ModelConfig(model="microworld-nano", device="cpu")


@pytest.fixture(scope="module")
def shared_desk():
    """One worker for all tests that leave it as it was: it takes seconds to start."""
    one = Desk(NANO, slots=2)
    yield one
    one.close()


@pytest.fixture
def desk(shared_desk):
    yield shared_desk
    assert not [name for name, one in shared_desk.standings().items() if one.is_under_way]


@pytest.fixture
def own_desk():
    one = Desk(NANO, slots=2)
    yield one
    one.close()


@contextlib.contextmanager
def without_worker(config):
    """A page that is served, for what needs no model: the worker takes seconds to load one."""
    with serving(config) as one:
        os.kill(one.page.desk._process.pid, signal.SIGKILL)
        yield one


@pytest.fixture
def limit(desk):
    """Bounds how many bytes a file that the worker writes may have; none after the test."""

    def bound(size):
        resource.prlimit(desk._process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    yield bound
    bound(resource.RLIM_INFINITY)


def run_of(mugs, folder, **inversion):
    settings = {"initializer_token": "mug", "max_train_steps": 40, "evaluation_steps": 10}
    return TrainConfig(
        train_data_dir=Path(mugs[0]).parent,
        output_dir=folder,
        model=NANO,
        validation_steps=0,
        checkpointing_steps=5,
        inversion=InversionConfig(placeholder_token="<mug>", **settings | inversion),
    )


def test_a_worker_that_dies_is_said_and_the_word_goes_on(own_desk, mugs, tmp_path):
    config = run_of(mugs, tmp_path / "mug")
    own_desk.teach(config)
    with pytest.raises(WorkerError, match="because it is already training; stop it first"):
        own_desk.teach(config)
    until(lambda: own_desk.standing("mug").step >= 7)
    os.kill(own_desk._process.pid, signal.SIGKILL)
    until(lambda: own_desk.standing("mug").phase == "failed")
    assert "exit code -9. It can be resumed" in own_desk.standing("mug").text
    own_desk.teach(config)  # a new worker
    until(lambda: own_desk.standing("mug").step >= 12)
    own_desk.close()  # as when the server ends: the state is kept
    assert not (tmp_path / "mug" / formats.LEARNED).exists()

    train(config)
    train(run_of(mugs, tmp_path / "alone"))
    ours, alone = (formats.load_concept(tmp_path / n).rows["clip"] for n in ("mug", "alone"))
    assert (ours - alone).norm() / alone.norm() < 1e-4


def test_words_share_a_batch_and_one_of_them_is_stopped(desk, mugs, tmp_path):
    desk.teach(run_of(mugs, tmp_path / "long", max_train_steps=2000))
    until(lambda: desk.standing("long").step >= 3)
    desk.teach(run_of(mugs, tmp_path / "short", seed=1))
    until(lambda: desk.standing("short").step >= 3)
    assert desk.standing("long").phase == "learning"
    own, theirs = (os.getpriority(os.PRIO_PROCESS, pid) for pid in (0, desk._process.pid))
    assert theirs == min(own + 5, 19)  # the page goes first
    desk.stop("long")
    until(lambda: desk.standing("long").phase == "stopped")
    until(lambda: desk.standing("short").phase == "ended")
    assert (tmp_path / "short" / formats.LEARNED).is_file()
    assert not (tmp_path / "long" / formats.LEARNED).exists()


@pytest.fixture
def tmpfs(tmp_path):
    """A small disk, what fills it, and what makes room again."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount")

    def fill():
        with contextlib.suppress(OSError), open(folder / "filler", "wb", buffering=0) as file:
            while file.write(b"x" * 4096):
                pass

    yield folder, fill, (folder / "filler").unlink
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture(params=["tmpfs", "limit"])
def disk(request, tmp_path):
    """A folder, what lets the worker write nothing into it, and what lets it again."""
    if request.param == "tmpfs":
        return request.getfixturevalue("tmpfs")
    limit = request.getfixturevalue("limit")
    return tmp_path / "disk", lambda: limit(0), lambda: limit(resource.RLIM_INFINITY)


def test_an_upload_that_a_full_disk_does_not_take_is_said(tmpfs):
    folder, fill, clear = tmpfs
    picture = io.BytesIO()
    Image.effect_noise((200, 200), 90).save(picture, "PNG")
    body = (
        b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n'
        b"Content-Type: image/png\r\n\r\n" + picture.getvalue() + b"\r\n--x--\r\n"
    )
    with without_worker(WebConfig(workspace=folder / "web", model=NANO, port=0)) as one:
        request = urllib.request.Request(
            f"{one.url}/gradio_api/upload",
            body,
            {"Content-Type": "multipart/form-data; boundary=x"},
        )
        fill()
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(request)
        assert caught.value.code == 507
        assert "No space left on device); free some disk space" in caught.value.read().decode()
        clear()
        with urllib.request.urlopen(request) as answer:
            assert Path(json.load(answer)[0]).read_bytes() == picture.getvalue()


def test_a_full_disk_is_said_and_the_word_goes_on_when_there_is_room(desk, mugs, disk):
    folder, fill, clear = disk
    config = run_of(mugs, folder / "mug", max_train_steps=4000)
    run = RunFolder(config.output_dir, steps=1)
    desk.teach(config)
    until(lambda: desk.standing("mug").step >= 12)
    fill()
    until(lambda: desk.standing("mug").phase == "failed")
    said = _line(desk.standing("mug"), run)
    assert "must be writable, got: " in said
    assert said.endswith("\u201cResume\u201d continues from it.")
    kept, course = run.state.path.read_bytes(), run.course()
    desk.teach(config)  # too soon
    until(lambda: desk.standing("mug").phase == "failed")
    assert "must have 16 MB of free disk space" in desk.standing(
        "mug"
    ).text or "must be writable" in (desk.standing("mug").text)
    assert run.state.path.read_bytes() == kept
    clear()
    desk.teach(config)
    until(lambda: desk.standing("mug").phase == "learning")
    assert desk.standing("mug").step >= 10  # a state was written every 5 steps
    until(lambda: len(run.course()) > len(course) + 1)
    assert run.course()[:2] == course[:2]
    desk.stop("mug")
    until(lambda: desk.standing("mug").phase == "stopped")


def test_a_folder_that_vanishes_in_mid_run_is_made_anew(desk, mugs, tmp_path):
    config = run_of(mugs, tmp_path / "web" / "words" / "mug", max_train_steps=100_000)
    run = RunFolder(config.output_dir, steps=1)
    desk.teach(config)
    for gone in (config.output_dir, tmp_path / "web"):  # the run's alone, then the page's whole
        until(lambda: desk.standing("mug").step >= 12 and run.state.path.is_file())
        gone.rename(tmp_path / "away")
        shutil.rmtree(tmp_path / "away")
        until(lambda: desk.standing("mug").text)
        until(run.state.path.is_file)
        line = _line(desk.standing("mug"), run)
        assert line.startswith("Step ")
        assert f"The folder {config.output_dir} was deleted and is created again" in line
        step = desk.standing("mug").step
        desk.stop("mug")
        until(lambda: desk.standing("mug").phase == "stopped")
        desk.teach(config)
        until(lambda: desk.standing("mug").phase == "learning")
        assert desk.standing("mug").step >= step
    desk.stop("mug")
    until(lambda: desk.standing("mug").phase == "stopped")
    with pytest.raises(WorkspaceError, match=r"There is no run in .*nobody"):
        Workspace(tmp_path / "web").run_folder("nobody")


def test_a_stop_that_cannot_be_saved_is_no_stop(desk, limit, mugs, tmp_path):
    config = run_of(mugs, tmp_path / "mug", max_train_steps=4000, evaluation_steps=2000)
    desk.teach(replace(config, checkpointing_steps=2000))
    until(lambda: desk.standing("mug").step >= 5)
    limit(0)
    desk.stop("mug")
    until(lambda: not desk.standing("mug").is_under_way)
    assert desk.standing("mug").phase == "failed"
    assert "must be writable" in desk.standing("mug").text


@pytest.mark.parametrize("full", [True, False])
def test_what_the_page_cannot_write_is_a_sentence(tmp_path, full):
    @saying(1)
    def act():
        raise OSError(28, "No space left on device", "/web/x") if full else OSError("odd")

    said, _ = act()
    assert ("Cannot use /web/x because of an error (No space left" in said) == full
    assert ("Cannot do this because of an error (OSError: odd);" in said) != full


def megabytes(line):
    """Of the memory that is said; counted in another process, whose allocator rounds otherwise."""
    said = re.search(r"Memory: ([\d.]+) MB expected at the peak, including the model", line)
    assert said, line
    return float(said[1])


def test_what_a_word_will_take_is_said_before_it_begins(desk, mugs, tmp_path):
    workspace = Workspace(tmp_path / "web")
    config = run_of(mugs, workspace.words / "mug")
    unknown = Foreseen(workspace, Desk(NANO, slots=2)).lines(config)
    assert [*unknown] == ["Unknown until the model is loaded."]
    foreseen = Foreseen(workspace, desk)
    desk.start()
    until(lambda: desk.loaded)
    *_, line = foreseen.lines(config)
    batch, side = config.inversion.resolved("microworld").train_batch_size, desk.loaded.resolution
    assert line.startswith(f"At most 40 steps of {batch} samples; the time is unknown until")
    needed = needed_memory(NANO, Work(samples=batch, batch=batch, resolution=side))
    assert megabytes(line) == pytest.approx(needed.expected / 1e6, rel=0.1)

    desk.teach(config)
    until(lambda: desk.standing("mug").phase == "ended")
    first, *_, last = RunFolder(workspace.words / "mug", steps=1).course()
    step_s = (last["time_s"] - first["time_s"]) / (last["step"] - first["step"])
    longer = run_of(mugs, tmp_path / "longer", max_train_steps=900_000, train_batch_size=2 * batch)
    before, line = foreseen.lines(longer)
    hours = 900_000 * 2 * step_s / 3600
    assert f"about {hours:.1f} h, based on the last similar word" in line
    assert before.endswith("Memory: being estimated.")
    more = needed_memory(NANO, Work(samples=2 * batch, batch=2 * batch, resolution=side))
    assert megabytes(line) == pytest.approx(more.expected / 1e6, rel=0.1)
    assert more.expected > needed.expected
    pivotal = run_of(mugs, tmp_path / "pivotal", setup="pivotal")
    assert "unknown for setups that change the model's weights" in next(foreseen.lines(pivotal))


def test_what_cannot_be_done_is_its_task_s_error_alone(desk, mugs, tmp_path):
    def ask(**fields):
        fields = {"prompts": ("a mug",), "num_images_per_prompt": 1} | fields
        return desk.ask(GenerateConfig(output_dir=tmp_path / "drawn", model=NANO, **fields))[1]

    with pytest.raises(WorkerError, match="nowhere"):
        ask(concepts=(tmp_path / "nowhere.safetensors",)).result(300)
    ((file, facts),) = ask().result(300)
    assert file.is_file()
    assert facts["prompt"] == "a mug"
    assert facts["command"].startswith("oneword generate --model=microworld-nano")
    bad = run_of(mugs, tmp_path / "bad", initializer_token="zzqx")
    desk.teach(bad)
    until(lambda: desk.standing("bad").phase == "failed")
    assert "zzqx" in desk.standing("bad").text


def test_a_model_that_is_none_is_said(tmp_path):
    desk = Desk(ModelConfig(model=str(tmp_path)), slots=1)
    _, future = desk.ask(GenerateConfig(prompts=("a cat",), output_dir=tmp_path / "drawn"))
    with pytest.raises(WorkerError, match=str(tmp_path)):
        future.result(300)
    assert str(tmp_path) in desk.problem
    # another one takes its place
    assert desk.use(NANO).result(300) == desk.loaded
    assert (desk.loaded.name, desk.problem, desk.refused) == ("microworld-nano", "", "")
    desk.close()


@pytest.fixture
def other(tmp_path):
    """A folder that is another model by its name, with the tiny one's weights."""
    folder = weights.folder_of("microworld-nano")
    return shutil.copytree(folder, tmp_path / "other")


@pytest.mark.slow  # five workers, one after the other
def test_another_model_is_loaded_once_nothing_is_under_way(own_desk, mugs, tmp_path, other):
    there = replace(NANO, model=str(other))
    config = run_of(mugs, tmp_path / "mug", max_train_steps=4000)
    own_desk.teach(config)
    until(lambda: own_desk.standing("mug").step >= 7)
    with pytest.raises(
        WorkerError, match="because training is in progress \\(mug\\); stop it or wait"
    ):
        own_desk.use(there)
    step = own_desk.standing("mug").step
    until(lambda: own_desk.standing("mug").step > step)  # it goes on
    own_desk.stop("mug")
    until(lambda: own_desk.standing("mug").phase == "stopped")

    drawing = GenerateConfig(
        prompts=("a mug",), num_images_per_prompt=4, output_dir=tmp_path / "drawn", model=NANO
    )
    _, drawn = own_desk.ask(drawing)
    with pytest.raises(WorkerError, match="because pictures are being drawn; try again when"):
        own_desk.use(there)
    assert len(drawn.result(300)) == 4
    with pytest.raises(ModelError, match="nowhere, which does not exist"):
        own_desk.use(replace(NANO, model=str(tmp_path / "nowhere")))
    assert own_desk.loaded.name == "microworld-nano"
    assert own_desk.model == NANO

    # what is counted or planned is no reason to wait; it is asked for again
    asked = [own_desk.ask(Rank(config))[1] for _ in range(20)]
    chosen = own_desk.use(there)
    with pytest.raises(WorkerError, match="another model is being loaded; try again"):
        asked[-1].result(300)
    # what was asked for just before is refused, so that no word says a model that it has not
    for late in (lambda: own_desk.teach(config), lambda: own_desk.ask(drawing)):
        with pytest.raises(
            WorkerError, match=r"Cannot use microworld-nano because the model is now .*other; try"
        ):
            late()
    assert chosen.result(300).name == str(other)
    ((file, facts),) = own_desk.ask(
        replace(drawing, model=there, num_images_per_prompt=1, output_dir=tmp_path / "new")
    )[1].result(300)
    assert file.is_file()
    assert f"--model={other}" in facts["command"]

    # one that cannot be loaded, and the last one that could
    broken = shutil.copytree(other, tmp_path / "broken")
    (broken / "pipeline" / "unet" / "config.json").write_text("{}")
    first = own_desk.use(replace(NANO, model="microworld"))
    second = own_desk.use(replace(NANO, model=str(broken)))
    with pytest.raises(
        WorkerError, match=r"Not loaded because .*broken was chosen in the meantime"
    ):
        first.result(0)
    with pytest.raises(WorkerError, match=r"Could not load .*broken: .* Reloading .*other\.$"):
        second.result(300)
    assert own_desk.model == there
    until(lambda: own_desk.loaded)
    assert own_desk.loaded.name == str(other)
    assert f"Could not load {broken}: The embedded model's file" in own_desk.refused
    assert own_desk.problem == ""


def test_others_are_asked_for_a_password(tmp_path):
    config = WebConfig(workspace=tmp_path / "web", host="0.0.0.0", port=0, model=NANO)
    with without_worker(config) as one:
        assert one.auth is not None
        user, _, password = one.auth.partition(":")
        assert user == "oneword"
        assert len(password) >= 12
        address = one.url.replace("0.0.0.0", "127.0.0.1")
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(f"{address}/gradio_api/info")
        assert caught.value.code == 401


def test_a_workspace_may_lie_anywhere(put, tmp_path, monkeypatch):
    # of folders elsewhere gradio serves nothing by itself
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    with without_worker(WebConfig(workspace=tmp_path / "web", model=NANO, port=0)) as one:
        put(one.page.workspace.words, "<mug>")
        call = f"{one.url}/gradio_api/call/take_away"
        asked = urllib.request.Request(
            call, b'{"data": ["mug", "oneword"]}', {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(asked) as answer:
            number = json.load(answer)["event_id"]
        with urllib.request.urlopen(f"{call}/{number}") as answer:
            told = answer.read().decode()
        assert "event: complete" in told
        (file,) = json.loads(told.partition("data: ")[2])[1]
        with urllib.request.urlopen(file["url"]) as answer:
            away = one.page.workspace.away / "oneword" / file["orig_name"]
            assert answer.read() == away.read_bytes()


def test_what_is_shown_already_is_left_alone():
    handle = changed(lambda name, loss: [(name, f"the word {name}"), (("loss", loss), [loss])])
    known, *shown = handle([], "mug", 0.5)
    assert shown == ["the word mug", [0.5]]
    known, word, losses = handle(known, "mug", 0.4)
    assert word == gr.skip()
    assert losses == [0.4]
    assert handle(known, "mug", 0.4)[1:] == (gr.skip(), gr.skip())


def test_a_taken_port_and_a_file_as_workspace_are_sentences(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        config = WebConfig(workspace=tmp_path / "web", port=port, model=NANO)
        with pytest.raises(ServerError, match="pass another --port"), serving(config):
            pass
    (tmp_path / "file").write_text("")
    config = WebConfig(workspace=tmp_path / "file", port=0, model=NANO)
    with pytest.raises(UserError, match="file"), serving(config):
        pass
