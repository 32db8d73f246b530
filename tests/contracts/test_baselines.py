"""The setups that change weights: what they change, what they leave, how they are resumed."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from functools import partial

import pytest
import torch

import tiny
from oneword.concepts import deltas, formats
from oneword.concepts.concept import Concept
from oneword.config.drawing import SamplingConfig
from oneword.config.inversion import InversionConfig
from oneword.config.model import ModelConfig
from oneword.config.tuning import TuningConfig
from oneword.errors import ConfigError
from oneword.models.loading import load_backbone
from oneword.prompts import fill
from oneword.runs.events import Stepped
from oneword.runs.many import train_many
from oneword.runs.train import dry_run, train
from oneword.training.draws import step_draws
from oneword.training.extensions.timesteps import sampled
from oneword.training.job import Job, JobError
from oneword.training.loop import invert
from oneword.training.parts import captions_or_templates, squared_error
from oneword.training.prediction import predictions
from oneword.training.tuning import (
    BASELINES,
    changes,
    method,
    named,
    pivotal,
    prior,
    tuner,
)
from oneword.vocabulary.inject import injected
from oneword.vocabulary.word import PlaceholderError


FAST = SamplingConfig(num_inference_steps=3)
SETUPS = list(BASELINES)


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    folder = tiny.save(
        tiny.make("stable_diffusion", seed=5), tmp_path_factory.mktemp("models") / "tiny"
    )
    found = load_backbone(ModelConfig(model=str(folder), device="cpu"))
    found.sampling = replace(found.sampling, num_inference_steps=3)  # of the class pictures
    return found


def job(setup, tuned=None, pictures=3, **settings):
    own = {"num_class_images": 2, "tuning_steps": 8, "tuning_learning_rate": 2e-3} | (tuned or {})
    config = InversionConfig(
        setup=setup,
        tuning=TuningConfig(**own),
        **(
            {
                "initializer_token": "cat",
                "train_batch_size": 2,
                "max_train_steps": 8,
                "evaluation_steps": 4,
                "num_evaluation_samples": 4,
                "learning_rate": 1e-2,
            }
            | settings
        ),
    )
    g = torch.Generator().manual_seed(1)
    return Job(
        name="x", pictures=torch.rand(pictures, 3, 32, 32, generator=g) * 2 - 1, config=config
    )


def as_word(one):
    """The same job without its second stage."""
    return replace(one, config=replace(one.config, setup="one-word"))


def standing(backbone):
    return {
        name: (id(p), p.detach().clone())
        for part in ("unet", "text_encoder", "vae")
        for name, p in backbone.pipeline.components[part].named_parameters()
    }


def unchanged(before, backbone):
    after = standing(backbone)
    assert before.keys() == after.keys()
    for name, (identity, bits) in before.items():
        assert after[name][0] == identity, name
        assert torch.equal(after[name][1], bits), name
    assert not any(p.requires_grad for p in backbone.pipeline.unet.parameters())


def fixed_loss(backbone, one, concept):
    """Loss of a concept on the job's fixed batch, as a user of its file would have it."""
    (fixed,) = tuner.batches_of(backbone, one).fixed
    with torch.no_grad(), injected(backbone, [concept]):
        (found,) = predictions(
            backbone, [(partial(fill, placeholder_token=concept.placeholder_token), fixed)]
        )
    return float(squared_error(found, fixed.target, fixed.samples).mean())


