"""What sets DreamLite apart: one prompt at a time, behind a task, beside an empty picture."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from diffusers import DiffusionPipeline

from oneword.concepts.concept import Concept
from oneword.config.drawing import SamplingConfig
from oneword.config.model import ModelConfig
from oneword.errors import ModelError
from oneword.models.loading import load_backbone
from oneword.vocabulary.inject import injected
from oneword.vocabulary.word import PlaceholderError


FEW = SamplingConfig(num_inference_steps=3, height=64, width=96)


@pytest.fixture(scope="module")
def backbone(folders):
    return load_backbone(ModelConfig(model=str(folders["dreamlite"]), device="cpu"))


def word(backbone, text="red cat"):
    (vocabulary,) = backbone.vocabularies.values()
    return Concept(placeholder_token="<Toy>", rows={vocabulary.name: vocabulary.rows_of(text)})


@pytest.mark.parametrize("negative", ["", "a dog"])
def test_pictures_are_the_stock_pipelines(folders, backbone, negative):
    stock = DiffusionPipeline.from_pretrained(folders["dreamlite"])
    generator = torch.Generator().manual_seed(3)
    noise = torch.randn(1, 4, 32, 48, generator=generator)
    stock.prepare_latents = lambda *_: noise
    options = {"height": 64, "width": 96, "num_inference_steps": 3, "output_type": "pt"}
    theirs = stock("a cat on the moon", negative_prompt=negative, **options).images
    sampling = SamplingConfig(num_inference_steps=3, height=64, width=96, negative_prompt=negative)
    own = backbone.draw(["a cat on the moon"], [3], sampling)
    assert torch.allclose((own + 1) / 2, theirs, atol=1e-5)


def test_prompts_of_several_texts_are_drawn_apart(backbone):
    prompts, steps = ["a cat", "a dog", "a cat"], []
    drawn = backbone.draw(prompts, [1, 2, 3], FEW, on_step=lambda *s: steps.append(s))
    assert steps == [(i + 1, 6) for i in range(6)]
    for i, prompt in enumerate(prompts):
        assert torch.allclose(drawn[i], backbone.draw([prompt], [i + 1], FEW)[0], atol=1e-5)
    with pytest.raises(ModelError, match=r"that are the same .* got 2 kinds"):
        backbone.draw(prompts, [1, 2, 3], FEW, on_latents=lambda latents, t: latents)


def test_the_task_stands_in_front_of_prompts_and_takes_of_their_room(backbone):
    (vocabulary,) = backbone.vocabularies.values()
    stock = backbone.pipeline.encode_prompt(
        "generate", ["[Generate]: a red cat"], torch.device("cpu"), torch.float32
    )
    own = backbone.encode_prompt(["a red cat"])
    assert torch.equal(own.encoder_hidden_states, stock[0])
    rows = word(backbone).rows
    given = {name: r.clone().requires_grad_() for name, r in rows.items()}
    with injected(backbone, [Concept(placeholder_token="<Toy>", rows=given)]):
        told = backbone.encode_prompt(["a <Toy>"]).encoder_hidden_states
        assert torch.allclose(told, own.encoder_hidden_states, atol=1e-6)
        fitting = "the" + " cat" * (vocabulary.max_length - 3) + " <Toy>"
        found = backbone.encode_prompt([fitting]).encoder_hidden_states
        (gradient,) = torch.autograd.grad(found.square().sum(), list(given.values()))
        assert gradient.abs().sum(1).min() > 0
        with pytest.raises(PlaceholderError, match=r"must fit .* tokens up to its placeholder"):
            backbone.encode_prompt(["the" + " cat" * 700 + " <Toy>"])


def test_layers_do_not_read_prompts_of_their_own(backbone):
    assert backbone.num_cross_attentions == 0


def test_the_distilled_models_pictures_are_the_stock_pipelines(folders):
    backbone = load_backbone(ModelConfig(model=str(folders["dreamlite_mobile"]), device="cpu"))
    assert (backbone.sampling.guidance_scale, backbone.sampling.num_inference_steps) == (1.0, 4)
    stock = DiffusionPipeline.from_pretrained(folders["dreamlite_mobile"])
    noise = torch.randn(1, 4, 32, 48, generator=torch.Generator().manual_seed(3))
    stock.prepare_latents = lambda *_: noise
    theirs = stock("a cat on the moon", height=64, width=96, output_type="pt").images
    size = SamplingConfig(height=64, width=96)
    own = backbone.draw(["a cat on the moon"], [3], size)
    assert torch.allclose((own + 1) / 2, theirs, atol=1e-5)
    guided = backbone.draw(["a cat on the moon"], [3], replace(size, guidance_scale=7.0))
    assert torch.equal(guided, own)  # as the pipeline, it takes none
    with pytest.raises(
        ModelError, match=r"negative prompt 'a dog' with .* because it takes none; leave it out"
    ):
        backbone.draw(["a cat"], [3], replace(size, negative_prompt="a dog"))
