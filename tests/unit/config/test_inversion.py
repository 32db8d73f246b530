from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from oneword.config.drawing import GenerateConfig, SamplingConfig
from oneword.config.inversion import InversionConfig
from oneword.config.model import ModelConfig
from oneword.config.presets import PRESETS, SETUPS, is_validated, preset_for
from oneword.config.runs import TrainConfig
from oneword.config.scoring import ChooseConfig, EvaluateConfig, StudyConfig
from oneword.config.tuning import TUNING, TuningConfig
from oneword.errors import ConfigError


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"placeholder_token": ""}, "non-empty and without spaces, got ''"),
        ({"placeholder_token": "my cat"}, "without spaces, got 'my cat'"),
        ({"placeholder_token": "a{}b"}, "must not contain"),
        ({"initializer_token": "  "}, "must be a word"),
        ({"num_vectors": 0}, "num_vectors must be in 1..75, got 0"),
        ({"num_vectors": 76}, "got 76"),
        ({"num_negative_vectors": 0}, "num_negative_vectors must be in 1..75, got 0"),
        ({"setup": "two-word"}, "setup must be one of one-word, two-words, .*, got 'two-word'"),
        ({"dual_prompt_probability": 1.5}, r"dual_prompt_probability must be in \[0, 1\], got 1.5"),
        ({"norm_pull": -0.1}, r"norm_pull must be in \[0, 1\], got -0.1"),
        ({"cross_initialization": True, "norm_pull": 0.1}, "cross_initialization with norm_pull"),
        ({"regularization_weight": -1.0}, "regularization_weight must be 0 or more"),
        ({"average_decay": 1.0}, r"average_decay must be in \[0, 1\)"),
        (
            {"learning_rate": 1e-3, "relative_learning_rate": 0.1},
            "learning_rate with relative_learning_rate",
        ),
        ({"learning_rate": -1.0}, "learning_rate must be 0 or more"),
        ({"max_train_steps": 0}, "max_train_steps must be 1 or more"),
        ({"train_batch_size": 0}, "train_batch_size must be 1 or more"),
        ({"evaluation_steps": 0}, "evaluation_steps must be 1 or more"),
        ({"adam_beta1": 1.0}, r"adam_beta1 must be in \[0, 1\)"),
        ({"adam_epsilon": 0.0}, "adam_epsilon must be positive"),
        ({"adam_weight_decay": -0.1}, "adam_weight_decay must be 0 or more"),
        ({"prompt_templates": "style19"}, "must fit learnable_property 'object', got 'style19'"),
        ({"prompt_templates": "head81", "learnable_property": "style"}, "must fit"),
    ],
)
def test_a_setting_out_of_its_range_is_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        InversionConfig(**fields)


@pytest.mark.parametrize("family", ["microworld", "stable_diffusion", "ldm"])
@pytest.mark.parametrize("preset", list(PRESETS))
@pytest.mark.parametrize("kind", ["object", "style"])
def test_a_resolved_config_has_no_gaps_and_resolves_to_itself(preset, family, kind):
    config = InversionConfig(preset=preset, learnable_property=kind).resolved(family)
    gaps = {f.name for f in dataclasses.fields(config) if getattr(config, f.name) is None}
    files = {"initializer_file", "encoder"}
    assert gaps == {"initializer_token", "relative_learning_rate"} | files
    assert config.prompt_templates.startswith("style") == (kind == "style")
    assert config.resolved(family) == config


def test_what_is_given_wins_over_the_preset():
    config = InversionConfig(preset="paper", max_train_steps=7, relative_learning_rate=0.1)
    resolved = config.resolved("ldm")
    assert resolved.max_train_steps == 7
    assert resolved.learning_rate is None
    assert resolved.relative_learning_rate == 0.1
    assert resolved.train_batch_size == 8


def test_the_papers_numbers():
    paper = InversionConfig(preset="paper").resolved("ldm")
    rate = paper.learning_rate * paper.train_batch_size
    assert (rate, paper.max_train_steps, paper.prompt_templates) == (0.04, 5000, "paper27dot")
    assert paper.scale_lr
    assert paper.keep == "last"


def test_only_the_published_presets_decay_the_rows():
    for name, families in PRESETS.items():
        for preset in families.values():
            assert (preset["adam_weight_decay"] > 0) == (name in ("paper", "release"))


def test_only_microworlds_own_default_is_validated():
    assert is_validated("default", "microworld")
    assert not is_validated("default", "stable_diffusion")
    assert not is_validated("paper", "microworld")
    assert not is_validated("fast", "microworld")


