"""The encoder's network, what it learns from, and its loss."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch.nn import functional as F

from oneword.concepts.concept import Concept
from oneword.config.encoder import LATENTS, EncoderConfig
from oneword.config.model import ModelConfig
from oneword.errors import ConfigError
from oneword.models.contract import Moments
from oneword.training.encoder import learning
from oneword.training.encoder.files import EncoderError
from oneword.training.encoder.learning import Training, rate_factor
from oneword.training.encoder.network import SetEncoder, Shape
from oneword.training.encoder.things import Thing, Things, gathered, step_sets, unseen_sets
from oneword.training.encoder.towers import tower_of
from oneword.training.learner import slot_token
from oneword.vocabulary.inject import injected


SHAPE = Shape(features=12, width=16, num_vectors=3, encoders={"clip": 8, "t5": 10})


@pytest.fixture(scope="module")
def network():
    """One that has learned something, as far as its numbers tell."""
    found = SetEncoder(SHAPE)
    g = torch.Generator().manual_seed(1)
    words = {n: torch.randn(6, d, generator=g) for n, d in SHAPE.encoders.items()}
    found.fit(torch.randn(40, 12, generator=g), words)
    with torch.no_grad():
        for module in found.rows.values():
            module.weight.copy_(torch.randn(module.weight.shape, generator=g))
    return found.eval()


def features(count, seed=0):
    return torch.randn(count, 12, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def rows_of(network, *sets):
    padded = torch.nn.utils.rnn.pad_sequence(list(sets), batch_first=True, padding_value=7.0)
    counts = torch.tensor([len(own) for own in sets])
    return network(padded, torch.arange(padded.shape[1]) < counts[:, None])


# --- the network


@pytest.mark.parametrize("count", [1, 2, 5, 25])
def test_a_word_does_not_depend_on_the_order_of_its_pictures(network, count):
    own = features(count)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(3))
    for name, rows in rows_of(network, own).items():
        assert rows.shape == (1, 3, SHAPE.encoders[name])
        assert rows.isfinite().all()
        assert torch.allclose(rows, rows_of(network, own[order])[name], rtol=0, atol=1e-6)


def test_every_picture_counts(network):
    own = features(5)
    before = rows_of(network, own)
    for place in range(5):
        other = own.clone()
        other[place] = features(1, seed=9)[0]
        for name, rows in rows_of(network, other).items():
            assert float((rows - before[name]).abs().max()) > 1e-3


def test_a_set_is_read_alike_alone_and_in_a_batch_of_eight(network):
    sets = [features(count, seed=count) for count in (1, 2, 3, 5, 8, 13, 21, 25)]
    together = rows_of(network, *sets)
    for place, own in enumerate(sets):
        for name, rows in rows_of(network, own).items():
            assert torch.allclose(rows[0], together[name][place], rtol=0, atol=1e-6)


def test_rows_have_the_fixed_length_of_common_words(network):
    for seed in range(4):
        for name, rows in rows_of(network, 30 * features(4, seed)).items():
            length = network.get_buffer(f"length_{name}")
            assert torch.allclose(rows.norm(dim=-1), length.expand(1, 3), rtol=1e-5)


def test_words_of_subsets_come_nearer_to_each_other_with_more_pictures(network):
    whole = features(25)
    g = torch.Generator().manual_seed(5)
    spread = []
    for count in (1, 5, 20):
        found = [
            rows_of(network, whole[torch.randperm(25, generator=g)[:count]])["clip"]
            for _ in range(60)
        ]
        spread.append(float(torch.cat(found).var(dim=0).sum()))
    assert spread[0] > spread[1] > spread[2]


def test_before_training_a_word_is_the_common_words_direction():
    fresh = SetEncoder(SHAPE, seed=4)
    words = {n: features(5, 2)[:, :d] + 1 for n, d in SHAPE.encoders.items()}
    fresh.fit(features(30), words)
    for name, rows in rows_of(fresh, features(3)).items():
        start = F.normalize(words[name].mean(0), dim=0)
        assert torch.allclose(F.normalize(rows[0, 1], dim=0), start, atol=1e-6)
        assert float(rows[0, 0].norm()) == pytest.approx(float(words[name].norm(dim=1).median()))
    other = SetEncoder(SHAPE, seed=5)
    assert not torch.equal(fresh.set.weight, other.set.weight)
    assert torch.equal(fresh.set.weight, SetEncoder(SHAPE, seed=4).set.weight)


# --- what it learns from


def things(counts=(2, 3, 4, 9, 30), views=2):
    places, first = [], 0
    for count in counts:
        places.append(torch.arange(first, first + views * count).view(views, count))
        first += views * count
    moments = Moments(torch.zeros(first, 4, 2, 2), torch.zeros(first, 4, 2, 2))
    kinds = tuple("style" if i == 1 else "object" for i in range(len(counts)))
    return Things(features(first), moments, tuple(places), kinds, "x")


def test_the_denoised_picture_is_never_in_its_set_not_even_mirrored():
    own, sizes, seen = things(), set(), []
    for step in range(120):
        drawn = step_sets(own, torch.arange(5), seed=0, step=step, batch=5, most=6)
        for target, shown, sentence in zip(
            drawn.targets.tolist(), drawn.shown, drawn.sentences, strict=True
        ):
            thing = next(i for i, at in enumerate(own.places) if bool((at == target).any()))
            count = own.places[thing].shape[1]
            columns = [int((own.places[thing] == p).nonzero()[0, 1]) for p in shown.tolist()]
            column = int((own.places[thing] == target).nonzero()[0, 1])
            assert column not in columns
            assert len({*columns}) == len(columns) <= min(6, count - 1)
            assert ("style" in sentence) == (thing == 1)
            sizes.add((thing, len(columns)))
            seen.append(thing)
    assert {n for thing, n in sizes if thing == 4} == {*range(1, 7)}
    assert {n for thing, n in sizes if thing == 0} == {1}
    assert {seen.count(thing) for thing in range(5)} == {120}


def test_a_steps_draws_are_its_own():
    own, among = things(), torch.tensor([0, 3, 4])
    one, again, next_one = (step_sets(own, among, 0, step, 4, 25) for step in (7, 7, 8))
    assert torch.equal(one.noise, again.noise)
    assert torch.equal(one.targets, again.targets)
    assert one.sentences == again.sentences
    assert not torch.equal(one.noise, next_one.noise)
    fixed = unseen_sets(own, among, 0, 25)
    assert len(fixed.shown) == 12
    assert torch.equal(fixed.noise, unseen_sets(own, among, 0, 25).noise)


def test_a_twentieth_of_the_things_is_kept_out():
    few, many = things(), things((2,) * 40)
    assert [len(part) for part in few.parted(0)] == [5, 0]
    seen, unseen = many.parted(0)
    assert (len(seen), len(unseen)) == (38, 2)
    assert sorted([*seen.tolist(), *unseen.tolist()]) == [*range(40)]


def pictures(count=4, side=32, seed=0):
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_a_thing_of_one_picture_and_one_thing_alone_are_refused(tiny_sd):
    tower = tower_of(tiny_sd, LATENTS)
    with pytest.raises(EncoderError, match=r"mug with 1 pictures because .*; add some"):
        gathered(tiny_sd, tower, [Thing("mug", "object", pictures(1))], random_flip=True)
    with pytest.raises(EncoderError, match="from two or more things, got 1"):
        gathered(tiny_sd, tower, [Thing("mug", "object", pictures())], random_flip=True)


def gather(backbone, count=4, random_flip=True):
    some = [Thing(str(i), "object", pictures(3 + i, seed=i)) for i in range(count)]
    return gathered(backbone, tower_of(backbone, LATENTS), some, random_flip=random_flip)


def test_pictures_are_encoded_with_their_mirror_images(tiny_sd):
    own = gather(tiny_sd)
    assert [tuple(at.shape) for at in own.places] == [(2, 3), (2, 4), (2, 5), (2, 6)]
    mirrored = tiny_sd.encode_image(pictures(4, seed=1).flip(-1)).mean
    assert torch.allclose(own.moments.mean[own.places[1][1]].float(), mirrored, atol=2e-3)
    assert [tuple(at.shape) for at in gather(tiny_sd, random_flip=False).places] == [
        (1, 3), (1, 4), (1, 5), (1, 6),
    ]  # fmt: skip


# --- learning


def config(**fields):
    model = ModelConfig(model="microworld-nano", device="cpu")
    settings = {"guide": LATENTS, "width": 16, "train_batch_size": 4, "max_train_steps": 20}
    return EncoderConfig(model=model, **settings | fields)


def test_the_loss_is_equation_2_in_the_encoders_words(tiny_sd):
    """The same samples, with an ordinary concept of the same rows, one by one."""
    training = Training(tiny_sd, gather(tiny_sd), config(num_vectors=2))
    with torch.no_grad():
        training.network.rows["clip"].weight.normal_(generator=torch.Generator().manual_seed(0))
    drawn = step_sets(training.things, training.seen, 0, 3, 4, 25)
    words = [learning._Made(i, training._made, 2) for i in range(4)]
    training._make(torch.zeros(4, 1, training.things.features.shape[1]), None)
    with injected(tiny_sd, words):
        found = training._losses(drawn, training=False).detach()
    times = tiny_sd.sample_t(drawn.times, (training.things.latent_shape[-1],) * 2)
    moments = training.things.moments[drawn.targets]
    x0 = moments.mean.float() + moments.std.float() * drawn.posterior_noise
    for i in range(4):
        own = training.things.features[drawn.shown[i]][None]
        rows = training.network(own, torch.ones(own.shape[:2], dtype=torch.bool))["clip"][0]
        word = Concept(placeholder_token="<x>", rows={"clip": rows.detach()})
        t, noise, one = times[i : i + 1], drawn.noise[i : i + 1], x0[i : i + 1]
        with injected(tiny_sd, [word]), torch.no_grad():
            said = tiny_sd.encode_prompt([drawn.sentences[i].replace("{}", "<x>")])
            made = tiny_sd.predict(tiny_sd.add_noise(one, noise, t), t, said)
        error = (made - tiny_sd.target(one, noise, t)).square().mean()
        assert float(found[i]) == pytest.approx(float(error), rel=1e-4)
    assert slot_token(0) in words[0].placeholder_token


def test_only_the_network_learns_and_it_learns(tiny_sd):
    pipeline = tiny_sd.pipeline
    parts = (pipeline.unet, pipeline.vae, pipeline.text_encoder)
    before = [t.clone() for part in parts for t in part.state_dict().values()]
    training = Training(tiny_sd, gather(tiny_sd, 12), config(learning_rate=3e-3))
    start = {n: p.detach().clone() for n, p in training.network.named_parameters()}
    assert training.run()
    after = [t for part in parts for t in part.state_dict().values()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert all(p.grad is None for part in parts for p in part.parameters())
    assert all(not torch.equal(p, start[n]) for n, p in training.network.named_parameters())
    assert [step for step, *_ in training.standing.losses] == [0, 20]
    assert not hasattr(pipeline.tokenizer, "_expansions")


def test_passes_of_fewer_samples_give_the_same_step(tiny_sd, monkeypatch):
    def weights_after(most):
        monkeypatch.setattr(tiny_sd, "micro_batch_size", most)
        training = Training(tiny_sd, gather(tiny_sd), config(max_train_steps=3))
        training.run()
        return torch.cat([p.detach().flatten() for p in training.network.parameters()])

    whole = weights_after(None)
    assert float((weights_after(2) - whole).abs().max()) < 1e-4


def test_a_gradient_that_is_not_finite_is_left_out_and_many_end_it(tiny_sd, monkeypatch):
    real, calls = Training._losses, []

    def broken(self, drawn, *, training):
        found = real(self, drawn, training=training)
        calls.append(training)
        return found * float("nan") if training and len(calls) in bad else found

    monkeypatch.setattr(Training, "_losses", broken)
    bad = {3}
    training = Training(tiny_sd, gather(tiny_sd), config(max_train_steps=4))
    assert training.run()
    assert all(p.isfinite().all() for p in training.network.parameters())
    bad = {*range(1000)}
    with pytest.raises(
        EncoderError, match="step 9 because the gradients were not finite in 10 steps; lower"
    ):
        Training(tiny_sd, gather(tiny_sd), config()).run()


def test_the_rate_rises_stays_and_falls():
    factors = [rate_factor(step, 1000) for step in range(1000)]
    assert factors[0] == 0.01
    assert factors[100] == factors[690] == 1.0
    assert factors[850] == pytest.approx(0.5)
    assert 0 < factors[999] < 0.01
    assert all(0 < rate_factor(step, 5) <= 1 for step in range(5))


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"num_vectors": 0}, r"num_vectors must be in 1\.\.75, got 0"),
        ({"pictures_per_thing": 1}, r"pictures_per_thing must be in 2\.\."),
        ({"max_train_steps": 0}, "max_train_steps must be 1 or more, got 0"),
        ({"learning_rate": 0.0}, "learning_rate must be positive, got 0"),
        ({"guide": ""}, "guide must be a name, got an empty string"),
        ({"seed": -1}, "seed must be in 0"),
        (
            {"model": ModelConfig(model="some/model")},
            "for some/model without pictures .*; pass --data",
        ),
    ],
)
def test_settings_out_of_range_are_refused(fields, text):
    with pytest.raises(ConfigError, match=text):
        dataclasses.replace(config(), **fields)
