"""Editing: what stays to the bit, what is drawn anew, and which edits are refused."""

from __future__ import annotations

import copy
import dataclasses
import math
import re
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

import png_texts
import tiny
from oneword.concepts.concept import Concept
from oneword.config.drawing import EditConfig, SamplingConfig
from oneword.config.model import ModelConfig
from oneword.errors import ConfigError, ModelError
from oneword.generation import blending, editing
from oneword.generation.blending import DECODER_TUNING, cells_of, grown, psnr, shrinking, thin
from oneword.generation.ddim_inversion import bipartite
from oneword.generation.editing import EditError, boxed, edit, ranked, read_picture, save_edits
from oneword.generation.generate import Drawing, generate
from oneword.images import from_uint8
from oneword.microworld.world import concepts
from oneword.microworld.world.drawn import concept_pictures
from oneword.models.loading import load_backbone
from oneword.prompts import PromptError
from oneword.training import draws


FEW = SamplingConfig(num_inference_steps=4)


@pytest.fixture(scope="module")
def nano():
    return load_backbone(ModelConfig(model="microworld-nano", device="cpu"))


@pytest.fixture(scope="module")
def picture(nano):
    drawn = concept_pictures(concepts.get("gold-mug"), num=1, size=nano.resolution)
    return from_uint8(drawn)


