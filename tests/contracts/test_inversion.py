"""The loop on both kinds of pipeline: what changes, what does not, and how it ends."""

from __future__ import annotations

import copy
import dataclasses
import math
import weakref

import pytest
import torch

from oneword.config.inversion import InversionConfig
from oneword.errors import ConfigError
from oneword.training.batches import Batches
from oneword.training.draws import step_draws
from oneword.training.job import Job, JobError
from oneword.training.loop import invert, invert_many
from oneword.training.parts import captions_or_templates, rows_of_initializer, squared_error
from oneword.training.rates import effective_learning_rate, schedule
from oneword.vocabulary.vocabulary import initial_rows


@pytest.fixture(params=["epsilon", "v_prediction"])
def backbone(request, tiny_sd, tiny_sd_v):
    return {"epsilon": tiny_sd, "v_prediction": tiny_sd_v}[request.param]


def pictures(seed=0, count=3):
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def job(name="a", seed=0, **fields):
    settings = {
        "initializer_token": "cat",
        "max_train_steps": 6,
        "train_batch_size": 2,
        "evaluation_steps": 2,
        "num_evaluation_samples": 4,
        "learning_rate": 5e-3,
        "keep": "last",
        "seed": seed,
    }
    config = InversionConfig(**{"placeholder_token": f"<{name}>"} | settings | fields)
    return Job(name=name, pictures=pictures(seed), config=config)


def batches_of(backbone, task):
    config = task.config.resolved(backbone.family)
    return Batches(backbone, task, config, prompts=captions_or_templates)


class Memory:
    """A checkpoint in memory, which can be cut at any save."""

    steps = 1

    def __init__(self):
        self.saved = []

    def load(self):
        return self.saved[-1] if self.saved else None

    def save(self, state):
        self.saved.append(copy.deepcopy(state))


def everything(backbone):
    parts = (backbone.pipeline.unet, backbone.pipeline.vae, backbone.pipeline.text_encoder)
    return [t.clone() for part in parts for t in part.state_dict().values()]


def test_only_the_rows_change(backbone):
    before = everything(backbone)
    words = len(backbone.pipeline.tokenizer)
    result = invert(backbone, job(num_vectors=2))
    assert result.status == "finished"
    start = initial_rows(backbone.vocabularies["clip"], "cat", 2)
    assert not torch.equal(result.concept.rows["clip"], start)
    assert all(torch.equal(a, b) for a, b in zip(before, everything(backbone), strict=True))
    assert len(backbone.pipeline.tokenizer) == words
    assert all(p.grad is None for p in backbone.pipeline.unet.parameters())


def test_the_first_step_is_adamw_on_the_papers_loss(backbone):
    """The gradient by hand in one plain forward pass, then Adam's closed form of step one."""
    task = job(max_train_steps=1, random_flip=False, prompt_templates="release27")
    result = invert(backbone, task)
    start = initial_rows(backbone.vocabularies["clip"], "cat", 1)
    config = task.config.resolved(backbone.family)
    moments = backbone.encode_image(task.pictures)
    draws = step_draws(0, 0, 2, 3, (4, 16, 16), random_flip=False)
    x0 = moments[draws.pictures].sample(draws.posterior_noise)
    t = backbone.sample_t(draws.times, (16, 16))
    x_t = backbone.add_noise(x0, draws.noise, t)
    templates = captions_or_templates(task, config)[0]
    prompts = [templates[int(u * len(templates))].format("cat") for u in draws.sentences.tolist()]
    table = backbone.vocabularies["clip"].weight
    (cat,) = backbone.vocabularies["clip"].ids("cat")
    table.requires_grad_(True)
    try:
        prediction = backbone.predict(x_t, t, backbone.encode_prompt(prompts))
        loss = (prediction - backbone.target(x0, draws.noise, t)).square().mean()
        (gradient,) = torch.autograd.grad(loss, table)
    finally:
        table.requires_grad_(False)
    g = gradient[cat].double()
    expected = start[0].double() - 5e-3 * g / (g.abs() + 1e-8)
    assert torch.allclose(result.concept.rows["clip"][0].double(), expected, atol=1e-5)


def test_the_loss_on_the_fixed_batch_falls(backbone):
    result = invert(backbone, job(max_train_steps=60, learning_rate=2e-2, evaluation_steps=10))
    assert result.losses[-1][1] < result.losses[0][1]
    assert [step for step, _ in result.losses] == [0, 10, 20, 30, 40, 50, 60]


