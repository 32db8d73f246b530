"""End to end on the embedded model's landed weights: a word is learned, read back, and reported."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
import torch
from PIL import Image

import png_texts
from oneword.cli.main import main
from oneword.config.inversion import InversionConfig
from oneword.config.model import EMBEDDED, ModelConfig
from oneword.evaluation import harness
from oneword.evaluation.features import load_judge
from oneword.generation.blending import psnr
from oneword.generation.editing import edit
from oneword.images import from_uint8
from oneword.microworld import weights
from oneword.microworld.making import sizes
from oneword.microworld.world import concepts
from oneword.microworld.world.drawn import concept_pictures, concept_plain
from oneword.models.loading import load_backbone
from oneword.training.job import Job
from oneword.training.loop import invert


@pytest.fixture(scope="module")
def microworld():
    return load_backbone(ModelConfig(device="cpu"))


def test_the_landed_model_is_small_and_says_how_it_was_made():
    files = [p for p in weights.WEIGHTS.rglob("*") if p.is_file()]
    assert sum(p.stat().st_size for p in files) < 40e6
    assert max(p.stat().st_size for p in files) < 15e6
    nano = weights.WEIGHTS / "microworld-nano"
    extras = ("encoders", "guide", "projector")  # read by few, and when they are asked for
    own = [p for p in nano.rglob("*") if p.is_file() and p.relative_to(nano).parts[0] not in extras]
    assert sum(p.stat().st_size for p in own) < 4e6
    assert sum(p.stat().st_size for p in nano.rglob("*") if p.is_file()) < 5e6
    assert set(EMBEDDED) == set(sizes.SIZES)
    card = weights.card()
    assert {"recipe", "denoiser_samples", "checksums", "commit", "sha256", "compute"} <= card.keys()
    assert {"noun", "colour", "scene", "style", "both nouns", "relation"} <= card["scores"].keys()
    assert card["vae_psnr_db"]["photo"] > 27
    assert card["vae_psnr_db"]["all"] > 24


@pytest.mark.slow
@pytest.mark.parametrize("name", ["parrot", "snowman"])
def test_a_word_learned_with_the_preset_beats_its_initialiser(microworld, name):
    held_out = concepts.get(name)
    config = InversionConfig(initializer_token=held_out.noun)
    pictures = from_uint8(concept_pictures(held_out))
    result = invert(microworld, Job(name=name, pictures=pictures, config=config))
    judge = load_judge(None, microworld)
    protocol = harness.protocol_for("microworld", plain=True, seeds=range(4))
    methods = {
        harness.CONCEPT: harness.word(microworld, "S*", [result.concept]),
        harness.INITIALIZER: harness.word(microworld, held_out.noun),
    }
    plain = from_uint8(concept_plain(held_out))
    found = harness.evaluate(methods, pictures, judge, protocol, plain=plain)
    assert found.reached > 0.2
    assert (
        found.scores[harness.CONCEPT].image_similarity
        > found.scores[harness.INITIALIZER].image_similarity
    )


@pytest.mark.slow
def test_a_tuned_decoder_gives_the_background_back_to_35_db(microworld):
    picture = from_uint8(concept_pictures(concepts.get("gold-mug"), num=1))
    side = picture.shape[-1]
    mask = torch.zeros_like(picture[:, :1])
    mask[..., side // 4 : 3 * side // 4, side // 4 : 3 * side // 4] = 1
    outside = mask < 0.5
    found = {}
    for background in ("blend", "optimize"):
        edits = edit(microworld, picture, "a photo of a red dog", mask=mask, background=background)
        found[background] = psnr(edits.drawing.pixels, picture, outside)
        assert psnr(edits.drawing.pixels, picture, ~outside) < 20  # something else is there
    trip = microworld.decode_latents(microworld.encode_image(picture).mean)
    assert found["blend"] > psnr(trip, picture, outside) - 0.5
    assert found["optimize"] > max(35, found["blend"])


@pytest.mark.long
def test_the_demo_ends_in_a_report_with_scores(tmp_path, capsys):
    folder = tmp_path / "demo"
    assert main(["demo", "--output-dir", str(folder), "--num-images-per-prompt", "2",
                 "--json", str(tmp_path / "scores.json")]) == 0  # fmt: skip
    out, err = capsys.readouterr()
    assert "report.html" in out
    lines = [line for line in err.splitlines() if line.startswith("learning: ")]
    assert lines
    assert all(line.endswith(" left") for line in lines)
    (last,) = [line for line in err.splitlines() if line.startswith("learning ━")]
    assert "left" not in last  # it stopped early
    text = (folder / "report.html").read_text()
    for heading in ("Training pictures", "Pictures of the word", "Scores", "Training", "Curves",
                    "Reproduce"):  # fmt: skip
        assert f"<h2>{heading}</h2>" in text
    assert "oneword train --train-data-dir" in text
    found = json.loads((tmp_path / "scores.json").read_text())
    assert found["words"]["concept"] == "S*"
    assert found["reached"] > 0.3
    facts = png_texts.read(next((folder / "pictures-of-S").glob("000-*seed0.png")))
    assert facts["model"] == "microworld"
    assert (folder / "overview.png").exists()


@pytest.mark.slow
def test_microworld_evaluate_reads_attributes_beside_the_ceiling(tmp_path, capsys):
    command = ["microworld", "evaluate", "--num-prompts", "32", "--num-people", "2", "--seed", "1"]
    files = ["--json", str(tmp_path / "w.json"), "--output-dir", str(tmp_path / "sheets")]
    assert main([*command, *files]) == 0
    found = json.loads((tmp_path / "w.json").read_text())
    appearance = found.pop("appearance")
    assert set(appearance) == {"doctor", "nurse", "builder"}
    assert list(found) == [
        "noun", "colour", "scene", "style", "both nouns", "relation", "count",
    ]  # fmt: skip
    assert found["noun"]["num"] + found["both nouns"]["num"] == 32
    for name, numbers in found.items():
        assert numbers["ceiling"] > 0.6, name
        assert numbers["value"] > 0.2, name
    assert {p.name for p in (tmp_path / "sheets").iterdir()} == {
        "generated.png", "drawn.png", "prompts.txt",
    }  # fmt: skip


def test_the_librarys_first_lines_run(tmp_path, monkeypatch):
    page = Path(__file__).parents[2] / "docs/reference/library/README.md"
    (code,) = re.findall(r"```python\n(.*?)```", page.read_text(), re.S)
    monkeypatch.chdir(tmp_path)
    main(["microworld", "pictures", "--concept", "gold-mug", "--output-dir",
          "oneword-demo/pictures"])  # fmt: skip
    names: dict[str, object] = {}
    exec(code.replace('initializer_token="mug"', 'initializer_token="mug", max_train_steps=2'),
         names)  # fmt: skip
    assert (tmp_path / "mug.safetensors").exists()
    assert len(list((tmp_path / "pictures").glob("*.png"))) == 3


@pytest.mark.slow
def test_the_tutorials_commands_do_what_it_says(tmp_path, monkeypatch, capsys):
    text = (Path(__file__).parents[2] / "docs/tutorials/first-word.md").read_text()
    blocks = re.findall(r"```sh\n(.*?)```", text, re.S)
    commands = [shlex.split(b.replace("\\\n", " ")) for b in blocks if "stable-diffusion" not in b]
    assert [command[1] for command in commands] == [
        "microworld", "train", "generate", "concept", "concept",
    ]  # fmt: skip
    monkeypatch.chdir(tmp_path)
    for command in commands:
        assert command[0] == "oneword"
        assert main(command[1:]) == 0
    assert len(list(Path("mug-pictures").glob("*.png"))) == 5
    assert Path("my-mug/report.html").is_file()
    assert len(list(Path("drawn").glob("*-seed*.png"))) == 12
    assert Path("for-comfyui/my-mug.safetensors").is_file()
    out, err = capsys.readouterr()
    assert "Stopped early at step 130" in err
    assert "embedding:my-mug" in out


def test_drawing_on_microworld_does_not_depend_on_the_batch(microworld):
    prompts = ["a photo of a red mug", "a sketch of a cat on the moon"]
    both = microworld.draw(prompts, [1, 2])
    one = microworld.draw(prompts[1:], [2])
    assert torch.allclose(both[1:], one, atol=2e-3)


def test_sample_draws_and_says_what_the_oracle_reads(tmp_path, capsys):
    folder = tmp_path / "sample"
    assert main(["microworld", "sample", "a photo of a red mug on the moon",
                 "--num-images-per-prompt", "2", "--output-dir", str(folder)]) == 0  # fmt: skip
    out = capsys.readouterr().out
    assert out.count(": noun ") == 2
    assert "scene moon" in out
    assert len(list(folder.glob("*-seed*.png"))) == 2


@pytest.mark.slow
def test_explore_puts_generated_under_drawn(tmp_path):
    folder = tmp_path / "sheets"
    assert main(["microworld", "explore", "--model", "microworld-nano",
                 "--output-dir", str(folder)]) == 0  # fmt: skip
    names = {"nouns.png", "places.png", "relations.png", "held-out.png"}
    assert {p.name for p in folder.iterdir()} == names
    with Image.open(folder / "places.png") as sheet:
        # eleven places, drawn and generated, each row with its label
        assert sheet.height == 4 + 22 * (128 + 4 + 22)


def test_the_nano_model_learns_a_word_too():
    nano = load_backbone(ModelConfig(model="microworld-nano", device="cpu"))
    assert (nano.family, nano.resolution) == ("microworld", 64)
    held_out = concepts.get("gold-mug")
    pictures = from_uint8(concept_pictures(held_out, size=64))
    config = InversionConfig(initializer_token="mug", max_train_steps=40)
    result = invert(nano, Job(name="gold-mug", pictures=pictures, config=config))
    losses = [loss for _, loss in result.losses]
    assert min(losses) < losses[0]
    assert load_judge(None, nano).size_px == 64