@pytest.mark.parametrize(
    ("setup", "kind"),
    [
        ("pivotal", "full"),
        ("pivotal", "kv"),
        ("lora-dreambooth", "lora"),
        ("custom-diffusion", "kv"),
    ],
)
def test_only_the_declared_weights_change_and_the_model_is_restored(backbone, setup, kind):
    one = job(setup, {"tuned_weights": kind, "tuning_steps": 3}, max_train_steps=3)
    before = standing(backbone)
    result = method(setup)(backbone, one)
    unchanged(before, backbone)
    assert result.status == "finished"
    concept = result.concept
    wanted = {
        "full": lambda name: not deltas.is_lora(name),
        "lora": lambda name: deltas.is_lora(name) and "attn" in name,
        "kv": lambda name: name.endswith(("attn2.to_k.diff", "attn2.to_v.diff")),
    }[kind]
    assert concept.deltas
    assert all(wanted(name) and name.startswith("unet.") for name in concept.deltas)
    count = len(list(backbone.pipeline.unet.parameters()))
    if kind == "full":
        assert 0.9 * count < len(concept.deltas) <= count
    with injected(backbone, [concept]):
        changed = {
            name
            for name, p in backbone.pipeline.unet.named_parameters()
            if "lora_" not in name
            and not torch.equal(p, before[name.replace(".base_layer", "")][1])
        }
    if kind == "lora":
        assert not changed
    else:
        named = {deltas.name_of_change("unet", name) for name in changed}
        assert named == set(concept.deltas)


@pytest.mark.parametrize("setup", SETUPS)
def test_the_model_is_restored_when_on_step_raises(backbone, setup):
    def fail(progress):
        if progress.step == 4:
            raise ZeroDivisionError

    before = standing(backbone)
    one = job(setup, {"tuning_steps": 6}, max_train_steps=3)
    with pytest.raises(ZeroDivisionError):
        method(setup)(backbone, one, on_step=fail)
    unchanged(before, backbone)


@pytest.mark.parametrize(("kind", "rate"), [("full", 2e-3), ("lora", 2e-2)])
def test_pivotal_leaves_the_word_alone_and_lowers_its_loss(backbone, kind, rate, tmp_path):
    own = {"tuned_weights": kind, "tuning_steps": 12, "tuning_learning_rate": rate}
    one = job("pivotal", own)
    word = invert(backbone, as_word(one))
    result = pivotal.invert(backbone, one)
    assert all(torch.equal(r, word.concept.rows[n]) for n, r in result.concept.rows.items())
    assert result.steps == 20
    assert [step for step, _ in result.losses] == [0, 4, 8, 12, 16, 20]
    assert result.losses[:3] == word.losses
    formats.save_concept(result.concept, tmp_path / "word.safetensors")
    loaded = formats.load_concept(tmp_path / "word.safetensors")
    before = fixed_loss(backbone, one, word.concept)
    after = fixed_loss(backbone, one, loaded)
    assert before == pytest.approx(min(loss for _, loss in word.losses), rel=1e-5)
    assert after < 0.98 * before
    # whole deltas are kept in half precision: the loss of the file is the loop's all the same
    assert after == pytest.approx(min(loss for _, loss in result.losses), rel=1e-4)


def test_pivotal_takes_a_word_that_is_learned_already(backbone):
    one = job("pivotal")
    word = invert(backbone, as_word(one)).concept
    whole = pivotal.invert(backbone, one)
    steps = []
    given = pivotal.invert(backbone, one, word=word, on_step=lambda p: steps.append(p.step))
    assert steps == list(range(9))
    assert torch.equal(given.concept.rows["clip"], whole.concept.rows["clip"])
    with pytest.raises(JobError, match="needs a word of plain embeddings"):
        pivotal.invert(backbone, one, word=given.concept)


def test_dreambooth_with_its_lora_alone_draws_the_same_in_stock_diffusers(backbone, tmp_path):
    result = method("lora-dreambooth")(backbone, job("lora-dreambooth", {"tuning_steps": 12}))
    rare, noun = result.concept.provenance["stands_for"].split()
    vocabulary = backbone.vocabularies["clip"]
    assert noun == "cat"
    assert torch.equal(result.concept.rows["clip"], vocabulary.rows_of(f"{rare} {noun}"))
    with injected(backbone, [result.concept]):
        ours = backbone.draw(["a photo of a S*"], [3], FAST)
    plain = backbone.draw([f"a photo of a {rare} cat"], [3], FAST)
    assert not torch.allclose(ours, plain, atol=1e-3)
    files = formats.save_concept(result.concept, tmp_path / "word.safetensors", "diffusers")
    backbone.pipeline.load_lora_weights(files[-1])
    try:
        stock = backbone.draw([f"a photo of a {rare} cat"], [3], FAST)
    finally:
        backbone.pipeline.unload_lora_weights()
    assert torch.allclose(ours, stock, atol=1e-4)


