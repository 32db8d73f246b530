"""Pictures of several sizes in one job, and jobs of several sizes in one batch."""

from __future__ import annotations

import copy
import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from oneword.cli.main import main
from oneword.config.inversion import InversionConfig
from oneword.config.model import ModelConfig
from oneword.config.runs import ComposeConfig, TrainConfig
from oneword.errors import ConfigError
from oneword.images import to_images
from oneword.models.loading import load_backbone
from oneword.runs.prepare import prepare
from oneword.runs.preview import preview_pictures
from oneword.runs.train import train
from oneword.training.batches import Batches
from oneword.training.grounds import grounds_for, set_on
from oneword.training.initializer import word_losses
from oneword.training.job import Job, JobError
from oneword.training.loop import invert, invert_many
from oneword.training.parts import captions_or_templates, squared_error
from oneword.training.samples import spread
from oneword.training.tuning import method


SIZES = [(32, 32), (16, 48), (32, 32), (48, 16)]


def pictures(sizes, seed=0):
    """In the upper left of white frames."""
    g = torch.Generator().manual_seed(seed)
    frame = [max(sides) for sides in zip(*sizes, strict=True)]
    found = torch.ones(len(sizes), 3, *frame)
    for one, (height, width) in zip(found, sizes, strict=True):
        one[:, :height, :width] = torch.rand(3, height, width, generator=g) * 2 - 1
    return found


def job(name="a", sizes=SIZES, **fields):
    settings = {
        "initializer_token": "cat", "max_train_steps": 6, "train_batch_size": 4,
        "evaluation_steps": 2, "num_evaluation_samples": 8, "learning_rate": 5e-3, "keep": "last",
        "seed": 0,
    }  # fmt: skip
    config = InversionConfig(**{"placeholder_token": f"<{name}>"} | settings | fields)
    several = len({*sizes}) > 1
    return Job(
        name=name,
        pictures=pictures(sizes),
        config=config,
        sizes=torch.tensor(sizes) if several else None,
    )


def batches_of(backbone, task):
    config = task.config.resolved(backbone.family)
    return Batches(backbone, task, config, prompts=captions_or_templates)


def rows(result):
    return result.concept.rows["clip"]


class Memory:
    """A checkpoint in memory."""

    steps = 1

    def __init__(self):
        self.saved = []

    def load(self):
        return self.saved[-1] if self.saved else None

    def save(self, state):
        self.saved.append(copy.deepcopy(state))


def test_the_samples_of_a_step_are_those_of_each_picture_in_its_own_size(tiny_sd):
    """By hand: the drawn pictures' own moments, noised with a part of the noise."""
    task = job(random_flip=True)
    batches = batches_of(tiny_sd, task)
    assert [b.latent_shape[1:] for b in batches.buckets] == [(16, 16), (8, 24), (24, 8)]
    seen = []
    for step in range(4):
        draws = batches.draws(step)
        assert draws.noise.shape[1:] == batches.latent_shape == (4, 24, 24)
        order = []
        for batch in batches.noised(draws, draws.times):
            s = batch.samples
            for i, place in enumerate(s.pictures.tolist()):
                (n,) = [
                    n for n in range(4)
                    if draws.pictures[n] == place and n not in order
                    and bool(draws.flips[n] == s.flips[i])
                ][:1]  # fmt: skip
                order.append(n)
                height, width = SIZES[place]
                own = task.pictures[place, None, :, :height, :width]
                own = own.flip(-1) if draws.flips[n] else own
                h, w = height // 2, width // 2
                moments = tiny_sd.encode_image(own)
                x0 = moments.sample(draws.posterior_noise[n, None, :, :h, :w])
                t = tiny_sd.sample_t(draws.times[n, None], (h, w))
                x_t = tiny_sd.add_noise(x0, draws.noise[n, None, :, :h, :w], t)
                assert torch.allclose(s.x_t[i], x_t[0], atol=1e-5)
                seen.append(place)
        assert sorted(order) == [0, 1, 2, 3]
    assert sorted(seen) == sorted([0, 1, 2, 3] * 4)


