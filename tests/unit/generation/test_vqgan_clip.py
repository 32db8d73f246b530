"""VQGAN-CLIP: its formulas beside plain loops, and what a drawing depends on."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest
import torch

from oneword.concepts.concept import Concept
from oneword.config.vqgan_clip import VQGAN_CLIP, VQGANCLIPConfig
from oneword.errors import ConfigError
from oneword.generation import vqgan_clip
from oneword.generation.guide import Guide
from oneword.generation.vqgan_clip import Phrase, Target, clamp_with_grad, phrases, straight_through
from oneword.models import quantised
from oneword.models.quantised import Quantised
from oneword.prompts import PromptError
from oneword.vocabulary.word import PlaceholderError


CPU = torch.device("cpu")
FEW = {"model": "microworld-nano", "steps": 3, "num_cutouts": 2}


def drawn_with(seed):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def vq():
    return quantised.embedded("microworld-nano", CPU)


@pytest.fixture(scope="module")
def guide(judge_folder):
    """A CLIP of the real class with random weights."""
    return Guide.load(str(judge_folder), "microworld-nano", device=CPU)


def config(**changes):
    return VQGANCLIPConfig(**{"prompts": ("a photo of a mug",)} | FEW | changes)


def draw(vq, guide, prompt="a photo of a mug", seed=0, *, changes=None, **options):
    constants = config(**(changes or {})).constants(vq.resolution)
    return vqgan_clip.draw(vq, guide, prompt, seed, constants, **options)


# --- rows


def rows_of(codebook):
    return Quantised(
        name="rows", codebook=codebook, factor=1, encode=lambda x: x, decode=lambda z: z
    )


def test_the_nearest_row_is_that_of_a_plain_search():
    codebook = torch.randn(37, 5, generator=drawn_with(0), dtype=torch.float64)
    z = torch.randn(2, 5, 3, 4, generator=drawn_with(1), dtype=torch.float64)
    found = rows_of(codebook).nearest(z)
    for b in range(2):
        for y in range(3):
            for x in range(4):
                cell = z[b, :, y, x]
                distances = [float((cell - row).square().sum()) for row in codebook]
                best = distances.index(min(distances))
                assert torch.equal(found[b, :, y, x], codebook[best])


def test_the_gradient_of_codes_is_that_of_their_rows():
    codebook = torch.randn(20, 4, generator=drawn_with(0))
    z = torch.randn(1, 4, 3, 3, generator=drawn_with(1)).requires_grad_()
    weights = torch.randn(4, 3, 3, generator=drawn_with(2))
    rows = rows_of(codebook).nearest(z.detach()).requires_grad_()
    (direct,) = torch.autograd.grad((weights * rows.sin()).sum(), rows)
    through = straight_through(rows.detach(), z)
    assert torch.equal(through, rows)  # bit for bit, which z + (rows - z) is not
    (found,) = torch.autograd.grad((weights * through.sin()).sum(), z)
    assert torch.equal(found, direct)


@pytest.mark.parametrize(
    ("value", "gradient", "kept"),
    [
        (1.5, 1.0, True),  # descent lowers it, back inside
        (1.5, -1.0, False),
        (-0.5, -1.0, True),
        (-0.5, 1.0, False),
        (0.5, 1.0, True),
        (0.5, -1.0, True),
    ],
)
def test_a_clamp_keeps_gradients_that_lead_inside(value, gradient, kept):
    x = torch.tensor([value], requires_grad=True)
    found = clamp_with_grad(x, 0.0, 1.0)
    assert float(found.detach()) == min(max(value, 0.0), 1.0)
    found.backward(torch.tensor([gradient]))
    assert float(x.grad) == (gradient if kept else 0.0)


# --- the loss


def plain_loss(seen, wanted, weight, stop):
    total = 0.0
    for a in seen.tolist():
        for b in wanted.tolist():
            norms = [math.sqrt(sum(v * v for v in x)) for x in (a, b)]
            chord = math.sqrt(
                sum((x / norms[0] - y / norms[1]) ** 2 for x, y in zip(a, b, strict=True))
            )
            distance = 2 * math.asin(min(1.0, chord / 2)) ** 2
            total += max(math.copysign(1, weight) * distance, stop)
    return abs(weight) * total / (len(seen) * len(wanted))


@pytest.mark.parametrize("weight", [1.0, 0.3, -1.0, -2.5])
@pytest.mark.parametrize("stop", [-math.inf, 1.2, -1.2])
def test_the_loss_is_that_of_a_plain_loop(weight, stop):
    seen = torch.randn(5, 7, generator=drawn_with(0), dtype=torch.float64)
    wanted = torch.randn(3, 7, generator=drawn_with(1), dtype=torch.float64)
    found = Target(wanted, weight, stop).loss(seen)
    assert float(found) == pytest.approx(plain_loss(seen, wanted, weight, stop), rel=1e-12)


def test_a_stop_hides_no_gradient():
    """As published: below the stop the value stands still, and the gradient does not."""
    seen = torch.randn(4, 6, generator=drawn_with(0)).requires_grad_()
    wanted = torch.randn(1, 6, generator=drawn_with(1))
    free, stopped = (Target(wanted, 1.0, stop).loss(seen) for stop in (-math.inf, 10.0))
    assert float(stopped.detach()) == pytest.approx(10.0)
    gradients = [torch.autograd.grad(loss, seen)[0] for loss in (free, stopped)]
    assert torch.equal(*gradients)


def test_a_weight_below_zero_turns_the_gradient_round():
    seen = torch.randn(4, 6, generator=drawn_with(0)).requires_grad_()
    wanted = torch.randn(1, 6, generator=drawn_with(1))
    towards, away = (
        torch.autograd.grad(Target(wanted, w).loss(seen), seen)[0] for w in (2.0, -2.0)
    )
    assert torch.allclose(towards, -away)


# --- prompts


@pytest.mark.parametrize(
    ("prompt", "found"),
    [
        ("a mug", [Phrase("a mug")]),
        ("a mug:0.5", [Phrase("a mug", 0.5)]),
        ("a mug:2:-inf | a photo : -1", [Phrase("a mug", 2.0), Phrase("a photo", -1.0)]),
        ("a mug:1:0.6", [Phrase("a mug", 1.0, 0.6)]),
        ("note: a mug", [Phrase("note: a mug")]),
        ("note: a mug:.5", [Phrase("note: a mug", 0.5)]),
    ],
)
def test_a_prompt_is_read_as_texts_with_weights_and_stops(prompt, found):
    assert phrases(prompt) == found


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("a mug |", "must be non-empty"),
        (" ", "must be non-empty"),
        ("a mug:0", "must be finite and not 0, got 0.0"),
        ("a mug:-inf", "must be finite and not 0"),
    ],
)
def test_a_prompt_that_says_nothing_is_refused(prompt, message):
    with pytest.raises(PromptError, match=message):
        phrases(prompt)


def test_pictures_take_their_share_of_the_weights(vq, guide):
    constants = config().constants(vq.resolution)
    cutouts = vqgan_clip.cutouts_of(constants, guide)
    pictures = torch.rand(4, 3, 64, 64, generator=drawn_with(0)) * 2 - 1

    def weights(**options):
        given = {"concepts": (), "pictures": None, "image_share": 0.5} | options
        found = vqgan_clip._targets(
            guide, "a mug:3 | a cat:-1", cutouts=cutouts, generator=drawn_with(0), **given
        )
        return [target.weight for target in found]

    assert weights() == [3.0, -1.0]  # as they are said
    assert weights(pictures=pictures) == [1.5, -0.5, 0.5, 0.5, 0.5, 0.5]
    assert weights(pictures=pictures[:1], image_share=0.25) == [2.25, -0.75, 1.0]


# --- cutouts and constants


def test_cutouts_are_smaller_than_a_picture_that_the_guide_sees_whole(vq, guide):
    seen = dataclasses.replace(VQGAN_CLIP["crowson"], resolution=guide.size)
    assert vqgan_clip.cutouts_of(seen, guide).sides(24, 24) == (18, 24)
    larger = dataclasses.replace(seen, resolution=64)
    assert vqgan_clip.cutouts_of(larger, guide).sides(64, 64) == (24, 64)


def test_constants_are_the_presets_but_for_what_is_set(vq):
    whole = VQGANCLIPConfig(prompts=("a",)).constants(None)
    assert whole == VQGAN_CLIP["crowson"]
    small = VQGANCLIPConfig(prompts=("a",), preset="nerdyrodent").constants(64)
    assert (small.num_steps, small.num_cutouts, small.resolution) == (200, 16, 64)
    assert (small.learning_rate, small.start) == (0.1, "uniform")
    own = VQGANCLIPConfig(prompts=("a",), steps=7, resolution=32, learning_rate=0.2)
    found = own.constants(64)
    assert (found.num_steps, found.resolution, found.learning_rate) == (7, 32, 0.2)


# --- drawing


@pytest.mark.parametrize("preset", ["crowson", "nerdyrodent"])
def test_a_drawing_is_the_same_again_and_does_not_depend_on_its_neighbours(vq, guide, preset):
    # so fast that three steps part the prompts
    changes = {"preset": preset, "learning_rate": 1.0, "resolution": 32}
    own = config(seeds=("0", "1"), **changes)
    prompts = ["a photo of a mug", "a photo of a cat"]
    together = vqgan_clip.draw_all(vq, guide, own, prompts)
    for number, (prompt, seed) in enumerate([(p, s) for p in prompts for s in (0, 1)]):
        alone = draw(vq, guide, prompt, seed, changes=changes)
        assert torch.equal(together.pixels[number : number + 1], alone.pixels)
    assert not torch.equal(together.pixels[0], together.pixels[1])
    assert not torch.equal(together.pixels[0], together.pixels[2])
    assert together.pixels.shape == (4, 3, 32, 32)
    assert float(together.pixels.abs().max()) <= 1


NOUNS = ("mug", "cat", "house", "boat", "tree", "hat", "car", "dog")


@pytest.mark.parametrize(
    ("nouns", "steps"), [(NOUNS[:2], 30), pytest.param(NOUNS, 100, marks=pytest.mark.slow)]
)
def test_texts_are_drawn_nearer_than_noise(vq, guide, nouns, steps):
    """Of all prompts: the guide's loss falls."""
    many = {"steps": steps, "num_cutouts": 2, "resolution": 32}
    for seed, noun in enumerate(nouns):
        losses = draw(vq, guide, f"a photo of a {noun}", seed, changes=many).losses
        assert len(losses) == steps
        assert sum(losses[-10:]) < sum(losses[:10]), noun


