"""Named ways of drawing: the paper's DDIM, that of the authors' commands, and the model's own."""

from __future__ import annotations

import itertools
import json
import shutil
from dataclasses import replace

import pytest
import torch
from diffusers import DDIMScheduler

from oneword.cli.main import main
from oneword.concepts import formats
from oneword.concepts.concept import Concept
from oneword.config.drawing import SamplingConfig
from oneword.config.inversion import InversionConfig
from oneword.config.model import ModelConfig
from oneword.config.presets import sampler_of
from oneword.config.scoring import StudyConfig
from oneword.errors import ModelError
from oneword.evaluation import harness
from oneword.evaluation.fairness import compare_fairness
from oneword.evaluation.features import load_judge
from oneword.generation.generate import drawn_as_learned, generate
from oneword.models.loading import load_backbone
from oneword.runs.train import train
from oneword.study import work
from oneword.study.plan import Study


BARE = ("set_alpha_to_one", "steps_offset")
"""What the folder of the paper's model on the hub does not say of its scheduler."""


@pytest.fixture
def ldm(folders, tmp_path):
    """The paper's model in small, with the two settings missing, as in its folder on the hub."""
    folder = tmp_path / "ldm"
    shutil.copytree(folders["ldm"], folder)
    place = folder / "scheduler" / "scheduler_config.json"
    settings = json.loads(place.read_text())
    for name in BARE:
        settings.pop(name, None)
    place.write_text(json.dumps(settings | {"clip_sample": False}))
    return load_backbone(ModelConfig(model=str(folder), device="cpu"))


def times_of(backbone, sampling):
    """Times that the denoiser sees, and what a drawing ends in."""
    seen, finished = [], []

    def watch(latents, t):
        (finished if t is None else seen).append(latents if t is None else t)
        return latents

    drawn = backbone.draw(["a cat"], [3], sampling, on_latents=watch)
    return seen, finished, drawn


def by_hand(backbone, prompt, seed, *, times, last, scale):
    """DDIM without noise in its steps, in float64, with alphas computed from the betas.

    Source:
        Song et al. 2020, arXiv:2010.02502, equation 12 with sigma 0.
    """
    config = backbone.pipeline.scheduler.config
    betas = torch.linspace(
        config.beta_start**0.5, config.beta_end**0.5, 1000, dtype=torch.float64
    ).square()
    alphas = torch.cumprod(1 - betas, 0)
    cond = backbone.encode_prompt([prompt])
    none = backbone.encode_prompt([""])
    size = backbone.resolution // 8
    draws = torch.Generator().manual_seed(seed)
    x = torch.randn(1, 4, size, size, generator=draws).double()
    for place, t in enumerate(times):
        at = torch.tensor([t])
        with torch.no_grad():
            guided = backbone.predict(x.float(), at, cond).double()
            free = backbone.predict(x.float(), at, none).double()
        noise = free + scale * (guided - free)
        clean = (x - (1 - alphas[t]).sqrt() * noise) / alphas[t].sqrt()
        following = times[place + 1] if place + 1 < len(times) else None
        before = alphas[following] if following is not None else last(alphas)
        x = before.sqrt() * clean + (1 - before).sqrt() * noise
    return backbone.decode_latents(x.float())


PAPER_TIMES = list(range(981, 0, -20))


def test_the_papers_way_does_not_depend_on_the_folders_scheduler(ldm):
    seen, _, drawn = times_of(ldm, SamplingConfig(sampler="paper"))
    assert seen == PAPER_TIMES
    assert len(seen) == 50
    expected = by_hand(ldm, "a cat", 3, times=PAPER_TIMES, last=lambda a: a[0], scale=5.0)
    assert torch.allclose(drawn, expected, atol=2e-4)
    with ldm.solving(SamplingConfig(sampler="paper")):
        assert float(ldm.pipeline.scheduler.final_alpha_cumprod) == pytest.approx(0.99915, abs=5e-6)
    own, _, other = times_of(ldm, SamplingConfig())
    assert own == list(range(980, -1, -20))  # as the folder, which does not say it, has it
    assert float(ldm.pipeline.scheduler.final_alpha_cumprod) == 1.0
    assert torch.equal(other, times_of(ldm, SamplingConfig(sampler="model"))[2])
    assert not torch.allclose(other, drawn, atol=1e-3)


