"""Previews in training: prompts, seeds, sizes, the initialiser beside; sheets read back."""

from __future__ import annotations

import io
import os
import signal

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from oneword.cli.main import main
from oneword.concepts import formats
from oneword.config.drawing import SamplingConfig
from oneword.config.tuning import TuningConfig
from oneword.errors import ConfigError, UserError
from oneword.generation.generate import generate
from oneword.images import ImageError, save_png, to_images
from oneword.models.drawing import FamilyPipeline
from oneword.prompts import PromptError
from oneword.runs.events import Stepped
from oneword.runs.many import train_many
from oneword.runs.sheets import Sheet, read_sheet, spread
from oneword.runs.train import dry_run, train


pytestmark = pytest.mark.usefixtures("few_steps")
PROMPTS = ("a photo of a S*", "a S* on the moon")


def noise(size, seed):
    values = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(values)


def same(first, second):
    return [one.tobytes() for one in first] == [one.tobytes() for one in second]


@pytest.fixture
def drawn(monkeypatch):
    """What is drawn: prompts, seeds, settings."""
    calls, stock = [], FamilyPipeline.draw

    def draw(self, prompts, seeds, sampling=None, **rest):
        calls.append((list(prompts), list(seeds), sampling))
        return stock(self, prompts, seeds, sampling, **rest)

    monkeypatch.setattr(FamilyPipeline, "draw", draw)
    return calls


# --- the sheet's file


@pytest.mark.parametrize("size", [(32, 32), (40, 24), (24, 40), (200, 150), (128, 128)])
@pytest.mark.parametrize(("prompts", "seeds"), [(1, 1), (1, 4), (3, 2), (2, 11)])
def test_a_sheet_gives_its_pictures_back(tmp_path, size, prompts, seeds):
    count = prompts * seeds
    sheet = Sheet(
        step=7,
        prompts=tuple(f"a S* {'x' * i}" for i in range(prompts)),
        seeds=tuple(range(seeds)),
        pictures=[noise(size, i) for i in range(count)],
        initializer="cat",
        beside=[noise(size, 1000 + i) for i in range(count)],
        drawn={"model": "m"},
    )
    for own in (sheet, Sheet(step=8, prompts=sheet.prompts, seeds=sheet.seeds,
                             pictures=sheet.pictures)):  # fmt: skip
        own.save(tmp_path / "sheet.png", "S*")
        found = read_sheet(tmp_path / "sheet.png")
        assert (found.step, found.prompts, found.seeds) == (own.step, own.prompts, own.seeds)
        assert (found.initializer, found.drawn) == (own.initializer, own.drawn)
        assert same(found.pictures, own.pictures)
        assert same(found.beside, own.beside)
        last = prompts - 1
        assert same(found.of(last), own.pictures[last * seeds :])


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "",
        lambda text: "{",
        lambda text: "[]",
        lambda text: text.replace('"seeds": [0]', '"seeds": [0, 1]'),
        lambda text: text.replace('"boxes": [[4', '"boxes": [[400'),
        lambda text: text.replace('"boxes": [[4', '"boxes": [[5'),
        lambda text: text.replace('"boxes": [[4, ', '"boxes": [['),
        lambda text: text.replace('"size": [32, 32]', '"size": [0, 32]'),
        lambda text: text.replace('"size": [32, 32]', '"size": [32]'),
        lambda text: text.replace('"size": [32, 32]', '"size": [3, 2]'),
    ],
)
def test_a_sheet_with_other_entries_is_a_picture_like_any(tmp_path, change):
    path = tmp_path / "sheet.png"
    Sheet(step=7, prompts=("a S*",), seeds=(0,), pictures=[noise((32, 32), 0)]).save(path, "S*")
    with Image.open(path) as image:
        text = image.info["oneword-sheet"]
        assert change(text) != text
        save_png(image, path, {"oneword-sheet": change(text)})
    assert read_sheet(path) is None


def test_many_steps_are_spread_evenly():
    assert spread(range(5), 5) == [0, 1, 2, 3, 4]
    assert spread(range(9), 3) == [0, 4, 8]


# --- in training