@pytest.fixture(scope="module")
def mask(picture):
    marks = torch.zeros_like(picture[:, :1])
    side = picture.shape[-1]
    marks[..., side // 4 : 3 * side // 4, side // 4 : 3 * side // 4] = 1
    return marks


def noisy(size=32, seed=3):
    return torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def square(size=32, start=8, stop=24):
    marks = torch.zeros(1, 1, size, size)
    marks[..., start:stop, start:stop] = 1
    return marks


# --- inside a mask


def test_pasted_backgrounds_are_the_pictures_own_to_the_bit(nano, picture, mask):
    found = edit(nano, picture, "a red cat", [1, 2], mask=mask, sampling=FEW)
    outside = (mask < 0.5).expand_as(picture)
    drawn = found.drawing.pixels
    for pixels in drawn:
        assert torch.equal(pixels[None][outside], picture[outside])
    inside = (mask > 0.5).expand_as(picture)
    assert (drawn[:1][inside] - picture[inside]).abs().mean() > 0.05
    assert not torch.equal(drawn[:1][inside], drawn[1:][inside])
    assert found.drawing.metadata(1)["background"] == "paste"


def test_what_is_more_white_than_black_is_drawn_anew(nano, picture, mask):
    drawn = [
        edit(nano, picture, "a cat", mask=grey * mask, strength=0.5, sampling=FEW).drawing.pixels
        for grey in (1.0, 0.6)
    ]
    assert torch.equal(*drawn)
    with pytest.warns(UserWarning, match="The mask is empty"):
        edit(nano, picture, "a cat", mask=0.4 * mask, sampling=FEW)


def test_an_empty_mask_returns_the_picture_with_a_warning(nano, picture, mask):
    with pytest.warns(UserWarning, match="The mask is empty, so the picture comes back"):
        found = edit(nano, picture, "a red cat", [1, 2], mask=0 * mask, sampling=FEW)
    assert torch.equal(found.drawing.pixels, picture.expand(2, -1, -1, -1))


@pytest.mark.parametrize("background", get_args(blending.Background))
def test_a_full_mask_is_plain_generation(nano, picture, mask, background):
    plain = generate(nano, ["a red cat"], [1, 2], sampling=FEW)
    found = edit(
        nano, picture, "a red cat", [1, 2],
        mask=mask * 0 + 1, background=background, sampling=FEW,
    )  # fmt: skip
    assert torch.equal(found.drawing.pixels, plain.pixels)


def test_blending_leaves_outside_what_the_autoencoder_gives_back(nano, picture, mask):
    found = edit(nano, picture, "a red cat", mask=mask, background="blend", sampling=FEW)
    trip = nano.decode_latents(nano.encode_image(picture).mean)
    pixels, inside = found.drawing.pixels, mask > 0.5
    assert torch.equal(pixels[~inside.expand_as(pixels)], trip[~inside.expand_as(trip)])
    assert psnr(pixels, picture, inside) < psnr(trip, picture, inside) - 3


def test_a_tuned_decoder_gives_more_of_the_background_back(nano, picture, mask):
    """The small model's decoder; the large one's reaches 35 dB (``tests/world``, slow)."""
    before = copy.deepcopy(nano.autoencoder.vae.state_dict())
    latents = nano.encode_image(picture).mean
    edited = nano.decode_latents(latents + 0.5)
    marked, own = mask > 0.5, DECODER_TUNING["microworld"]
    tuned, untuned = (
        blending.preserved(nano, latents, edited, picture, marked, replace(own, steps=n))
        for n in (20, 0)
    )
    assert psnr(tuned, picture, ~marked) > psnr(untuned, picture, ~marked) + 1
    assert all(torch.equal(v, before[k]) for k, v in nano.autoencoder.vae.state_dict().items())
    assert not any(p.requires_grad for p in nano.autoencoder.vae.parameters())


def test_psnr_is_of_a_range_of_two_where_it_is_marked():
    """Of values in [-1, 1]: 10 log10(2^2 / error^2)."""
    picture, marked = torch.zeros(1, 3, 4, 4), torch.zeros(1, 1, 4, 4, dtype=torch.bool)
    marked[..., :2] = True
    found = picture + 0.1 * marked + 0.5 * ~marked
    assert psnr(found, picture, marked) == pytest.approx(10 * math.log10(4 / 0.01))
    assert psnr(found, picture, ~marked) == pytest.approx(10 * math.log10(4 / 0.25))
    assert psnr(picture, picture, marked) == pytest.approx(10 * math.log10(4e12))


@pytest.mark.parametrize("background", ["paste", "blend"])
def test_a_picture_that_is_not_square_is_edited_where_it_is_marked(tiny_sd, background):
    picture, marks = noisy()[..., :16], square()[..., :16]
    sampling = replace(FEW, height=32, width=16)
    found = edit(
        tiny_sd, picture, "a cat", mask=marks, background=background, sampling=sampling
    ).drawing.pixels  # fmt: skip
    assert found.shape == picture.shape
    rest = picture if background == "paste" else tiny_sd.decode_latents(
        tiny_sd.encode_image(picture).mean
    )  # fmt: skip
    outside = (marks < 0.5).expand_as(picture)
    assert torch.allclose(found[outside], rest[outside], atol=1e-6)
    assert (found - rest)[~outside].abs().mean() > 0.05


def test_tuning_ends_where_the_goal_is_reached(nano, picture, mask):
    latents = nano.encode_image(picture).mean
    decoded = nano.decode_latents(latents)
    found = blending.preserved(nano, latents, decoded, decoded, mask > 0.5)
    assert psnr(found, decoded, mask < 0.5) > 60  # no step was taken


def test_a_decoder_is_tuned_by_the_published_steps(tiny_sd):
    """75 steps of Adam at 1e-4, the background counting a hundredfold, and no sooner end."""
    picture, marked = noisy(), square() > 0.5
    latents = tiny_sd.encode_image(picture).mean + 0.3
    edited = tiny_sd.decode_latents(latents)
    found = blending.preserved(tiny_sd, latents, edited, picture, marked)
    vae = copy.deepcopy(tiny_sd.pipeline.vae)
    scale = vae.config.scaling_factor
    optimizer = torch.optim.Adam(vae.decoder.parameters(), lr=1e-4)
    vae.decoder.requires_grad_(True)
    inside = marked.float()
    for _ in range(75):
        decoded = vae.decode(latents / scale).sample
        loss = F.mse_loss(decoded * inside, edited * inside)
        loss = loss + 100 * F.mse_loss(decoded * (1 - inside), picture * (1 - inside))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    expected = vae.decode(latents / scale).sample.detach().clamp(-1, 1)
    assert torch.allclose(found, expected, atol=1e-5)
    shown = edit(
        tiny_sd, picture, "a cat", mask=square(), background="optimize", sampling=FEW,
    ).drawing.pixels  # fmt: skip
    assert shown.shape == picture.shape


def guided(backbone, x, t, scale):
    """Guided prediction for "a cat"."""
    with torch.no_grad():
        without, with_text = (
            backbone.predict(x, t[None], backbone.encode_prompt([text])) for text in ("", "a cat")
        )
    return without + scale * (with_text - without)


def fresh(x0, seed, step):
    drawn = torch.randn(x0.shape[1:], generator=draws.generator(seed, blending._STREAM, step))
    return drawn[None]


def test_blending_is_the_loop_written_out(tiny_sd):
    """DDIM with guidance by hand; outside, the picture under fresh noise before each step."""
    picture, mask, steps = noisy(), square(), 3
    found = edit(
        tiny_sd, picture, "a cat", [5], mask=mask, mask_growth=0, background="blend",
        sampling=SamplingConfig(num_inference_steps=steps, guidance_scale=3.0),
    )  # fmt: skip
    x0 = tiny_sd.encode_image(picture).mean
    x = torch.randn(x0.shape[1:], generator=torch.Generator().manual_seed(5))[None]
    cells = F.interpolate(mask, x0.shape[-2:], mode="nearest-exact") > 0.5
    scheduler = copy.deepcopy(tiny_sd.pipeline.scheduler)
    scheduler.set_timesteps(steps)
    for step, t in enumerate(scheduler.timesteps):
        noised = tiny_sd.add_noise(x0, fresh(x0, 5, step), t[None])
        x = torch.where(cells, x, noised)
        x = scheduler.step(guided(tiny_sd, x, t, 3.0), t, x).prev_sample
    drawn, trip = (tiny_sd.decode_latents(z) for z in (torch.where(cells, x, x0), x0))
    shown = blending.feathered(mask > 0.5, tiny_sd.autoencoder.factor)
    expected = shown * drawn + (1 - shown) * trip
    assert torch.allclose(found.drawing.pixels, expected, atol=1e-4)


@pytest.mark.parametrize("share", [0.3, 0.5, 1.0])
def test_the_tail_blends_pixels_after_each_step(tiny_sd, share):
    """As many last steps as the share says; what DDIM expects is its own, not the line's."""
    picture, mask, steps = noisy(), square(), 6
    found = edit(
        tiny_sd, picture, "a cat", [5], mask=mask, mask_growth=0, pixel_blending=share,
        sampling=SamplingConfig(num_inference_steps=steps, guidance_scale=3.0),
    )  # fmt: skip
    x0 = tiny_sd.encode_image(picture).mean
    x = torch.randn(x0.shape[1:], generator=torch.Generator().manual_seed(5))[None]
    cells = F.interpolate(mask, x0.shape[-2:], mode="nearest-exact") > 0.5
    scheduler = copy.deepcopy(tiny_sd.pipeline.scheduler)
    scheduler.set_timesteps(steps)
    cut, blends = int(steps * (1 - share)), 0
    for step, t in enumerate(scheduler.timesteps):
        if step < cut:
            x = torch.where(cells, x, tiny_sd.add_noise(x0, fresh(x0, 5, step), t[None]))
        done = scheduler.step(guided(tiny_sd, x, t, 3.0), t, x)
        x = done.prev_sample
        if step >= cut:
            blends += 1
            pixels = torch.where(
                mask > 0.5, tiny_sd.decode_latents(done.pred_original_sample), picture
            )
            x = tiny_sd.encode_image(pixels).mean
            if step + 1 < steps:
                after = scheduler.timesteps[step + 1]
                x = tiny_sd.add_noise(x, fresh(x0, 5, step + 1), after[None])
    assert blends == steps - cut > 0
    expected = torch.where(mask > 0.5, tiny_sd.decode_latents(x), picture)
    assert torch.allclose(found.drawing.pixels, expected, atol=5e-4)
    assert found.drawing.metadata(0)["pixel_blending"] == str(share)


def test_noise_outside_is_fresh_at_each_step_and_a_candidates_own(tiny_sd):
    x0 = tiny_sd.encode_image(noisy()).mean

    def noises(seeds):
        blend = blending.Blend(
            tiny_sd, noisy(), x0, torch.zeros(1, 1, 32, 32) > 0, seeds, steps=9, growth=0
        )
        start = torch.zeros(len(seeds), *x0.shape[1:])
        times = torch.full((len(seeds),), 500)
        signal, noise = tiny_sd.noise._signal_and_noise(times)
        return [(blend(start, 500) - signal * x0) / noise for _ in range(9)]

    both, alone = noises([4, 7]), noises([7])
    for pair, one in zip(both, alone, strict=True):
        assert torch.allclose(pair[1], one[0], atol=1e-5)  # whoever shares the batch
    starts = [torch.randn(x0.shape[1:], generator=torch.Generator().manual_seed(7))]
    drawn = torch.stack([*(one[0].flatten() for one in alone), starts[0].flatten()])
    unlike = torch.corrcoef(drawn) - torch.eye(len(drawn))
    assert unlike.abs().max() < 0.3  # of 1,024 numbers each
    assert both[0][0].sub(both[0][1]).abs().mean() > 0.5


def test_drawing_over_inside_a_mask_may_blend_pixels_too(tiny_sd):
    found = edit(
        tiny_sd, noisy(), "a cat", [5], mask=square(), strength=0.7, pixel_blending=1.0,
        sampling=SamplingConfig(num_inference_steps=6),
    )  # fmt: skip
    outside = (square() < 0.5).expand(1, 3, -1, -1)
    assert torch.equal(found.drawing.pixels[outside], noisy()[outside])
    last, none = (
        edit(
            tiny_sd, noisy(), "a cat", [5], mask=square(), strength=0.5, pixel_blending=share,
            sampling=SamplingConfig(num_inference_steps=6),
        ).drawing.pixels
        for share in (0.33, 0.0)
    )  # fmt: skip
    assert not torch.allclose(last, none, atol=1e-4)  # the last of three steps


# --- Poisson


def test_a_cloned_edit_solves_the_poisson_equation():
    """Against a dense system written pixel by pixel; the mask reaches a border of the picture."""
    size = 9
    picture, drawn = noisy(size, 1), noisy(size, 2).repeat(2, 1, 1, 1)
    drawn[1] = noisy(size, 3)[0]
    picture, drawn = 0.4 * picture, 0.4 * drawn  # inside the range, so that nothing is cut
    marked = torch.zeros(1, 1, size, size, dtype=torch.bool)
    marked[..., 2:6, 4:] = True
    marked[..., 6, 4] = True
    found = blending.cloned(drawn, picture, marked)
    places = marked[0, 0].nonzero().tolist()
    for candidate in range(2):
        for channel in range(3):
            g, f = drawn[candidate, channel].double(), picture[0, channel].double()
            matrix = torch.zeros(len(places), len(places), dtype=torch.float64)
            right = torch.zeros(len(places), dtype=torch.float64)
            for i, (row, column) in enumerate(places):
                for down, across in ((0, 1), (0, -1), (1, 0), (-1, 0)):
                    near = [row + down, column + across]
                    if not all(0 <= at < size for at in near):
                        continue
                    matrix[i, i] += 1
                    right[i] += g[row, column] - g[near[0], near[1]]
                    if near in places:
                        matrix[i, places.index(near)] -= 1
                    else:
                        right[i] += f[near[0], near[1]]
            solved = torch.linalg.solve(matrix, right)
            own = found[candidate, channel].double()
            assert torch.allclose(own[marked[0, 0]], solved.clamp(-1, 1), atol=1e-4)
    outside = ~marked.expand_as(picture)
    assert all(torch.equal(one[None][outside], picture[outside]) for one in found)


def test_a_cloned_edit_loses_what_its_colours_differ_by(nano, picture, mask):
    brighter = (0.5 * picture + 0.3).clamp(-1, 1)
    found = blending.cloned(brighter, 0.5 * picture, mask > 0.5)
    assert torch.allclose(found, 0.5 * picture, atol=1e-3)  # the same edges, so the same picture
    shown = edit(
        nano, picture, "a red cat", [1], mask=mask, background="poisson", sampling=FEW
    ).drawing
    outside = (mask < 0.5).expand_as(picture)
    assert torch.equal(shown.pixels[outside], picture[outside])
    assert shown.metadata(0)["background"] == "poisson"


def test_candidates_do_not_depend_on_the_batch_and_words_are_what_they_stand_for(tiny_sd):
    rows = {"clip": tiny_sd.vocabularies["clip"].rows_of("red cat")}
    word = Concept(placeholder_token="S*", rows=rows)
    options = {"mask": square(), "sampling": FEW}
    told = []
    whole = edit(tiny_sd, noisy(), "a S*", [1, 2, 3], concepts=[word], **options,
                 on_picture=lambda *d: told.append(d))  # fmt: skip
    single = edit(tiny_sd, noisy(), "a red cat", [1, 2, 3], batch_size=1, **options)
    assert torch.allclose(whole.drawing.pixels, single.drawing.pixels, atol=1e-4)
    assert told == [(0.75, 3), (1.5, 3), (2.25, 3), (3.0, 3)]


def test_an_edit_fades_in_from_the_masks_edge():
    marked = torch.zeros(1, 1, 24, 24, dtype=torch.bool)
    marked[..., 4:20, 8:] = True  # up to the right border
    shown = blending.feathered(marked, 3)[0, 0]
    assert (shown[~marked[0, 0]] == 0).all()
    row = shown[
        12
    ]  # from the edge inwards: what share of seven pixels is marked, the least being 0
    least = (4 / 7) ** 2  # at a corner
    expected = [(share / 7 - least) / (1 - least) for share in (4, 5, 6, 7)]
    assert row[8:12].tolist() == pytest.approx(expected, abs=1e-5)
    assert (row[11:] == 1).all()  # a border of the picture is no edge
    line = torch.zeros(1, 1, 24, 24, dtype=torch.bool)
    line[..., 12, :] = True
    assert torch.equal(blending.feathered(line, 3), line.float())


# --- masks in cells


@pytest.mark.parametrize("side", [8, 16])
def test_cells_change_whose_nearest_pixel_is_marked(side):
    """As Pillow's nearest neighbour shrinks a mask."""
    marks = Image.fromarray(np.random.default_rng(side).random((64, 64)) > 0.5)
    marked = torch.from_numpy(np.asarray(marks).copy())[None, None]
    expected = np.asarray(marks.resize((side, side), Image.Resampling.NEAREST))
    assert np.array_equal(cells_of(marked, (side, side))[0, 0].numpy(), expected)


def test_nothing_of_a_thin_mask_is_lost():
    marked = torch.zeros(1, 1, 32, 32, dtype=torch.bool)
    marked[..., 15, 3:29] = True  # a hair line
    cells = cells_of(marked, (8, 8))
    assert cells[0, 0].nonzero().tolist() == [[3, column] for column in range(8)]
    assert thin(cells) == 2  # one wide; two more on each side make five
    assert thin(grown(cells, 2)) == 0
    dot = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    dot[..., 4, 4] = True
    assert thin(dot) == 2


def test_the_mask_shrinks_to_itself_cell_by_cell():
    cells = torch.zeros(1, 1, 9, 9, dtype=torch.bool)
    cells[..., 4, 4] = True
    sides = [int(m.sum()) ** 0.5 for m in shrinking(cells, 3, 50)]
    # the authors' code: 50 // 4 + 1 steps of each width
    assert sides == [7] * 13 + [5] * 13 + [3] * 13 + [1] * 11 + [1]
    assert all(torch.equal(m, cells) for m in shrinking(cells, 0, 6))
    assert torch.equal(shrinking(cells, 3, 2)[-1], cells)


def test_growth_changes_the_first_steps_only_inside_the_result(tiny_sd):
    options = {"mask": square(), "sampling": FEW, "background": "blend"}
    plain, wide = (
        edit(tiny_sd, noisy(), "a cat", mask_growth=g, **options).drawing.pixels for g in (0, 3)
    )
    assert not torch.allclose(plain, wide, atol=1e-3)


# --- without a mask


def test_strength_is_how_much_is_drawn_over(nano, picture):
    trip = nano.decode_latents(nano.encode_image(picture).mean)
    sampling = SamplingConfig(num_inference_steps=10)
    weak, strong = (
        edit(nano, picture, "a red cat", [1], strength=s, sampling=sampling).drawing
        for s in (0.3, 0.9)
    )
    assert (weak.pixels - trip).square().mean() < 0.5 * (strong.pixels - trip).square().mean()
    direct = nano.draw(["a red cat"], [1], sampling, image=picture, strength=0.3)
    assert torch.equal(weak.pixels, direct)
    assert weak.metadata(0)["strength"] == "0.3"


def test_inverting_is_the_bipartite_way(tiny_sd):
    sampling = SamplingConfig(num_inference_steps=5, guidance_scale=2.0)
    found = edit(tiny_sd, noisy(), "a dog", invert="a cat", sampling=sampling)
    swept = bipartite(tiny_sd, noisy(), ["a dog"], [2.0], invert="a cat", num_inference_steps=5)
    assert torch.equal(found.drawing.pixels, swept[2.0])
    assert found.drawing.metadata(0)["invert"] == "a cat"


# --- choosing


class Warm:
    """Finds pictures near a text by their red."""

    def images(self, pixels):
        red = pixels[:, 0].mean((1, 2))
        return torch.stack([red, (1 - red.square()).sqrt()], 1)

    def texts(self, texts):
        self.asked = list(texts)
        return torch.tensor([[1.0, 0.0]] * len(texts))


NEEDED = ("negative_prompt", "num_inference_steps", "guidance_scale", "model")


def drawn_of(reds, **fields):
    pixels = torch.zeros(len(reds), 3, 8, 8)
    pixels[:, 0, 2:6, 2:6] = torch.tensor(reds)[:, None, None]
    drawing = Drawing(
        pixels=pixels, prompts=("a S* on the moon",) * len(reds), seeds=tuple(range(len(reds))),
        settings=dict.fromkeys(NEEDED, "1"),
    )  # fmt: skip
    return editing.Edits(picture=pixels[:1], mask=square(8, 2, 6), drawing=drawing, **fields)


def test_candidates_are_ranked_by_what_is_in_the_mask():
    judge = Warm()
    edits = drawn_of([0.1, 0.9, -0.5, 0.4])
    rows = {"clip": torch.zeros(1, 4)}
    unknown = Concept(placeholder_token="S*", rows=rows)
    found = ranked(edits, judge, concepts=[unknown], keep=3)
    assert found.drawing.seeds == (1, 3, 0)
    assert torch.equal(found.drawing.pixels, edits.drawing.pixels[[1, 3, 0]])
    part = boxed(edits.drawing.pixels, edits.mask)
    assert part.shape == (4, 3, 5, 5)
    means = part[:, 0].mean((1, 2))
    assert torch.allclose(torch.tensor(found.scores), means[[1, 3, 0]])
    assert judge.asked == ["a on the moon"] * 4  # CLIP does not know the word
    word = Concept(placeholder_token="S*", rows=rows, provenance={"initializer_token": "mug"})
    ranked(edits, judge, concepts=[word])
    assert judge.asked == ["a mug on the moon"] * 4


def test_no_more_are_kept_than_there_are():
    with pytest.raises(EditError, match=r"keep must be in 1\.\.2, the number of candidates, got 3"):
        ranked(drawn_of([0.1, 0.2]), Warm(), keep=3)


# --- what is refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "Cannot edit without --mask, --strength below 1 or --invert"),
        ({"strength": 0.0}, r"strength must be in \(0, 1\], got 0.0"),
        ({"invert": "a cat", "strength": 0.5}, "an inverted picture is redrawn as a whole"),
        ({"invert": "a cat", "mask": square()}, "an inverted picture is redrawn as a whole"),
    ],
)
def test_an_edit_must_have_one_way(tiny_sd, tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        edit(tiny_sd, noisy(), "a cat", sampling=FEW, **options)
    given = options | ({"mask": tmp_path / "m.png"} if "mask" in options else {})
    with pytest.raises(ConfigError, match=message):
        EditConfig(picture=tmp_path / "p.png", prompt="a cat", **given)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompt": " "}, "prompt must say what the result shows, got an empty one"),
        ({"mask_growth": -1}, "mask_growth must be 0 or more, got -1"),
        ({"num_images_per_prompt": 0}, "num_images_per_prompt must be 1 or more, got 0"),
        ({"pixel_blending": -0.1}, r"pixel_blending must be in \[0, 1\], got -0.1"),
        ({"pixel_blending": 0.5}, "Cannot use pixel_blending 0.5 without a mask"),
        ({"keep": 5}, r"keep must be in 1\.\.4, the number of candidates, got 5"),
    ],
)
def test_settings_are_checked(tmp_path, options, message):
    given = {"picture": tmp_path / "p.png", "prompt": "a cat", "strength": 0.5} | options
    with pytest.raises(ConfigError, match=message):
        EditConfig(**given)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mask": square(16)}, r"The mask must be 32 x 32 like its picture, got the shape"),
        ({"mask": square(), "mask_growth": -2}, "mask_growth must be 0 or more, got -2"),
        ({"mask": square(), "pixel_blending": 1.5}, r"pixel_blending must be in \[0, 1\], got 1.5"),
        ({"strength": 0.1}, "strength times the number of steps must be 1 or more, got 0.1 of 4"),
        ({"strength": 0.5, "seeds": []}, "and at least one seed, got 1 pictures and 0 seeds"),
    ],
)
def test_edits_that_do_not_fit_are_refused(tiny_sd, options, message):
    with pytest.raises(EditError, match=message):
        edit(tiny_sd, noisy(), "a cat", sampling=FEW, **options)


