"""``oneword generate``: several words, prompt lists, choosing, galleries, and its mistakes."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

import png_texts
from oneword.cli.main import main
from oneword.concepts import formats
from oneword.concepts.concept import Concept


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for i in range(2):
        noise = np.random.default_rng(i).integers(0, 255, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def words(tmp_path_factory, photos):
    """A run folder of microworld-nano with ``<a>``, and a file with ``<b>``, learned as a style."""
    from oneword.config.model import ModelConfig
    from oneword.models.loading import load_backbone

    vocabulary = load_backbone(ModelConfig(model="microworld-nano", device="cpu")).vocabularies
    (name,) = vocabulary
    folder = tmp_path_factory.mktemp("words")
    (folder / "a").mkdir()
    run = {"config": {"train_data_dir": str(photos)}}
    (folder / "a" / "config.json").write_text(json.dumps(run))
    for token, word, path, kind in (
        ("<a>", "cat", folder / "a" / formats.LEARNED, "object"),
        ("<b>", "chalk", folder / "b.safetensors", "style"),
    ):
        rows = {name: vocabulary[name].rows_of(word)}
        provenance = {"config": {"learnable_property": kind}}
        formats.save_concept(
            Concept(placeholder_token=token, rows=rows, provenance=provenance), path
        )
    return folder / "a", folder / "b.safetensors"


@pytest.fixture
def draw(words, tmp_path):
    def run(*arguments):
        count = [] if "--seeds" in arguments else ["--num-images-per-prompt", "3"]
        return main(["generate", "--model", "microworld-nano", "--num-inference-steps", "1",
                     "--output-dir", str(tmp_path / "out"), *count,
                     *map(str, arguments)])  # fmt: skip

    return run


def test_the_best_are_kept_and_the_others_put_aside(draw, words, tmp_path, capsys):
    listing = tmp_path / "all.json"
    assert draw("--concepts", words[0], "--prompts", "a photo of a {}", "a {} on the moon",
                "--keep", "1", "--diversity", "0.2", "--json", listing) == 0  # fmt: skip
    assert "Ranked by mean: kept 2 of 6" in capsys.readouterr().out
    pictures = json.loads(listing.read_text())
    assert [p["kept"] for p in pictures] == [True] * 2 + [False] * 4
    out = tmp_path / "out"
    assert len(list(out.glob("0*.png"))) == 2
    assert len(list((out / "dropped").glob("0*.png"))) == 4
    for prompt in ("a photo of a <a>", "a <a> on the moon"):
        score = {
            p["kept"]: float(p["image_similarity"]) + float(p["text_similarity"])
            for p in sorted(pictures, key=lambda p: p["kept"])
            if p["prompt"] == prompt
        }
        assert score[True] >= score[False] - 1e-3
    report = (out / "report.html").read_text()
    assert "a &lt;a&gt; on the moon (dropped)" in report
    assert png_texts.read(next(out.glob("000*.png")))["ranked_by"] == "mean"


def test_two_words_a_list_and_a_gallery(draw, words, tmp_path, capsys):
    assert draw("--concepts", *words, "--prompts", "microworld:edits", "a cat in the style of <b>",
                "a <a> in the style of <b>", "a dog", "--gallery",
                "--num-images-per-prompt", "1") == 0  # fmt: skip
    out, err = capsys.readouterr()
    assert "'a dog' contains no loaded word; it is drawn as it is." in err
    assert "sheet-a-b.png" in out
    page = (tmp_path / "out" / "gallery.html").read_text()
    assert page.count("<img src=") == 9 + 5 + 2  # one prompt is in the list and given, too
    assert "&lt;a&gt; and &lt;b&gt;" in page


def test_a_word_of_the_negative_prompt_fills_no_template(draw, words, tmp_path, capsys):
    assert draw("--concepts", *words, "--prompts", "a photo of a {}", "--negative-prompt", "<b>",
                "--json", tmp_path / "all.json") == 0  # fmt: skip
    assert {p["prompt"] for p in json.loads((tmp_path / "all.json").read_text())} == {
        "a photo of a <a>"
    }


def test_text_that_looks_like_a_word_is_drawn_and_said(draw, capsys):
    assert draw("--prompts", "a 5* hotel", "a <hello> by a 5* hotel") == 0
    err = capsys.readouterr().err
    assert err.count("'5*' is not a loaded word and is read as text") == 1
    assert err.count("'<hello>' is not a loaded word") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--prompts", "a cat", "--negative-prompt", "<nobody>"],
         "must contain only loaded words, got '<nobody>' in '<nobody>' with no word loaded"),
        (["--prompts", "a \udcff cat"], "must be text in UTF-8"),
        (["--prompts", "a cat", "--num-inference-steps", "1001"], "must be at most 999"),
        (["--prompts", "a cat", "--clip-skip", "50"], "clip_skip must be below the"),
        (["--prompts", "a cat", "--seed", str(2**64)], "seed and the 2 after it must be in"),
        (["--prompts", "a cat", "--json", "."], "must be a file that can be written, got a folder"),
        (["--prompts", "paper:fig6", "--concepts", "A"], "learned as style, got '<a>', learned as"),
        (["--prompts", "a <a>", "--concepts", "A", "A"], "=' rename one: --concepts"),
        (["--prompts", "a cat", "--keep", "4"], "keep must be in 1..3"),
        (["--prompts", "a cat", "--rank-by", "text"], "diversity without --keep"),
        (["--prompts", "a cat", "--keep", "1", "--diversity", "2"], "diversity must be in [0, 1]"),
        (["--prompts", "a cat", "--keep", "1", "--rank-by", "image"], "unknown for 'a cat'"),
        (["--prompts", "a <a>", "--concepts", "A", "--keep", "1", "--train-data-dir", "x", "y"],
         "one folder per loaded word, got 2 for 1"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_sentence(draw, words, arguments, message, tmp_path, capsys):
    given = [str(words[0]) if a == "A" else a for a in arguments]
    assert draw(*given) == 2
    err = capsys.readouterr().err
    if message.startswith("=' "):
        path = words[0]
        message = f"rename one: --concepts {path} {path}='<a-2>'"
    assert message in err
    assert "Traceback" not in err
    assert not (tmp_path / "out").exists()


def test_wildcards_are_chosen_by_the_seed_and_recorded(draw, words, tmp_path, capsys):
    (tmp_path / "cards").mkdir()
    (tmp_path / "cards" / "place.txt").write_text("on the moon\non the beach\nin the snow\n")
    listing = tmp_path / "all.json"
    asked = "a {red|green|blue} <a> __place__"
    assert draw("--concepts", words[0], "--prompts", asked, "--wildcard-dir", tmp_path / "cards",
                "--num-images-per-prompt", "6", "--keep", "2", "--json", listing) == 0  # fmt: skip
    pictures = json.loads(listing.read_text())
    assert len(pictures) == 6
    assert sum(p["kept"] for p in pictures) == 2  # of the prompt as it was asked for
    assert len({p["prompt"] for p in pictures}) > 2
    assert {p["template"] for p in pictures} == {asked}
    assert not any("{" in p["prompt"] or "__" in p["prompt"] for p in pictures)
    one = pictures[0]
    again = tmp_path / "again.json"
    assert draw("--concepts", words[0], "--prompts", one["prompt"], "--seeds", one["seed"],
                "--json", again) == 0  # fmt: skip
    (same,) = json.loads(again.read_text())
    pixels = [np.asarray(Image.open(p["file"]), dtype=int) for p in (one, same)]
    assert abs(pixels[0] - pixels[1]).max() <= 1
    capsys.readouterr()
    assert draw("--prompts", "a __nothing__", "--wildcard-dir", tmp_path / "cards") == 2
    assert "got __nothing__; files there: place." in capsys.readouterr().err
    assert draw("--prompts", "a cat", "--negative-prompt", "{a|b}") == 2
    assert "Cannot use wildcards in the negative prompt '{a|b}'" in capsys.readouterr().err