def test_only_the_new_half_of_the_word_learns(backbone):
    vocabulary = backbone.vocabularies["clip"]
    custom = method("custom-diffusion")(
        backbone, job("custom-diffusion", {"rare_token": "ball"}, num_vectors=2)
    )
    rows = custom.concept.rows["clip"]
    assert torch.equal(rows[2:], vocabulary.rows_of("cat"))
    assert (rows[:2] - vocabulary.rows_of("ball")).abs().min() > 0
    booth = job("lora-dreambooth", {"rare_token": "ball", "train_word": True})
    rows = method("lora-dreambooth")(backbone, booth).concept.rows["clip"]
    assert not torch.equal(rows[0], vocabulary.rows_of("ball")[0])
    assert torch.equal(rows[1:], vocabulary.rows_of("cat"))


def test_the_rare_word_is_short_and_known_as_one_token(backbone):
    word = named.rare_word(backbone)
    assert len(word) <= 3
    vocabulary = backbone.vocabularies["clip"]
    assert len(vocabulary.ids(word)) == 1
    later = [
        str(vocabulary.tokenizer.convert_ids_to_tokens(i)).removesuffix("</w>")
        for i in range(vocabulary.ids(word)[0] + 1, len(vocabulary.tokenizer))
    ]
    assert not [w for w in later if w.isalpha() and 2 <= len(w) <= 3 and vocabulary.is_word(w)]


def test_the_first_step_is_adamw_on_the_sum_of_both_losses(backbone):
    """Against a step by hand: the thing's loss plus a half of the class's, both on known draws."""
    one = job(
        "custom-diffusion",
        {"tuning_steps": 1, "prior_loss_weight": 0.5, "train_word": False, "rare_token": "ball"},
        keep="last", random_flip=False,
    )  # fmt: skip
    result = method("custom-diffusion")(backbone, one)
    config = one.config.resolved(backbone.family)
    pictures = prior.class_pictures(backbone, "a photo of a cat", 2, config.seed, 32)
    pictures = ((pictures + 1) * 127.5).round() / 127.5 - 1  # as a file holds them
    weights = {
        name: p
        for name, p in backbone.pipeline.unet.named_parameters()
        if "attn2.to_k" in name or "attn2.to_v" in name
    }
    for p in weights.values():
        p.requires_grad_(True)
    try:
        total = 0.0
        for images, seed, weight, word in (
            (one.pictures, config.seed, 1.0, "ball cat"),
            (pictures, config.seed ^ 0x5EED, 0.5, None),
        ):
            draws = step_draws(seed, 0, 2, len(images), (4, 16, 16), random_flip=False)
            moments = backbone.encode_image(images)
            x0 = moments[draws.pictures].sample(draws.posterior_noise)
            t = backbone.sample_t(sampled(draws.times, config), (16, 16))
            choices = captions_or_templates(one, config)[0]
            prompts = [
                "a photo of a cat" if word is None else choices[int(u * len(choices))].format(word)
                for u in draws.sentences.tolist()
            ]
            found = backbone.predict(
                backbone.add_noise(x0, draws.noise, t), t, backbone.encode_prompt(prompts)
            )
            total = total + weight * (found - draws.noise).square().mean()
        gradients = torch.autograd.grad(total, list(weights.values()))
    finally:
        backbone.pipeline.unet.requires_grad_(False)
    for name, gradient in zip(weights, gradients, strict=True):
        expected = -2e-3 * gradient / (gradient.abs() + 1e-8)
        found = result.concept.deltas[deltas.name_of_change("unet", name)].float()
        clear = gradient.abs() > 1e-6  # where the sign is beyond doubt
        assert torch.allclose(found[clear], expected[clear], rtol=2e-2, atol=1e-6), name


class Stop:
    """Interrupts a run at a step, as Ctrl-C would."""

    def __init__(self, step):
        self.step = step

    def __call__(self, event):
        if isinstance(event, Stepped) and event.step == self.step:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture
