"""Solvers by name: diffusers' own are at work, and each picture has the noise of its own seed."""

from __future__ import annotations

import inspect

import diffusers
import pytest
import torch

from oneword import catalog
from oneword.cli.main import main
from oneword.config.drawing import SamplingConfig
from oneword.config.model import ModelConfig
from oneword.errors import ConfigError, ModelError
from oneword.models import samplers
from oneword.models.drawing import FamilyPipeline
from oneword.models.loading import load_backbone


FRESH = {"DDPM", "Euler a", "DPM2 a", "DPM++ 2M SDE", "LCM", "SA Solver"}
"""Those that draw noise in every step."""


@pytest.fixture(scope="module")
def load(folders):
    loaded = {}

    def get(name):
        if name not in loaded:
            loaded[name] = load_backbone(ModelConfig(model=str(folders[name]), device="cpu"))
        return loaded[name]

    return get


def few(name, steps=3):
    return SamplingConfig(sampler=name, num_inference_steps=steps, guidance_scale=3.0)


@pytest.mark.parametrize(
    ("written", "name", "kind"),
    [
        ("Euler a", "Euler a", "EulerAncestralDiscreteScheduler"),
        ("euler_ancestral", "Euler a", "EulerAncestralDiscreteScheduler"),
        ("EulerAncestralDiscreteScheduler", "Euler a", "EulerAncestralDiscreteScheduler"),
        ("EulerAncestralDiscrete", "Euler a", "EulerAncestralDiscreteScheduler"),
        ("DPM++ 2M Karras", "DPM++ 2M Karras", "DPMSolverMultistepScheduler"),
        ("dpmpp_2m_karras", "DPM++ 2M Karras", "DPMSolverMultistepScheduler"),
        ("dpmpp_2m_sde", "DPM++ 2M SDE", "DPMSolverMultistepScheduler"),
        ("UniPCMultistepScheduler", "UniPC", "UniPCMultistepScheduler"),
        ("uni_pc", "UniPC", "UniPCMultistepScheduler"),
        ("plms", "PLMS", "PNDMScheduler"),
        ("euler sgm uniform", "Euler SGM Uniform", "EulerDiscreteScheduler"),
    ],
)
def test_people_write_names_in_many_ways(written, name, kind):
    found = samplers.find(written)
    assert (found.name, found.kind) == (name, kind)
    assert samplers.find(found.name) == found
    assert issubclass(getattr(diffusers, kind), diffusers.SchedulerMixin)


@pytest.mark.parametrize(
    ("written", "near"),
    [
        ("eular a", "'Euler a'"),
        ("DPM++2M Karas", "'DPM\\+\\+ 2M Karras'"),
        ("DPMSolverSDEScheduler", "a solver such as"),
        ("nonsense", "DDIM, DDPM, PLMS"),
        ("", "DDIM"),
    ],
)
def test_an_unknown_name_gets_the_nearest(written, near):
    with pytest.raises(ConfigError, match=f"sampler must be one of paper, release, model .*{near}"):
        samplers.find(written)


def by_diffusers(folder, name, prediction):
    """The same picture by diffusers' pipeline alone."""
    sampler = samplers.find(name)
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    # as the family has it: DDIM's settings are the model's own
    ddim = diffusers.DDIMScheduler.from_config(pipeline.scheduler.config)
    assert ddim.config.prediction_type == prediction
    kind = getattr(diffusers, sampler.kind)
    pipeline.scheduler = kind.from_config(ddim.config, **sampler.changes)
    size = pipeline.unet.config.sample_size
    noise = torch.randn((1, 4, size, size), generator=torch.Generator().manual_seed(7))
    drawn = pipeline("a cat", latents=noise, num_inference_steps=3, guidance_scale=3.0,
                     output_type="pt")  # fmt: skip
    return drawn.images