def test_every_prompt_with_every_seed_and_the_initialiser_beside(make, tiny_sd, tmp_path, drawn):
    config = make(
        inversion={"keep": "last"}, validation_steps=6, validation_prompts=PROMPTS,
        validation_seeds=("7", "1-2"), validation_height=40, validation_width=24,
        validation_negative_prompt="a dog",
    )  # fmt: skip
    outcome = train(config, backbone=tiny_sd)
    sheets = [read_sheet(tmp_path / "run" / "previews" / f"step-{s:06d}.png") for s in (0, 6, 12)]
    sampling = SamplingConfig(height=40, width=24, negative_prompt="a dog")
    seeds = [7, 1, 2]
    word, start = ([
        generate(tiny_sd, [prompt], seeds, concepts=own, sampling=sampling)
        for prompt in prompts
    ] for prompts, own in ((PROMPTS, [outcome.result.concept]),
                           (["a photo of a cat", "a cat on the moon"], [])))  # fmt: skip
    for sheet in sheets:
        assert (sheet.prompts, sheet.seeds) == (PROMPTS, (7, 1, 2))
        assert sheet.initializer == "cat"
        assert sheet.pictures[0].size == (24, 40)
        for i, drawing in enumerate(start):
            assert same(sheet.beside_of(i), to_images(drawing.pixels))
    for i, drawing in enumerate(word):
        assert same(sheets[-1].of(i), to_images(drawing.pixels))
    assert same(sheets[0].pictures, sheets[0].beside)  # one vector, one token: it is the word yet
    assert not same(sheets[-1].pictures, sheets[-1].beside)


def test_the_initialiser_is_drawn_once_and_not_at_all_where_the_word_is_it_yet(make, drawn):
    train(make(validation_steps=6, num_validation_images=2))
    assert [prompts for prompts, *_ in drawn] == [["a photo of a <slot-0>"] * 2] * 3
    drawn.clear()
    train(make("two", {"num_vectors": 2}, validation_steps=6, num_validation_images=2))
    assert [p for p, *_ in drawn if "cat" in p[0]] == [["a photo of a cat"] * 2]
    assert len(drawn) == 4


def test_a_run_that_goes_on_takes_the_initialisers_pictures_from_its_sheets(make, tmp_path, drawn):
    config = make(inversion={"num_vectors": 2}, validation_steps=3, num_validation_images=1)

    def stop(event):
        if isinstance(event, Stepped) and event.step == 7:
            os.kill(os.getpid(), signal.SIGINT)

    train(config, on_event=stop)
    drawn.clear()
    train(config)
    assert [prompts for prompts, *_ in drawn] == [["a photo of a <slot-0>"]] * 2
    first, last = (read_sheet(tmp_path / "run" / "previews" / f"step-0000{s}.png")
                   for s in ("00", "12"))  # fmt: skip
    assert same(first.beside, last.beside)


def test_other_prompts_when_it_goes_on_have_the_initialiser_drawn_anew(make, tmp_path, drawn):
    def stop(event):
        if isinstance(event, Stepped) and event.step == 7:
            os.kill(os.getpid(), signal.SIGINT)

    train(make(validation_steps=3, num_validation_images=1), on_event=stop)
    drawn.clear()
    train(make(validation_steps=3, num_validation_images=1, validation_prompts=PROMPTS[1:]))
    assert [p for p, *_ in drawn if "cat" in p[0]] == [["a cat on the moon"]]
    assert read_sheet(tmp_path / "run" / "previews" / "step-000012.png").prompts == PROMPTS[1:]


def test_what_starts_from_no_word_has_none_beside_it(make, tmp_path):
    train(make("first"))
    start = {"initializer_token": None, "initializer_file": tmp_path / "first"}
    train(make(inversion=start, validation_steps=6, num_validation_images=1))
    sheet = read_sheet(tmp_path / "run" / "previews" / "step-000012.png")
    assert (sheet.initializer, sheet.beside) == ("", [])


