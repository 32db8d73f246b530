"""Every setup in the one loop: what holds for all of them, and what each of them is."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math

import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor2_0

import tiny
from oneword.concepts import formats
from oneword.concepts.concept import Concept
from oneword.config.drawing import SamplingConfig
from oneword.config.inversion import InversionConfig
from oneword.config.model import ModelConfig
from oneword.config.presets import SETUPS
from oneword.config.tuning import TuningConfig
from oneword.generation.generate import generate
from oneword.models.by_layer import cross_attentions
from oneword.models.loading import load_backbone
from oneword.prompts import DUAL_TEMPLATES
from oneword.prompts.descriptions import Descriptions
from oneword.training.batches import Batches
from oneword.training.extensions import dreamartist, per_image, progressive, xti
from oneword.training.job import Job, JobError
from oneword.training.loop import invert, invert_many
from oneword.training.tuning import BASELINES, method
from oneword.vocabulary import kinds
from oneword.vocabulary.inject import injected
from oneword.vocabulary.kinds import VARYING
from oneword.vocabulary.word import PlaceholderError


FEW = SamplingConfig(num_inference_steps=2)
DESCRIBED = Descriptions(
    short=("red cat", "blue dog", "a cat", "a green house", "the red ball"),
    long=tuple(
        f"a photo of a {w} cat at the beach" for w in ["red", "blue", "green", "cool", "nice"]
    ),
)


def job(name="a", seed=0, count=3, **fields):
    g = torch.Generator().manual_seed(seed)
    settings = {
        "initializer_token": "cat",
        "max_train_steps": 5,
        "train_batch_size": 2,
        "evaluation_steps": 2,
        "num_evaluation_samples": 4,
        "relative_learning_rate": 0.2,
        "keep": "last",
        "seed": seed,
    }
    if fields.get("setup") == "neti":
        settings.pop("relative_learning_rate")
    own = TuningConfig(tuning_steps=5, tuning_learning_rate=1e-2, num_class_images=1)
    config = InversionConfig(
        **{"placeholder_token": f"<{name}>", "tuning": own} | settings | fields
    )
    pictures = torch.rand(count, 3, 32, 32, generator=g) * 2 - 1
    return Job(name=name, pictures=pictures, config=config, descriptions=DESCRIBED)


class Memory:
    """A checkpoint in memory."""

    steps = 1

    def __init__(self):
        self.state = None

    def load(self):
        return self.state

    def save(self, state):
        self.state = copy.deepcopy(state)


def model(backbone):
    parts = (backbone.pipeline.unet, backbone.pipeline.vae, backbone.pipeline.text_encoder)
    return [t.clone() for part in parts for t in part.state_dict().values()]


def stop_at(step):
    def on_step(progress):
        if progress.step == step:
            raise KeyboardInterrupt

    return on_step


@pytest.fixture
def task(tiny_encoder):
    """A job of any setup."""

    def of(name="a", **fields):
        if fields["setup"] == "encoder":
            fields |= {"encoder": tiny_encoder, "initializer_token": None}
        return job(name, **fields)

    return of


@pytest.mark.parametrize("setup", list(SETUPS))
def test_every_setup_learns_resumes_and_draws_and_leaves_the_model_alone(
    tiny_sd, task, tmp_path, setup
):
    before, tokenizer = model(tiny_sd), tiny_sd.pipeline.tokenizer
    invert = method(setup)
    whole = invert(tiny_sd, task(setup=setup))
    assert whole.status == "finished"
    memory = Memory()
    still = setup.startswith("captions") or setup == "encoder"
    if not still:
        parts = invert(tiny_sd, task(setup=setup), checkpoint=memory, on_step=stop_at(3))
        assert parts.status == "interrupted"
    again = invert(tiny_sd, task(setup=setup), checkpoint=memory)
    assert again.concept.sha256() == whole.concept.sha256()
    assert again.losses == whole.losses
    kept = invert(tiny_sd, task(setup=setup), checkpoint=memory)  # read from the saved result
    assert (kept.concept.sha256(), kept.concept.kind) == (
        again.concept.sha256(),
        again.concept.kind,
    )
    formats.save_concept(whole.concept, tmp_path / "word.safetensors")
    word = formats.load_concept(tmp_path / "word.safetensors")
    assert word.sha256() == whole.concept.sha256()
    assert word.provenance["config"]["setup"] == setup
    drawn = generate(tiny_sd, ["a photo of a <a>"], [0], concepts=[word], sampling=FEW).pixels
    assert drawn.isfinite().all()
    assert not torch.equal(drawn, tiny_sd.draw(["a photo of a cat"], [0], FEW))
    assert all(torch.equal(a, b) for a, b in zip(before, model(tiny_sd), strict=True))
    assert tiny_sd.pipeline.tokenizer is tokenizer
    assert not any(m._forward_pre_hooks for m in tiny_sd.pipeline.unet.modules())
    if not still:
        assert whole.losses[-1][1] != whole.losses[0][1]


def test_setups_that_share_a_batch_learn_what_they_learn_alone(tiny_sd, task):
    left_out = {"high-lr", "low-lr", "two-words", "captions-long", *BASELINES}
    names = [n for n in SETUPS if n not in left_out]
    jobs = [task(f"j{i}", seed=i, setup=name) for i, name in enumerate(names)]
    for one, together in zip(jobs, invert_many(tiny_sd, jobs, slots=len(jobs)), strict=True):
        assert together.status == "finished", together.reason
        alone = invert(tiny_sd, one).concept
        found = together.concept
        for name, tensor in (alone.rows | alone.tensors).items():
            other = (found.rows | found.tensors)[name]
            assert float((tensor - other).norm() / tensor.norm().clamp_min(1e-9)) < 1e-4, name


# --- progressive


def counts(result):
    return result.concept.num_vectors


@pytest.mark.parametrize(
    ("steps", "total", "vectors"),
    [
        ((0, 1999, 2000, 3999, 4000, 5000), 5000, (1, 1, 2, 2, 3, 3)),
        ((0, 59, 60, 119, 120, 150), 150, (1, 1, 2, 2, 3, 3)),
        ((1999, 2000, 4000, 6100), 6100, (1, 2, 3, 3)),
    ],
)
def test_vectors_join_at_their_steps(steps, total, vectors):
    config = InversionConfig(setup="progressive", max_train_steps=total).resolved("ldm")
    assert tuple(progressive.num_active(config, step) for step in steps) == vectors


def test_every_vector_has_joined_by_four_fifths_of_the_run():
    config = InversionConfig(setup="progressive", num_vectors=6, max_train_steps=1000)
    config = config.resolved("ldm")
    found = [progressive.num_active(config, step) for step in (0, 159, 160, 799, 800)]
    assert found == [1, 1, 2, 5, 6]
    one = dataclasses.replace(config, num_vectors=1)
    assert progressive.num_active(one, 999) == 1
    several = [(1, 100), (2, 100), (3, 100), (3, 100_000)]
    found = [
        progressive.stage_steps(dataclasses.replace(config, num_vectors=num, max_train_steps=steps))
        for num, steps in several
    ]
    assert found == [80, 80, 40, 2000]


def test_waiting_vectors_neither_move_nor_decay_and_then_learn(tiny_sd):
    """The published decay is on; five steps: the second vector joins after 2, the third after 4."""
    seen = {}

    def watch(progress):
        seen[progress.step] = {n: r.clone() for n, r in progress.rows.items()}

    task = job(setup="progressive", adam_weight_decay=0.5, learning_rate=0.01,
               relative_learning_rate=None)  # fmt: skip
    state = Memory()
    result = invert(tiny_sd, task, on_step=watch, checkpoint=state)
    start = tiny_sd.vocabularies["clip"].rows_of("cat")
    assert [len(seen[step]["clip"]) for step in range(6)] == [1, 1, 2, 2, 3, 3]
    assert torch.equal(seen[2]["clip"][1], start[0])
    assert torch.equal(seen[4]["clip"][2], start[0])
    moved = seen[5]["clip"] - start
    assert bool((moved.abs().max(dim=1).values > 0).all())
    # the first step of a vector that joins is Adam's first step: its size is the rate
    decayed = start[0] * (1 - 0.01 * 0.5)
    assert torch.allclose((seen[3]["clip"][1] - decayed).abs().max(), torch.tensor(0.01), rtol=1e-3)
    assert counts(result) == 3


@pytest.mark.parametrize("cut", [1, 2, 3, 4])
def test_the_count_survives_a_resume_and_previews_do_not_move_it(tiny_sd, cut):
    task = job(setup="progressive")
    whole = invert(tiny_sd, task)
    memory, seen = Memory(), []
    invert(tiny_sd, task, checkpoint=memory, on_step=stop_at(cut))

    def preview(progress):
        tiny_sd.draw([f"a {progress.token}"], [0], FEW)
        seen.append((progress.step, len(progress.rows["clip"])))

    again = invert(tiny_sd, task, checkpoint=memory, on_step=preview)
    assert torch.equal(again.concept.rows["clip"], whole.concept.rows["clip"])
    expected = {1: 1, 2: 2, 3: 2, 4: 3, 5: 3}
    assert seen == [(step, expected[step]) for step in range(cut + 1, 6)]


def test_the_best_step_keeps_the_vectors_that_it_had(tiny_sd):
    losses = itertools.count()

    def rising(prediction, target, samples):
        return prediction.flatten(1).mean(1) * 0 + next(losses)

    task = job(setup="progressive", keep="best")
    result = invert(tiny_sd, task, loss=rising)
    assert result.best_step == 0
    assert counts(result) == 1


# --- one more word per picture


def test_each_picture_has_only_its_own_word_and_the_share_is_kept(tiny_sd):
    task = job(setup="per-image", count=25, max_train_steps=2)
    config = task.config.resolved("ldm")
    choices = per_image.prompts(task, config)
    assert len(choices) == 25
    for place, own in enumerate(choices, 1):
        assert all(sentence.endswith(f" with {{{place}}}") for sentence in own.dual)
        assert [s.count("{") for s in own.dual] == [2] * len(own.dual)
        assert [s.removesuffix(f" with {{{place}}}") for s in own.dual] == list(own.sentences)
    draws = torch.rand(4000, generator=torch.Generator().manual_seed(0)).tolist()
    found = [choices[3].at(u) for u in draws]
    assert sum(" with " in s for s in found) / 4000 == pytest.approx(0.25, abs=0.03)
    assert set(found) == set(choices[3])
    assert not any(" with " in choices[3].at(u, alone=True) for u in draws)
    dotted = dataclasses.replace(config, prompt_templates="paper27dot")
    assert per_image.prompts(task, dotted)[1].dual[0] == "a photo of a {} with {2}."
    style = dataclasses.replace(config, learnable_property="style", prompt_templates="style19dot")
    with_own = per_image.prompts(task, style)[1].dual
    dual = DUAL_TEMPLATES["style19dot"]
    assert with_own == tuple(s.replace("{own}", "{2}") for s in dual)  # noqa: RUF027
    assert "a painting of one {} in the style of {2}." in with_own
    captioned = dataclasses.replace(task, captions=("a <a> in a box.",) * 25)
    assert per_image.prompts(captioned, style)[1].dual == ("a {} in a box with {2}.",)
    result = invert(tiny_sd, task)
    assert {n: r.shape for n, r in result.concept.rows.items()} == {"clip": (1, 32)}
    assert not result.concept.tensors


def test_the_probability_of_the_dual_sentence_is_a_setting(tiny_sd):
    """At 1 only dual sentences are seen and the pictures' words matter; at 0 they do not."""
    word = {}
    for share in (0.0, 1.0):
        task = job(setup="per-image", dual_prompt_probability=share)
        word[share] = invert(tiny_sd, task).concept.rows["clip"]
    plain = invert(tiny_sd, job()).concept.rows["clip"]
    assert torch.equal(word[0.0], plain)
    assert not torch.allclose(word[1.0], plain, atol=1e-4)


