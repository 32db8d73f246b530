"""The codebook of an embedded model: k-means of its latents, kept with their autoencoder."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from oneword.cli.main import main
from oneword.microworld import weights
from oneword.microworld.making import codebook
from oneword.microworld.weights import WeightsError
from oneword.microworld.world import wide_drawing


NANO = "microworld-nano"


@pytest.fixture
def own_weights(monkeypatch, tmp_path):
    """A copy of the tiny model's weights, for what changes them."""
    shutil.copytree(weights.WEIGHTS / NANO, tmp_path / NANO)
    monkeypatch.setattr(weights, "WEIGHTS", tmp_path)
    return tmp_path / NANO


def test_rows_are_the_means_of_their_cells():
    """Of three clouds far apart, one of them of equal cells, as of flat pictures."""
    rng = np.random.default_rng(0)
    middles = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 20.0]])
    clouds = [middle + 0.1 * rng.standard_normal((200, 2)) for middle in middles]
    clouds[2][:] = middles[2]
    cells = torch.from_numpy(np.concatenate(clouds)).float()
    rows = codebook.clustered(cells, 12, np.random.default_rng(4))
    assert rows.shape == (12, 2)
    distances = torch.cdist(cells, rows)
    assert float(distances.amin(1).square().mean()) < 0.01
    nearest = distances.argmin(1)
    assert {*nearest[400:].tolist()}.isdisjoint(nearest[:400].tolist())
    for row in nearest.unique().tolist():
        own = cells[nearest == row].mean(0)
        assert torch.allclose(rows[row], own, atol=0.05)


def test_the_perplexity_is_the_number_of_rows_in_equal_use():
    used = torch.tensor([0, 1, 2, 3] * 5)
    assert codebook._perplexity(used, 9) == pytest.approx(4)
    assert codebook._perplexity(torch.zeros(7, dtype=torch.long), 9) == pytest.approx(1)


def test_the_landed_codebooks_are_of_the_landed_autoencoders():
    for name, rows in (("microworld", 4096), ("microworld-nano", 1024)):
        found = weights.load_codebook(name)
        assert found.shape == (rows, 8)
        assert found.dtype == torch.float32
        assert len(found.unique(dim=0)) == rows
        of = weights.card(name)["codebook"]
        assert of["psnr_db"]["autoencoder"] - 8 < of["psnr_db"]["quantised"] < 30
        assert of["perplexity"] > 0.3 * rows


def test_a_codebook_is_made_anew(own_weights, monkeypatch):
    for name, value in (("_PICTURES", 24), ("_CHECKED", 2), ("_PASSES", 2)):
        monkeypatch.setattr(codebook, name, value)
    monkeypatch.setattr(codebook, "CELLS_PER_ROW", 24)  # of 24 pictures with 64 cells each
    told = []
    path = codebook.make(NANO, seed=1, on_picture=lambda *done: told.append(done))
    assert path == own_weights / weights.CODEBOOK
    assert told[-1] == (26, 26)
    found = weights.load_codebook(NANO)  # whose card knows it
    assert found.shape == (64, 8)
    assert torch.equal(load_file(path)["codebook"].float(), found)
    first = found.clone()
    codebook.make(NANO, seed=1)
    assert torch.equal(weights.load_codebook(NANO), first)
    card = json.loads((own_weights / weights.CARD).read_text())
    assert card["codebook"]["seed"] == 1
    assert {"recipe", "sizes", "scores"} <= card.keys()
    assert card["sha256"].keys() >= {weights.CODEBOOK, weights.VAE_FILE}


def test_a_model_of_the_second_world_has_rows_of_its_own_drawings(
    wide_model, tmp_path, monkeypatch
):
    for name, value in (("_PICTURES", 6), ("_CHECKED", 2), ("_PASSES", 1)):
        monkeypatch.setattr(codebook, name, value)
    drawn = []
    plain = codebook.pictures_of
    monkeypatch.setattr(
        codebook, "pictures_of", lambda *given: drawn.append((given, plain(*given))) or drawn[-1][1]
    )
    folder = tmp_path / "second"
    shutil.copytree(wide_model, folder)
    assert main(["microworld", "codebook", "--model", str(folder)]) == 0
    ((seeds, size, world), pictures), *more = drawn
    assert (len(seeds), size, world, more) == (8, 64, 2, [])
    assert np.array_equal(pictures, wide_drawing.render_batch(seeds, size)[0])
    assert weights.load_codebook(str(folder)).shape == (6 * 64 // 16, 8)
    told = {n: v for n, v in weights.card_of(folder).items() if n != "sha256"}
    weights.seal(folder, told | {"world": 1})
    says = r"world, version 1, got one for version 2; make it with `oneword microworld codebook"
    with pytest.raises(WeightsError, match=says):
        weights.load_codebook(str(folder))
    assert main(["microworld", "codebook", "--model", str(tmp_path)]) == 2


def test_a_codebook_of_another_autoencoder_is_refused(own_weights):
    other = own_weights / weights.VAE_FILE
    other.write_bytes(other.read_bytes()[:-1] + b"\x01")
    weights.seal(own_weights, {n: v for n, v in weights.card(NANO).items() if n != "sha256"})
    with pytest.raises(
        WeightsError, match=r"must be for this model's autoencoder.*oneword microworld codeb"
    ):
        weights.load_codebook(NANO)


def test_a_model_without_a_codebook_says_how_to_make_it(own_weights):
    (own_weights / weights.CODEBOOK).unlink()
    weights.seal(own_weights, {n: v for n, v in weights.card(NANO).items() if n != "sha256"})
    with pytest.raises(
        WeightsError, match=r"Cannot find the codebook .*; make it with `oneword microworld codeboo"
    ):
        weights.load_codebook(NANO)
