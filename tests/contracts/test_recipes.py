"""The full-size recipes run as they are, on tiny pipelines of their families and two subjects."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tiny
from oneword.cli.main import main
from oneword.prompts.descriptions import COUNT, FILE


RECIPES = Path(__file__).parents[2] / "recipes"
NUM_PICTURES = 6


def dreambench(folder: Path) -> None:
    """Two subjects in DreamBench's layout, with descriptions."""
    folder.mkdir(parents=True)
    (folder / "prompts_and_classes.txt").write_text("robot_toy,robot\ncat2,cat\n")
    for number, name in enumerate(("robot_toy", "cat2")):
        (folder / name).mkdir()
        for i in range(NUM_PICTURES):
            noise = np.random.default_rng(10 * number + i).integers(0, 255, (64, 64, 3), np.uint8)
            Image.fromarray(noise).save(folder / name / f"{i}.jpg")
        told = [f"a small photo {i}" for i in range(COUNT)]
        (folder / name / FILE).write_text(json.dumps({"short": told, "long": told}))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "family"), [("ldm-dreambench", "ldm"), ("sd15-dreambench", "stable_diffusion")]
)
def test_a_full_size_recipe_runs_to_its_end_on_a_tiny_model(
    recipe, family, judge_folder, guide_folder, tmp_path, monkeypatch, capsys, without_hub
):
    monkeypatch.chdir(tmp_path)
    dreambench(tmp_path / "dreambooth" / "dataset")
    model = tiny.save(tiny.make(family), tmp_path / "model")
    plan = tomllib.loads((RECIPES / f"{recipe}.toml").read_text(encoding="utf-8"))
    (encoder,) = {label.partition("=")[2] for label in plan["setups"] if "encoder=" in label}
    assert main([
        "encoder", "train", "--model", str(model), "--device", "cpu", "--guide", "latents",
        "--data", "dreambooth/dataset", "--output-dir", encoder, "--width", "8",
        "--max-train-steps", "2", "--train-batch-size", "2",
    ]) == 0  # fmt: skip
    # the recipe's own command, with the tiny model and fewer of everything
    setups = [re.sub(r"steps=\d+", "steps=2", label) for label in plan["setups"]]
    words = [
        "study", "--config", str(RECIPES / f"{recipe}.toml"),
        "--model", str(model), "--device", "cpu", "--judge", str(judge_folder), "--dino", "none",
        "--guide", str(guide_folder), "--diffusion-steps", "2", "--setups", *setups,
        "--prompts", "paper", "--seeds", "0", "--num-images-per-prompt", "1",
        "--num-inference-steps", "2",
        "--num-inversion-steps", "2", "--max-train-steps", "2", "--train-batch-size", "1",
        "--num-evaluation-samples", "2", "--num-class-images", "2", "--tuning-steps", "2",
    ]  # fmt: skip
    assert main([*words, "--dry-run"]) == 0
    assert "A GPU that does 300 TFLOP/s (--card-tflops) takes" in capsys.readouterr().out
    assert main(words) == 0
    said = capsys.readouterr().out
    folder = Path(plan["output_dir"])
    summary = json.loads((folder / "summary.json").read_text())
    # what needs a download is not available, and all else is done
    absent = {"palavra-vqgan-clip", "palavra-clip-diffusion", "vqgan-clip", "variations",
              "variations-captions"}  # fmt: skip
    assert {*summary["not_available"]} == absent, said
    jobs = summary["jobs"]
    assert (jobs["failed"], jobs["left"], jobs["not_available"]) == (0, 0, 2 * len(absent)), said
    assert f"{jobs['done']} of {jobs['done'] + 2 * len(absent)} jobs are done" in said
    with (folder / "results.jsonl").open() as file:
        rows = [json.loads(line) for line in file]
    done = {row["setup"] for row in rows}
    arms = {label for label in setups if label not in ("fig3", "fig5", "regularization-weights")}
    assert arms - absent <= done
    assert len([label for label in done if label.startswith("regularized")]) == 5
    assert {row["set_size"] for row in rows} == {None, *plan["set_sizes"]}
    assert {row["concept"] for row in rows if row["set_size"] == 6} == {"robot_toy", "cat2"}
    swept = {row["setup"] for row in rows if row.get("guidance_scale") == 2.0}
    assert swept == {label for label in done if label.partition(":")[0] in plan["guidance_setups"]}
    lacking = [f["claim"] for f in summary["findings"] if f["missing"]]
    assert lacking == []
    for name in ("report.html", "pictures.html", "figure5.html"):
        assert (folder / name).is_file()