def tuned(make, few_steps):
    def config(output, setup, **own):
        settings = {
            "num_class_images": 2, "tuning_steps": 12, "tuning_learning_rate": 2e-3,
            "prior_loss_weight": 0.0,
        } | own  # fmt: skip
        return make(output, inversion={"setup": setup, "tuning": TuningConfig(**settings)})

    return config


@pytest.mark.parametrize(
    ("setup", "stops"),
    [("pivotal", (5, 12, 17)), ("lora-dreambooth", (0, 7)), ("custom-diffusion", (1, 9))],
)
def test_a_resumed_run_equals_an_unbroken_one(tuned, tmp_path, setup, stops):
    own = {"prior_loss_weight": 1.0} if setup == "custom-diffusion" else {}
    whole = train(tuned("whole", setup, **own))
    for step in stops:
        stopped = train(tuned("run", setup, **own), on_event=Stop(step))
        assert stopped.result.status == "interrupted"
        assert stopped.concept_file is None
        assert dry_run(tuned("run", setup, **own))["run"] == "resume"
    resumed = train(tuned("run", setup, **own))
    assert resumed.result.status == "finished"
    assert resumed.result.losses == whole.result.losses
    first, second = (formats.load_concept(tmp_path / name) for name in ("whole", "run"))
    assert first.sha256() == second.sha256()
    assert first.deltas
    assert (tmp_path / "run" / "metrics.jsonl").read_text().count("\n") == len(whole.result.losses)
    again = train(tuned("run", setup, **own))
    assert again.was_finished
    assert again.result.concept.sha256() == first.sha256()


def test_a_run_that_changes_weights_draws_previews_with_them(tuned, tmp_path):
    config = tuned("run", "lora-dreambooth", tuning_learning_rate=0.1)
    train(replace(config, validation_steps=6, num_validation_images=1))
    first, last = (
        (tmp_path / "run" / "previews" / f"step-{step:06d}.png").read_bytes() for step in (0, 12)
    )
    assert first != last


def test_many_jobs_may_change_weights_too(tuned, make, tmp_path):
    configs = [tuned("booth", "lora-dreambooth"), make("word"), tuned("custom", "custom-diffusion")]
    outcomes = train_many(configs)
    assert [o.name for o in outcomes] == ["booth", "word", "custom"]
    assert [o.outcome.result.status for o in outcomes] == ["finished"] * 3
    assert formats.load_concept(tmp_path / "booth").deltas
    assert not formats.load_concept(tmp_path / "word").deltas
    train(tuned("alone", "lora-dreambooth"))
    assert (
        formats.load_concept(tmp_path / "booth").sha256()
        == formats.load_concept(tmp_path / "alone").sha256()
    )


def test_class_pictures_may_come_from_a_folder(tuned, photos, tmp_path):
    drawn = train(tuned("drawn", "lora-dreambooth", prior_loss_weight=1.0))
    given = train(tuned("given", "lora-dreambooth", prior_loss_weight=1.0, class_data_dir=photos))
    none = train(tuned("none", "lora-dreambooth"))
    hashes = {o.result.concept.sha256() for o in (drawn, given, none)}
    assert len(hashes) == 3


def test_the_plan_says_what_will_change(tuned):
    plan = dry_run(tuned("run", "pivotal"))
    assert plan["num_samples"] == (12 + 12) * 2
    assert plan["notes"] == [
        "pivotal: then 12 steps of 2 samples train every weight of the denoiser, at learning "
        "rate 0.002"
    ]
    notes = dry_run(tuned("run", "lora-dreambooth", prior_loss_weight=1.0))["notes"]
    assert "the same number of class pictures (2 drawn ones) train a LoRA of rank 4" in notes[0]