def test_pictures_words_learn_from_their_own_pictures(tiny_sd):
    memory = Memory()
    task = job(setup="per-image", dual_prompt_probability=1.0, train_batch_size=1)
    invert(tiny_sd, task, checkpoint=memory, on_step=stop_at(1))
    (under_way,) = memory.state.active
    tensors = under_way.tensors
    moved = [
        place
        for place in (1, 2, 3)
        if not torch.equal(tensors[f"rows/clip/{place}"], tensors[f"initial/clip/{place}"])
    ]
    assert len(moved) == 1  # one step of one sample shows one picture


# --- captions


@pytest.mark.parametrize("setup", ["captions-short", "captions-long"])
def test_a_caption_is_drawn_as_if_it_stood_in_the_prompt(tiny_sd, setup):
    kind = setup.removeprefix("captions-")
    for seed in (0, 2, 6):
        result = invert(tiny_sd, job(setup=setup, seed=seed))
        assert (result.status, result.steps) == ("finished", 0)
        text = getattr(DESCRIBED, kind)[seed % 5].removeprefix("a ")
        word = generate(
            tiny_sd, ["a photo of <a>"], [3], concepts=[result.concept], sampling=FEW
        ).pixels
        assert torch.equal(word, tiny_sd.draw([f"a photo of {text}"], [3], FEW))


