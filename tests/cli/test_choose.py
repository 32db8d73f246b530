"""``oneword choose`` on the embedded model: a word saved in training becomes the run's."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
from PIL import Image

import oneword
import png_texts
from oneword._files import InUseError, hold
from oneword.cli import reports
from oneword.cli.main import main
from oneword.concepts import formats
from oneword.images import save_png
from oneword.runs.words import choose_word


SHIPPED = Path(oneword.__file__).parent / "microworld" / "pictures" / "gold-mug"
LEARN = ["train", "--model", "microworld-nano", "--device", "cpu", "--train-data-dir", str(SHIPPED),
         "--placeholder-token", "<mug>", "--initializer-token", "mug", "--train-batch-size", "2",
         "--num-evaluation-samples", "2", "--evaluation-steps", "4", "--no-early-stopping",
         "--max-train-steps", "12", "--save-steps", "4",
         "--num-validation-images", "1"]  # fmt: skip
DRAW = ["--num-inference-steps", "2", "--device", "cpu"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run that has ended, with words of the steps 4, 8 and 12."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    assert main([*LEARN, "--output-dir", str(folder)]) == 0
    return folder


@pytest.fixture
def run(trained, tmp_path):
    return Path(shutil.copytree(trained, tmp_path / "run"))


def saved(folder, step):
    return folder / f"learned_embeds-steps-{step}.safetensors"


def rows(path):
    return formats.load_concept(path).sha256()


def test_training_draws_its_steps_on_one_sheet_and_page(trained):
    """Previews are drawn at the saved steps, where nothing else is asked for."""
    names = sorted(path.name for path in (trained / "previews").iterdir())
    assert names == [f"step-0000{step}.png" for step in ("00", "04", "08", "12")]
    page = (trained / "report.html").read_text()
    for head in ("initializer: mug", "step 0", "step 4, saved", "step 12, saved"):
        assert f"<th>{head}</th>" in page
    assert "<th>a photo of a &lt;mug&gt;</th>" in page
    assert "oneword choose" in page
    with Image.open(trained / "steps.png") as sheet:
        assert sheet.width > 5 * 128
        assert sheet.height < 2 * 128


def test_without_a_choice_all_are_drawn_and_listed(run, tmp_path, capsys):
    before = (run / "learned_embeds.safetensors").read_bytes()
    (run / "steps.png").unlink()
    prompts = ["--prompts", "a photo of a {}", "a {} on the moon", "--seeds", "0-2"]
    assert main(["choose", str(run), *DRAW, *prompts, "--json", str(tmp_path / "n.json")]) == 0
    out = capsys.readouterr().out
    losses = {m["step"]: m["loss"] for m in map(json.loads, (run / "metrics.jsonl").open())}
    for step in (4, 8, 12):
        assert f"step {step:>6}  loss {losses[step]:.5g}  {saved(run, step)}" in out
    assert "the one that training kept (--keep best)" in out
    assert f"oneword choose {run} --step 12" in out
    found = json.loads((tmp_path / "n.json").read_text())
    assert [(one["step"], one["loss"], one["clip"]) for one in found] == [
        (step, losses[step], None) for step in (4, 8, 12)
    ]
    with Image.open(run / "steps.png") as sheet:  # a column for each and the initialiser
        assert sheet.width == 4 + 4 * (128 + 4)
        assert sheet.height > 6 * 128
    assert (run / "learned_embeds.safetensors").read_bytes() == before


def test_a_step_becomes_the_runs_word_and_training_is_taken_back(run, capsys):
    learned, kept = run / "learned_embeds.safetensors", run / "learned_embeds-trained.safetensors"
    before, preview = learned.read_bytes(), run / "learned_embeds.preview.png"
    drawn = preview.read_bytes()
    assert main(["choose", str(run), "--step", "4"]) == 0
    assert f"now that of step 4: {learned}" in capsys.readouterr().out
    assert rows(learned) == rows(saved(run, 4))
    assert formats.load_concept(run).provenance["chosen"] == {"step": 4, "by": "eye"}
    assert kept.read_bytes() == before
    assert png_texts.read(preview)["preview"] == "step-000004"
    assert main(["choose", str(run), "--step", "8"]) == 0  # training's stays where it is
    assert kept.read_bytes() == before
    assert rows(learned) == rows(saved(run, 8))
    assert main(["choose", str(run), "--by", "training"]) == 0
    assert learned.read_bytes() == before
    assert preview.read_bytes() == drawn
    assert not kept.exists()
    assert main(["choose", str(run), "--by", "training"]) == 2
    assert "already the one that training kept" in capsys.readouterr().err


def test_the_lowest_loss_is_chosen(run, capsys):
    losses = {m["step"]: m["loss"] for m in map(json.loads, (run / "metrics.jsonl").open())}
    best = min((4, 8, 12), key=losses.__getitem__)
    assert main(["choose", str(run), "--by", "loss"]) == 0
    chosen = formats.load_concept(run).provenance["chosen"]
    assert chosen == {"step": best, "by": "loss", "score": losses[best]}
    assert f"loss {losses[best]:.5g}" in capsys.readouterr().out


def test_the_judge_chooses_and_says_its_scores(run, tmp_path):
    words = ["choose", str(run), *DRAW, "--by", "clip", "--rank-by", "image"]
    assert main([*words, "--json", str(tmp_path / "n.json")]) == 0
    scores = {one["step"]: one["clip"] for one in json.loads((tmp_path / "n.json").read_text())}
    assert len(set(scores.values())) == 3
    best = max(scores, key=scores.__getitem__)
    assert formats.load_concept(run).provenance["chosen"] == {
        "step": best, "by": "clip", "score": scores[best],
    }  # fmt: skip
    assert rows(run) == rows(saved(run, best))


# --- and what becomes of the choice


def test_the_same_command_leaves_a_chosen_word_alone_and_says_so(run, capsys):
    main(["choose", str(run), "--step", "4"])
    chosen = (run / "learned_embeds.safetensors").read_bytes()
    trained = (run / "learned_embeds-trained.safetensors").read_bytes()
    capsys.readouterr()
    assert main([*LEARN, "--output-dir", str(run)]) == 0
    err = " ".join(capsys.readouterr().err.split())
    assert (
        "The run's word stays that of step 4, chosen by eye. The one that training kept is in"
        in err
    )
    assert (run / "learned_embeds.safetensors").read_bytes() == chosen
    assert (run / "learned_embeds-trained.safetensors").read_bytes() == trained
    assert "that of step 4, chosen by eye" in (run / "report.html").read_text()


def test_more_steps_leave_it_too_and_training_writes_beside_it(run, capsys):
    main(["choose", str(run), "--step", "4"])
    assert main([*LEARN, "--output-dir", str(run), "--max-train-steps", "16"]) == 0
    assert "stays that of step 4" in " ".join(capsys.readouterr().err.split())
    assert rows(run) == rows(saved(run, 4))
    longer = formats.load_concept(run / "learned_embeds-trained.safetensors")
    assert longer.provenance["config"]["max_train_steps"] == 16
    assert png_texts.read(run / "learned_embeds.preview.png")["preview"] == "step-000004"
    assert main(["choose", str(run), "--by", "training"]) == 0
    assert rows(run) == longer.sha256()
    assert png_texts.read(run / "learned_embeds.preview.png")["preview"] == "step-000016"


def test_a_word_may_be_chosen_before_training_has_ended(run, capsys):
    """As after a kill: there is no word of the run's yet."""
    (run / "learned_embeds.safetensors").unlink()
    assert main(["choose", str(run), *DRAW]) == 0
    assert "no word yet" in capsys.readouterr().out
    assert main(["choose", str(run), "--by", "training"]) == 2
    assert "has not finished" in capsys.readouterr().err
    assert main(["choose", str(run), "--step", "8"]) == 0
    assert not (run / "learned_embeds-trained.safetensors").exists()
    assert main(["choose", str(run), "--by", "training"]) == 2
    assert "Cannot go back to the word that training kept" in capsys.readouterr().err
    assert main([*LEARN, "--output-dir", str(run)]) == 0  # writes what it owed
    assert rows(run) == rows(saved(run, 8))
    assert (run / "learned_embeds-trained.safetensors").is_file()