def test_an_unknown_background_is_refused(tiny_sd):
    with pytest.raises(EditError, match="paste, optimize, poisson, blend, got 'fog'"):
        editing._check_background(tiny_sd, "fog", None)


def test_words_must_be_used_and_loaded(tiny_sd):
    rows = {"clip": tiny_sd.vocabularies["clip"].rows_of("cat")}
    word = Concept(placeholder_token="S*", rows=rows)
    with pytest.raises(PromptError, match=r"must contain the placeholder 'S\*'"):
        edit(tiny_sd, noisy(), "a cat", strength=0.5, concepts=[word], sampling=FEW)
    away = dataclasses.replace(FEW, negative_prompt="S*")
    found = edit(tiny_sd, noisy(), "a cat", strength=0.5, concepts=[word], sampling=away)
    assert found.drawing.settings["negative_prompt"] == "S*"
    with pytest.raises(PromptError, match=r"only loaded words, got 'S\*'"):
        edit(tiny_sd, noisy(), "a cat", strength=0.5, sampling=away)
    with pytest.warns(UserWarning, match="'<b>' is not a loaded word"):
        edit(tiny_sd, noisy(), "a <b>", strength=0.5, sampling=FEW)


def test_a_family_without_the_pipeline_is_refused(tmp_path):
    folder = tiny.save(tiny.make("ldm"), tmp_path / "ldm")
    ldm = load_backbone(ModelConfig(model=str(folder), device="cpu"))
    size = SamplingConfig(num_inference_steps=2)
    with pytest.raises(ModelError, match="can draw only from noise, not from a picture"):
        edit(ldm, noisy(64), "a cat", strength=0.5, sampling=size)
    found = edit(ldm, noisy(64), "a cat", mask=square(64), sampling=size)  # a plain loop will do
    outside = (square(64) < 0.5).expand(1, 3, -1, -1)
    assert torch.equal(found.drawing.pixels[outside], noisy(64)[outside])


