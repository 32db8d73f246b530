"""Widened weights compute nearly what the landed ones do, and every copy learns something else."""

from __future__ import annotations

import pytest
import torch
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from oneword.microworld.making import grow, plain


@pytest.fixture(scope="module")
def landed():
    folder = plain.landed("microworld") / "unet"
    return plain.config_of(folder), plain.state_of(folder)


def unet(config, state):
    made = plain.PlainUNet(config).eval().requires_grad_(False)
    made.load_state_dict(state)
    return made


def test_channels_are_copied_within_their_group():
    axis = grow.copied(8, 12, 2)
    assert axis.index.tolist() == [0, 1, 2, 3, 0, 2, 4, 5, 6, 7, 4, 6]
    assert grow.copied(8, 8, 4).index.tolist() == list(range(8))
    assert grow.copied(4, 12, 2).index.tolist() == [0, 1, 0, 1, 0, 1, 2, 3, 2, 3, 2, 3]
    both = grow.joined(axis, grow.same(2))
    assert both.index.tolist() == [*axis.index.tolist(), 8, 9]
    shares = axis.split(5, torch.Generator().manual_seed(0))
    sums = torch.zeros(5, 8).index_add_(1, axis.index, shares)
    torch.testing.assert_close(sums, torch.ones(5, 8))
    assert not torch.equal(shares[:, 0], shares[:, 4])
    assert torch.equal(shares[:, 1], torch.ones(5))


def test_the_same_widths_give_the_same_bits(landed):
    config, state = landed
    again = grow.widened_unet(state, config, config, torch.Generator().manual_seed(0))
    assert again.keys() == state.keys()
    assert all(torch.equal(again[name], tensor) for name, tensor in state.items())


def test_a_wider_denoiser_computes_nearly_the_same(landed):
    config, state = landed
    wider = config | {"block_out_channels": [64, 160, 256], "cross_attention_dim": 256}
    new = grow.widened_unet(state, config, wider, torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    x = torch.randn((4, 8, 8, 8), generator=generator)
    folder = plain.landed("microworld")
    tokens = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    ids = tokens(["a photo of a cat on the moon"] * 4, padding="max_length", return_tensors="pt")
    text = CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32).eval()
    with torch.inference_mode():
        context = text(ids.input_ids).last_hidden_state
    t = torch.tensor([850, 900, 950, 999])  # at which noise is what a denoiser sees
    expected = unet(config, state)(x, t, context)
    found = unet(wider, new)(x, t, torch.cat([context, context], dim=2))
    # normalisations alone differ, where some channels of a group are copied
    assert (found - expected).square().mean() < 0.1 * expected.square().mean()
    random = plain.PlainUNet(wider)(x, t, torch.cat([context, context], dim=2))
    assert (random - expected).square().mean() > 0.5 * expected.square().mean()


def test_groups_copied_whole_compute_the_same(landed):
    """Twice every channel, so that normalisations see no difference."""
    config, state = landed
    wider = config | {"block_out_channels": [64, 256, 384]}
    new = grow.widened_unet(state, config, wider, torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    x = torch.randn((2, 8, 8, 8), generator=generator)
    context = torch.randn((2, 9, 128), generator=generator)
    t = torch.tensor([20, 700])
    old, found = unet(config, state), unet(wider, new)
    # the groups of joined halves are cut elsewhere, so up to the middle
    for net in (old, found):
        net.up_blocks = torch.nn.ModuleList()
        net.conv_norm_out, net.conv_out = torch.nn.Identity(), torch.nn.Identity()
    a, b = old(x, t, context), found(x, t, context)
    index = grow.copied(192, 384, 16).index
    torch.testing.assert_close(b, a[:, index], atol=2e-3, rtol=1e-3)


def test_a_wider_text_encoder_computes_the_same():
    folder = plain.landed("microworld") / "text_encoder"
    config = CLIPTextConfig.from_pretrained(folder)
    state = plain.state_of(folder)
    old = CLIPTextModel(config).eval()
    old.load_state_dict(state)
    new_state = grow.widened_text(state, config.to_dict(), 256, torch.Generator().manual_seed(0))
    wider = config.to_dict() | {
        "hidden_size": 256, "intermediate_size": 1024, "num_attention_heads": 8,
        "projection_dim": 256,
    }  # fmt: skip
    new = CLIPTextModel(CLIPTextConfig(**wider)).eval()
    new.load_state_dict(new_state)
    ids = torch.randint(0, 2600, (3, 20), generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        expected, found = (m(ids).last_hidden_state for m in (old, new))
    error = (found - torch.cat([expected, expected], dim=2)).square().mean()
    assert error < 0.02 * expected.square().mean()
    table = new_state[next(n for n in new_state if "token_embedding" in n)]
    assert not torch.equal(table[:, :128], table[:, 128:])
    torch.testing.assert_close(
        (table[:, :128] + table[:, 128:]) / 2, state[next(n for n in state if "token_emb" in n)]
    )


def test_widths_that_cannot_be_copied_are_refused(landed):
    config, state = landed
    wider = config | {"block_out_channels": [80, 160, 256]}
    with pytest.raises(ValueError, match=r"first width must stay, got \(64, 80\)"):
        grow.widened_unet(state, config, wider, torch.Generator())
    with pytest.raises(ValueError, match="must be a multiple of 128, got 200"):
        grow.doubled(128, 200)
