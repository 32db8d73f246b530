"""Every recipe is a plan that the study accepts."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from PIL import Image

from oneword.cli import options
from oneword.cli.arguments import StudyArguments
from oneword.config.scoring import StudyConfig
from oneword.study import subjects
from oneword.study.plan import FIGURE_3, FIGURE_5, GROUPS, Study


FAMILY = {
    "microworld": "microworld",
    "ldm-dreambench": "ldm",
    "sd15-dreambench": "stable_diffusion",
}
FOLDER = Path(__file__).parents[3] / "recipes"
SECOND = FOLDER / "second-world.toml"
"""Of a model that is a folder, and of figures 3 and 5 and the encoder alone."""
RECIPES = sorted({*FOLDER.glob("*.toml")} - {SECOND})


def study_of(arguments):
    chosen, notes = options.parse(StudyArguments, "study", arguments)
    fields = {f.name: getattr(chosen, f.name) for f in dataclasses.fields(StudyConfig)}
    return Study(StudyConfig(**fields)), notes


def test_there_are_recipes():
    assert {p.stem for p in RECIPES} == {"microworld", "ldm-dreambench", "sd15-dreambench"}


def test_the_second_worlds_recipe_has_both_figures_on_things_of_the_test_half(wide_model):
    study, notes = study_of(["--config", str(SECOND), "--model", wide_model])
    assert not notes
    assert all("left out for artists' things" in note for note in study.notes)
    assert len(study.notes) == 4  # two kinds of captions, variations of captions, the initialiser
    test = {s.name for s in subjects.find(["test"], wide_model)}
    assert study.subjects.keys() <= test
    artists = {s.name for s in study.subjects.values() if s.noun is None}
    assert (len(study.subjects), len(artists), len(study.config.seeds)) == (12, 4, 3)
    wanted = {label for group in (FIGURE_3, FIGURE_5) for label in GROUPS[group]}
    assert wanted <= study.arms.keys()
    guided = [s for s in study.specs if s.setup == "palavra-vqgan-clip"]
    assert {s.concept for s in guided} == {*study.subjects}
    (three,) = (s for s in study.specs if "num_vectors=3" in s.setup and (s.concept, s.seed)
                == ("fox", 0))  # fmt: skip
    started = study.inversion(three).resolved("microworld")
    assert (started.initializer, started.num_vectors, started.max_train_steps) == ("encoder", 3, 20)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda p: p.stem)
def test_a_recipe_makes_a_plan(recipe, tmp_path):
    arguments = ["--config", str(recipe)]
    if recipe.stem != "microworld":
        for name in ("dog", "mug"):
            (tmp_path / name).mkdir()
            for i in range(6):
                Image.new("RGB", (8, 8)).save(tmp_path / name / f"{i}.jpg")
        (tmp_path / "prompts_and_classes.txt").write_text("dog,dog\nmug,mug\n")
        arguments += ["--concepts", str(tmp_path)]
    study, notes = study_of(arguments)
    assert not [*notes, *study.notes]
    assert len(study.config.seeds) == 3
    assert {s.num_pictures for s in study.specs} == {None, *study.config.set_sizes}
    by_setup = {s.setup: s for s in study.specs if not s.num_pictures}
    if recipe.stem == "microworld":
        things = [s for s in study.subjects.values() if s.kind == "object"]
        assert (len(things), len(study.subjects)) == (16, 20)
        development = {s.name for s in subjects.find(["development"], "microworld")}
        assert study.subjects.keys() <= development
        groups = ("all", FIGURE_3, FIGURE_5, "regularization-weights")
        wanted = {label for group in groups for label in GROUPS[group]} - {"low-lr"}
        assert wanted <= study.arms.keys()
        (low,) = (label for label in study.arms if label.startswith("low-lr"))
        slow, word = (
            study.inversion(by_setup[n]).resolved("microworld") for n in (low, "one-word")
        )
        assert slow.total_steps == 10 * word.total_steps
        assert not slow.early_stopping
        assert len({s.concept for s in study.specs if s.num_pictures}) == 8
        assert study.guidance_scales(by_setup["prompt-only"]) == (5.0, 2.0, 10.0)
        assert study.config.inversion.max_train_steps is None  # today's preset
    else:
        assert study.prompt_set == "dreambench"
        assert study.config.num_images_per_prompt == 64
        assert study.config.num_inversion_steps == 250
        assert (study.guidance_scale, study.num_inference_steps) == (5.0, 50)
        assert {len(study.templates(s)) for s in study.subjects.values()} == {26}
        assert study.figures == (FIGURE_3, FIGURE_5)
        assert set(GROUPS["regularization-weights"]) <= study.arms.keys()
        assert {s.concept for s in study.specs if s.num_pictures} == {"dog", "mug"}
    # the word and its weights in as many steps as the word alone takes
    family = FAMILY[recipe.stem]
    (halved,) = (label for label in study.arms if label.startswith("pivotal:"))
    word, whole, half = (
        study.inversion(by_setup[label]).resolved(family)
        for label in ("one-word", "pivotal", halved)
    )
    assert half.max_train_steps + half.resolved_tuning.tuning_steps == word.max_train_steps
    assert whole.resolved_tuning.tuning_steps == word.max_train_steps