def test_each_way_has_its_published_settings_and_what_is_given_wins(ldm, tiny_sd):
    def settings(backbone, **given):
        found = backbone.sampling_for(SamplingConfig(**given))
        return found.sampler, found.guidance_scale, found.num_inference_steps

    assert settings(ldm) == ("model", 5.0, 50)
    assert settings(ldm, sampler="paper") == ("paper", 5.0, 50)
    assert settings(ldm, sampler="release") == ("release", 10.0, 50)
    assert settings(tiny_sd) == ("model", 7.5, 50)
    assert settings(tiny_sd, sampler="paper") == ("paper", 5.0, 50)
    assert settings(tiny_sd, sampler="release") == ("release", 7.5, 50)
    given = {"sampler": "paper", "guidance_scale": 2.0, "num_inference_steps": 7}
    assert settings(ldm, **given) == ("paper", 2.0, 7)
    assert ldm.sampling_for(ldm.sampling_for(None)) == ldm.sampling_for(None)


def test_the_release_draws_at_the_same_times_with_its_own_guidance(ldm):
    seen, _, drawn = times_of(ldm, SamplingConfig(sampler="release"))
    assert seen == PAPER_TIMES
    expected = by_hand(ldm, "a cat", 3, times=PAPER_TIMES, last=lambda a: a[0], scale=10.0)
    assert torch.allclose(drawn, expected, atol=5e-4)


def test_a_drawing_gives_the_models_own_solver_back(ldm):
    stock = ldm.pipeline.scheduler
    times_of(ldm, SamplingConfig(sampler="paper", num_inference_steps=2))
    assert ldm.pipeline.scheduler is stock
    with pytest.raises(ZeroDivisionError), ldm.solving(SamplingConfig(sampler="paper")):
        raise ZeroDivisionError
    assert ldm.pipeline.scheduler is stock


@pytest.mark.parametrize("sampler", ["paper", "release", "model"])
def test_any_number_of_steps_has_times_or_is_refused(sampler, ldm, tiny_sd):
    for backbone, offset in ((ldm, 0), (tiny_sd, 1)):
        most = 1000 - (1 if sampler != "model" else offset)
        with backbone.solving(SamplingConfig(sampler=sampler)):
            for steps in range(1, most + 1):
                backbone._check_steps(steps)
                times = backbone.pipeline.scheduler.timesteps.tolist()
                assert len(times) == steps
                assert 0 <= times[-1] <= times[0] < 1000
                assert all(a > b for a, b in itertools.pairwise(times))
        for steps in (most + 1, 1001, 5000):
            with pytest.raises(ModelError, match=rf"must be at most {most} on .*, got {steps}\."):
                backbone.draw(
                    ["a cat"], [0], SamplingConfig(sampler=sampler, num_inference_steps=steps)
                )


@pytest.mark.parametrize("steps", [1, 30, 300])
def test_numbers_that_do_not_divide_the_times_draw(steps, ldm):
    seen, finished, drawn = times_of(
        ldm, SamplingConfig(sampler="paper", num_inference_steps=steps)
    )
    stride = 1000 // steps
    assert seen == [1 + stride * place for place in reversed(range(steps))]
    assert len(finished) == 1
    assert torch.isfinite(drawn).all()


def test_a_thousand_steps_are_refused_on_the_command_line(tiny_folder, tmp_path, capsys):
    code = main([
        "generate", "--model", str(tiny_folder), "--device", "cpu", "--prompts", "a cat",
        "--num-inference-steps", "1000", "--output-dir", str(tmp_path / "out"),
    ])  # fmt: skip
    assert code != 0
    assert "num_inference_steps must be at most 999" in capsys.readouterr().err


def test_a_family_that_ddim_does_not_draw_has_its_own_way_alone(folders):
    flux = load_backbone(ModelConfig(model=str(folders["flux"]), device="cpu"))
    assert flux.sampling_for(SamplingConfig()).sampler == "model"
    with pytest.raises(ModelError, match="sampler must be 'model' for the family flux"):
        flux.draw(["a cat"], [0], SamplingConfig(sampler="paper"))
    assert sampler_of("paper", "flux") == "model"


# --- the published presets draw so by default


def word(preset, dim=32, encoder="clip"):
    rows = {encoder: torch.randn(1, dim, generator=torch.Generator().manual_seed(1))}
    provenance = {"config": {"preset": preset}, "initializer_token": "cat"}
    return Concept(placeholder_token="<w>", rows=rows, provenance=provenance)