def test_captions_need_a_file(tiny_sd):
    task = dataclasses.replace(job(setup="captions-short"), descriptions=None)
    with pytest.raises(JobError, match=r"has no descriptions.json"):
        invert(tiny_sd, task)


# --- a row per layer, a network, and an opposite


class Own:
    """An attention processor that reads states of its own, whatever it is given."""

    def __init__(self, states):
        self.states = states

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, *args, **kwargs):
        return AttnProcessor2_0()(attn, hidden_states, self.states, *args, **kwargs)


def words_by_layer(backbone, texts):
    vocabulary = backbone.vocabularies["clip"]
    layers = torch.stack([vocabulary.rows_of(text) for text in texts])
    return Concept(
        placeholder_token="<a>",
        rows={"clip": layers.mean(0)},
        kind="xti",
        tensors={"clip/layers": layers},
    )


def test_each_layer_reads_its_own_row(tiny_folder):
    """The twin: attention processors that hold the states of the word that the layer stands for."""
    backbone = load_backbone(ModelConfig(model=str(tiny_folder), device="cpu"))
    unet = backbone.pipeline.unet
    texts = ["cat", "dog", "red", "moon"]
    assert len(cross_attentions(unet)) == backbone.num_cross_attentions == len(texts)
    x = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([10, 700])
    word = words_by_layer(backbone, texts)
    with torch.no_grad(), injected(backbone, [word]):
        cond = backbone.encode_prompt(["a photo of a <a>", "the <a>"], t)
        assert isinstance(cond.encoder_hidden_states, tuple)
        found = backbone.predict(x, t, cond)
        drawn = backbone.draw(["a <a>"], [5], FEW)
    order = ["down_blocks.0", "mid_block", "up_blocks.1.attentions.0", "up_blocks.1.attentions.1"]

    def reading(prompts):
        processors = {}
        for name, processor in unet.attn_processors.items():
            places = [i for i, start in enumerate(order) if name.startswith(start)]
            if "attn2" in name:
                (place,) = places
                states = [p.format(texts[place]) for p in prompts]
                processor = Own(torch.cat([backbone.encode_prompt([s]).encoder_hidden_states
                                           for s in states]))  # fmt: skip
            processors[name] = processor
        return processors

    plain = dict(unet.attn_processors)
    with torch.no_grad():
        unet.set_attn_processor(reading(["a photo of a {}", "the {}"]))
        twin = backbone.predict(x, t, backbone.encode_prompt(["a", "b"]))
        unet.set_attn_processor(reading(["", "a {}"]))  # with guidance the first is the negative
        twin_drawn = backbone.draw(["a"], [5], FEW)
        unet.set_attn_processor(plain)
    assert torch.allclose(found, twin, atol=1e-5)
    assert torch.allclose(drawn, twin_drawn, atol=1e-4)