def test_codes_stay_within_the_codebook(vq, guide):
    found = draw(vq, guide, changes={"learning_rate": 50.0})
    low, high = (edge[:, None, None] for edge in vq.codebook.aminmax(dim=0))
    assert bool((found.codes >= low).all())
    assert bool((found.codes <= high).all())
    at_edges = (found.codes == low) | (found.codes == high)
    assert at_edges.float().mean() > 0.5


def test_what_is_shown_is_made_of_rows(vq, guide):
    found = draw(vq, guide)
    rows = vq.nearest(found.codes)
    known = {tuple(row) for row in vq.codebook.tolist()}
    assert {tuple(cell) for cell in rows[0].flatten(1).T.tolist()} <= known
    with torch.no_grad():
        shown = vq.decode(rows).clamp(-1, 1)
    assert torch.allclose(found.pixels, shown, atol=1e-6)


@pytest.mark.parametrize("start", ["codebook", "uniform"])
def test_codes_start_as_the_preset_says(vq, start):
    constants = dataclasses.replace(VQGAN_CLIP["crowson"], resolution=64, start=start)
    z = vqgan_clip._start(vq, constants, None, drawn_with(3))
    assert z.shape == (1, 8, 8, 8)
    assert torch.equal(z, vqgan_clip._start(vq, constants, None, drawn_with(3)))
    if start == "codebook":
        assert torch.equal(vq.nearest(z), z)
    else:
        assert 0 <= float(z.min()) < 0.1
        assert 1.9 < float(z.max()) < 2


