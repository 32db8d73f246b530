"""What sets Cosmos 2 apart: levels of noise up to 80, a guardrail, a mask that takes a library."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from diffusers import DiffusionPipeline
from diffusers.models.transformers import transformer_cosmos
from diffusers.pipelines.cosmos import pipeline_cosmos2_text2image as stock_module

import tiny
from oneword.concepts import formats
from oneword.concepts.concept import Concept
from oneword.config.drawing import SamplingConfig
from oneword.config.model import ModelConfig
from oneword.errors import ModelError
from oneword.models.families import cosmos2
from oneword.models.loading import load_backbone
from oneword.vocabulary.inject import injected
from oneword.vocabulary.word import PlaceholderError
from tiny.cosmos2 import Guardrail


FEW = SamplingConfig(num_inference_steps=3, height=64, width=64)


@pytest.fixture(scope="module")
def backbone(folders):
    return load_backbone(ModelConfig(model=str(folders["cosmos2"]), device="cpu"))


def word(backbone, text="red cat", token="<Toy>"):
    rows = {n: v.rows_of(text) for n, v in backbone.vocabularies.items()}
    return Concept(placeholder_token=token, rows=rows)


def test_prompts_are_the_stock_pipelines(folders, backbone):
    stock = DiffusionPipeline.from_pretrained(folders["cosmos2"])
    prompts = ["A photo of a Red cat, on the MOON", "a dog"]
    with torch.no_grad():
        states, _ = stock.encode_prompt(list(prompts), do_classifier_free_guidance=False)
        own = backbone.encode_prompt(prompts)
        with injected(backbone, [word(backbone)]):
            beside = backbone.encode_prompt(prompts)
    assert torch.equal(own.encoder_hidden_states, states)
    assert torch.equal(beside.encoder_hidden_states, states)
    assert own.encoder_hidden_states.shape == (2, 512, 48)
    assert not own.encoder_hidden_states[1, 3:].any()  # padding, after two words and the end


@pytest.mark.parametrize("scale", [1.0, 5.0])
def test_pictures_are_the_stock_pipelines(folders, backbone, scale):
    """Straight flow and levels up to 80 draw the same; only the last step differs, see below."""
    stock = DiffusionPipeline.from_pretrained(folders["cosmos2"])
    stock.set_progress_bar_config(disable=True)
    stock.scheduler.register_to_config(final_sigmas_type="zero")
    noise = torch.randn(1, 4, 32, 32, generator=torch.Generator().manual_seed(7))
    options = {
        "height": 64,
        "width": 64,
        "num_inference_steps": 3,
        "guidance_scale": scale,
        "negative_prompt": ["a red dog"],
        "latents": noise[:, :, None],
        "output_type": "latent",
        "return_dict": False,
    }
    (theirs,) = stock(["a cat"], **options)
    sampling = replace(FEW, guidance_scale=scale, negative_prompt="a red dog")
    own = backbone.draw(["a cat"], [7], sampling)
    assert torch.allclose(own, backbone.decode_latents(theirs), atol=1e-3)
    stock.scheduler.register_to_config(final_sigmas_type="sigma_min")  # which leaves noise of 0.002
    (theirs,) = stock(["a cat"], **options)
    assert torch.allclose(own, backbone.decode_latents(theirs), atol=0.05)


def test_times_are_shares_of_the_published_levels(backbone):
    scheduler = backbone.pipeline.scheduler
    scheduler.set_timesteps(5)
    ends = 80.0 ** (1 / 7), 0.002 ** (1 / 7)
    levels = np.linspace(*ends, 5) ** 7  # Karras et al. 2022, arXiv:2206.00364, equation 5
    assert np.allclose(scheduler.sigmas[:-1].numpy(), levels / (1 + levels), atol=1e-6)
    assert scheduler.sigmas[-1] == 0
    u = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    t = (2**0.5 * torch.erfinv(2 * u - 1)).sigmoid()
    assert torch.allclose(backbone.sample_t(u.float(), (8, 8)).double(), t, atol=1e-6)


def test_the_pipeline_has_its_scheduler_back_also_after_an_error(backbone):
    scheduler = backbone.pipeline.scheduler

    def fail(x, t):
        raise KeyError("here")

    with pytest.raises(KeyError, match="here"):
        backbone.draw(
            ["a cat"], [0], FEW, on_latents=lambda x, t: x if t and t > 0.9 else fail(x, t)
        )
    assert backbone.pipeline.scheduler is scheduler
    assert isinstance(scheduler, cosmos2.Shares)


def test_moments_are_scaled_by_channel(backbone):
    pixels = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(3)) * 2 - 1
    moments, vae = backbone.encode_image(pixels), backbone.autoencoder.vae
    with torch.no_grad():
        posterior = vae.encode(pixels[:, :, None]).latent_dist
    mean, std = (
        torch.tensor(v).view(1, 4, 1, 1) for v in (vae.config.latents_mean, vae.config.latents_std)
    )
    assert torch.allclose(moments.mean, (posterior.mean[:, :, 0] - mean) / std, atol=1e-5)
    assert torch.allclose(moments.std, posterior.std[:, :, 0] / std, atol=1e-5)
    with torch.no_grad():
        decoded = vae.decode(posterior.mean).sample[:, :, 0].clamp(-1, 1)
    assert torch.allclose(backbone.decode_latents(moments.mean), decoded, atol=1e-4)


def test_the_longest_prompt_still_holds_its_word_and_a_longer_one_is_refused(backbone):
    rows = {n: v.rows_of("cat").requires_grad_() for n, v in backbone.vocabularies.items()}
    fitting = "cat " * 510 + "<w>"  # and one token for the end
    with injected(backbone, [Concept(placeholder_token="<w>", rows=rows)]):
        states = backbone.encode_prompt([fitting]).encoder_hidden_states
        with pytest.raises(
            PlaceholderError, match=r"must fit into 511 tokens up to its placeholder"
        ):
            backbone.encode_prompt([f"cat {fitting}"])
    (gradient,) = torch.autograd.grad(states.square().sum(), list(rows.values()))
    assert gradient.abs().max() > 0


# diffusers hands its noise levels to numpy; pytest.warns shows that again without its module
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_the_safety_checker_is_asked_about_prompts_and_pictures(folders, monkeypatch):
    seen = []

    class Strict(Guardrail):
        def check_text_safety(self, prompt):
            seen.append(prompt)
            return "dog" not in prompt

        def check_video_safety(self, frames):
            seen.append((frames.shape, frames.dtype))
            blurred = frames.copy()
            blurred[:, :8] = 255
            return None if len(seen) > 4 else blurred

    monkeypatch.setattr(stock_module, "CosmosSafetyChecker", Strict)
    backbone = load_backbone(ModelConfig(model=str(folders["cosmos2"]), device="cpu"))
    with pytest.warns(
        UserWarning,
        match=r"changed picture\(s\) \[0, 1\]; to turn it off, pass --no-safety-checker",
    ):
        drawn = backbone.draw(["a cat", "a house"], [1, 2], FEW)
    assert seen == ["a cat", "a house", ((1, 64, 64, 3), np.uint8), ((1, 64, 64, 3), np.uint8)]
    assert (drawn[:, :, :8] == 1).all()
    with pytest.warns(UserWarning, match=r"changed picture\(s\) \[0\]"):
        assert (backbone.draw(["a cat"], [1], FEW) == -1).all()
    with pytest.raises(ValueError, match="unsafe text in the prompt: a dog"):
        backbone.draw(["a dog"], [1], FEW)
    open_ = load_backbone(
        ModelConfig(model=str(folders["cosmos2"]), device="cpu", safety_checker=False)
    )
    assert open_.draw(["a dog"], [1], FEW).shape == (1, 3, 64, 64)


def test_a_missing_safety_checker_is_named(folders, monkeypatch):
    class Missing:
        def __init__(self):
            raise ImportError("`cosmos_guardrail` is not installed.")

    config = ModelConfig(model=str(folders["cosmos2"]), device="cpu")
    monkeypatch.setattr(stock_module, "CosmosSafetyChecker", Missing)
    with pytest.raises(ModelError, match=r"pip install cosmos_guardrail, or .*--no-safety-checker"):
        load_backbone(config)


def test_the_mask_of_padding_needs_torchvision_and_is_empty(tmp_path, monkeypatch):
    folder = tiny.save(tiny.make("cosmos2", masked=True), tmp_path / "masked")
    config = ModelConfig(model=str(folder), device="cpu")
    monkeypatch.setattr(cosmos2, "is_torchvision_available", lambda: False)
    with pytest.raises(ModelError, match="because torchvision is not installed; pip install"):
        load_backbone(config)
    seen = []

    def resize(mask, size, interpolation):
        seen.append((tuple(mask.shape), float(mask.abs().max()), size, interpolation))
        return F.interpolate(mask, size, mode=interpolation)

    stand_in = SimpleNamespace(
        functional=SimpleNamespace(resize=resize),
        InterpolationMode=SimpleNamespace(NEAREST="nearest"),
    )
    monkeypatch.setattr(transformer_cosmos, "transforms", stand_in, raising=False)
    monkeypatch.setattr(cosmos2, "is_torchvision_available", lambda: True)
    backbone = load_backbone(config)
    backbone.draw(["a cat"], [0], FEW)
    with torch.no_grad():
        cond = backbone.encode_prompt(["a cat"] * 2)
        found = backbone.predict(torch.zeros(2, 4, 8, 8), torch.tensor([0.2, 0.7]), cond)
    assert found.shape == (2, 4, 8, 8)
    assert seen[-1] == ((1, 1, 8, 8), 0.0, [8, 8], "nearest")
    assert all(value == 0 for _, value, *_ in seen)


def test_settings_for_clip_are_refused(folders):
    with pytest.raises(
        ModelError, match=r"clip_skip 1 with Cosmos 2 because it has no CLIP; leave it out"
    ):
        load_backbone(ModelConfig(model=str(folders["cosmos2"]), device="cpu", clip_skip=1))


def test_a_file_names_the_encoder_as_other_tools_do(backbone, tmp_path):
    concept = word(backbone)
    (path,) = formats.save_concept(concept, tmp_path / "word.safetensors", "comfyui")
    found = formats.load_concept(path)
    assert list(found.rows) == ["t5xxl"]
    assert torch.equal(found.rows["t5xxl"], concept.rows["t5xxl"])