@pytest.mark.parametrize("family", ["stable_diffusion", "ldm", "sdxl"])
@pytest.mark.parametrize("setup", ["xti", "neti"])
def test_words_by_layer_start_at_the_initialiser_in_every_family_with_a_unet(
    family, setup, tmp_path
):
    folder = tiny.save(tiny.make(family), tmp_path / family)
    backbone = load_backbone(ModelConfig(model=str(folder), device="cpu"))
    side = backbone.resolution
    pictures = torch.zeros(2, 3, side, side)
    losses, drawn = [], []
    for name in (setup, "one-word"):
        task = dataclasses.replace(job(setup=name, max_train_steps=1), pictures=pictures)
        seen = []

        def look(progress, seen=seen):
            if progress.step == 0:
                prompt = f"a {progress.token}"
                seen.append(backbone.draw([prompt, "a dog"], [1, 2], FEW))

        losses.append(invert(backbone, task, on_step=look).losses[0][1])
        drawn += seen
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert torch.allclose(drawn[0], drawn[1], atol=1e-3)


@pytest.mark.parametrize("family", ["sd3", "flux"])
def test_a_transformer_has_no_such_layers_and_that_is_said(family, tmp_path):
    backbone = load_backbone(
        ModelConfig(model=str(tiny.save(tiny.make(family), tmp_path / "m")), device="cpu")
    )
    with pytest.raises(JobError, match="has no cross-attention layers"):
        xti.num_layers(backbone, job())
    rows = {n: torch.zeros(1, v.dim) for n, v in backbone.vocabularies.items()}
    word = Concept(placeholder_token="<a>", rows=rows, kind="xti", tensors={})
    with (
        pytest.raises(
            PlaceholderError, match=r"differs from layer to layer with .* because its denoiser"
        ),
        injected(backbone, [word]),
    ):
        pass