def test_only_a_plain_decoder_is_tuned(tmp_path):
    folder = tiny.save(tiny.make("sana"), tmp_path / "sana")
    sana = load_backbone(ModelConfig(model=str(folder), device="cpu"))
    with pytest.raises(
        EditError, match=r"because this needs a plain autoencoder \(AutoencoderKL\)"
    ):
        edit(sana, noisy(64), "a cat", mask=square(64), background="optimize", sampling=FEW)


def test_pixels_are_blended_where_ddim_draws(tmp_path):
    folder = tiny.save(tiny.make("sana"), tmp_path / "sana")
    sana = load_backbone(ModelConfig(model=str(folder), device="cpu"))
    with pytest.raises(EditError, match="Cannot blend as pixels with"):
        edit(sana, noisy(64), "a cat", mask=square(64), pixel_blending=0.2, sampling=FEW)


# --- files


def png(path, width, height, seed=0):
    noise = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return path


def test_a_picture_is_fitted_and_its_mask_along(tiny_sd, tmp_path):
    side = tiny_sd.resolution
    path = png(tmp_path / "p.png", 4 * side, 2 * side)
    marks = Image.new("L", (8 * side, 4 * side))
    marks.paste(255, (0, 0, 4 * side, 4 * side))  # the left half, at twice the size
    marks.save(tmp_path / "m.png")
    pixels, mask = read_picture(path, tiny_sd, mask=tmp_path / "m.png")
    assert pixels.shape == (1, 3, side, 2 * side)
    assert mask.shape == (1, 1, side, 2 * side)
    assert set(mask.unique().tolist()) == {0.0, 1.0}  # nearest: no greys
    assert bool((mask[..., :side] == 1).all())
    assert bool((mask[..., side:] == 0).all())
    given, none = read_picture(path, tiny_sd, SamplingConfig(height=side, width=side))
    assert given.shape == (1, 3, side, side)
    assert none is None