def test_where_weights_change_the_initialiser_is_that_of_the_model_as_it_was(make, tmp_path):
    inversion = {"setup": "lora-dreambooth", "tuning": TuningConfig(num_class_images=2)}
    config = make(inversion=inversion, validation_steps=6, num_validation_images=1)
    train(config)
    first, last = (read_sheet(tmp_path / "run" / "previews" / f"step-0000{s}.png")
                   for s in ("00", "12"))  # fmt: skip
    assert first.beside
    assert same(first.beside, last.beside)


def test_previews_change_nothing_of_a_run(make):
    plain = train(make("plain"))
    shown = train(make(validation_steps=3, validation_prompts=PROMPTS, num_validation_images=2))
    assert shown.result.losses == plain.result.losses
    assert torch.equal(shown.result.concept.rows["clip"], plain.result.concept.rows["clip"])


def test_prompts_come_from_files_lists_and_templates(make, tmp_path):
    (tmp_path / "mine.txt").write_text("# mine\na {} in a box\n\na photo of a S*\n")
    asked = (str(tmp_path / "mine.txt"), "a {} on the beach", "paper:fig5")
    plan = dry_run(make(validation_prompts=asked))
    found = plan["config"]["validation_prompts"]
    assert found[:3] == ("a S* in a box", "a photo of a S*", "a S* on the beach") or found[:3] == [
        "a S* in a box", "a photo of a S*", "a S* on the beach",
    ]  # fmt: skip
    assert "Elmo holding a S*" in found


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"validation_prompts": ("a cat",)}, PromptError, r"must contain the placeholder 'S\*'"),
        ({"validation_prompts": ("no/such.txt",)}, PromptError, "readable text file"),
        ({"validation_prompts": ("paper:fig99",)}, PromptError, "prompt list must be one of"),
        ({"validation_prompts": ("cat " * 90 + "S*",)}, UserError, "must fit into 75 tokens"),
        ({"validation_prompts": ("a (S*:9)",), "validation_steps": 3}, UserError, "weight"),
        ({"validation_negative_prompt": "<dog>", "validation_steps": 3}, PromptError,
         "must contain only loaded words, got '<dog>'"),
    ],
)  # fmt: skip
def test_what_cannot_be_drawn_is_refused_before_the_run(make, tmp_path, fields, error, message):
    with pytest.raises(error, match=message):
        train(make(**fields))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"validation_height": 100}, "validation_height must be a positive multiple of 8 px"),
        ({"validation_width": 0}, "validation_width must be a positive multiple of 8 px, got 0"),
        ({"validation_seeds": ("a",)}, "seeds must be numbers or ranges"),
        ({"validation_seeds": ("1", "2"), "num_validation_images": 3}, "leave one of them out"),
        ({"save_steps": -1}, "save_steps must be 0 or more, got -1"),
    ],
)
def test_settings_that_cannot_be_are_refused(make, fields, message):
    with pytest.raises(ConfigError, match=message):
        make(**fields)


def test_a_placeholder_in_the_negative_prompt_is_the_word(make, drawn):
    train(make(inversion={"num_vectors": 2}, validation_steps=12, num_validation_images=1,
               validation_negative_prompt="a small S*"))  # fmt: skip
    negatives = {(p[0], s.negative_prompt) for p, _, s in drawn}
    assert negatives == {
        ("a photo of a <slot-0>", "a small <slot-0>"), ("a photo of a cat", "a small cat")
    }  # fmt: skip


# --- where they are shown


def test_trackers_have_each_prompt_and_the_initialiser(make, tmp_path):
    train(make(report_to=("tensorboard",), validation_steps=6, validation_prompts=PROMPTS,
               num_validation_images=3))  # fmt: skip
    found = EventAccumulator(
        str(tmp_path / "run" / "tracking" / "oneword"), size_guidance={"images": 0}
    ).Reload()
    names = ["0-a-photo-of-a-s", "1-a-s-on-the-moon"]
    assert {*found.Tags()["images"]} == {
        *(f"previews/{name}" for name in names), *(f"initializer/{name}" for name in names)
    }  # fmt: skip
    for name in names:
        assert [one.step for one in found.Images(f"previews/{name}")] == [0, 6, 12]
        (only,) = found.Images(f"initializer/{name}")
        with Image.open(io.BytesIO(only.encoded_image_string)) as picture:
            assert picture.width == 3 * picture.height