def test_a_mirror_gets_the_chosen_word_under_its_plain_name(trained, tmp_path):
    store, run = tmp_path / "store", tmp_path / "run"
    learn = [*LEARN, "--validation-steps", "0", f"--mirror=file://{store}"]
    assert main([*learn, "--output-dir", str(run)]) == 0
    for step in (4, 8):  # of the same length
        choose_word(run, step)
        learned = (run / "learned_embeds.safetensors").read_bytes()
        assert (store / "learned_embeds.safetensors").read_bytes() == learned
    there = tmp_path / "there"
    assert main([*learn, "--output-dir", str(there)]) == 0
    assert rows(there) == rows(saved(there, 8)) == rows(saved(trained, 8))


def test_a_persons_preview_beside_the_word_stays(run):
    mine = run / "learned_embeds.preview.png"
    mine.unlink()
    save_png(Image.new("RGB", (16, 16), (1, 2, 3)), mine)
    before = mine.read_bytes()
    choose_word(run, 4)
    choose_word(run, None)
    assert mine.read_bytes() == before


def test_a_step_without_a_preview_has_none_beside_it(run):
    (run / "previews" / "step-000008.png").unlink()
    choose_word(run, 8)
    assert not (run / "learned_embeds.preview.png").exists()


def test_a_signal_that_comes_too_late_ends_nothing(run, monkeypatch):
    number = getattr(signal, "SIGUSR1", None) or pytest.skip("there is no SIGUSR1 here")
    heard, stock = [], reports.write_run_report

    def write(*args, **options):
        os.kill(os.getpid(), number)
        return stock(*args, **options)

    monkeypatch.setattr(reports, "write_run_report", write)
    before = signal.signal(number, lambda *_: heard.append(number))
    try:
        assert main([*LEARN, "--output-dir", str(run)]) == 0
        assert heard == []
        os.kill(os.getpid(), number)
        assert heard == [number]
    finally:
        signal.signal(number, before)


