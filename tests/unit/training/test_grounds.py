"""Pictures with transparency on other grounds than white."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from oneword.config.inversion import InversionConfig
from oneword.images import Frame, to_images, to_pixels
from oneword.training import grounds
from oneword.training.draws import evaluation_draws, step_draws
from oneword.training.grounds import NUM_GROUNDS, check_grounds, grounds_for, on_grounds, set_on
from oneword.training.job import Job, JobError


SIZE = 32


def cut_out(seed):
    """A picture with soft edges, as Pillow has it."""
    noise = np.random.default_rng(seed).integers(0, 256, (SIZE, SIZE, 4), dtype=np.uint8)
    noise[:8, :, 3], noise[24:, :, 3] = 0, 255
    return Image.fromarray(noise, "RGBA")


def job(*, clear=(True, False), **settings):
    white = Image.new("RGBA", (SIZE, SIZE), "white")
    images = [cut_out(seed) for seed in range(len(clear))]
    alphas = [image.getchannel("A") for image in images]
    solid = [
        torch.from_numpy(np.asarray(alpha)[None] / np.float32(255))
        if own
        else torch.ones(1, SIZE, SIZE)
        for alpha, own in zip(alphas, clear, strict=True)
    ]
    shown = [
        Image.alpha_composite(white, image) if own else image.convert("RGB")
        for image, own in zip(images, clear, strict=True)
    ]
    config = InversionConfig(initializer_token="cat", **settings)
    return Job(
        name="a",
        pictures=torch.cat(
            [to_pixels(image.convert("RGB"), Frame((SIZE, SIZE))) for image in shown]
        ),
        config=config,
        opacity=torch.stack(solid) if any(clear) else None,
    )


def resolved(task, family="stable_diffusion"):
    return task.config.resolved(family)


def test_a_picture_is_set_on_a_ground_as_pillow_does_it():
    task, ground = job(), grounds_for(resolved(job()), "stable_diffusion", SIZE)[3]
    found = set_on(task.pictures[:1], task.opacity[:1], ground)
    (below,) = to_images(ground[None])
    expected = Image.alpha_composite(below.convert("RGBA"), cut_out(0))
    seen = np.asarray(to_images(found)[0], dtype=int)
    assert np.abs(seen - np.asarray(expected.convert("RGB"), dtype=int)).max() <= 2  # of 255


def test_each_picture_has_its_grounds_and_a_solid_one_only_itself():
    task = job(random_flip=True)
    config = resolved(task)
    shown, places = on_grounds(task, config, "stable_diffusion")
    assert places.shape == (NUM_GROUNDS, 2, 2)
    assert len(shown) == 2 + 2 * NUM_GROUNDS == len(places.unique())
    own = grounds_for(config, "stable_diffusion", SIZE)
    for number in range(NUM_GROUNDS):
        plain, mirrored = shown[places[number, :, 0]]
        assert torch.equal(plain, set_on(task.pictures[:1], task.opacity[:1], own[2 * number])[0])
        other = set_on(task.pictures[:1].flip(-1), task.opacity[:1].flip(-1), own[2 * number + 1])
        assert torch.equal(mirrored, other[0])
        assert torch.equal(shown[places[number, 0, 1]], task.pictures[1])
        assert torch.equal(shown[places[number, 1, 1]], task.pictures[1].flip(-1))


@pytest.mark.parametrize("random_flip", [True, False])
def test_without_transparency_or_without_grounds_pictures_stay_as_they_are(random_flip):
    for task in (job(clear=(False, False)), job(backgrounds="none")):
        config = dataclasses.replace(resolved(task), random_flip=random_flip)
        shown, places = on_grounds(task, config, "microworld")
        sides = 1 + random_flip
        assert places.tolist() == [[[0, 1], [2, 3]][:sides]]
        expected = torch.cat([task.pictures, task.pictures.flip(-1)][:sides])
        assert torch.equal(shown, expected)


def kinds(backgrounds, family, seed=0):
    """How many of the grounds are places of the world."""
    task = job(backgrounds=backgrounds, seed=seed)
    found = grounds_for(resolved(task, family), family, 128)
    shipped = grounds._shipped_places()
    return [any(torch.equal(one, place) for place in shipped) for one in found]


def test_auto_is_colours_and_on_the_embedded_model_places_as_well():
    assert sum(kinds("auto", "stable_diffusion")) == 0
    found = kinds("auto", "microworld")
    assert found == [False, False, True, True] * (NUM_GROUNDS // 2)
    assert all(kinds("world", "microworld"))
    assert not any(kinds("plain", "microworld"))


def test_grounds_are_those_of_the_seed_and_differ():
    first, again, other = (
        grounds_for(resolved(job(seed=seed)), "sdxl", SIZE) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    middles = first[:, :, SIZE // 2, SIZE // 2]
    assert torch.pdist(middles).min() > 0.02  # no two alike


def test_the_published_presets_keep_white():
    for preset in ("paper", "release"):
        assert resolved(job(preset=preset)).backgrounds == "none"
    assert resolved(job()).backgrounds == "auto"


def test_a_ground_is_drawn_beside_all_other_draws():
    plain, several = (
        step_draws(3, 7, 64, 2, (4, 2, 2), random_flip=True, num_grounds=count) for count in (1, 8)
    )
    for name in ("pictures", "flips", "sentences", "times", "posterior_noise", "noise"):
        assert torch.equal(getattr(plain, name), getattr(several, name))
    assert plain.grounds.unique().tolist() == [0]
    assert several.grounds.unique().tolist() == list(range(8))
    other = step_draws(3, 8, 64, 2, (4, 2, 2), random_flip=True, num_grounds=8)
    assert not torch.equal(several.grounds, other.grounds)
    fixed = evaluation_draws(3, 12, 2, (4, 2, 2), 4)
    pairs = list(zip(fixed.pictures.tolist(), fixed.grounds.tolist(), strict=True))
    assert sorted({*pairs}) == [(p, g) for p in range(2) for g in range(4)]


@pytest.mark.parametrize(
    ("asked", "family", "clear", "message"),
    [
        ("world", "sdxl", (True, True), "backgrounds 'world' with a model of the "),
        (
            "world",
            "microworld",
            (True, False),
            "1 of 2 pictures have no transparency .*; cut the thing",
        ),
        ("plain", "sdxl", (False, False), "backgrounds 'plain' because 2 of 2 pictures have no"),
    ],
)
def test_grounds_without_a_use_are_refused(asked, family, clear, message):
    task = job(clear=clear, backgrounds=asked)
    with pytest.raises(JobError, match=message):
        check_grounds(task, resolved(task, family), family)
    solid = dataclasses.replace(task, opacity=torch.ones(3, 1, SIZE, SIZE))
    with pytest.raises(JobError, match="opacity of each of its 2 pictures, got 3"):
        check_grounds(solid, resolved(task, "sdxl"), "sdxl")


def test_the_shipped_places_are_those_that_the_world_draws():
    pytest.importorskip("skia")
    from oneword.microworld.making.places_sheet import SHEET, places

    with Image.open(SHEET) as sheet:
        assert np.array_equal(np.asarray(sheet), places())
    assert len(grounds._shipped_places()) == 20
