"""The published unconditional model of pixels: its layout, and that it runs."""

from __future__ import annotations

import hashlib
import math

import pytest
import torch

from oneword.errors import ModelError
from oneword.models.unconditional import (
    PUBLISHED,
    Layout,
    UNet,
    load_unconditional,
    unet_of,
)


TINY = Layout(channels=32, widths=(32, 32, 64), attends=(False, False, True))
CPU = torch.device("cpu")


def tiny_state():
    """Weights that a formula gives, so that another program can have the same."""
    with torch.device("meta"):
        shapes = {name: t.shape for name, t in UNet(TINY).state_dict().items()}
    return {
        name: torch.sin(torch.arange(shape.numel()) * 0.7 + place).reshape(shape)
        * (0.6 / math.sqrt(max(1, shape[1:].numel())))
        for place, (name, shape) in enumerate(sorted(shapes.items()))
    }


def saved(state, path):
    torch.save(state, path)
    return path


# --- layout


def test_the_published_model_has_the_published_tensors():
    """Number, parameters and hash are those of the authors' own module of these settings."""
    with torch.device("meta"):
        tensors = UNet(PUBLISHED).state_dict()
    lines = sorted(f"{name} {tuple(tensor.shape)}" for name, tensor in tensors.items())
    assert PUBLISHED.size_px == 256
    assert {name.partition(".")[0] for name in tensors} == {
        "time_embed", "input_blocks", "middle_block", "output_blocks", "out",
    }  # fmt: skip
    assert sum(t.numel() for t in tensors.values()) == PARAMETERS
    assert len(lines) == TENSORS
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest() == SHA256


PARAMETERS = 552_814_086
TENSORS = 566
SHA256 = "b9c90be1570d1541c91bede05b270bfb6bd51a7d5432e7b06f3a4c4cb257b1b6"


def test_the_published_layout_is_read_from_the_tensors():
    with torch.device("meta"):
        state = UNet(PUBLISHED).state_dict()
        found = unet_of(state, "256x256_diffusion_uncond.pt")
    assert found.layout == PUBLISHED


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_file_is_loaded_strictly_and_draws_as_it_did(suffix, tmp_path):
    from safetensors.torch import save_file

    state, path = tiny_state(), tmp_path / f"model{suffix}"
    if suffix == ".pt":
        torch.save(state, path)
    else:
        save_file(state, path)
    model = load_unconditional(path, CPU)
    assert model.resolution == 32
    assert model.unet.layout == TINY
    assert all(torch.equal(t, state[n]) for n, t in model.unet.state_dict().items())
    x = torch.sin(torch.arange(2 * 3 * 32 * 32) * 0.37).reshape(2, 3, 32, 32)
    noise, share = model.predict(x, 250)
    assert noise.shape == share.shape == x.shape
    found = torch.cat([noise, share], dim=1)
    # of the authors' own module with the same weights, on the same input
    assert [round(v, 4) for v in found[1, :, 5, 9].tolist()] == pytest.approx(EXPECTED, abs=2e-4)
    assert float(found.std()) == pytest.approx(DEVIATION, abs=1e-4)


EXPECTED = [-0.5769, -0.478, -0.1515, 0.2472, 0.5284, 0.5582]
DEVIATION = 0.5142


def test_the_schedule_is_the_published_one(tmp_path):
    model = load_unconditional(saved(tiny_state(), tmp_path / "m.pt"), CPU)
    powers = model.alphas_cumprod
    expected = 1.0
    for i in range(1000):
        expected *= 1 - (1e-4 + (0.02 - 1e-4) * i / 999)
    assert len(powers) == 1000
    assert float(powers[0]) == pytest.approx(1 - 1e-4, abs=1e-12)
    assert float(powers[-1]) == pytest.approx(expected, rel=1e-9)
    assert not any(p.requires_grad for p in model.unet.parameters())


def test_half_precision_keeps_its_outputs_in_float32(tmp_path):
    path = saved(tiny_state(), tmp_path / "m.pt")
    x = torch.zeros(1, 3, 32, 32)
    exact, _ = load_unconditional(path, CPU).predict(x, 3)
    rough, _ = load_unconditional(path, CPU, torch.bfloat16).predict(x, 3)
    assert rough.dtype == torch.float32
    assert torch.allclose(rough, exact, atol=0.1 * float(exact.std()) + 0.02)


# --- what is no such file


def test_tensors_of_another_layout_are_named(tmp_path):
    state = tiny_state()
    state["input_blocks.0.0.bias"] = torch.zeros(7)
    del state["out.0.weight"]
    state["ema_decay"] = torch.zeros(1)
    with pytest.raises(ModelError) as raised:
        load_unconditional(saved(state, tmp_path / "m.pt"), CPU)
    text = str(raised.value)
    assert "missing: out.0.weight;" in text
    assert "unknown: ema_decay;" in text
    assert "of another shape: input_blocks.0.0.bias (7,) for (32,)" in text


def test_another_model_is_told_what_is_missing(tmp_path):
    state = {"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(4, 4)}
    with pytest.raises(ModelError, match=r"missing: time_embed.0.weight, .* and \d+ more; unknown"):
        load_unconditional(saved(state, tmp_path / "m.pt"), CPU)


def test_a_model_that_is_told_classes_is_refused(tmp_path):
    state = tiny_state() | {"label_emb.weight": torch.zeros(1000, 128)}
    with pytest.raises(ModelError, match=r"must be of an unconditional model.*label_emb.weight"):
        load_unconditional(saved(state, tmp_path / "m.pt"), CPU)


def test_what_is_no_file_of_tensors_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"must be a file, got .*none.pt"):
        load_unconditional(tmp_path / "none.pt", CPU)
    (tmp_path / "text.pt").write_text("no tensors")
    with pytest.raises(ModelError, match=r"must be a .pt or .safetensors file of tensors"):
        load_unconditional(tmp_path / "text.pt", CPU)
    with pytest.raises(ModelError, match=r"The checkpoint must be a .* of tensors"):
        load_unconditional(saved({"a": 1}, tmp_path / "m.pt"), CPU)