@pytest.mark.parametrize("preset", ["paper", "release", "default", "fast"])
def test_a_word_is_drawn_as_the_preset_it_was_learned_with(preset, tiny_sd):
    expected = preset if preset in ("paper", "release") else "model"
    few = SamplingConfig(num_inference_steps=2)
    drawing = generate(tiny_sd, ["a <w>"], [0], concepts=[word(preset)], sampling=few)
    assert drawing.settings["sampler"] == expected
    wished = replace(few, sampler=expected)
    again = generate(tiny_sd, ["a <w>"], [0], concepts=[word("default")], sampling=wished)
    assert torch.equal(drawing.pixels, again.pixels)
    given = replace(few, sampler="model")
    plain = generate(tiny_sd, ["a <w>"], [0], concepts=[word(preset)], sampling=given)
    assert plain.settings["sampler"] == "model"
    for family in ("ldm", "stable_diffusion", "microworld"):
        assert sampler_of(preset, family) == expected


def test_words_of_several_presets_are_drawn_in_the_models_way(tiny_sd):
    other = replace(word("release"), placeholder_token="<v>")
    both = drawn_as_learned(tiny_sd, [word("paper"), other], None)
    assert both.sampler == "model"
    assert drawn_as_learned(tiny_sd, [], None).sampler == "model"


@pytest.fixture
def solvers(monkeypatch):
    """Settings and steps of every DDIM that is made ready."""
    found = []
    stock = DDIMScheduler.set_timesteps

    def watch(self, count, *rest, **options):
        found.append((self.config.set_alpha_to_one, self.config.steps_offset, count))
        return stock(self, count, *rest, **options)

    monkeypatch.setattr(DDIMScheduler, "set_timesteps", watch)
    return found


def test_a_words_references_are_drawn_as_the_word_is(ldm, judge_folder, solvers):
    judge = load_judge(str(judge_folder), ldm)
    methods = harness.concept_methods(
        ldm, word("paper", encoder="bert"), judge, torch.zeros(1, 3, 64, 64),
        sampling=SamplingConfig(num_inference_steps=1),
    )  # fmt: skip
    for _, method in methods.values():
        solvers.clear()
        method("a photo of a {}", [0])
        assert set(solvers) == {(False, 1, 1)}
    assert len(methods) == 3


def test_previews_are_drawn_as_the_word_will_be(make, tmp_path, solvers, ldm):
    config = make(
        model=ModelConfig(model=ldm.name, device="cpu"),
        inversion={"preset": "paper", "max_train_steps": 1, "evaluation_steps": 1},
        validation_steps=1, num_validation_images=1,
    )  # fmt: skip
    train(config)
    assert set(solvers) == {(False, 1, 50)}
    provenance = formats.load_concept(tmp_path / "run").provenance
    assert provenance["config"]["preset"] == "paper"


def test_both_words_of_a_fairness_report_are_drawn_alike(ldm, judge_folder, solvers):
    judge = load_judge(str(judge_folder), ldm)
    compare_fairness(
        ldm, "cat", word("paper", encoder="bert"), judge, seeds=[0, 1],
        sampling=SamplingConfig(num_inference_steps=1),
    )  # fmt: skip
    assert solvers
    assert set(solvers) == {(False, 1, 1)}


@pytest.mark.parametrize("preset", ["paper", "default"])
def test_every_setup_of_a_study_is_drawn_as_its_preset(
    preset, ldm, photos, judge_folder, tmp_path, solvers
):
    study = Study(StudyConfig(
        output_dir=tmp_path / "study", concepts=(str(photos),), seeds=(0,),
        setups=("one-word", "prompt-only", "bipartite"), num_images_per_prompt=1,
        model=ModelConfig(model=ldm.name, device="cpu"),
        inversion=InversionConfig(preset=preset, max_train_steps=1, train_batch_size=1,
                                  evaluation_steps=1, num_evaluation_samples=1),
        sampling=SamplingConfig(num_inference_steps=1, guidance_scale=5.0),
        judge=str(judge_folder), dino="none",
    ))  # fmt: skip
    done = work.run_chunk(study.config, study.specs, lambda _: None)
    assert len(done) == 3
    published = preset == "paper"
    assert {(to_one, offset) for to_one, offset, _ in solvers} == {
        (not published, 1 if published else 0)
    }