@pytest.mark.parametrize(
    ("name", "prediction"),
    [
        ("DDIM", "epsilon"), ("PLMS", "epsilon"), ("Euler", "epsilon"), ("Euler", "v_prediction"),
        ("Euler Karras", "v_prediction"), ("Heun", "epsilon"), ("DPM2", "v_prediction"),
        ("DPM++ 2M", "epsilon"), ("DPM++ 2M Karras", "v_prediction"),
        ("DPM++ 2M Exponential", "epsilon"), ("DPM++ 2S", "v_prediction"),
        ("UniPC", "v_prediction"), ("DEIS", "epsilon"), ("Euler SGM Uniform", "epsilon"),
    ],
)  # fmt: skip
def test_it_is_diffusers_own_solver(name, prediction, request):
    suffix = {"epsilon": "", "v_prediction": "_v"}[prediction]
    folder = request.getfixturevalue(f"tiny{suffix}_folder")
    backbone = request.getfixturevalue(f"tiny_sd{suffix}")
    drawn = backbone.draw(["a cat"], [7], few(name))
    with samplers.without_notices():
        expected = by_diffusers(folder, name, prediction)
    assert torch.allclose((drawn + 1) / 2, expected, atol=1e-4)
    stock = backbone.draw(["a cat"], [7], few("model"))
    assert torch.equal(drawn, stock) == (name == "DDIM")


HERE = sorted({s.name for s in samplers._KNOWN})


@pytest.mark.parametrize("name", HERE)
def test_a_picture_is_its_seeds_alone_whatever_else_is_drawn(name, tiny_sd_v):
    done = []
    torch.manual_seed(1)  # noqa: TID251  (which must not matter)
    both = tiny_sd_v.draw(
        ["a cat", "a dog"], [7, 8], few(name), on_step=lambda at, of: done.append((at, of))
    )
    torch.manual_seed(2)  # noqa: TID251
    alone = tiny_sd_v.draw(["a dog"], [8], few(name))
    assert torch.isfinite(both).all()
    assert torch.allclose(both[1:], alone, atol=1e-4)
    assert type(tiny_sd_v.pipeline.scheduler) is diffusers.DDIMScheduler
    assert done[-1] == (3, 3)


@pytest.mark.parametrize("name", sorted(FRESH))
def test_fresh_noise_is_not_the_noise_of_the_start_again(name, tiny_sd, monkeypatch):
    seen = []
    module = inspect.getmodule(getattr(diffusers, samplers.find(name).kind))
    stock = module.randn_tensor

    def watch(*args, **options):
        seen.append(stock(*args, **options))
        return seen[-1]

    monkeypatch.setattr(module, "randn_tensor", watch)
    tiny_sd.draw(["a cat"], [7], few(name))
    assert seen
    start = torch.randn(seen[0].shape, generator=torch.Generator().manual_seed(7))
    assert not any(torch.allclose(noise, start, atol=1e-3) for noise in seen)


def test_one_step_is_a_number_of_steps(tiny_sd):
    for name in HERE:
        assert torch.isfinite(tiny_sd.draw(["a cat"], [0], few(name, 1))).all(), name


def test_every_schedule_draws(tiny_sd):
    for name in ("Euler Karras", "Euler Exponential", "Euler Beta", "Euler SGM Uniform"):
        assert torch.isfinite(tiny_sd.draw(["a cat"], [0], few(name, 2))).all(), name


def test_a_schedule_that_a_solver_does_not_have_is_said():
    with pytest.raises(
        ConfigError, match="space its timesteps as Karras, got 'DDIM Karras'; only DDIM"
    ):
        samplers.find("DDIM Karras")


def test_more_steps_than_times_are_refused(tiny_sd):
    with pytest.raises(ModelError, match="must be at most"):
        tiny_sd.draw(["a cat"], [0], few("Euler", 1001))


@pytest.mark.parametrize(
    ("family", "name", "message"),
    [
        ("flux", "DPM++ 2M", "which predicts flow \\(model, Euler, LCM\\), got 'DPM\\+\\+ 2M'"),
        ("flux", "Euler Karras", "got 'Euler Karras'"),
        ("ldm", "Euler a", "whose pipeline does not scale them .*, got 'Euler a'"),
        ("kandinsky3", "Euler", "whose pipeline does not scale them"),
        ("cogview3", "DDIM", "which predicts v_prediction \\(model\\), got 'DDIM'"),
        ("sana_sprint", "LCM", "which predicts trigflow \\(model\\), got 'LCM'"),
    ],
)
def test_a_sampler_that_does_not_fit_is_refused(family, name, message, load):
    backbone = load(family)
    with pytest.raises(ModelError, match=message):
        backbone.draw(["a cat"], [0], few(name))
    with pytest.raises(ModelError, match=message):
        backbone.check_sampling(few(name))