def test_random_crops_are_windows_of_each_picture_and_not_of_its_frame(tiny_sd):
    grey = torch.ones(len(SIZES), 3, 48, 48)
    for one, (height, width) in zip(grey, SIZES, strict=True):
        one[:, :height, :width] = 0
    task = dataclasses.replace(job(random_crops=5, random_flip=True), pictures=grey)
    batches = batches_of(tiny_sd, task)
    assert len(batches.buckets) == 3
    for bucket in batches.buckets:
        assert len(bucket.views) == 6
        assert all(not view.pictures.any() for view in bucket.views)  # white is 1
    result = invert(tiny_sd, task)
    assert result.status == "finished"
    memory = Memory()

    def stop(progress):
        if progress.step == 3:
            raise KeyboardInterrupt

    assert invert(tiny_sd, task, checkpoint=memory, on_step=stop).status == "interrupted"
    assert torch.equal(rows(invert(tiny_sd, task, checkpoint=memory)), rows(result))


def test_the_first_step_is_adamw_on_the_mean_over_all_samples(tiny_sd):
    """The gradient by hand, one sample after the other, then Adam's closed form of step one."""
    task = job(max_train_steps=1, random_flip=False)
    result = invert(tiny_sd, task)
    batches = batches_of(tiny_sd, task)
    draws = batches.draws(0)
    table = tiny_sd.vocabularies["clip"].weight
    (cat,) = tiny_sd.vocabularies["clip"].ids("cat")
    table.requires_grad_(True)
    try:
        losses = []
        for batch in batches.noised(draws, draws.times):
            s = batch.samples
            prompts = [sentence.replace("{}", "cat") for sentence in batch.sentences]
            made = tiny_sd.predict(s.x_t, s.t, tiny_sd.encode_prompt(prompts))
            losses += [*(made - batch.target).square().flatten(1).mean(1)]
        assert len(losses) == 4
        (gradient,) = torch.autograd.grad(torch.stack(losses).mean(), table)
    finally:
        table.requires_grad_(False)
    g = gradient[cat].double()
    expected = table[cat].detach().double() - 5e-3 * g / (g.abs() + 1e-8)
    assert torch.allclose(rows(result)[0].double(), expected, atol=1e-5)


def test_the_fixed_batch_is_scored_over_all_sizes(tiny_sd):
    task = job(max_train_steps=1)
    batches = batches_of(tiny_sd, task)
    losses = []
    with torch.no_grad():
        for batch in batches.fixed:
            prompts = [s.replace("{}", "cat") for s in batch.sentences]
            made = tiny_sd.predict(
                batch.samples.x_t, batch.samples.t, tiny_sd.encode_prompt(prompts)
            )
            losses += squared_error(made, batch.target, batch.samples).tolist()
    assert len(losses) == 8
    mean = sum(losses) / 8
    assert word_losses(batches, ["cat"], batches.fixed)["cat"] == pytest.approx(mean, rel=1e-5)
    assert invert(tiny_sd, task).losses[0][1] == pytest.approx(mean, rel=1e-5)
    few = spread(batches.fixed, 4)
    assert sum(len(batch.sentences) for batch in few) == 4
    assert len({*(tuple(b.target.shape) for b in few)}) > 1


@pytest.mark.parametrize(
    "micro", [*(pytest.param(n, marks=pytest.mark.slow) for n in (None, 1)), 2]
)
def test_words_of_many_sizes_share_a_batch_and_none_feels_the_others(tiny_sd, micro):
    tasks = [job("a"), job("b", [(64, 64)] * 2, seed=3), job("c", [(16, 48), (32, 32)], seed=4)]
    tasks += [job("d", [(32, 32)] * 3, seed=5)]
    alone = [rows(invert(tiny_sd, task)) for task in tasks]
    tiny_sd.micro_batch_size = micro
    try:
        together = invert_many(tiny_sd, tasks, slots=3)  # the fourth takes the first free slot
    finally:
        tiny_sd.micro_batch_size = None
    assert [result.status for result in together] == ["finished"] * 4
    for one, result in zip(alone, together, strict=True):
        assert torch.allclose(one, rows(result), atol=1e-6)


def test_a_resumed_run_of_many_sizes_has_the_bits_of_an_unbroken_one(tiny_sd):
    whole, memory = invert(tiny_sd, job()), Memory()

    def stop(progress):
        if progress.step == 3:
            raise KeyboardInterrupt

    assert invert(tiny_sd, job(), checkpoint=memory, on_step=stop).status == "interrupted"
    assert torch.equal(rows(whole), rows(invert(tiny_sd, job(), checkpoint=memory)))