def test_fifty_steps_among_seven_others_equal_fifty_alone(tiny_sd):
    jobs = [
        job(f"j{i}", seed=i, num_vectors=1 + i % 3, max_train_steps=50, evaluation_steps=50)
        for i in range(8)
    ]
    together = invert_many(tiny_sd, jobs, slots=8)
    alone = invert(tiny_sd, jobs[3])
    rows, own = together[3].concept.rows["clip"], alone.concept.rows["clip"]
    assert float((rows - own).norm() / own.norm()) < 1e-4


def test_slots_take_the_next_job_and_a_bad_one_fails_alone(tiny_sd):
    jobs = [
        job("short", max_train_steps=2),
        dataclasses.replace(job("bad"), captions=("no word here",) * 3),
        job("long", max_train_steps=6),
        job("last", max_train_steps=2),
    ]
    results = invert_many(tiny_sd, jobs, slots=2)
    assert [r.status for r in results] == ["finished", "failed", "finished", "finished"]
    assert "must contain the placeholder '<bad>'" in results[1].reason
    assert [r.steps for r in results] == [2, 0, 6, 2]


def faulty(place):
    """Parts that raise for job "b": as it begins, at its first scoring, or in its third step."""
    calls = []

    def fault():
        raise ZeroDivisionError("of job b")

    def rows(backbone, task, config):
        return fault() if task.name == "b" else rows_of_initializer(backbone, task, config)

    def loss(prediction, target, samples):
        scored = len(samples.x0) == samples.job.config.num_evaluation_samples
        if samples.job.name == "b" and scored == (place == "scoring"):
            calls.append(place)
            if scored or len(calls) > 2:
                fault()
        return squared_error(prediction, target, samples)

    return {"rows": rows} if place == "rows" else {"loss": loss}


@pytest.mark.parametrize(("place", "steps"), [("rows", []), ("scoring", []), ("step", [1, 2])])
def test_a_fault_in_one_job_ends_that_job_alone(tiny_sd, place, steps):
    jobs = [job("a"), job("b", seed=1), job("c", seed=2)]
    expected = invert_many(tiny_sd, [jobs[0], jobs[2]], slots=3)
    memory = Memory()
    a, b, c = invert_many(tiny_sd, jobs, slots=3, checkpoint=memory, **faulty(place))
    assert (b.status, b.reason) == ("failed", "ZeroDivisionError: of job b")
    states = [one.record.step for state in memory.saved for one in state.active if one.index == 1]
    assert states == steps
    for one, own in zip((a, c), expected, strict=True):
        assert one.status == "finished"
        assert torch.allclose(one.concept.rows["clip"], own.concept.rows["clip"], atol=1e-6)
    with pytest.raises(ZeroDivisionError, match="of job b"):
        invert(tiny_sd, jobs[1], **faulty(place))


def test_samples_that_go_one_after_the_other_give_the_same_rows(backbone, monkeypatch):
    """Of words with penalties and masks, whose means are over a word's samples."""
    masks = torch.ones(3, 1, 32, 32)
    masks[0, :, :, :20] = 0
    # with the usual epsilon AdamW would blow up the rounding of the smallest gradients
    common = {"adam_epsilon": 1e-3}
    jobs = [
        job("a", train_batch_size=4, regularization_weight=1e-3, **common),
        dataclasses.replace(
            job("b", seed=1, train_batch_size=4, num_vectors=2, **common), masks=masks
        ),
        job("c", seed=2, train_batch_size=2, setup="dreamartist", **common),
    ]
    whole = invert_many(backbone, jobs, slots=3)
    for most in (1, 2, 8):
        monkeypatch.setattr(backbone, "micro_batch_size", most)
        parted = invert_many(backbone, jobs, slots=3)
        for one, other in zip(whole, parted, strict=True):
            for name, rows in one.concept.rows.items():
                assert torch.allclose(other.concept.rows[name], rows, atol=1e-6), (most, name)
            near = [(step, pytest.approx(loss, rel=1e-5)) for step, loss in one.losses]
            assert other.losses == near, most


class Kept:
    """Bytes that autograd keeps at the same time, at most."""

    def __init__(self):
        self.live, self.most = {}, 0

    def pack(self, tensor):
        own = tensor.detach().view_as(tensor)
        storage = own.untyped_storage()
        place = storage.data_ptr()
        size, count = self.live.get(place, (storage.nbytes(), 0))
        self.live[place] = size, count + 1
        self.most = max(self.most, sum(size for size, _ in self.live.values()))
        weakref.finalize(own, self.drop, place)
        return own

    def drop(self, place):
        size, count = self.live.pop(place)
        if count > 1:
            self.live[place] = size, count - 1


