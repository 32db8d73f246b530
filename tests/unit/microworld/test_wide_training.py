"""Training on the second world: resumable to the same bits, and read back by the usual classes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch


pytest.importorskip("skia")

from oneword.microworld import weights
from oneword.microworld.making import packing, wide
from oneword.microworld.making.wide import StateError, WideRecipe


RECIPE = WideRecipe(
    model="microworld-nano", num_samples=24, batch_size=4, small_fraction=0.5, warmup_steps=2
)


@pytest.fixture(scope="module")
def parts(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("parts") / "world.zip"
    packing.pack(path, slugs=("elephant", "teapot", "lion"), num_variants=1, num_drawn=2)
    return path


@pytest.fixture(scope="module")
def whole(parts, tmp_path_factory) -> wide.Trainer:
    return wide.train(parts, tmp_path_factory.mktemp("whole"), RECIPE)


def weights_of(trainer: wide.Trainer) -> torch.Tensor:
    tensors = (*trainer.parts.parameters(), *trainer.average.parameters())
    return torch.cat([p.detach().flatten() for p in tensors])


def test_all_samples_are_seen_and_the_weights_move(whole):
    assert whole.samples == 24
    assert whole.history[-1]["samples"] == 24
    landed = weights.pipeline_folder(RECIPE.model)
    start = wide.plain.state_of(landed / "unet")
    moved = whole.parts["unet"].state_dict()
    assert all(not torch.equal(start[name], tensor) for name, tensor in moved.items())


def test_a_stopped_training_goes_on_to_the_same_bits(parts, tmp_path, whole, monkeypatch):
    step = wide.Trainer.update

    def until(trainer, *arguments):
        loss = step(trainer, *arguments)
        if trainer.step == 3:
            trainer.save()
            raise KeyboardInterrupt
        return loss

    monkeypatch.setattr(wide.Trainer, "update", until)
    with pytest.raises(KeyboardInterrupt):
        wide.train(parts, tmp_path, RECIPE)
    monkeypatch.undo()
    later = wide.train(parts, tmp_path, RECIPE)
    assert torch.equal(weights_of(later), weights_of(whole))


def test_no_time_is_no_step_but_a_state(parts, tmp_path):
    trainer = wide.train(parts, tmp_path, RECIPE, minutes=0)
    assert trainer.step == 0
    assert (tmp_path / wide.STATE).exists()


def test_the_state_of_another_recipe_is_refused(parts, tmp_path):
    wide.train(parts, tmp_path, RECIPE, minutes=0)
    with pytest.raises(
        StateError, match=r"got batch_size 4 in .* and batch_size 8 now; take another"
    ):
        wide.train(parts, tmp_path, replace(RECIPE, batch_size=8))


def test_known_words_keep_their_rows_and_new_ones_are_small():
    tokens = wide.tokenizer()
    encoder = wide.text_encoder(RECIPE, tokens)
    table = encoder.get_input_embeddings().weight
    assert table.shape[0] == len(tokens)
    folder = weights.pipeline_folder(RECIPE.model)
    old = wide.CLIPTokenizer.from_pretrained(folder / "tokenizer")
    key = "embeddings.token_embedding.weight"
    landed = next(t for n, t in wide.plain.state_of(folder / "text_encoder").items() if key in n)
    for word in ("cat", "moon", "watercolor"):
        (mine,), (theirs,) = (t.convert_tokens_to_ids([f"{word}</w>"]) for t in (tokens, old))
        assert torch.equal(table[mine], landed[theirs])
    (new,) = tokens.convert_tokens_to_ids(["teacup</w>"])
    assert new != tokens.unk_token_id
    assert table[new].std() < 0.04


def test_batches_belong_to_their_step(parts):
    one, again = (wide.Planner(parts, RECIPE) for _ in range(2))
    first, second = one(5), again(5)
    assert first.plans == second.plans
    assert (first.ids == second.ids).all()
    assert first.ids.shape == (4, wide.CONTEXT)
    assert one(6).plans != first.plans


def test_the_first_part_is_small():
    assert RECIPE.is_small(2)
    assert not RECIPE.is_small(3)
    factors = [WideRecipe().rate_factor(step) for step in (0, 1000, WideRecipe().num_steps - 1)]
    assert factors[0] < 0.01
    assert factors[1] == 1
    assert 0 < factors[2] < 0.01


def test_the_averaged_weights_are_read_by_the_usual_classes(tmp_path, whole):
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer

    wide.export(whole.path.parent, tmp_path, RECIPE)
    unet = UNet2DConditionModel.from_pretrained(tmp_path / "unet")
    mean = whole.average["unet"].state_dict()
    assert all(torch.equal(mean[name], tensor) for name, tensor in unet.state_dict().items())
    tokens = CLIPTokenizer.from_pretrained(tmp_path / "tokenizer")
    ids = tokens("a glossy sticker of a teapot", return_tensors="pt").input_ids
    text = CLIPTextModel.from_pretrained(tmp_path / "text_encoder").eval()
    with torch.inference_mode():
        expected = whole.average["text"].eval()(ids).last_hidden_state
        torch.testing.assert_close(text(ids).last_hidden_state, expected)
    assert '"samples": 24' in (tmp_path / "denoiser.json").read_text()


def test_the_command_line(parts, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(wide, "WideRecipe", lambda **changes: replace(RECIPE, **changes))
    arguments = ["--parts", str(parts), "--state", str(tmp_path), "--num-samples", "8"]
    assert wide.main(arguments) == 0
    assert "8 of 8 samples are seen." in capsys.readouterr().out