def test_a_mask_of_another_aspect_is_refused(tiny_sd, tmp_path):
    path = png(tmp_path / "p.png", 80, 40)
    with pytest.raises(
        EditError, match=r"its picture's aspect ratio, got m.png of 40 x 40 for p.png of"
    ):
        read_picture(path, tiny_sd, mask=png(tmp_path / "m.png", 40, 40))


def test_a_picture_smaller_than_the_models_is_refused(tiny_sd, tmp_path):
    side = tiny_sd.resolution
    path = png(tmp_path / "p.png", side - 1, side - 1)
    message = f"at least as large as what the model draws, {side} x {side} px, got p.png of"
    with pytest.raises(EditError, match=re.escape(message)):
        read_picture(path, tiny_sd)


def test_files_carry_their_settings_and_a_sheet_stands_beside(tmp_path):
    files = save_edits(drawn_of([0.1, 0.9], scores=(0.25, 0.5)), tmp_path)
    assert [f.name for f in files] == [
        "000-a-s-on-the-moon-seed0.png", "001-a-s-on-the-moon-seed1.png", "contact-sheet.png",
    ]  # fmt: skip
    assert png_texts.read(files[1])["score"] == "0.5000"
    assert Image.open(files[2]).width > 3 * 128  # picture, mask, edits


@pytest.mark.parametrize(
    ("rows", "columns", "cut"),
    [
        ((10, 20), (12, 18), ((9, 21), (9, 21))),  # 10 high, and a tenth of it on each side
        ((0, 10), (30, 40), ((0, 12), (28, 40))),  # at two borders
        ((0, 32), (4, 8), ((0, 32), (0, 38))),  # higher than the picture is
    ],
)
def test_candidates_are_ranked_by_the_square_around_the_mask(rows, columns, cut):
    mask = torch.zeros(1, 1, 32, 40)
    mask[..., slice(*rows), slice(*columns)] = 0.6
    numbers = torch.arange(32 * 40.0).reshape(1, 1, 32, 40).expand(2, 3, -1, -1)
    found = boxed(numbers, mask)
    assert torch.equal(found, numbers[..., slice(*cut[0]), slice(*cut[1])])
