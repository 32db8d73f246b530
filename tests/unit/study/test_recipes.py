"""Every recipe is a plan that the study accepts."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from PIL import Image

from oneword.cli import options
from oneword.cli.arguments import StudyArguments
from oneword.config.scoring import StudyConfig
from oneword.study.plan import GROUPS, Study


RECIPES = sorted((Path(__file__).parents[3] / "recipes").glob("*.toml"))


def test_there_are_recipes():
    assert {p.stem for p in RECIPES} == {"microworld", "ldm-dreambench", "sd15-dreambench"}


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda p: p.stem)
def test_a_recipe_makes_a_plan(recipe, tmp_path):
    arguments = ["--config", str(recipe)]
    if recipe.stem != "microworld":
        for name in ("dog", "mug"):
            (tmp_path / name).mkdir()
            for i in range(5):
                Image.new("RGB", (8, 8)).save(tmp_path / name / f"{i}.jpg")
        (tmp_path / "prompts_and_classes.txt").write_text("dog,dog\nmug,mug\n")
        arguments += ["--concepts", str(tmp_path)]
    chosen, notes = options.parse(StudyArguments, "study", arguments)
    fields = {f.name: getattr(chosen, f.name) for f in dataclasses.fields(StudyConfig)}
    study = Study(StudyConfig(**fields))
    assert not [*notes, *study.notes]
    assert len(study.config.seeds) == 3
    assert {s.num_pictures for s in study.specs} == {None, *study.config.set_sizes}
    if recipe.stem == "microworld":
        assert len(study.subjects) >= 8
        assert study.arms.keys() == set(GROUPS["all"])
    else:
        assert study.prompt_set == "dreambench"
        assert study.config.num_images_per_prompt == 64
        assert study.config.num_inversion_steps == 250
        assert (study.guidance_scale, study.num_inference_steps) == (5.0, 50)
        assert {len(study.templates(s)) for s in study.subjects.values()} == {26}
