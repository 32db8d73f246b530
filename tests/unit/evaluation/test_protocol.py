"""The paper's protocol, and what is said of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from oneword.config.drawing import SamplingConfig
from oneword.config.scoring import EvaluateConfig, StudyConfig
from oneword.evaluation.features import DEFAULT_JUDGE
from oneword.evaluation.harness import protocol_for
from oneword.evaluation.protocol import facts, sentence
from oneword.study.prompt_sets import prompts_for


def evaluate(**fields):
    return EvaluateConfig(concept=Path("x"), train_data_dir=Path("x"), **fields)


def of(config, family="ldm", judge=DEFAULT_JUDGE, kind="object", **sampling):
    """Facts of an evaluation on a family whose own defaults are 25 steps at guidance 4."""
    resolved = config.resolved(family)
    own = SamplingConfig(
        guidance_scale=4.0, num_inference_steps=25, sampler="model", height=64, width=64
    )
    protocol = protocol_for(
        family, preset=config.preset, learnable_property=kind,
        seeds=range(resolved.num_images_per_prompt),
    )  # fmt: skip
    return facts(
        resolved, protocol, replace(own.overlaid(resolved.sampling), **sampling), judge, kind
    )


@pytest.mark.parametrize("kind", ["object", "style"])
@pytest.mark.parametrize("family", ["ldm", "stable_diffusion"])
def test_the_preset_is_the_papers_protocol_and_says_so(family, kind):
    found = of(evaluate(preset="paper"), family, kind=kind)
    assert found["paper_has"] == {}
    assert found["num_images_per_prompt"] == 64
    assert (found["num_inference_steps"], found["guidance_scale"]) == (50, 5.0)
    assert found["sampler"] == "paper"
    assert found["judge"] == "openai/clip-vit-base-patch32"
    assert found["training_pictures"] == "squashed to squares (bicubic)"
    assert sentence(found).startswith("Protocol: the paper's (Gal et al. 2022, section 5.1): 64 pi")
    if kind == "object":
        assert found["photo_prompt"] == "a photo of {}"
        assert found["edit_prompts"] == [
            "a photo of {} on the moon", "a photo of {} on the beach", "an oil painting of {}",
            "Elmo holding a {}",
        ]  # fmt: skip
    else:
        assert found["edit_prompts"] == [
            "the streets of Paris in the style of {}", "adorable corgi in the style of {}",
            "painting of a black hole in the style of {}", "times square in the style of {}",
        ]  # fmt: skip


def test_the_default_is_quick_and_says_that_it_is_not_the_papers():
    found = of(evaluate(), "microworld", "microworld's judge")
    assert found["num_images_per_prompt"] == 16
    said = sentence(found)
    assert said.startswith("Protocol: 16 pictures per prompt, 25 steps, sampler model, guidance 4,")
    theirs = said.partition("It is not the paper's, which has ")[2]
    assert theirs.startswith(
        "64 pictures per prompt, 50 steps, sampler paper, guidance 5, judge op"
    )
    assert "“a photo of {}”" in theirs
    assert "training pictures squashed to squares (bicubic)" in theirs
    assert said.endswith("to use it, pass --preset paper.")


@pytest.mark.parametrize(
    ("fields", "theirs"),
    [
        ({"num_images_per_prompt": 8}, {"num_images_per_prompt": 64}),
        ({"sampling": SamplingConfig(guidance_scale=7.5)}, {"guidance_scale": 5.0}),
        ({"sampling": SamplingConfig(num_inference_steps=30)}, {"num_inference_steps": 50}),
        ({"sampling": SamplingConfig(sampler="model")}, {"sampler": "paper"}),
        ({"sampling": SamplingConfig(negative_prompt="blurry")}, {"negative_prompt": ""}),
    ],
)
def test_what_is_given_beside_the_preset_is_said(fields, theirs):
    found = of(evaluate(preset="paper", **fields))
    assert found["paper_has"] == theirs
    assert "It is not the paper's, which has" in sentence(found)
    assert "to use it, pass --preset paper" not in sentence(found)


def test_another_judge_is_said():
    found = of(evaluate(preset="paper"), judge="openai/clip-vit-base-patch16")
    assert found["paper_has"] == {"judge": DEFAULT_JUDGE}


def test_a_family_that_ddim_does_not_draw_keeps_its_solver_and_says_so():
    found = of(evaluate(preset="paper"), "flux")
    assert found["paper_has"] == {"sampler": "paper"}
    assert (found["num_inference_steps"], found["guidance_scale"]) == (50, 5.0)


def test_the_study_draws_by_the_papers_protocol():
    study = StudyConfig()
    assert study.num_images_per_prompt == 64
    assert (study.sampling.guidance_scale, study.sampling.num_inference_steps) == (5.0, 50)
    for kind in ("object", "style"):
        own = protocol_for("*", preset="paper", learnable_property=kind)
        theirs = prompts_for("paper", kind)
        assert theirs.photo == own.photo
        assert tuple(t for ts in theirs.edits.values() for t in ts) == own.edits