def test_a_step_of_four_passes_keeps_no_more_than_one_of_a_quarter(tiny_sd, monkeypatch):
    def most_kept(batch):
        kept = Kept()
        with torch.autograd.graph.saved_tensors_hooks(kept.pack, lambda tensor: tensor):
            invert(tiny_sd, job(train_batch_size=batch, max_train_steps=2, random_flip=False))
        return kept.most

    whole, single = most_kept(4), most_kept(1)
    monkeypatch.setattr(tiny_sd, "micro_batch_size", 1)
    assert most_kept(4) <= 1.05 * single < 0.6 * whole


def test_passes_that_do_not_divide_the_batch_are_refused(tiny_sd, monkeypatch):
    monkeypatch.setattr(tiny_sd, "micro_batch_size", 4)
    with pytest.raises(JobError, match="must divide train_batch_size, got 4 for 6; use 3"):
        invert(tiny_sd, job(train_batch_size=6))


def test_jobs_may_share_a_placeholder(tiny_sd):
    jobs = [job("one", placeholder_token="S*"), job("two", seed=1, placeholder_token="S*")]
    first, second = invert_many(tiny_sd, jobs, slots=2)
    assert first.concept.placeholder_token == second.concept.placeholder_token == "S*"
    assert not torch.equal(first.concept.rows["clip"], second.concept.rows["clip"])


@pytest.mark.parametrize("cut", [1, 2, 3, 5])
def test_a_loop_cut_at_any_step_goes_on_to_the_same_bits(tiny_sd, cut):
    jobs = [job("a", num_vectors=2), job("b", seed=5, max_train_steps=3), job("c", seed=6)]
    whole = invert_many(tiny_sd, jobs, slots=2)
    memory = Memory()
    seen = []

    def stop(progress):
        seen.append(progress.step)
        if sum(step > 0 for step in seen) >= 2 * cut:
            raise KeyboardInterrupt

    parts = invert_many(tiny_sd, jobs, slots=2, checkpoint=memory, on_step=stop)
    assert any(r.status == "interrupted" for r in parts)
    again = invert_many(tiny_sd, jobs, slots=2, checkpoint=memory)
    for a, b in zip(whole, again, strict=True):
        assert torch.equal(a.concept.rows["clip"], b.concept.rows["clip"])
        assert a.losses == b.losses
        assert a.status == b.status == "finished"


def test_a_state_of_other_jobs_is_refused(tiny_sd):
    memory = Memory()
    invert(tiny_sd, job("a"), checkpoint=memory)
    with pytest.raises(ConfigError, match=r"belongs to the jobs \['a'\], got \['b'\]"):
        invert(tiny_sd, job("b"), checkpoint=memory)


def test_the_best_rows_are_kept(tiny_sd):
    result = invert(tiny_sd, job(max_train_steps=20, learning_rate=0.5, keep="best"))
    best = min(result.losses, key=lambda pair: pair[1])
    assert (result.best_step, result.concept.provenance["loss"]) == best
    last = invert(tiny_sd, job(max_train_steps=20, learning_rate=0.5, keep="last"))
    if result.best_step < 20:
        assert not torch.equal(result.concept.rows["clip"], last.concept.rows["clip"])


def explode_at(first, count=1):
    """A loss that is not a number at some calls in training."""
    calls = []

    def loss(prediction, target, samples):
        value = squared_error(prediction, target, samples)
        if len(samples.t) == 2:  # a training batch, not the fixed one
            calls.append(1)
            if first <= len(calls) < first + count:
                return value * math.nan
        return value

    return loss


def test_one_nan_rolls_back_and_halves_the_rate(tiny_sd):
    rates, messages = [], []

    def watch(progress):
        rates.append(progress.learning_rate)
        messages.append(progress.message)

    result = invert(tiny_sd, job(), loss=explode_at(3), on_step=watch)
    assert result.status == "finished"
    assert rates[-1] == pytest.approx(rates[1] / 2)
    assert "going back to step 2 with half the learning rate" in "".join(messages)
    assert result.concept.rows["clip"].isfinite().all()


def test_two_nans_in_a_row_stop_with_the_last_good_rows(tiny_sd):
    result = invert(tiny_sd, job(), loss=explode_at(3, count=99))
    good = invert(tiny_sd, job(max_train_steps=2))
    assert result.status == "diverged"
    assert "for the second time in a row; the word of step 2 is kept" in result.reason
    assert torch.equal(result.concept.rows["clip"], good.concept.rows["clip"])


