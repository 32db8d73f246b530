"""``oneword generate --grid``, and pictures that say the command that draws them again."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from PIL import Image

import oneword
import png_texts
from oneword.cli.main import main
from oneword.concepts import formats
from oneword.concepts.concept import Concept
from oneword.config.drawing import GenerateConfig
from oneword.config.grid import axes_of, axis_text
from oneword.config.model import ModelConfig
from oneword.errors import ConfigError
from oneword.images import grid_sheet, save_png
from oneword.models.loading import load_backbone


@pytest.fixture(scope="module")
def steps(tmp_path_factory):
    """Files of one word as it was after so many steps."""
    backbone = load_backbone(ModelConfig(model="microworld-nano", device="cpu"))
    ((name, vocabulary),) = backbone.vocabularies.items()
    folder = tmp_path_factory.mktemp("words")
    paths = []
    for word in ("cat", "house"):
        concept = Concept(
            placeholder_token="<a>", rows={name: vocabulary.rows_of(word)},
            provenance={"base_model": "microworld-nano"},
        )  # fmt: skip
        paths += formats.save_concept(concept, folder / f"{word}.safetensors")
    return paths


@pytest.fixture
def draw(tmp_path):
    def run(*arguments, seeds=("3",), model=("--model", "microworld-nano"), solved_in=1):
        listing = tmp_path / "all.json"
        code = main(["generate", *model, "--num-inference-steps", str(solved_in),
                     "--output-dir", str(tmp_path / "out"), "--json", str(listing),
                     "--seeds", *seeds, *map(str, arguments)])  # fmt: skip
        return json.loads(listing.read_text()) if code == 0 else code

    return run


def bytes_of(path):
    with Image.open(path) as picture:
        return picture.convert("RGB").tobytes()


def are_alike(one, other):
    """Whether pictures are the same, but for the last bit, which may differ from batch to batch."""
    return max(abs(a - b) for a, b in zip(bytes_of(one), bytes_of(other), strict=True)) <= 1


def test_two_axes_make_a_labelled_sheet_and_single_pictures(draw, tmp_path, capsys):
    pictures = draw("--prompts", "a cat", "--grid", "guidance=1,4", "steps=1,2", seeds=("3", "4"))
    assert "8 pictures in" in capsys.readouterr().out
    found = {(p["guidance_scale"], p["num_inference_steps"], p["seed"]): p for p in pictures}
    assert len(found) == 8
    assert found["4.0", "2", "3"]["grid"] == "guidance=4, steps=2"
    assert len({p["file"] for p in pictures}) == 8
    with Image.open(tmp_path / "out" / "contact-sheet.png") as sheet:
        # two columns; a row for each seed and number of steps; labels above all of them
        assert sheet.width < sheet.height
        alone = Image.open(found["4.0", "2", "3"]["file"])
        factor = (sheet.width - 12) // 2 // alone.width
        assert sheet.size == (
            4 + 2 * (factor * alone.width + 4),
            4 + 22 + 4 * (22 + factor * alone.height + 4),
        )
    # a cell is what the settings draw without a grid
    (same,) = draw("--prompts", "a cat", "--guidance-scale", "4", "--num-inference-steps", "2")
    assert are_alike(same["file"], found["4.0", "2", "3"]["file"])
    assert not are_alike(same["file"], found["1.0", "2", "3"]["file"])


def test_samplers_and_checkpoints_of_the_word(draw, steps, tmp_path, capsys):
    pictures = draw(
        "--prompts", "a <a>", "--concepts", steps[0], "--grid",
        f"checkpoint={steps[0]},{steps[1]}", "sampler=Euler a,DDIM", model=(),
        solved_in=2,
    )  # fmt: skip
    assert capsys.readouterr().err.count("Using the base model microworld-nano") == 1
    assert {p["model"] for p in pictures} == {"microworld-nano"}
    assert {p["sampler"] for p in pictures} == {"Euler a", "DDIM"}
    hashes = {p["grid"].split(", ")[0]: json.loads(p["concepts"])["<a>"] for p in pictures}
    assert list(hashes.values()) == [formats.load_concept(path).sha256() for path in steps]
    assert len({p["file"] for p in pictures}) == 4  # whose labels hold long paths
    assert len({bytes_of(p["file"]) for p in pictures}) == 4


@pytest.fixture
def words(steps, tmp_path):
    """Two runs of the embedded model, each with its word; the second word has a negative."""
    pictures = Path(oneword.__file__).parent / "microworld/pictures"
    found = []
    for name, token, file in (("one", "<a>", steps[0]), ("two, too", "<b>", steps[1])):
        word = formats.load_concept(file, token)
        if token == "<b>":
            word.tensors.update({f"negative/{k}": v + 1 for k, v in word.rows.items()})
        folder = tmp_path / name
        formats.save_concept(word, folder / formats.LEARNED)
        formats.save_concept(word, folder / "learned_embeds-steps-5.safetensors")
        record = {"config": {"train_data_dir": str(pictures / "gold-mug")}}
        (folder / "config.json").write_text(json.dumps(record))
        found.append(folder)
    return found


def test_words_of_several_names_are_compared_alone_and_scored(draw, words, tmp_path, capsys):
    one, two = words
    pictures = draw(
        "--prompts", "a photo of a {}", "a cat", "--grid", f'checkpoint={one},"{two}"', "--score"
    )
    # each file's own word is in the template, and the other has no part in it
    assert [(Path(p["grid"].partition("=")[2]).name, p["prompt"]) for p in pictures] == [
        ("one", "a photo of a <a>"), ("one", "a cat"),
        ("two, too", "a photo of a <b>"), ("two, too", "a cat"),
    ]  # fmt: skip
    assert [p["negative_prompt"] for p in pictures] == ["", "", "<b-negative>", "<b-negative>"]
    assert are_alike(pictures[0]["file"], draw(
        "--prompts", "a photo of a {}", "--concepts", one)[0]["file"])  # fmt: skip
    for picture in pictures:
        assert 0 < float(picture["text_similarity"]) < 1
        has_word = picture["prompt"] != "a cat"
        assert (picture["image_similarity"] != "") == has_word
        assert png_texts.read(picture["file"])["text_similarity"] == picture["text_similarity"]
    said = capsys.readouterr().out
    mean = float(pictures[0]["image_similarity"])
    assert f"one, a photo of a <a>: image similarity {mean:.3f}, text similarity" in said
    assert "a cat: image similarity unknown" in said
    with Image.open(tmp_path / "out" / "contact-sheet.png") as sheet:
        assert sheet.height > sheet.width / 2  # two rows, each of both words


def test_a_saved_step_is_scored_by_its_run_s_pictures(draw, words):
    step = words[0] / "learned_embeds-steps-5.safetensors"
    scores = [
        draw("--prompts", "a {}", "--concepts", concept, "--score")[0]
        for concept in (words[0], step, f"{step}=<other>")
    ]
    assert len({p["image_similarity"] for p in scores} - {""}) == 1
    assert scores[2]["prompt"] == "a <other>"
    assert "ranked_by" not in scores[0]
    (kept,) = draw("--prompts", "a {}", "--concepts", step, "--keep", "1")
    assert kept["image_similarity"] == scores[0]["image_similarity"]


def test_an_axis_is_written_as_it_is_read():
    values = ("a,b", 'say "x"', "plain", "/a=b/c")
    (axis,) = axes_of([axis_text("checkpoint", values)])
    assert axis.values == values


def test_words_that_fill_prompts_differently_are_no_grid(draw, steps, tmp_path, capsys):
    two = tmp_path / "two.safetensors"
    formats.save_concept(
        [formats.load_concept(p, t) for p, t in zip(steps, "bc", strict=True)], two
    )
    assert draw("--prompts", "a {}", "--grid", f"checkpoint={steps[0]},{two}") == 2
    assert "must fill the prompts equally often, got 1 prompts for" in capsys.readouterr().err


def test_models_are_an_axis(draw, steps, tiny_folder):
    pictures = draw("--prompts", "a cat", "--grid", f"model=microworld-nano,{tiny_folder}")
    assert {p["model"] for p in pictures} == {"microworld-nano", str(tiny_folder)}


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        (["guidance"], "must be NAME=VALUE,VALUE,..., such as guidance=2,5,8, got 'guidance'"),
        (["guidance="], "must be NAME=VALUE"),
        (["guidanse=1,2"], "must be one of guidance, .*, got 'guidanse'; did you mean guidance"),
        (["guidance=a"], "values of guidance must be numbers, got 'a'"),
        (["guidance=nan"], "values of guidance must be numbers, got 'nan'"),
        (["steps=1.5"], "values of steps must be whole numbers, got '1.5'"),
        (["steps=1,1"], "each value once, got 1 twice"),
        (["steps=1", "num-inference-steps=2"], "grid axes must differ"),
        (["a=1", "b=2", "c=3"], "one or two axes, got 3"),
        (["steps=" + ",".join(map(str, range(1, 60)))], "at most 50 values, got 59"),
    ],
)
def test_a_grid_that_is_none_is_one_sentence(grid, message):
    with pytest.raises(ConfigError, match=message):
        GenerateConfig(grid=tuple(grid))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--grid", "steps=1,2", "--keep", "1"], "Cannot use --grid with --keep or --gallery"),
        (["--grid", "steps=0,1"], "num_inference_steps must be 1 or more, got 0"),
        (["--grid", "sampler=DDIM,eular"], "a solver such as 'Euler'"),
        (["--grid", "checkpoint=nowhere.pt"], "nowhere.pt"),
        (["--grid", "steps=1,2000"], "must be at most"),
    ],
)
def test_mistakes_in_cells_are_said_before_anything_is_drawn(
    draw, arguments, message, tmp_path, capsys
):
    assert draw("--prompts", "a cat", *arguments) == 2
    err = capsys.readouterr().err
    assert message in err
    assert "Traceback" not in err
    assert not list((tmp_path / "out").glob("0*.png"))


def test_labels_of_columns_are_cut_to_their_width():
    cells = [Image.new("RGB", (128, 128), (i, 0, 0)) for i in range(4)]
    rows = [("one", cells[:2]), ("two", cells[2:])]
    short, long = (grid_sheet([label, "b"], rows) for label in ("a", "a" * 500))
    assert short.size == long.size == (4 + 2 * 132, 4 + 22 + 2 * (22 + 132))


def test_a_picture_says_the_command_that_draws_it_again(draw, steps, tmp_path):
    over = tmp_path / "start.png"
    save_png(Image.new("RGB", (64, 64), (200, 80, 40)), over)
    pictures = draw(
        "--prompts", r"a {red|green|blue} <a> (on it's moon:1.3) \{x\}", "--concepts", steps[0],
        "--sampler", "dpmpp_2m_karras", "--guidance-scale", "3.5",
        "--negative-prompt", "a (dog:1.2)", "--image", over, "--strength", "0.9",
        "--num-inference-steps", "3", "--clip-skip", "0",
        seeds=("0", "2"),
    )  # fmt: skip
    assert len({p["prompt"] for p in pictures}) == 2
    for picture in pictures:
        written = png_texts.read(picture["file"])
        assert len(written["image_sha256"]) == 64
        words = shlex.split(written["command"])
        assert words[:2] == ["oneword", "generate"]
        again = tmp_path / f"again-{picture['seed']}"
        assert main([*words[1:], "--output-dir", str(again)]) == 0
        (file,) = again.glob("0*.png")
        assert are_alike(file, picture["file"])
        other = png_texts.read(file)
        assert {k: v for k, v in other.items() if k not in ("template", "command")} == {
            k: v for k, v in written.items() if k not in ("template", "command")
        }
    assert not are_alike(*(p["file"] for p in pictures))
