"""Attention and group norms of narrow models on a CPU: float32 where that is faster."""

from __future__ import annotations

from collections import defaultdict
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from oneword.config.inversion import InversionConfig
from oneword.config.model import ModelConfig
from oneword.models.loading import load_backbone
from oneword.models.speed.narrow_cpu import widened
from oneword.training.job import Job
from oneword.training.loop import invert_many


BF16 = torch.bfloat16


def model(device="cpu", dtype=BF16, **config):
    """As much of a backbone as is asked about."""
    return SimpleNamespace(device=torch.device(device), dtype=dtype, config=ModelConfig(**config))


def normal(*shape, dtype=BF16, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def attend(query, key, dtype, **options):
    """Outcome and gradients, in float64, of attention in a type, as modules call it."""
    inputs = [x.detach().to(dtype).requires_grad_() for x in (query, key, key.flip(-2))]
    found = F.scaled_dot_product_attention(*inputs, **options)
    assert found.dtype == dtype
    direction = normal(*found.shape, dtype=dtype, seed=1)
    gradients = torch.autograd.grad(found, inputs, direction)
    assert all(gradient.dtype == dtype for gradient in gradients)
    return [x.double() for x in (found, *gradients)]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "options", [{}, {"is_causal": True}, {"attn_mask": normal(7, 9)}, {"scale": 0.3}]
)
def test_attention_over_few_tokens_is_that_of_float32(dtype, options):
    """Its rounding alone is left: nearer to float64 than the narrow kernel's."""
    query, key = normal(2, 2, 7, 8).to(dtype), normal(2, 2, 9, 8, seed=2).to(dtype)
    wide = {n: x.to(dtype) if isinstance(x, torch.Tensor) else x for n, x in options.items()}
    exact_options = {n: x.double() if isinstance(x, torch.Tensor) else x for n, x in wide.items()}
    exact = attend(query.double(), key.double(), torch.float64, **exact_options)
    plain = attend(query, key, dtype, **wide)
    with widened(model(dtype=dtype)):
        found = attend(query, key, dtype, **wide)
    for own, narrow, expected in zip(found, plain, exact, strict=True):
        apart = (own - expected).norm()
        assert apart / expected.norm() < 3e-3
        assert apart <= (narrow - expected).norm() * 1.001


def test_attention_over_many_tokens_stays_narrow():
    """As many pairs as in a picture's own attention at 256 px and more."""
    query = normal(1, 1, 600, 8)
    plain = attend(query, query, BF16)
    with widened(model()):
        found = attend(query, query, BF16)
    assert all(torch.equal(a, b) for a, b in zip(found, plain, strict=True))


def test_group_norms_are_those_of_float32():
    module = torch.nn.GroupNorm(2, 8)
    torch.nn.init.normal_(module.weight, generator=torch.Generator().manual_seed(3))
    x = normal(2, 8, 3, 3, seed=4).to(memory_format=torch.channels_last)
    narrow = torch.nn.GroupNorm(2, 8).to(BF16)
    narrow.load_state_dict(module.state_dict())
    expected = F.group_norm(x.float(), 2, narrow.weight.float(), narrow.bias.float()).to(BF16)
    with widened(model()):
        found = narrow(x)
    assert torch.equal(found, expected)


@pytest.mark.parametrize(
    "options", [{"dtype": torch.float32}, {"device": "cuda"}, {"gradient_checkpointing": True}]
)
def test_others_are_left_alone(options):
    assert isinstance(widened(model(**options)), nullcontext)


class Seen(TorchDispatchMode):
    """The types in which kernels of attention and group norm have run."""

    def __init__(self):
        super().__init__()
        self.types = defaultdict(set)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = str(func.overloadpacket).removeprefix("aten.")
        if "attention" in name or "group_norm" in name:
            self.types[name].add(args[0].dtype)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("checkpointing", [False, True])
def test_training_is_wide_forward_and_back(checkpointing, tiny_folder):
    """Or narrow both ways, where the backward pass computes layers again."""
    options = {"dtype": "bf16", "device": "cpu", "gradient_checkpointing": checkpointing}
    backbone = load_backbone(ModelConfig(model=str(tiny_folder), **options))
    pictures = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    config = InversionConfig(
        initializer_token="cat", max_train_steps=3, train_batch_size=2, evaluation_steps=1,
        num_evaluation_samples=2, prompt_templates="release27",
    )  # fmt: skip
    seen = []

    def before_the_end(progress):
        seen.append(progress.step)
        if progress.step == 0:  # the autoencoder's work is done
            watch.types.clear()

    # another test of the same process may have switched this kernel off
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION), Seen() as watch:
        (result,) = invert_many(
            backbone, [Job(name="w", pictures=pictures, config=config)], on_step=before_the_end
        )
    assert result.status == "finished"
    assert seen == [0, 1, 2, 3]
    assert any(name.endswith("attention_for_cpu_backward") for name in watch.types)
    assert "native_group_norm_backward" in watch.types
    expected = BF16 if checkpointing else torch.float32
    assert set().union(*watch.types.values()) == {expected}