@pytest.mark.parametrize(
    ("family", "name"),
    [("flux", "LCM"), ("ldm", "DPM++ 2M Karras"), ("ldm", "DDPM"), ("sdxl", "Euler a"),
     ("pixart", "Euler"), ("kandinsky3", "UniPC")],
)  # fmt: skip
def test_other_families_are_drawn_by_those_that_fit(family, name, load):
    backbone = load(family)
    drawn = backbone.draw(["a cat", "a dog"], [0, 1], few(name, 2))
    assert torch.isfinite(drawn).all()
    assert backbone.sampling_for(few(name)).sampler == name


def test_a_flow_models_euler_is_its_own(load):
    flux = load("flux")
    own = flux.draw(["a cat"], [0], few("model", 2))
    assert torch.equal(flux.draw(["a cat"], [0], few("euler", 2)), own)


DIFFUSION = ("stable_diffusion", "sdxl", "ldm", "pixart", "kolors", "hunyuan_dit", "kandinsky3",
             "deepfloyd_if")  # fmt: skip


@pytest.mark.parametrize("family", DIFFUSION)
def test_latents_are_scaled_where_we_say_so(family):
    record = catalog.FAMILIES[family]
    kind = getattr(diffusers, record.pipelines[0])
    call = getattr(kind.__call__, "__wrapped__", kind.__call__)
    source = "".join(inspect.getsource(f) for f in (call, getattr(kind, "prepare_latents", call)))
    scaled = "scale_model_input" in source and "init_noise_sigma" in source
    module = record.imported()
    (ours,) = {
        own
        for own in vars(module).values()
        if isinstance(own, type)
        and issubclass(own, FamilyPipeline)
        and own.__module__ == module.__name__
    }
    assert ours.scales_latents == scaled


def test_latents_are_watched_on_ddims_way_alone(tiny_sd):
    with pytest.raises(ModelError, match=r"sampler 'Euler' because only DDIM can"):
        tiny_sd.draw(["a cat"], [0], few("Euler"), on_latents=lambda x, t: x)
    with pytest.raises(ModelError, match="because only DDIM can"):
        tiny_sd.draw(["a cat"], [0], few("DPM++ 2M"), latents=torch.zeros(1, 4, 8, 8))


@pytest.mark.parametrize("name", ["Euler a", "DPM++ 2M Karras"])
def test_over_a_picture(name, tiny_sd):
    pixels = torch.zeros(2, 3, tiny_sd.resolution, tiny_sd.resolution)
    both = tiny_sd.draw(["a cat", "a dog"], [1, 2], few(name, 4), image=pixels, strength=0.6)
    alone = tiny_sd.draw(["a dog"], [2], few(name, 4), image=pixels[:1], strength=0.6)
    assert torch.allclose(both[1:], alone, atol=1e-4)


def test_a_misspelt_sampler_is_one_sentence_before_any_model_is_loaded(tmp_path, capsys):
    code = main(["generate", "--model", "/nowhere", "--prompts", "a cat", "--sampler", "eular",
                 "--output-dir", str(tmp_path / "out")])  # fmt: skip
    assert code == 2
    err = capsys.readouterr().err
    assert "a solver such as 'Euler'" in err
    assert "Traceback" not in err
    assert not (tmp_path / "out").exists()


def test_a_named_sampler_on_the_command_line(tmp_path):
    import png_texts

    assert main(["generate", "--model", "microworld-nano", "--prompts", "a cat", "--sampler",
                 "dpmpp_2m_karras", "--num-inference-steps", "2", "--seeds", "3",
                 "--output-dir", str(tmp_path)]) == 0  # fmt: skip
    (path,) = tmp_path.glob("0*.png")
    assert png_texts.read(path)["sampler"] == "DPM++ 2M Karras"