# --- refused


def test_a_word_of_another_models_run_is_refused(run, capsys):
    concept = formats.load_concept(saved(run, 8))
    concept.provenance["base_model"] = "microworld"
    formats.save_concept(concept, saved(run, 8))
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    for how in (["--step", "8"], ["--step", "4"], ["--by", "loss"], []):
        assert main(["choose", str(run), *how]) == 2
        err = " ".join(capsys.readouterr().err.split())
        assert "must be a word of the model 'microworld-nano', like its run, got one of the" in err
    assert before == {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}


def test_a_word_of_another_name_is_refused(run, capsys):
    formats.save_concept(formats.load_concept(saved(run, 8)).named("<cup>"), saved(run, 8))
    assert main(["choose", str(run), "--step", "8"]) == 2
    assert "must be a word for '<mug>', like its run, got one for '<cup>'" in " ".join(
        capsys.readouterr().err.split()
    )


def test_a_run_at_work_is_not_disturbed(run):
    with hold(run), pytest.raises(InUseError, match="another process is working there"):
        choose_word(run, 4)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--step", "5"], "must be one whose word was saved, 4, 8, 12, got 5"),
        (["--step", "4", "--by", "loss"], "Cannot use --step 4 with --by loss"),
        (["--rank-by", "text"], "without --by clip; pass"),
        (["--by", "los"], "did you mean loss?"),
        (["--seeds", "x"], "seeds must be numbers or ranges"),
        (["--batch-size", "0"], "batch_size must be 1 or more"),
        (["--prompts", "a photo of a mug", *DRAW], "must contain the placeholder '<mug>'"),
    ],
)
def test_a_mistake_is_one_sentence(words, message, run, capsys):
    assert main(["choose", str(run), *words]) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_what_is_no_run_with_saved_words_is_refused(run, tmp_path, capsys):
    assert main(["choose", str(tmp_path)]) == 2
    assert "must be the folder of a run of oneword train" in capsys.readouterr().err
    for step in (4, 8, 12):
        saved(run, step).unlink()
    assert main(["choose", str(run), "--by", "loss"]) == 2
    assert "got none; train with --save-steps" in capsys.readouterr().err


def test_words_that_were_not_scored_have_no_lowest_loss(run, capsys):
    for step in (4, 8, 12):
        concept = formats.load_concept(saved(run, step))
        concept.provenance["loss"] = None
        formats.save_concept(concept, saved(run, step))
    assert main(["choose", str(run), "--by", "loss"]) == 2
    assert "because none of the 3 words" in " ".join(capsys.readouterr().err.split())