def test_an_unknown_preset_is_refused():
    with pytest.raises(ConfigError, match="preset must be one of paper, release, default"):
        preset_for("fats", "ldm")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ModelConfig(model=""), "model must be a name"),
        (lambda: ModelConfig(clip_skip=-1), "clip_skip must be 0 or more"),
        (lambda: SamplingConfig(guidance_scale=-1.0), "guidance_scale must be 0 or more"),
        (lambda: SamplingConfig(num_inference_steps=0), "num_inference_steps must be 1 or more"),
        (lambda: SamplingConfig(height=100), "height must be a positive multiple of 8"),
        (lambda: GenerateConfig(num_images_per_prompt=0), "num_images_per_prompt must be 1"),
        (lambda: TrainConfig(train_data_dir=Path("x"), resolution=70), "multiple of 8 px, got 70"),
        (lambda: TrainConfig(train_data_dir=Path("x"), checkpointing_steps=0), "checkpointing"),
        (lambda: TrainConfig(train_data_dir=Path("x"), num_validation_images=0), "num_validation"),
        (lambda: TrainConfig(train_data_dir=Path("x"), validation_steps=-1), "validation_steps"),
        (lambda: TrainConfig(train_data_dir=Path("x"), save_steps=-1), "save_steps must be 0 or"),
        (lambda: ChooseConfig(run=Path("x"), step=1, by="loss"), "Cannot use --step"),
        (
            lambda: EvaluateConfig(concept=Path("x"), train_data_dir=Path("x"), batch_size=0),
            "batch_size must be 1 or more",
        ),
    ],
)
def test_other_configs_refuse_what_cannot_be(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_the_least_and_the_most_that_may_be_given_are_taken():
    one = {"num_images_per_prompt": 1, "batch_size": 1}
    TuningConfig(
        rank=1, tuning_steps=1, num_class_images=1, tuning_learning_rate=0.0, prior_loss_weight=0.0
    )
    TuningConfig(rare_token="sks")
    EvaluateConfig(concept=Path("x"), train_data_dir=Path("x"), **one)
    StudyConfig(
        num_processes=1, slots=1, num_inversion_steps=1, set_sizes=(1,), workers=1,
        cluster="local", **one,
    )  # fmt: skip
    SamplingConfig(guidance_scale=0.0, num_inference_steps=1, height=8, width=8)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TuningConfig(rare_token="a b"), "rare_token must be one word, got 'a b'"),
        (lambda: TuningConfig(rank=0), "rank must be 1 or more, got 0"),
        (lambda: TuningConfig(tuning_learning_rate=-0.1), "tuning_learning_rate must be 0 or more"),
        (
            lambda: StudyConfig(num_inversion_steps=0),
            "num_inversion_steps must be 1 or more, got 0",
        ),
        (lambda: StudyConfig(set_sizes=(0,)), "set_sizes must be 1 or more each, got"),
        (lambda: StudyConfig(seeds=(1, 1)), "seeds must differ from each other, got 1 twice"),
        (
            lambda: StudyConfig(num_processes=2, cluster="local"),
            "Cannot use --cluster with --num-processes",
        ),
    ],
)
def test_settings_of_studies_and_weights_refuse_what_cannot_be(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_sampling_settings_are_laid_over_each_other():
    base = SamplingConfig(guidance_scale=5.0, num_inference_steps=50, height=64, width=64)
    assert base.overlaid(None) is base
    mixed = base.overlaid(SamplingConfig(num_inference_steps=9, negative_prompt="blurry"))
    assert mixed == dataclasses.replace(base, num_inference_steps=9, negative_prompt="blurry")


@pytest.mark.parametrize(
    ("batch", "steps", "stopping"),
    [(1, 110, 50), (2, 60, 30), (4, 30, 20), (8, 20, 10), (64, 10, 10)],
)
def test_scorings_are_rarer_where_batches_are_small(batch, steps, stopping):
    config = InversionConfig(train_batch_size=batch)
    assert config.resolved("sdxl").evaluation_steps == steps
    watched = dataclasses.replace(config, early_stopping=True)
    assert watched.resolved("sdxl").evaluation_steps == stopping
    assert InversionConfig().resolved("microworld").evaluation_steps == 10
    assert InversionConfig(evaluation_steps=3).resolved("sdxl").evaluation_steps == 3


@pytest.mark.parametrize(
    ("steps", "batch", "samples"),
    [(2, 1, 2), (8, 1, 3), (8, 2, 6), (8, 4, 12), (10, 4, 15), (11, 4, 16), (3000, 4, 16)],
)
def test_short_runs_score_fewer_samples(steps, batch, samples):
    config = InversionConfig(max_train_steps=steps, train_batch_size=batch)
    resolved = config.resolved("stable_diffusion")
    assert resolved.num_evaluation_samples == samples
    assert resolved.resolved("stable_diffusion") == resolved
    for given in ({"evaluation_steps": 1}, {"num_evaluation_samples": 16}):
        own = dataclasses.replace(config, **given).resolved("stable_diffusion")
        assert own.num_evaluation_samples == 16
    assert InversionConfig().resolved("microworld").num_evaluation_samples == 16


@pytest.mark.parametrize("setup", list(SETUPS))
@pytest.mark.parametrize("family", ["microworld", "ldm"])
def test_every_setup_resolves_without_gaps_and_to_itself(setup, family):
    config = InversionConfig(setup=setup).resolved(family)
    gaps = {f.name for f in dataclasses.fields(config) if getattr(config, f.name) is None}
    files = {"initializer_file", "encoder"}
    assert gaps == {"initializer_token", "relative_learning_rate"} | files
    assert config.resolved(family) == config
    own = {n: v for n, v in SETUPS[setup].items() if n != "learning_rate"}
    assert {name: getattr(config, name) for name in own} == own


@pytest.mark.parametrize("family", ["microworld", "stable_diffusion", "flux2"])
def test_fast_is_the_default_that_stops_at_the_published_threshold(family):
    fast = InversionConfig(preset="fast").resolved(family)
    default = InversionConfig().resolved(family)
    assert fast.early_stopping
    assert fast.stop_threshold == 0.15
    assert default.early_stopping == (family == "microworld")
    assert fast.evaluation_steps <= default.evaluation_steps  # it must be asked often enough
    same = {
        name: getattr(default, name)
        for name in ("preset", "early_stopping", "stop_threshold", "evaluation_steps")
    }
    assert default == dataclasses.replace(fast, **same)


@pytest.mark.parametrize(
    "settings",
    [{"setup": "progressive"}, {"form": "progressive", "num_vectors": 3}]
    + [{"setup": setup} for setup in TUNING],
    ids=str,
)
def test_what_has_no_rest_to_wait_for_runs_to_its_end(settings):
    for preset in ("default", "fast"):
        config = InversionConfig(preset=preset, **settings).resolved("microworld")
        assert config.early_stopping is False
        assert config.resolved("microworld") == config


@pytest.mark.parametrize("settings", [{"setup": "progressive"}, {"form": "progressive"}])
def test_progressive_vectors_are_not_cut_off(settings):
    with pytest.raises(ConfigError, match="early_stopping with progressive because"):
        InversionConfig(early_stopping=True, **settings)


def test_what_is_given_wins_over_the_setup():
    config = InversionConfig(setup="three-words", num_vectors=1, learning_rate=0.5)
    assert config.resolved("ldm").num_vectors == 1
    fast = InversionConfig(setup="high-lr", relative_learning_rate=0.1).resolved("ldm")
    assert (fast.learning_rate, fast.relative_learning_rate) == (None, 0.1)
    assert InversionConfig(setup="neti", learning_rate=0.5).resolved("ldm").learning_rate == 0.5


@pytest.mark.parametrize(
    "family",
    [
        *("pixart", "sana", "lumina2", "chroma", "qwen_image", "flux2"),
        "sana_sprint",
        "krea2",
        "qwen_image21",
        "ovis_image",
        "hunyuan_image",
        "kandinsky5",
        "ernie_image",
        "ideogram4",
        "longcat_image",
        # more T5, Gemma and GLM
        "lumina",
        "bria",
        "bria_fibo2",
        "dreamlite",
        "nucleus_moe",
        "hunyuan_dit",
        "hidream",
        "cogview3",
        "auraflow",
        "cogview4",
        "cosmos2",
        "kolors",
        "deepfloyd_if",
        "prx",
        "kandinsky3",
    ],
)
def test_rates_of_other_text_encoders_are_in_units_of_their_table(family):
    plain = InversionConfig().resolved(family)
    assert (plain.learning_rate, plain.relative_learning_rate) == (None, 0.14)
    low = InversionConfig(setup="low-lr").resolved(family)
    assert low.relative_learning_rate == pytest.approx(0.14 * 0.02)
    assert low.resolved(family) == low
    assert InversionConfig(learning_rate=0.5).resolved(family).relative_learning_rate is None
    network = InversionConfig(setup="neti").resolved(family)
    assert (network.learning_rate, network.relative_learning_rate) == (8e-3, None)


def test_the_papers_rates_are_ratios_of_the_presets():
    rates = {
        setup: InversionConfig(setup=setup, preset="paper").resolved("ldm").learning_rate
        for setup in ("one-word", "high-lr", "low-lr")
    }
    assert rates == pytest.approx({"one-word": 5e-3, "high-lr": 2e-2, "low-lr": 1e-4})
    own = InversionConfig().resolved("microworld").learning_rate
    assert InversionConfig(setup="high-lr").resolved("microworld").learning_rate == 4 * own
    assert InversionConfig(learning_rate_ratio=0.5).resolved("microworld").learning_rate == own / 2
