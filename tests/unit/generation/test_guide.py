"""The guide, how far features lie apart, and cutouts."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F
from transformers import CLIPModel

import oneword
from oneword.concepts.concept import Concept
from oneword.evaluation.features import JudgeError, load_judge
from oneword.generation.guide import Cutouts, Guide, GuideError, spherical_distance
from oneword.models.clip_pairs import is_same
from oneword.vocabulary.vocabulary import initial_rows
from oneword.vocabulary.word import PlaceholderError
from shared import tiny_clip


CPU = torch.device("cpu")
ROOT = Path(oneword.__file__).parent


@pytest.fixture(scope="module")
def guide(guide_folder, judge_folder):
    return Guide.load(str(guide_folder), None, device=CPU, judge=str(judge_folder))


def draws(seed=0):
    return torch.Generator().manual_seed(seed)


# --- distance


def test_the_distance_is_half_the_squared_angle():
    a, b = torch.randn(2, 200, 7, generator=draws(), dtype=torch.float64)
    angle = torch.linalg.vecdot(F.normalize(a, dim=-1), F.normalize(b, dim=-1)).acos()
    assert torch.allclose(spherical_distance(a, b), angle.square() / 2, rtol=0, atol=1e-12)
    assert float(spherical_distance(a[0], 3 * a[0])) == pytest.approx(0, abs=1e-12)
    opposite = spherical_distance(a[0], -a[0])
    assert float(opposite) == pytest.approx(torch.pi**2 / 2, abs=1e-6)


def test_distances_are_taken_between_all_pairs():
    a, b = torch.randn(4, 1, 5, generator=draws()), torch.randn(1, 3, 5, generator=draws(1))
    found = spherical_distance(a, b)
    assert found.shape == (4, 3)
    assert torch.equal(found[2, 1], spherical_distance(a[2, 0], b[0, 1]))


# --- cutouts


def test_cutouts_have_the_published_sides_and_places():
    ramp = torch.arange(32.0) / 32
    picture = torch.stack([ramp.expand(32, 32), ramp[:, None].expand(32, 32), torch.zeros(32, 32)])
    cut = Cutouts(number=40, size=8, power=1.0)
    assert cut.sides(32, 32) == (8, 32)
    generator = draws(3)
    expected = []
    for _ in range(40):
        side = int(float(torch.rand((), generator=generator)) * (32 - 8) + 8)
        left = int(torch.randint(32 - side + 1, (), generator=generator))
        top = int(torch.randint(32 - side + 1, (), generator=generator))
        window = picture[None, :, top : top + side, left : left + side]
        expected.append(F.adaptive_avg_pool2d(window, 8))
    assert torch.equal(cut(picture[None], draws(3)), torch.cat(expected))


def test_cutouts_of_a_picture_of_the_guides_size_are_the_picture_unless_they_may_be_smaller():
    picture = torch.rand(1, 3, 16, 16, generator=draws())
    whole = Cutouts(number=4, size=16)(picture, draws())
    assert torch.equal(whole, picture.expand(4, -1, -1, -1))
    cut = Cutouts(number=4, size=16, min_size=12)
    assert cut.sides(16, 16) == (12, 16)
    assert not torch.equal(cut(picture, draws()), whole)


def test_a_higher_power_draws_smaller_cutouts():
    cut = [Cutouts(number=1, size=8, power=power) for power in (1.0, 4.0)]
    # a stripe of one pixel is worth the more, the smaller the cutout is that holds all of it
    picture = torch.zeros(1, 3, 64, 64)
    picture[..., ::2] = 1.0
    sides = [[float(c(picture, draws(seed)).std()) for seed in range(30)] for c in cut]
    assert sum(sides[1]) > 1.2 * sum(sides[0])


def test_pictures_of_a_batch_are_cut_alike_and_in_turn():
    pictures = torch.rand(3, 3, 20, 24, generator=draws())
    cut = Cutouts(number=5, size=8)
    found = cut(pictures, draws(2))
    assert found.shape == (15, 3, 8, 8)
    for i, picture in enumerate(pictures):
        assert torch.equal(found[i::3], cut(picture[None], draws(2)))


@pytest.mark.parametrize("resize", ["pool", "bilinear", "resample"])
def test_a_grey_picture_stays_grey(resize):
    picture = torch.full((1, 3, 40, 40), 0.3)
    found = Cutouts(number=6, size=16, resize=resize)(picture, draws())
    assert torch.allclose(found, torch.full_like(found, 0.3), atol=1e-5)


def test_a_filter_before_shrinking_takes_out_what_the_small_picture_cannot_hold():
    picture = torch.zeros(1, 3, 64, 64)
    picture[..., ::2] = 1.0
    whole = {"number": 1, "size": 16, "min_size": 64}
    rough = Cutouts(resize="bilinear", **whole)
    smooth = Cutouts(resize="resample", **whole)
    # all of the picture: a cutout of the longest side
    found = [c._resized(picture) for c in (rough, smooth)]
    assert found[1].std() < 0.2 * picture.std()
    assert found[1].mean() == pytest.approx(0.5, abs=0.02)
    assert found[0].shape == found[1].shape == (1, 3, 16, 16)


# --- the pair


def test_the_guide_sees_and_reads_as_the_same_clip_does_where_it_judges(guide_folder, tiny_sd):
    own = Guide.load(str(guide_folder), None, device=CPU)
    judge = load_judge(str(guide_folder), tiny_sd)
    pixels = 2 * torch.rand(3, 3, own.size, own.size, generator=draws()) - 1
    assert torch.allclose(own.image_features((pixels + 1) / 2), judge.images(pixels), atol=1e-6)
    texts = ["a photo of a cat", "a dog on the beach in snow"]
    assert torch.allclose(own.text_features(texts), judge.texts(texts), atol=1e-6)
    assert (own.size, own.dim, own.tower) == (24, 12, "clip_b8")


def test_gradients_reach_pixels_and_no_weight(guide):
    pictures = torch.rand(2, 3, guide.size, guide.size, generator=draws()).requires_grad_()
    guide.image_features(pictures).sum().backward()
    assert pictures.grad is not None
    assert pictures.grad.abs().sum() > 0
    assert not any(p.requires_grad for p in guide.model.parameters())


def test_pictures_of_another_size_are_refused(guide):
    with pytest.raises(ValueError, match="must be 24 x 24 px, got 24 x 32"):
        guide.image_features(torch.rand(1, 3, 24, 32))


def test_a_word_is_read_as_the_rows_that_it_has(guide):
    rows = initial_rows(guide.vocabularies[guide.tower], "red cat", 2).requires_grad_()
    word = Concept(placeholder_token="S*", rows={guide.tower: rows})
    plain = guide.text_features(["a photo of a red cat on the beach"])
    found = guide.text_features(["a photo of a S* on the beach"], [word])
    assert torch.allclose(found, plain, atol=1e-6)
    found.sum().backward()
    assert rows.grad is not None
    assert rows.grad.abs().sum() > 0
    after = guide.text_features(["a photo of a S* on the beach"])
    assert not torch.allclose(after, found, atol=1e-4)  # nothing is left of it


def test_a_word_of_another_text_encoder_is_refused_even_if_it_is_as_wide(guide):
    rows = initial_rows(guide.vocabularies[guide.tower], "cat", 1)
    word = Concept(placeholder_token="S*", rows={"clip_l": rows})
    with pytest.raises(
        PlaceholderError, match="must have embeddings for clip_b8, the text encoder of"
    ):
        guide.text_features(["a photo of a S*"], [word])


# --- who may guide


def test_the_judge_does_not_guide_unless_that_is_asked_for(judge_folder, tmp_path):
    same = {"device": CPU, "judge": str(judge_folder)}
    with pytest.raises(GuideError, match=r"because it is also the judge.*--allow-same-clip"):
        Guide.load(str(judge_folder), None, **same)
    copied = shutil.copytree(judge_folder, tmp_path / "another-name")
    with pytest.raises(GuideError, match="another-name as guide"):
        Guide.load(str(copied), None, **same)
    assert Guide.load(str(judge_folder), None, allow_same_clip=True, **same).size == 24


@pytest.mark.usefixtures("without_hub")
def test_the_default_judge_is_no_guide_either():
    with pytest.raises(GuideError, match="because it is also the judge"):
        Guide.load("openai/clip-vit-base-patch32", None, device=CPU)
    assert not is_same("openai/clip-vit-base-patch32", "openai/clip-vit-base-patch16")


@pytest.mark.usefixtures("without_hub")
@pytest.mark.parametrize("name", ["no/such-clip", "/no/such/folder"])
def test_what_is_no_clip_is_refused(name):
    with pytest.raises(GuideError, match=f"The guide must be a CLIP .*got {name}"):
        Guide.load(name, None, device=CPU)


def test_a_clip_without_its_vision_tower_neither_guides_nor_judges(tmp_path, tiny_sd):
    folder = tiny_clip(tmp_path / "text-alone", seed=2)
    path = folder / "model.safetensors"
    text = {n: t for n, t in load_file(path).items() if not n.startswith("vision_model.")}
    save_file(text, path, metadata={"format": "pt"})
    missing = "with a text and an image encoder, got .*text-alone without weights of vision"
    with pytest.raises(GuideError, match=f"The guide must be a CLIP {missing}"):
        Guide.load(str(folder), None, device=CPU)
    with pytest.raises(JudgeError, match=f"The judge must be a CLIP {missing}"):
        load_judge(str(folder), tiny_sd)


def test_a_text_encoder_does_not_pass_for_a_clip(guide_folder, tmp_path):
    pair = CLIPModel.from_pretrained(guide_folder)
    pair.text_model.save_pretrained(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(guide_folder / name, tmp_path / name)
    with pytest.raises(GuideError, match="The guide must be a CLIP"):
        Guide.load(str(tmp_path), None, device=CPU)


def test_nothing_that_draws_or_learns_can_reach_judge_or_oracle():
    oracles = r"making\.(wide_)?oracle|oracle_pictures"
    names = re.compile(rf"\b(load_judge|load_oracle|judge_folder|import.* Judge|{oracles})\b")
    rooms = ("generation", "training", "vocabulary", "concepts")
    files = [path for room in rooms for path in (ROOT / room).rglob("*.py")]
    files += [ROOT / "models" / "guide.py", ROOT / "models" / "unconditional.py"]
    files.append(ROOT / "cli" / "baseline.py")
    assert len(files) > 40
    assert [path.name for path in files if names.search(path.read_text("utf-8"))] == []
