"""The grid: what is done stays done, what fails fails alone, and two runs find the same."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from oneword._files import InUseError, OutputError, hold, leftovers
from oneword.cli import main
from oneword.concepts import formats
from oneword.config.drawing import SamplingConfig
from oneword.config.inversion import InversionConfig
from oneword.config.model import ModelConfig
from oneword.config.scoring import StudyConfig, UserStudyConfig
from oneword.errors import ConfigError
from oneword.evaluation import metrics
from oneword.generation.ddim_inversion import bipartite
from oneword.generation.generate import generate
from oneword.images import read_folder, to_images
from oneword.models.loading import load_backbone
from oneword.prompts import descriptions
from oneword.runs.events import Advanced, Ended
from oneword.study import cost, grid, page, work
from oneword.study.plan import Study
from oneword.study.prompt_sets import prompts_for
from oneword.study.userstudy import forms
from oneword.study.userstudy.items import gather


@pytest.fixture(scope="module")
def concepts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("concepts")
    for name in ("cup", "pet"):
        (folder / name).mkdir()
        for i in range(2):
            noise = np.random.default_rng(i).integers(0, 255, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(noise).save(folder / name / f"{i}.png")
    (folder / "prompts_and_classes.txt").write_text("cup,mug\npet,cat\n")
    return folder


@pytest.fixture
def make(concepts, tiny_folder, judge_folder):
    def study(out, **fields):
        return Study(StudyConfig(**{
            "output_dir": out, "concepts": (str(concepts),), "seeds": (0,),
            "setups": ("one-word", "two-words", "prompt-only", "image-only"),
            "model": ModelConfig(model=str(tiny_folder), device="cpu"),
            "inversion": InversionConfig(max_train_steps=4, train_batch_size=2, evaluation_steps=2,
                                         num_evaluation_samples=2),
            "sampling": SamplingConfig(num_inference_steps=2, guidance_scale=5.0),
            "num_images_per_prompt": 2, "judge": str(judge_folder), "dino": "none", "slots": 2,
        } | fields))  # fmt: skip

    return study


def numbers(study):
    """Rows without what the clock put into them."""
    clocks = ("train_time_s", "draw_time_s")
    return [{k: v for k, v in row.items() if k not in clocks} for row in page.gather(study)]


class Events(list):
    def __call__(self, event):
        self.append(event)

    def ended(self):
        return [event.job for event in self if isinstance(event, Ended)]


class Killed(BaseException):
    """Ends a run as a kill does: nothing catches it."""


def test_a_killed_study_goes_on_without_repeating_or_losing_a_job(make, tmp_path):
    unbroken = make(tmp_path / "a")
    events = Events()
    ended = grid.run(unbroken, on_event=events)
    assert len(ended.done) == len(set(events.ended())) == 8
    broken, seen = make(tmp_path / "b"), Events()

    def kill_late(event):
        seen(event)
        # in the middle of drawing the second job of the second chunk
        if len(seen.ended()) == 3 and isinstance(event, Advanced) and event.doing == "drawing":
            raise Killed

    with pytest.raises(Killed):
        grid.run(broken, on_event=kill_late)
    before = {s.name: work.rows_file(broken.folder, s).stat().st_mtime_ns
              for s in grid.standing(broken).done}  # fmt: skip
    assert len(before) == 3
    rest = Events()
    grid.run(make(tmp_path / "b"), on_event=rest)
    assert sorted(seen.ended() + rest.ended()) == sorted(events.ended())
    assert not set(rest.ended()) & set(before)
    # both words of the second chunk were learned before the kill
    assert not [e for e in rest if isinstance(e, Advanced) and e.doing == "learning"]
    for spec in broken.specs:
        if spec.name in before:
            assert work.rows_file(broken.folder, spec).stat().st_mtime_ns == before[spec.name]
    assert numbers(broken) == numbers(unbroken)
    again = Events()
    grid.run(make(tmp_path / "b"), on_event=again)
    assert not again


def test_two_runs_of_a_small_study_give_the_same_table(make, tmp_path):
    found = []
    for name in ("a", "b"):
        study = make(tmp_path / name, setups=("one-word", "prompt-only"), seeds=(3,))
        grid.run(study, on_event=Events())
        page.write(study, command="x")
        found.append(json.loads((study.folder / "summary.json").read_text()))
    assert found[0] == found[1]
    assert found[0]["scores"]["objects"]["one-word"]["image similarity"]["num"] == 2


def test_a_study_whose_jobs_all_failed_may_be_corrected(make, tmp_path):
    long = InversionConfig(max_train_steps=2, train_batch_size=2, evaluation_steps=2,
                           num_evaluation_samples=2, num_vectors=75)  # fmt: skip
    study = make(tmp_path / "s", setups=("one-word",), inversion=long)
    ended = grid.run(study, on_event=Events())
    assert len(ended.failed) == 2
    reason = json.loads(work.failure_file(study.folder, ended.failed[0]).read_text())["error"]
    assert "S*' must fit into 75 tokens" in reason
    short = dataclasses.replace(long, num_vectors=2)
    found = grid.run(make(tmp_path / "s", setups=("one-word",), inversion=short), on_event=Events())
    assert len(found.done) == 2
    with pytest.raises(ConfigError, match=r"its protocol differs: inversion\.num_vectors was 2"):
        grid.run(study, on_event=Events())


def test_a_job_that_fails_leaves_its_reason_and_the_rest_goes_on(make, tmp_path):
    setups = ("captions-short", "one-word:learning_rate=0.001,relative_learning_rate=null",
              "prompt-only")  # fmt: skip
    study, events = make(tmp_path / "s", setups=setups), Events()
    ended = grid.run(study, on_event=events)
    assert {s.setup for s in ended.failed} == {"captions-short"}
    assert len(ended.done) == 4
    reason = json.loads(work.failure_file(study.folder, ended.failed[0]).read_text())["error"]
    assert "because it has no descriptions" in reason
    again = Events()
    assert len(grid.run(study, on_event=again).failed) == 2
    assert not again
    retried = make(tmp_path / "s", setups=setups, retry_failed=True)
    grid.run(retried, on_event=again)
    assert len(again.ended()) == 2


def test_a_word_that_cannot_be_trained_fails_its_own_job(make, tmp_path, concepts):
    study = make(tmp_path / "s", concepts=(str(concepts / "cup"),), setups=("two-words",))
    spec = study.specs[0]
    folder = study.folder / "runs" / spec.run
    grid.claim(study)
    folder.mkdir(parents=True)
    (folder / "letter.txt").write_text("in the way")
    ended = grid.run(study, on_event=Events())
    assert [s.name for s in ended.failed] == [spec.name]
    assert "must be empty or contain a run" in work.failure_file(study.folder, spec).read_text()


def test_people_can_be_asked_about_what_a_study_wrote(make, tmp_path):
    setups = ("one-word", "prompt-only", "two-words")
    study = make(tmp_path / "s", setups=setups, set_sizes=(1,), num_images_per_prompt=2)
    grid.run(study, on_event=Events())
    items = gather(study.folder)
    assert {tuple(item.results) for item in items} == {setups}
    assert {item.concept for item in items} == {"cup", "pet"}
    assert {item.picture for item in items} == {0, 1}
    assert {item.kind for item in items} == {"background", "style", "composition"}
    rows = {(r["concept"], r["setup"], r["prompt"]): r for r in page.gather(study)
            if r["kind"] != "training" and r["set_size"] is None}  # fmt: skip
    for item in items:
        assert len(item.training) == study.subjects[item.concept].num_pictures
        for setup in setups:
            own = rows[item.concept, setup, item.prompt]
            assert item.text_similarity[setup] == own["text_similarity"]
    config = UserStudyConfig(study=study.folder, output_dir=tmp_path / "forms", per_form=3, forms=1)
    assert sorted(forms.make(config).models) == sorted(setups)


def test_set_sizes_and_guidance_scales_have_rows_of_their_own(make, tmp_path):
    study = make(tmp_path / "s", setups=("one-word",), set_sizes=(1, 2), guidance_scales=(1.0,))
    grid.run(study, on_event=Events())
    rows = [r for r in page.gather(study) if r["kind"] == "photo"]
    kinds = {(r["concept"], r["set_size"], r["guidance_scale"]) for r in rows}
    assert kinds == {
        ("cup", None, 5.0), ("cup", None, 1.0), ("pet", None, 5.0), ("pet", None, 1.0),
        ("cup", 1, 5.0), ("cup", 2, 5.0),
    }  # fmt: skip
    assert {r["num_pictures"] for r in rows} == {1, 2}
    jobs = {r["sha256"] for r in page.gather(study) if r["kind"] == "training"}
    assert len(jobs) == 3  # of two pictures, the sweep's word is the grid's


def test_bipartite_rows_redraw_the_training_pictures_with_the_methods_word(make, tmp_path):
    study = make(tmp_path / "s", setups=("one-word", "bipartite"), guidance_scales=(1.0,),
                 num_images_per_prompt=3, num_inversion_steps=3)  # fmt: skip
    ended = grid.run(study, on_event=Events())
    assert not ended.failed, [work.failure_file(study.folder, s).read_text() for s in ended.failed]
    assert len(list((study.folder / "runs").iterdir())) == 2  # a word for each concept
    rows = [r for r in page.gather(study) if r["setup"] == "bipartite" and r["concept"] == "cup"]
    scored = [r for r in rows if r["kind"] != "training"]
    assert {r["guidance_scale"] for r in scored} == {1.0, 5.0}
    spec = next(s for s in study.specs if s.name == "cup--bipartite--seed0")
    tools = work.bench(study.config.model, study.config.judge, study.config.dino)
    concept = formats.load_concept(study.folder / "runs" / "cup--one-word--seed0")
    pictures = read_folder(study.subjects["cup"].source, resolution=32).pixels
    row = next(r for r in scored if r["kind"] != "photo" and r["guidance_scale"] == 1.0)
    photo = prompts_for(study.prompt_set, "object").photo
    prompt, invert = (t.replace("{}", concept.placeholder_token) for t in (row["prompt"], photo))
    drawn = torch.cat([
        bipartite(tools.backbone, pictures[i : i + 1], [prompt], [1.0], concepts=[concept],
                  invert=invert, num_inference_steps=3)[1.0]
        for i in (0, 1, 0)
    ])  # fmt: skip
    expected = metrics.structure_kept(drawn, pictures[[0, 1, 0]])
    assert row["structure_kept"] == pytest.approx(expected, abs=1e-4)
    assert study.drawing_passes(spec) == 3 * (2 * study.pictures(spec) + 2 * 2)


def test_a_folder_from_before_the_inversions_own_steps_goes_on(make, tmp_path):
    study = make(tmp_path / "s", setups=("one-word", "bipartite"))
    assert study.config.num_inversion_steps == 250
    grid.claim(study)
    record = tmp_path / "s" / "study.json"
    bound = json.loads(record.read_text())
    assert bound.pop("num_inversion_steps") == 250
    record.write_text(json.dumps(bound))
    grid.claim(study)  # nothing is inverted yet
    record.write_text(json.dumps(bound))
    done = next(s for s in study.specs if s.setup == "bipartite")
    work.write_rows(study.folder, done, [{"kind": "photo"}])
    with pytest.raises(ConfigError, match="num_inversion_steps was 2 and is 250"):
        grid.claim(study)
    grid.claim(make(tmp_path / "s", setups=("one-word", "bipartite"), num_inversion_steps=2))


def test_a_dry_run_times_this_machine_and_writes_nothing(make, tmp_path):
    study = make(tmp_path / "s")
    found = cost.estimate(study, study.specs)
    passes = sum(study.drawing_passes(s) for s in study.specs)
    assert found.drawing_s == pytest.approx(found.drawing_pass_s * passes)
    assert found.training_s > 0
    assert found.wall_s(2) == pytest.approx((found.training_s + found.drawing_s) / 2)
    assert not study.folder.exists()


def test_a_dry_run_counts_what_the_model_does(make, tmp_path):
    """Operations of its parts, counted one by one on the same shapes."""
    study = make(tmp_path / "s")
    found = cost.estimate(study, study.specs)
    tools = work.bench(study.config.model, study.config.judge, study.config.dino)
    pipe = tools.backbone.pipeline
    side = pipe.unet.config.sample_size
    noise = torch.zeros(1, 4, side, side)
    text = torch.zeros(1, 77, pipe.unet.config.cross_attention_dim)
    words = pipe.tokenizer("a photo", padding="max_length", max_length=77, return_tensors="pt")

    def counted(run):
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            run()
        return counter.get_total_flops()

    def trained():
        given = text.clone().requires_grad_()
        pipe.unet(noise, torch.tensor([1]), given).sample.sum().backward(inputs=[given])

    with torch.no_grad():
        denoiser = counted(lambda: pipe.unet(noise, torch.tensor([1]), text))
        decoder = counted(lambda: pipe.vae.decode(noise))
        encoder = counted(lambda: pipe.text_encoder(words.input_ids))
        judge = counted(lambda: tools.judge.images(torch.zeros(1, 3, side * 2, side * 2)))
    steps = study.num_inference_steps
    passes = sum(study.drawing_passes(s) for s in study.specs)
    # a picture takes two passes a step, then it is decoded and scored; its prompts are read once
    picture = found.drawing_flop / passes * 2 * steps
    least = 2 * steps * denoiser + decoder + judge
    assert least <= picture <= least + 2 * encoder
    word = sum({s.run: study.training_passes(s, "*") for s in study.specs}.values())
    sample = 3 * found.training_flop / word
    least = counted(trained)
    assert least <= sample <= least + 3 * encoder
    hours = [flop / 200e12 / 3600 for flop in (found.training_flop, found.drawing_flop)]
    assert found.gpu_hours(200) == pytest.approx(hours)
    timed = dataclasses.replace(found, training_flop=None)  # on a GPU
    assert timed.gpu_hours(200) == (found.training_s / 3600, found.drawing_s / 3600)


def words(make, out, concepts, tiny_folder, judge_folder, *more):
    return [
        "study", "--model", str(tiny_folder), "--device", "cpu", "--concepts", str(concepts),
        "--setups", "one-word", "prompt-only", "--seeds", "0", "--out", str(out),
        "--max-train-steps", "4", "--train-batch-size", "2", "--num-inference-steps", "2",
        "--num-images-per-prompt", "2", "--judge", str(judge_folder), "--dino", "none", *more,
    ]  # fmt: skip


def test_the_command_plans_runs_and_reports(
    make, tmp_path, concepts, tiny_folder, judge_folder, capsys
):
    arguments = words(make, tmp_path / "s", concepts, tiny_folder, judge_folder)
    assert main.main([*arguments, "--dry-run", "--json", str(tmp_path / "plan.json")]) == 0
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert plan["jobs"] == {"done": 0, "failed": 0, "left": 4}
    assert plan["cost"]["wall_s"] > 0
    flop = plan["cost"]["training_flop"] + plan["cost"]["drawing_flop"]
    assert plan["cost"]["gpu_hours"] == pytest.approx(flop / 300e12 / 3600)
    told = " ".join(capsys.readouterr().out.split())
    assert "4 jobs, 0 done" in told
    assert "A GPU that does 300 TFLOP/s (--card-tflops) takes" in told
    assert main.main([*arguments, "--dry-run", "--card-tflops", "0"]) == 2
    assert "card_tflops must be greater than 0, got 0" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "s").exists()
    assert main.main(arguments) == 0
    assert "4 of 4 jobs are done" in capsys.readouterr().out
    for name in ("report.html", "report.md", "results.jsonl", "figures/plane.svg"):
        (tmp_path / "s" / name).unlink()
    assert main.main([*arguments, "--report", "--json", str(tmp_path / "sum.json")]) == 0
    for name in ("report.html", "report.md", "results.jsonl", "figures/plane.svg"):
        assert (tmp_path / "s" / name).is_file()
    assert "one-word" in json.loads((tmp_path / "sum.json").read_text())["scores"]["objects"]
    assert main.main([*arguments[:-1], "none", "--setups", "captions-long"]) == 1
    assert "because it has no descriptions" in capsys.readouterr().out


@pytest.mark.slow
def test_killing_the_command_and_running_it_again_gives_the_same_rows(
    make, tmp_path, concepts, tiny_folder, judge_folder
):
    """A real kill, of a study in two processes; none of them stays behind."""
    out = tmp_path / "s"
    arguments = words(make, out, concepts, tiny_folder, judge_folder, "--num-processes", "2")
    command = [sys.executable, "-m", "oneword.cli.main", *arguments]
    process = subprocess.Popen(command)
    deadline = time.monotonic() + 300
    while not list(out.glob("jobs/*.jsonl")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL if sys.platform != "win32" else signal.SIGTERM)
    process.wait()
    time.sleep(2)
    first = {p.name: p.stat().st_mtime_ns for p in out.glob("jobs/*.jsonl")}
    time.sleep(2)
    assert {p.name: p.stat().st_mtime_ns for p in out.glob("jobs/*.jsonl")} == first
    assert subprocess.run(command, check=False).returncode == 0
    now = {p.name: p.stat().st_mtime_ns for p in out.glob("jobs/*.jsonl")}
    assert len(now) == 4
    assert {name: now[name] for name in first} == first


@pytest.mark.slow
def test_a_process_that_dies_takes_no_job_with_it(make, tmp_path):
    study = make(tmp_path / "s", num_processes=2, setups=("one-word", "prompt-only"))
    killed = []

    def kill_one(event):
        if isinstance(event, Ended) and not killed:
            import multiprocessing

            child = multiprocessing.active_children()[0]
            killed.append(child.pid)
            os.kill(child.pid, signal.SIGKILL if sys.platform != "win32" else signal.SIGTERM)

    ended = grid.run(study, on_event=kill_one)
    assert killed
    assert len(ended.done) == 4
    assert not ended.failed


@pytest.mark.slow
def test_a_study_runs_on_ray(make, tmp_path):
    pytest.importorskip("ray")
    events = Events()
    study = make(tmp_path / "s", cluster="local", workers=1, setups=("one-word", "image-only"))
    ended = grid.run(study, on_event=events)
    assert len(ended.done) == 4
    assert sorted(events.ended()) == sorted(s.name for s in study.specs)


def test_a_folder_that_cannot_be_written_stops_the_study_and_fails_no_job(make, tmp_path):
    study = make(tmp_path / "a")
    grid.claim(study).release()
    (study.folder / "pictures").write_text("in the way")
    with pytest.raises(OutputError, match="must be writable"):
        grid.run(study, on_event=Events())
    assert grid.standing(study).failed == []
    (study.folder / "pictures").unlink()
    found = grid.run(study, on_event=Events())
    assert len(found.done) == len(study.specs)
    assert not list(leftovers(study.folder))


def test_a_disk_without_room_for_runs_stops_the_study_and_fails_no_job(make, tmp_path, monkeypatch):
    study = make(tmp_path / "a", setups=("one-word",))
    grid.claim(study).release()
    usage = shutil.disk_usage("/")._replace(free=1_000_000)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: usage)
        with pytest.raises(OutputError, match="must have 16 MB of free disk space"):
            grid.run(study, on_event=Events())
    assert grid.standing(study).failed == []
    assert len(grid.run(study, on_event=Events()).done) == len(study.specs)


def test_a_word_that_another_process_trains_stops_the_study_and_fails_no_job(make, tmp_path):
    study = make(tmp_path / "a", setups=("one-word",))
    grid.claim(study).release()
    with (
        hold(study.folder / "runs" / study.specs[0].run),
        pytest.raises(InUseError, match="another process is working there"),
    ):
        grid.run(study, on_event=Events())
    assert grid.standing(study).failed == []


def test_the_pictures_page_shows_what_each_description_drew(make, concepts, tmp_path, without_hub):
    """Figure 3 from end to end; which text is whose turn, and its place, are tested apart."""
    place = tmp_path / "described" / "cup"
    shutil.copytree(concepts / "cup", place)
    texts = {kind: [f"a red {kind} cup {n}" for n in range(5)] for kind in ("short", "long")}
    (place / descriptions.FILE).write_text(json.dumps(texts))
    study = make(tmp_path / "out", concepts=(str(place),), setups=("fig3",))
    ended = grid.run(study, on_event=Events())
    assert len(ended.done) == 4
    assert {spec.setup for spec in ended.absent} == {"variations", "variations-captions"}
    why = "the weights of kakaobrain/karlo-v1-alpha{} are not on this machine; pass --variations"
    told = grid.absences(study)
    assert why.format("-image-variations") in told["variations"]
    assert why.format("") in told["variations-captions"]
    page.write(study, command="x")
    html = (study.folder / "pictures.html").read_text()
    (line,) = re.findall(r"<tr><th>captions-long</th>(.*?)</tr>", html, re.S)
    uri, below = re.findall(r'base64,([^"]*)".*?<figcaption>(.*?)</figcaption>', line, re.S)[1]
    assert below == "seed 1: a red long cup 1"
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri))), dtype=float)
    drawn = generate(
        load_backbone(study.config.model), ["a photo of a red long cup 1"], [0, 1, 2, 3],
        sampling=study.config.sampling,
    ).pixels  # fmt: skip
    # JPEG changes noise so small by much; it is still nearest to its own
    apart = [np.abs(shown - np.asarray(p, dtype=float)).mean() for p in to_images(drawn)]
    assert int(np.argmin(apart)) == 1