def test_a_word_of_time_is_drawn_with_the_rows_of_each_time(tiny_sd):
    """The twin: DDIM by hand, with the prompt encoded anew for every step."""
    result = invert(tiny_sd, job(setup="neti", learning_rate=0.05))
    settings = SamplingConfig(num_inference_steps=3, guidance_scale=1.0)
    word = result.concept
    drawn = generate(tiny_sd, ["a <a>"], [4], concepts=[word], sampling=settings).pixels
    scheduler = copy.deepcopy(tiny_sd.pipeline.scheduler)
    scheduler.set_timesteps(3)
    x = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(4))
    states = []
    with torch.no_grad(), injected(tiny_sd, [word]):
        for t in scheduler.timesteps:
            cond = tiny_sd.encode_prompt(["a <a>"], t[None])
            states.append(cond.encoder_hidden_states[0])
            x = scheduler.step(tiny_sd.predict(x, t[None], cond), t, x).prev_sample
    assert torch.allclose(drawn, tiny_sd.decode_latents(x), atol=1e-4)
    assert not torch.allclose(states[0], states[-1], atol=1e-5)


def test_a_network_starts_as_linear_layers_do_and_is_summed_up_by_its_middle(tiny_sd):
    """He's uniform start with a = sqrt 5, which is torch's of a linear layer: 1 / sqrt(inputs)."""
    word = invert(tiny_sd, job(setup="neti", max_train_steps=1, learning_rate=0.0)).concept
    layers = len(word.tensors["clip/anchors.bias"]) // 10
    for name, inputs in (("first", 10 * layers), ("second", 128)):
        weight = word.tensors[f"clip/{name}.weight"]
        bound = 1 / math.sqrt(inputs)
        assert weight.shape == (128, inputs)
        assert weight.abs().max() <= bound
        assert weight.abs().max() > 0.98 * bound
        assert weight.std() == pytest.approx(bound / math.sqrt(3), rel=0.05)
        assert float(weight.mean()) == pytest.approx(0, abs=0.05 * bound)
    learned = invert(tiny_sd, job(setup="neti", learning_rate=0.05)).concept
    middle = VARYING["neti"].rows_at(
        learned.tensors, "clip", torch.tensor([layers // 2]), torch.tensor([0.5])
    )
    assert torch.allclose(learned.rows["clip"], middle[0], atol=1e-6)
    beside = VARYING["neti"].rows_at(
        learned.tensors, "clip", torch.tensor([layers // 2 - 1]), torch.tensor([0.75])
    )
    assert not torch.allclose(learned.rows["clip"], beside[0], atol=1e-3)


def test_a_place_is_coded_by_a_thousand_times_and_its_layer():
    """Published: times count to 1000, layers by one; sines, then cosines, of length 1."""
    frequencies = torch.tensor([[0.001, 0.0], [0.0, 2.0]])
    found = kinds.code(frequencies, torch.tensor([3]), torch.tensor([0.5]))
    angles = torch.tensor([0.5, 6.0])
    expected = torch.cat([angles.sin(), angles.cos()]) / math.sqrt(2)
    assert torch.allclose(found[0], expected, atol=1e-6)


def test_the_opposite_is_guided_away_from_in_training_and_in_drawing(tiny_sd):
    task = job(setup="dreamartist", training_guidance_scale=3.0)
    calls = []

    def loss(prediction, target, samples):
        calls.append(prediction)
        return (prediction - target).square().flatten(1).mean(1)

    result = invert(tiny_sd, task, loss=loss)
    word = result.concept
    assert (word.num_vectors, len(word.tensors["negative/clip"])) == (3, 3)
    assert word.negative_token == "<a-negative>"
    drawn = generate(tiny_sd, ["a <a>"], [1], concepts=[word], sampling=FEW)
    assert drawn.settings["negative_prompt"] == "<a-negative>"
    opposite = Concept(placeholder_token="<n>", rows={"clip": word.tensors["negative/clip"]})
    own = Concept(placeholder_token="<p>", rows=word.rows)
    with torch.no_grad(), injected(tiny_sd, [own, opposite]):
        by_hand = tiny_sd.draw(["a <p>"], [1], dataclasses.replace(FEW, negative_prompt="<n>"))
    assert torch.allclose(drawn.pixels, by_hand, atol=1e-5)
    # the last scoring, by hand: away + 3 (towards - away)
    config = task.config.resolved(tiny_sd.family)
    (fixed,) = Batches(
        tiny_sd,
        task,
        config,
        prompts=dreamartist.FORM.prompts,
        against=dreamartist.FORM.against,
    ).fixed
    with torch.no_grad(), injected(tiny_sd, [own, opposite]):
        to, away = (
            tiny_sd.predict(
                fixed.samples.x_t,
                fixed.samples.t,
                tiny_sd.encode_prompt([s.replace("{}", w) for s in fixed.sentences]),
            )
            for w in ("<p>", "<n>")
        )
    guided = away + 3.0 * (to - away)
    assert torch.allclose(calls[-1], guided, atol=1e-4)
    expected = (guided - fixed.target).square().mean()
    assert result.losses[-1][1] == pytest.approx(float(expected), rel=1e-4)


# --- what each step is followed by


def test_the_average_of_the_rows_is_kept_and_survives_a_resume(tiny_sd):
    task, seen = job(keep="average", average_decay=0.9), []

    def watch(progress):
        if progress.step:
            seen.append(progress.rows["clip"].clone())

    whole = invert(tiny_sd, task, on_step=watch)
    assert torch.allclose(whole.concept.rows["clip"], torch.stack(seen).mean(0), atol=1e-6)
    assert whole.concept.provenance["loss"] is None
    memory = Memory()
    invert(tiny_sd, task, checkpoint=memory, on_step=stop_at(3))
    again = invert(tiny_sd, task, checkpoint=memory)
    assert torch.equal(again.concept.rows["clip"], whole.concept.rows["clip"])


def test_the_norm_rule_keeps_the_rows_at_the_vocabularys_spread(tiny_sd):
    spread = tiny_sd.vocabularies["clip"].std()
    ruled = invert(tiny_sd, job(norm_pull=1.0)).concept.rows["clip"]
    free = invert(tiny_sd, job()).concept.rows["clip"]
    assert float(ruled.square().mean().sqrt()) == pytest.approx(spread, rel=1e-5)
    assert float(free.square().mean().sqrt()) != pytest.approx(spread, rel=1e-3)


def test_the_regularised_word_stays_nearer_the_more_it_weighs(tiny_sd):
    start = tiny_sd.vocabularies["clip"].rows_of("cat")
    moved = [
        float((invert(tiny_sd, job(num_vectors=2, max_train_steps=20, setup="regularized",
                                   regularization_weight=w)).concept.rows["clip"] - start).norm())
        for w in (0.0, 1.0, 100.0)
    ]  # fmt: skip
    assert moved[0] > moved[1] > moved[2]