def test_settings_of_tuning_are_resolved_by_setup_and_family():
    booth = InversionConfig(setup="lora-dreambooth").resolved("stable_diffusion")
    assert booth.tuning.tuned_weights == "lora"
    assert booth.tuning.tuning_learning_rate == 1e-4
    assert booth.max_train_steps == booth.tuning.tuning_steps == 500
    assert booth.resolved("stable_diffusion") == booth
    short = InversionConfig(setup="custom-diffusion", max_train_steps=7).resolved("sdxl")
    assert short.tuning.tuning_steps == short.max_train_steps == 7
    both = InversionConfig(setup="pivotal", max_train_steps=7).resolved("sdxl")
    assert (both.max_train_steps, both.tuning.tuning_steps) == (7, 7)
    lora = InversionConfig(setup="pivotal", tuning=TuningConfig(tuned_weights="lora"))
    assert lora.resolved("sdxl").tuning.tuning_learning_rate == 1e-4
    assert InversionConfig().resolved("sdxl").tuning == TuningConfig()
    for name in ("rank", "tuning_steps", "num_class_images"):
        with pytest.raises(ConfigError, match=f"{name} must be 1 or more, got 0"):
            TuningConfig(**{name: 0})
    for name in ("tuning_learning_rate", "prior_loss_weight"):
        with pytest.raises(ConfigError, match=f"{name} must be 0 or more, got -1"):
            TuningConfig(**{name: -1.0})
    with pytest.raises(ConfigError, match="rare_token must be one word, got 'two words'"):
        TuningConfig(rare_token="two words")


def test_mistakes_are_said(backbone):
    with pytest.raises(PlaceholderError, match="must be known to the model's tokenizer"):
        method("lora-dreambooth")(backbone, job("lora-dreambooth", {"rare_token": "xqzwkj"}))
    one = job("pivotal", {"prior_loss_weight": 1.0})
    nameless = Concept(placeholder_token="S*", rows={"clip": torch.ones(1, 32)})
    with pytest.raises(JobError, match="without the class of the thing"):
        pivotal.invert(backbone, one, word=nameless)
    with pytest.raises(JobError, match="setup 'pivotal' in this loop because it changes"):
        invert(backbone, job("pivotal"))
    with pytest.raises(JobError, match=r"form 'xti' with setup .* plain embeddings"):
        pivotal.invert(backbone, job("pivotal", form="xti"))
    with pytest.raises(JobError, match="must have at least one picture"):
        method("custom-diffusion")(backbone, job("custom-diffusion", pictures=0))
    bare = load_backbone(ModelConfig(model=backbone.name, device="cpu"))
    bare.pipeline.unet.requires_grad_(False)
    for module in bare.pipeline.unet.modules():
        for child in ("to_q", "to_k", "to_v"):
            if hasattr(module, child):
                setattr(module, child, torch.nn.Identity())
        if hasattr(module, "to_out"):
            module.to_out = torch.nn.ModuleList([torch.nn.Identity()])
    with pytest.raises(JobError, match="must have weights to train as 'lora', got none"):
        changes.changes_of(bare, job("lora-dreambooth").config.resolved(bare.family))


def test_a_vocabulary_without_short_words_asks_for_one(backbone, monkeypatch):
    vocabulary = backbone.vocabularies["clip"]
    monkeypatch.setattr(type(vocabulary), "is_word", lambda self, text: len(text) > 3)
    with pytest.raises(JobError, match="has no rare word of two or three letters"):
        named.rare_word(backbone)


def test_a_rate_beyond_reason_ends_as_diverged_with_the_best_that_there_was(backbone):
    one = job("lora-dreambooth", {"tuning_learning_rate": 1e30, "tuning_steps": 8})
    result = method("lora-dreambooth")(backbone, one)
    assert result.status == "diverged"
    assert "Try a lower --tuning-learning-rate (now 1e+30)" in result.reason
    assert not result.concept.deltas


def test_tuning_that_learns_nothing_says_so(backbone):
    own = {"tuning_learning_rate": 0.0, "tuning_steps": 100, "prior_loss_weight": 0.0}
    one = job("lora-dreambooth", own, pictures=1, train_batch_size=1, evaluation_steps=50)
    result = method("lora-dreambooth")(backbone, one)
    assert result.status == "nothing-learned"
    assert "has not fallen" in result.reason