def test_a_picture_to_start_from_is_drawn_over_and_may_be_held(vq, guide):
    image = torch.rand(1, 3, 64, 64, generator=drawn_with(0)) * 2 - 1
    codes = vq.encode(image).to(torch.float32)
    low, high = (edge[:, None, None] for edge in vq.codebook.aminmax(dim=0))
    codes = codes.maximum(low).minimum(high)

    def moved(weight):
        more = {"steps": 8, "learning_rate": 0.02}
        found = draw(vq, guide, image=image, init_weight=weight, changes=more)
        return float((found.codes - codes).abs().mean())

    assert 0 < moved(1e4) < 0.8 * moved(0.0)
    assert moved(0.0) <= 8 * 0.03


def test_pictures_pull_too(vq, guide):
    pictures = torch.rand(2, 3, 64, 64, generator=drawn_with(0)) * 2 - 1
    bare, pulled = draw(vq, guide), draw(vq, guide, pictures=pictures)
    assert not torch.equal(bare.codes, pulled.codes)


def test_a_word_of_the_guides_space_is_drawn(vq, guide):
    word = Concept(placeholder_token="S*", rows={guide.tower: torch.ones(1, 16)})
    other = dataclasses.replace(word, rows={guide.tower: -torch.ones(1, 16)})
    found = [draw(vq, guide, "a photo of a S*", concepts=[own]) for own in (word, word, other)]
    assert torch.equal(found[0].codes, found[1].codes)
    assert not torch.equal(found[0].codes, found[2].codes)
    strange = Concept(placeholder_token="S*", rows={"t5xxl": torch.ones(1, 16)})
    with pytest.raises(PlaceholderError, match="must have embeddings for"):
        draw(vq, guide, "a photo of a S*", concepts=[strange])