def test_pictures_that_are_not_finite_end_before_the_first_step(tiny_sd):
    bad = dataclasses.replace(job(), pictures=pictures() * math.nan)
    result = invert(tiny_sd, bad)
    assert (result.status, result.steps) == ("diverged", 0)
    assert "not a number before the first step" in result.reason


def test_a_run_that_learns_nothing_is_ended_with_the_reason(tiny_sd):
    result = invert(tiny_sd, job(max_train_steps=100, learning_rate=0.0, evaluation_steps=10))
    assert (result.status, result.steps) == ("nothing-learned", 50)
    assert "has not fallen" in result.reason
    assert "Try a higher learning rate" in result.reason


def test_a_word_that_does_not_reach_the_model_is_found_after_one_step(tiny_sd):
    def deaf(prediction, target, samples):
        return squared_error(target + 0 * prediction, target, samples)

    result = invert(tiny_sd, job(), loss=deaf)
    assert (result.status, result.steps) == ("nothing-learned", 1)
    assert "the placeholder token does not reach that encoder's output" in result.reason


def test_without_an_initialiser_the_noun_with_the_lowest_loss_is_taken_and_said(tiny_sd):
    messages = []
    result = invert(
        tiny_sd,
        job(initializer_token=None),
        on_step=lambda progress: messages.append(progress.message) and None,
    )
    ranking = result.concept.provenance["initializer_losses"]
    chosen = result.concept.provenance["initializer_token"]
    assert len(ranking) > 5
    assert chosen == min(ranking, key=ranking.get)
    assert f"chose {chosen!r}" in messages[0]


def test_stop_and_on_step_end_a_job(tiny_sd):
    asked = invert(tiny_sd, job(), on_step=lambda p: "stop" if p.step == 3 else None)
    assert (asked.status, asked.steps, asked.reason) == ("stopped", 3, "on_step asked for it")
    ruled = invert(tiny_sd, job(), stop=lambda p: p.step >= 4)
    assert (ruled.status, ruled.steps) == ("stopped", 4)


def test_penalties_pull_and_timesteps_are_mapped(tiny_sd):
    def pull(rows, initial, config):
        return 1e4 * sum((rows[n] - initial[n]).square().sum() for n in rows)

    free = invert(tiny_sd, job(max_train_steps=20))
    held = invert(tiny_sd, job(max_train_steps=20), penalties=(pull,))
    start = initial_rows(tiny_sd.vocabularies["clip"], "cat", 1)
    moved = [(r.concept.rows["clip"] - start).norm() for r in (free, held)]
    assert moved[1] < moved[0]
    late = []

    def loss(prediction, target, samples):
        if len(samples.t) == 2:
            late.extend(samples.t.tolist())
        return squared_error(prediction, target, samples)

    invert(tiny_sd, job(), timesteps=lambda u, config: 0.9 + 0.1 * u, loss=loss)
    assert min(late) >= 900


def test_captions_are_used_as_they_are(tiny_sd):
    captions = ("a red <a>", "a blue <a>", "a green <a>")
    task = dataclasses.replace(job(), captions=captions)
    prompts = captions_or_templates(task, task.config.resolved("x"))
    assert prompts == [("a red {}",), ("a blue {}",), ("a green {}",)]
    assert invert(tiny_sd, task).status == "finished"
    with pytest.raises(JobError, match="one caption per picture, or none, got 2 captions for 3"):
        invert(tiny_sd, dataclasses.replace(task, captions=captions[:2]))


@pytest.mark.parametrize(
    ("change", "parts", "message"),
    [
        ({"pictures": torch.zeros(0, 3, 32, 32)}, {}, "must have at least one picture"),
        ({}, {"prompts": lambda j, c: [("a cat",)] * 3}, "must contain '{}' in place"),
        ({}, {"prompts": lambda j, c: [("a {}",)] * 2}, "for each of its 3 pictures"),
        ({}, {"prompts": lambda j, c: [("cat " * 80 + "{}",)] * 3}, "must fit into 75 tokens"),
    ],
)
def test_a_job_that_cannot_be_trained_says_why(tiny_sd, change, parts, message):
    with pytest.raises(JobError, match=message):
        invert(tiny_sd, dataclasses.replace(job(), **change), **parts)


def test_there_must_be_a_slot(tiny_sd):
    with pytest.raises(ConfigError, match="slots must be 1 or more"):
        invert_many(tiny_sd, [job()], slots=0)


def test_flipped_pictures_have_moments_of_their_own(tiny_sd):
    flipped = batches_of(tiny_sd, job(random_flip=True))
    mirrored = tiny_sd.encode_image(pictures().flip(-1))
    assert torch.allclose(flipped.buckets[0].posterior.mean[3:], mirrored.mean, atol=1e-5)