def test_masks_and_grounds_follow_the_sizes(tiny_sd):
    task = job(random_flip=True)
    masks, opacity = torch.zeros(4, 1, 48, 48), torch.ones(4, 1, 48, 48)
    masks[:, :, :8, :8] = 1.0
    opacity[1, :, :8] = 0.0
    task = dataclasses.replace(task, masks=masks, opacity=opacity)
    batches = batches_of(tiny_sd, task)
    for batch in batches.fixed:
        mask = batch.samples.mask
        assert mask.shape[-2:] == batch.target.shape[-2:]
        assert bool((mask[..., :4, :4] == 1).all())
        assert bool((mask.flatten(1).sum(1) == 16).all())
    draws = batches.draws(1)
    for batch in batches.noised(draws, draws.times):
        for mask, flip in zip(batch.samples.mask, batch.samples.flips, strict=True):
            corner = mask[0, :4, -4:] if flip else mask[0, :4, :4]
            assert bool((corner == 1).all())
    # the second picture's bucket, on the first ground
    ground = grounds_for(batches.config, tiny_sd.family, 48)[0, :, 16:32]
    own = set_on(task.pictures[1:2, :, :16], opacity[1:2, :, :16], ground)
    expected = tiny_sd.encode_image(own).mean
    bucket = batches.buckets[1]
    assert torch.allclose(bucket.posterior.mean[bucket.places[0, 0, 0]][None], expected, atol=1e-5)


def test_sdxl_is_told_each_pictures_own_size(folders, monkeypatch):
    backbone = load_backbone(ModelConfig(model=str(folders["sdxl"]), device="cpu"))
    crops = torch.tensor([[64, 64, 0, 0], [40, 120, 0, 3], [64, 64, 5, 0], [96, 30, 1, 0]])
    told = []
    denoise = type(backbone)._denoise

    def look(self, x_t, t, cond):
        told.extend(cond.extra["sizes"].long().tolist())
        return denoise(self, x_t, t, cond)

    monkeypatch.setattr(type(backbone), "_denoise", look)
    task = dataclasses.replace(job(max_train_steps=1), crops=crops)
    assert invert(backbone, task).status == "finished"
    expected = {(*crops[i].tolist(), *SIZES[i]) for i in range(4)}
    assert expected <= {tuple(one) for one in told}


# --- what is refused before training


def test_sides_that_the_model_does_not_divide_are_refused(tiny_sd):
    assert tiny_sd.step_px == 4
    with pytest.raises(JobError, match=r"multiples of 4 px .* got 30 x 18; use --bucket-step 4"):
        invert(tiny_sd, job(sizes=[(32, 32), (18, 30)]))
    with pytest.raises(JobError, match="a height and a width for each of its 4 pictures"):
        invert(tiny_sd, dataclasses.replace(job(), sizes=torch.tensor([[32, 32]])))


def test_a_size_that_the_denoiser_refuses_is_said(tiny_sd, monkeypatch):
    def no(self, x_t, t, cond):
        if x_t.shape[-1] > x_t.shape[-2]:
            raise RuntimeError("my places are 16 x 16")
        return torch.zeros_like(x_t)

    monkeypatch.setattr(type(tiny_sd), "_denoise", no)
    with pytest.raises(
        JobError,
        match=r"Cannot train on pictures of 48 x 16 px because .* places are 16 x 16.*use --fit",
    ):
        invert(tiny_sd, job())


def test_setups_that_change_weights_take_one_size(tiny_sd):
    config = dataclasses.replace(job().config, setup="custom-diffusion")
    with pytest.raises(JobError, match="need pictures of one size; use --fit"):
        method("custom-diffusion")(tiny_sd, dataclasses.replace(job(), config=config))


def test_words_that_are_learned_together_fill_squares(tmp_path):
    for fit in ("pad", "buckets"):
        with pytest.raises(ConfigError, match=f"crop or squash .* learned together, got '{fit}'"):
            ComposeConfig(
                images=(tmp_path, tmp_path), placeholder_tokens=("<a>", "<b>"),
                initializer_tokens=("cat", "dog"), inversion=InversionConfig(fit=fit),
            )  # fmt: skip


# --- a run


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    values = np.random.default_rng(0).integers(0, 255, (3, 60, 100, 3), dtype=np.uint8)
    Image.fromarray(values[0]).save(folder / "wide.png")
    Image.fromarray(values[1].swapaxes(0, 1)).save(folder / "tall.png")
    Image.fromarray(values[2, :, :60]).save(folder / "square.png")
    return folder


@pytest.fixture
def make(photos, tiny_folder, tmp_path):
    def config(name="run", bucket_step=None, **fields):
        settings = {"initializer_token": "cat", "max_train_steps": 4, "train_batch_size": 2,
                    "evaluation_steps": 2, "num_evaluation_samples": 4}  # fmt: skip
        return TrainConfig(
            train_data_dir=photos,
            output_dir=tmp_path / name,
            model=ModelConfig(model=str(tiny_folder), device="cpu"),
            inversion=InversionConfig(**settings | fields),
            validation_steps=0,
            bucket_step=bucket_step,
        )

    return config