@pytest.mark.parametrize(
    ("family", "kind", "dtype"),
    [
        ("stable_diffusion", "full", "bf16"),
        ("stable_diffusion_v", "lora", "bf16"),
        ("ldm", "full", "fp32"),
        ("sdxl", "lora", "fp32"),
        ("sd3", "kv", "fp32"),
        ("flux", "lora", "fp32"),
    ],
)
def test_every_family_can_be_tuned(family, kind, dtype, tmp_path):
    folder = tiny.save(tiny.make(family), tmp_path / "model")
    backbone = load_backbone(ModelConfig(model=str(folder), device="cpu", dtype=dtype))
    part = "unet" if "unet" in backbone.pipeline.components else "transformer"
    module = backbone.pipeline.components[part]
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    own = {"tuned_weights": kind, "prior_loss_weight": 0.0}
    one = job("lora-dreambooth", own | {"tuning_steps": 6})
    g = torch.Generator().manual_seed(1)
    side = backbone.resolution
    pictures = torch.rand(2, 3, side, side, generator=g) * 2 - 1
    result = method("lora-dreambooth")(
        backbone, Job(name="x", pictures=pictures, config=one.config)
    )
    assert result.status == "finished"
    assert result.losses[-1][1] < result.losses[0][1]
    assert result.concept.deltas
    assert all(name.startswith(f"{part}.") for name in result.concept.deltas)
    assert all(torch.equal(p, before[n]) for n, p in module.named_parameters())


def test_tricks_of_training_reach_the_weights_too(backbone):
    learn, fields = method("lora-dreambooth"), {"tuning_steps": 3}

    def captioned(**tricks):
        one = job("lora-dreambooth", fields, keep="last", **tricks)
        return replace(one, captions=("a S*, red, large",) * 3)

    plain = learn(backbone, captioned())
    all_tricks = (
        {"noise_offset": 0.3},
        {"snr_gamma": 0.01},
        {"random_crops": 2},
        {"shuffle_caption": True, "caption_tag_dropout_rate": 0.5},
    )
    for tricks in all_tricks:
        found = learn(backbone, captioned(**tricks))
        assert found.losses[0] == plain.losses[0]
        assert any(
            not torch.equal(own, plain.concept.deltas[name])
            for name, own in found.concept.deltas.items()
        )


def test_the_rare_word_is_the_last_of_two_or_three_letters(backbone, monkeypatch):
    vocabulary = backbone.vocabularies["clip"]
    tokens = sorted(vocabulary.tokenizer.get_vocab().items(), key=lambda item: item[1])
    words = [piece.removesuffix("</w>") for piece, _ in tokens if piece.endswith("</w>")]
    known = [word for word in words if word.isascii() and word.isalpha()]
    short = [word for word in known if len(word) in (2, 3) and vocabulary.is_word(word)]
    assert named.rare_word(backbone) == short[-1]
    for allowed in [*short[-4:], *[word for word in short if len(word) == 2][-3:]]:
        others = {word for word in known if len(word) not in (2, 3)} | {allowed}
        monkeypatch.setattr(type(vocabulary), "is_word", lambda _, text, own=others: text in own)
        assert named.rare_word(backbone) == allowed


def test_a_lora_starts_as_pefts_do(backbone):
    """Kaiming's uniform start with a = sqrt 5, within 1 / sqrt(inputs); the second half is zero."""
    config = job("lora-dreambooth").config.resolved(backbone.family)
    tensors = changes.changes_of(backbone, config)
    first = {name: t for name, t in tensors.items() if name.endswith(deltas.LORA_A)}
    assert first
    scaled = torch.cat([(t * t.shape[1] ** 0.5).flatten() for t in first.values()])
    assert scaled.abs().max() <= 1
    assert float(scaled.min()) < -0.98
    assert float(scaled.max()) > 0.98
    assert float(scaled.mean()) == pytest.approx(0, abs=0.05)
    assert float(scaled.std()) == pytest.approx(3**-0.5, rel=0.05)
    assert not any(t.any() for name, t in tensors.items() if name.endswith(deltas.LORA_B))