@pytest.fixture
def command(photos, tiny_folder, tmp_path):
    return [
        "train", "--model", str(tiny_folder), "--device", "cpu", "--train-data-dir", str(photos),
        "--output-dir", str(tmp_path / "run"), "--initializer-token", "cat", "--max-train-steps",
        "4", "--train-batch-size", "1", "--num-evaluation-samples", "2", "--evaluation-steps", "2",
        "--num-validation-images", "2",
    ]  # fmt: skip


def test_the_report_and_the_screen_show_them(command, tmp_path, capsys):
    assert main([*command, "--validation-steps", "2", "--validation_prompts", *PROMPTS]) == 0
    page = (tmp_path / "run" / "report.html").read_text()
    for head in ("initializer: cat", "step 0", "step 2", "step 4", *PROMPTS):
        assert f"<th>{head}</th>" in page
    assert page.count("<figcaption>seed 1</figcaption>") == 2 * 4
    with Image.open(tmp_path / "run" / "steps.png") as sheet:
        assert sheet.width == 4 + 4 * (128 + 4)
    assert capsys.readouterr().err.count("preview: ") == 3


def test_diffusers_prompt_is_one_of_them(command, tmp_path):
    assert main([*command, "--validation_prompt", PROMPTS[1], "--validation-steps", "4"]) == 0
    assert read_sheet(tmp_path / "run" / "previews" / "step-000004.png").prompts == PROMPTS[1:]


def test_sheets_of_other_prompts_are_shown_as_they_are(command, tmp_path):
    assert main([*command, "--validation-steps", "2"]) == 0
    more = ["--max-train-steps", "8", "--validation-steps", "2", "--validation-prompt", PROMPTS[1]]
    assert main([*command, *more]) == 0
    page = (tmp_path / "run" / "report.html").read_text()
    assert all(f"<figcaption>step {step}</figcaption>" in page for step in (0, 2, 4))
    assert all(f"<th>step {step}</th>" in page for step in (6, 8))
    assert "<th>step 4</th>" not in page
    assert f"<th>{PROMPTS[1]}</th>" in page


def test_sheets_of_an_older_version_are_shown_as_they_are(command, tmp_path):
    assert main([*command, "--validation-steps", "2"]) == 0
    for path in (tmp_path / "run" / "previews").iterdir():
        with Image.open(path) as image:
            save_png(image.copy(), path)
    (tmp_path / "run" / "steps.png").unlink()
    assert main([*command, "--validation-steps", "2"]) == 0
    page = (tmp_path / "run" / "report.html").read_text()
    assert "<figcaption>step 2</figcaption>" in page
    assert not (tmp_path / "run" / "steps.png").exists()


def test_templates_are_for_every_word_of_a_batch(make, tmp_path):
    configs = [
        make(name, {"placeholder_token": f"<{name}>"}, validation_steps=12,
             num_validation_images=1, validation_prompts=("a {} on the moon",))
        for name in "ab"
    ]  # fmt: skip
    assert all(one.outcome for one in train_many(configs))
    for name in "ab":
        sheet = read_sheet(tmp_path / name / "previews" / "step-000012.png")
        assert sheet.prompts == (f"a <{name}> on the moon",)
    assert formats.load_concept(tmp_path / "a").placeholder_token == "<a>"


def test_a_damaged_sheet_is_drawn_anew_when_the_run_goes_on(make, tmp_path):
    config = make(inversion={"num_vectors": 2}, validation_steps=6, num_validation_images=1)

    def stop(event):
        if isinstance(event, Stepped) and event.step == 7:
            os.kill(os.getpid(), signal.SIGINT)

    train(config, on_event=stop)
    path = tmp_path / "run" / "previews" / "step-000006.png"
    path.write_bytes(b"torn")
    with pytest.raises(ImageError):
        read_sheet(path)
    assert train(config).result.status == "finished"
    assert read_sheet(tmp_path / "run" / "previews" / "step-000012.png").beside