@pytest.mark.parametrize("fit", ["crop", "squash", "pad", "buckets"])
def test_a_run_takes_pictures_as_it_is_told(fit, make, tmp_path):
    outcome = train(make(fit=fit))
    assert outcome.result.status == "finished"
    task = outcome.result.job
    assert (task.sizes is not None) == (fit == "buckets")
    assert (task.masks is not None) == (fit == "pad")
    record = json.loads((tmp_path / "run" / "config.json").read_text())
    assert record["config"]["inversion"]["fit"] == fit
    assert train(make(fit=fit)).was_finished
    other = "crop" if fit != "crop" else "squash"
    with pytest.raises(ConfigError, match=f"fit was '{fit}' and is '{other}'"):
        train(make(fit=other))


def test_buckets_have_the_step_that_the_model_takes(make, tiny_sd):
    assert prepare(make(fit="buckets"), tiny_sd).plan["sizes"] == ["32 x 32", "24 x 40", "40 x 24"]
    coarse = prepare(make(fit="buckets", bucket_step=8), tiny_sd)
    assert coarse.plan["sizes"] == ["32 x 32", "24 x 40", "40 x 24"]
    with pytest.raises(JobError, match=r"bucket_step must be a multiple of 4 px .*got 10; use 12"):
        prepare(make(fit="buckets", bucket_step=10), tiny_sd)
    for fit, step in (("crop", 16), ("buckets", 4), (None, 16)):
        with pytest.raises(ConfigError, match="bucket_step must be 8 px or more and used with fit"):
            make(fit=fit, bucket_step=step)


# --- the sheet before a run


@pytest.fixture
def bare(tiny_folder, tmp_path):
    """A model's folder without any weights."""
    folder = shutil.copytree(tiny_folder, tmp_path / "bare")
    weights = [*folder.rglob("*.safetensors")]
    assert len(weights) >= 3
    for path in weights:
        path.unlink()
    return folder


def test_a_sheet_shows_what_the_model_will_see_and_needs_no_weights(bare, photos, tmp_path, capsys):
    mask = Image.new("L", (100, 60))
    mask.paste(255, (50, 0, 100, 60))
    mask.save(photos / "wide.mask.png")
    for name in ("wide", "tall", "square"):
        (photos / f"{name}.txt").write_text(f"a S* that is {name}")
    command = ["train", "--train-data-dir", str(photos), "--model", str(bare), "--fit", "buckets",
               "--output-dir", str(tmp_path / "run"), "--preview-pictures"]  # fmt: skip
    assert main(command) == 0
    path = tmp_path / "run-pictures.png"
    assert f"3 pictures as the model will see them: {path}" in capsys.readouterr().out
    assert not (tmp_path / "run").exists()
    config = TrainConfig(
        train_data_dir=photos,
        output_dir=tmp_path / "run",
        model=ModelConfig(model=str(bare)),
        inversion=InversionConfig(fit="buckets"),
    )
    _, seen = preview_pictures(config)
    assert seen.captions == ["a S* that is square", "a S* that is tall", "a S* that is wide"]
    assert seen.pictures.sizes.tolist() == [[32, 32], [40, 24], [24, 40]]
    sheet = np.asarray(Image.open(path)).astype(int)
    # the third cell: of the wide picture the left half is veiled
    left = 12 + 2 * 268
    half = sheet[20:150, left : left + 120], sheet[20:150, left + 136 : left + 250]
    assert half[0][..., 1].max() < 90
    assert half[1][..., 1].max() > 150
    shown = np.asarray(to_images(seen.pictures.pixels[:1, :, :32, :32])[0]).astype(int)
    assert np.array_equal(sheet[12:268:8, 12:268:8], shown)


def test_a_sheet_of_each_word_of_many(bare, photos, tmp_path, capsys):
    jobs = tmp_path / "jobs"
    shutil.copytree(photos, jobs / "cat")
    (jobs / "empty").mkdir()
    command = ["train", "--jobs", str(jobs), "--model", str(bare), "--output-dir",
               str(tmp_path / "words"), "--preview-pictures"]  # fmt: skip
    assert main(command) == 0
    said = capsys.readouterr()
    assert (tmp_path / "words" / "cat-pictures.png").is_file()
    assert "empty: The folder must contain at least one picture" in said.err