def test_weight_decay_shrinks_rows_only_in_the_published_presets(tiny_sd):
    start = initial_rows(tiny_sd.vocabularies["clip"], "cat", 1)

    def deaf(prediction, target, samples):
        return 1e-12 * squared_error(prediction, target, samples)

    kept = invert(tiny_sd, job(learning_rate=1e-2, adam_epsilon=1.0), loss=deaf)
    assert torch.allclose(kept.concept.rows["clip"], start, atol=1e-6)
    task = job(learning_rate=1e-2, adam_epsilon=1.0, preset="paper", scale_lr=False)
    decayed = invert(tiny_sd, task, loss=deaf).concept.rows["clip"]
    assert torch.allclose(decayed / start, torch.tensor((1 - 1e-4) ** 6), rtol=1e-5)


def test_the_effective_rate_both_ways(tiny_sd):
    vocabulary = tiny_sd.vocabularies["clip"]
    std = vocabulary.std()
    config = job(preset="paper", learning_rate=None, train_batch_size=None).config
    absolute, relative = effective_learning_rate(config.resolved("ldm"), vocabulary)
    assert absolute == pytest.approx(0.04)
    assert relative == pytest.approx(0.04 / std)
    config = job(learning_rate=None, relative_learning_rate=0.1).config.resolved("x")
    assert effective_learning_rate(config, vocabulary) == pytest.approx((0.1 * std, 0.1))


@pytest.mark.parametrize("name", ["constant", "linear", "cosine", "constant_with_warmup"])
def test_schedules_equal_diffusers(name):
    from diffusers.optimization import get_scheduler

    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    theirs = get_scheduler(name, optimizer, num_warmup_steps=3, num_training_steps=12)
    config = job(lr_scheduler=name, lr_warmup_steps=3, max_train_steps=12).config.resolved("x")
    for step in range(12):
        assert schedule(config, step) == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        theirs.step()


def test_half_precision_learns_the_same_rows_roughly(tiny_folder, tiny_sd):
    from oneword.config.model import ModelConfig
    from oneword.models.loading import load_backbone

    half = load_backbone(ModelConfig(model=str(tiny_folder), device="cpu", dtype="bf16"))
    rows = [invert(b, job(max_train_steps=10)).concept.rows["clip"] for b in (tiny_sd, half)]
    start = initial_rows(tiny_sd.vocabularies["clip"], "cat", 1)
    steps = [r - start for r in rows]
    assert torch.nn.functional.cosine_similarity(*steps).item() > 0.8


def test_a_mask_counts_its_own_cells_alone_whatever_its_size(backbone):
    """What lies outside changes nothing; the mean is over the mask's area; mirrors are mirrored."""
    masks = torch.zeros(3, 1, 32, 32)
    masks[:, :, 8:16, :8] = 1.0
    task = job(random_flip=True)
    plain = batches_of(backbone, task)
    masked = batches_of(backbone, dataclasses.replace(task, masks=masks))
    (batch,) = masked.fixed
    cells = batch.samples.mask
    assert cells.shape == (4, 1, 16, 16)
    assert not batch.samples.flips.any()
    assert bool((cells[:, :, 4:8, :4] == 1).all())
    assert int((cells > 0).sum()) == 4 * 16
    trained = []
    for step in range(6):
        draws = masked.draws(step)
        trained += [batch.samples for batch in masked.noised(draws, draws.times)]
    flips = torch.cat([samples.flips for samples in trained])
    both = torch.cat([samples.mask for samples in trained])
    assert flips.any()
    assert bool((both[flips][:, :, 4:8, -4:] == 1).all())
    assert bool((both[~flips][:, :, 4:8, :4] == 1).all())
    prediction = batch.target + 1.0
    assert torch.allclose(squared_error(prediction, batch.target, batch.samples), torch.ones(4))
    outside = batch.target + 5.0 * (1 - cells)
    assert squared_error(outside, batch.target, batch.samples).abs().max() == 0
    assert plain.fixed[0].samples.mask is None
    by_hand = ((prediction - batch.target) ** 2 * cells).sum((1, 2, 3)) / (4 * cells.sum((1, 2, 3)))
    assert torch.allclose(by_hand, torch.ones(4))
    result = invert(backbone, dataclasses.replace(task, masks=masks))
    assert result.losses[0][1] != invert(backbone, task).losses[0][1]
    with pytest.raises(JobError, match="one mask for each of its 3 pictures, got 2"):
        invert(backbone, dataclasses.replace(task, masks=masks[:2]))
