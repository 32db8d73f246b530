"""What sets HiDream apart: four text encoders, and experts that must not lose their gradient."""

from __future__ import annotations

import pytest
import torch
from diffusers import DiffusionPipeline, FlowMatchLCMScheduler, UniPCMultistepScheduler
from diffusers.models.transformers.transformer_hidream_image import MOEFeedForwardSwiGLU

import tiny
from oneword.concepts.concept import Concept
from oneword.config.model import ModelConfig
from oneword.errors import ModelError
from oneword.models.families.hidream import HiDream
from oneword.models.loading import load_backbone
from oneword.vocabulary.inject import injected


@pytest.fixture(scope="module")
def backbone(folders):
    return load_backbone(ModelConfig(model=str(folders["hidream"]), device="cpu"))


def test_prompts_are_the_stock_pipelines(folders, backbone):
    stock = DiffusionPipeline.from_pretrained(folders["hidream"])
    prompts = ["A photo of a Red cat, on the MOON", "a dog"]
    with torch.no_grad():
        t5, _, llama, _, pooled, _ = stock.encode_prompt(prompts, do_classifier_free_guidance=False)
        found = backbone.encode_prompt(prompts)
    states = found.encoder_hidden_states
    assert torch.allclose(found.pooled, pooled, atol=1e-6)
    assert torch.allclose(states[:, :64, :40], t5, atol=1e-6)
    for i, layer in enumerate(llama):
        start = 64 + 128 * i
        assert torch.allclose(states[:, start : start + 128, :32], layer, atol=1e-6)


def test_a_gradient_returns_to_every_encoder_through_the_experts(backbone):
    """It is that of diffusers' own way to run experts in training."""
    rows = {n: v.rows_of("cat").requires_grad_() for n, v in backbone.vocabularies.items()}
    x_t, t = (
        torch.randn(1, 16, 8, 8, generator=torch.Generator().manual_seed(0)),
        torch.tensor([0.5]),
    )
    experts = [m for m in backbone.denoiser.modules() if isinstance(m, MOEFeedForwardSwiGLU)]
    assert len(experts) == 2

    def gradients():
        with injected(backbone, [Concept(placeholder_token="<w>", rows=rows)]):
            loss = backbone.predict(x_t, t, backbone.encode_prompt(["a <w>"])).square().sum()
        return torch.autograd.grad(loss, list(rows.values()))

    found = gradients()
    for part in experts:
        part.training = True
    expected = gradients()
    for part in experts:
        part.training = False
        own = part.__dict__.pop("moe_infer")
        part.own = own
    cut = gradients()
    for part in experts:
        part.moe_infer = part.own
        del part.own
    assert all(g.abs().max() > 0 for g in found)
    for ours, theirs, without in zip(found, expected, cut, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-3, atol=1e-6 + 1e-4 * float(theirs.abs().max()))
        assert not torch.allclose(ours, without, rtol=1e-2)


def test_layers_of_clip_are_not_skipped(folders):
    with pytest.raises(ModelError, match=r"clip_skip 1 with .* only CLIP's pooled output"):
        load_backbone(ModelConfig(model=str(folders["hidream"]), device="cpu", clip_skip=1))


@pytest.mark.parametrize(
    "solver",
    [
        UniPCMultistepScheduler(
            flow_shift=3.0, use_flow_sigmas=True, prediction_type="flow_prediction"
        ),
        FlowMatchLCMScheduler(shift=6.0),
    ],
    ids=lambda solver: type(solver).__name__,
)
def test_other_solvers_give_their_shift_to_eulers(solver):
    pipeline = tiny.make("hidream")
    pipeline.scheduler = solver
    shift = HiDream(pipeline, ModelConfig(model="x", device="cpu")).pipeline.scheduler.config.shift
    assert shift == solver.config.get("flow_shift", solver.config.get("shift"))