def test_pictures_of_all_prompts_carry_what_made_them(vq, guide):
    word = Concept(placeholder_token="S*", rows={guide.tower: torch.ones(1, 16)})
    told = []
    found = vqgan_clip.draw_all(
        vq,
        guide,
        config(num_images_per_prompt=2),
        ["a photo of a mug", "a photo of a S*"],
        concepts=[word],
        on_step=lambda done, total: told.append((done, total)),
    )
    assert told == [(n, 12) for n in range(1, 13)]
    facts = found.metadata(3)
    assert facts["prompt"] == "a photo of a S*"
    assert facts["seed"] == "1"
    assert facts["method"] == "VQGAN-CLIP"
    assert facts["model"].startswith("VQ on the landed VAE of microworld-nano")
    assert facts["guide"] == guide.name
    assert facts["cutouts"] == "24 to 64 px"
    assert json.loads(facts["concepts"]) == {"S*": word.sha256()}
    assert facts["guide_loss"].count(" to ") == 1
    with pytest.raises(PromptError, match="must contain the placeholder 'S\\*'"):
        vqgan_clip.draw_all(vq, guide, config(), ["a photo of a mug"], concepts=[word])


def test_a_side_between_two_codes_is_refused(vq, guide):
    with pytest.raises(ConfigError, match=r"resolution must be a multiple of 8 px.*got 60"):
        draw(vq, guide, changes={"resolution": 60})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompts": ()}, "prompts must name a prompt, got none"),
        ({"image_share": 1.0}, r"image_share must be in \(0, 1\), got 1.0"),
        ({"image_share": 0.3}, "image_share 0.3 without pictures; pass --pictures"),
        ({"checkpoint_config": Path("model.yaml")}, "without --checkpoint; pass"),
        ({"steps": 0}, "steps must be 1 or more, got 0"),
        ({"num_cutouts": 0}, "num_cutouts must be 1 or more"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0"),
        ({"init_weight": -1.0}, "init_weight must be 0 or more"),
        ({"init_weight": math.nan}, "must be a finite number"),
    ],
)
def test_settings_out_of_range_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        config(**changes)
