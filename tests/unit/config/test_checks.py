"""Seeds, numbers and words that no run can use are refused when the settings are made."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from oneword.cli.arguments import (
    ConceptCardArguments,
    DemoArguments,
    ExploreArguments,
    MicroworldEvaluateArguments,
    MicroworldTrainArguments,
    PeopleArguments,
    PicturesArguments,
    SampleArguments,
)
from oneword.config.checks import check_placeholder, check_seeds
from oneword.config.drawing import EditConfig, GenerateConfig, SamplingConfig
from oneword.config.inversion import InversionConfig
from oneword.config.runs import ComposeConfig, DebiasConfig, TrainConfig
from oneword.config.scoring import EvaluateConfig, StudyConfig
from oneword.config.tuning import TuningConfig
from oneword.errors import ConfigError
from oneword.study.plan import Study
from oneword.training.draws import generator


P = Path("p")
HIGH, LOW = 2**64 - 1, -(2**63)


@pytest.mark.parametrize("seed", [LOW, -1, 0, HIGH])
def test_every_seed_in_range_is_one_of_torchs(seed):
    check_seeds(seed)
    torch.Generator().manual_seed(seed)
    generator(seed, 0)


@pytest.mark.parametrize("seed", [LOW - 1, HIGH + 1])
def test_no_other_is(seed):
    with pytest.raises(ConfigError, match=f"seed must be in {LOW}..{HIGH}, got {seed}"):
        check_seeds(seed)
    with pytest.raises(ValueError, match="Overflow"):
        torch.Generator().manual_seed(seed)


def debias(seed, **fields):
    return DebiasConfig(word="cat", images=P, inversion=InversionConfig(seed=seed), **fields)


def edit(**fields):
    return EditConfig(**({"picture": P, "prompt": "a", "strength": 0.5} | fields))


def evaluate(**fields):
    return EvaluateConfig(concept=P, train_data_dir=P, **fields)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: InversionConfig(seed=HIGH + 1), "seed must be in"),
        (lambda: TrainConfig(train_data_dir=P, inversion=InversionConfig(seed=HIGH)),
         "seed and the 3 after it"),
        (lambda: debias(HIGH - 62), "seed and the 63 after it"),
        (lambda: GenerateConfig(seed=HIGH, num_images_per_prompt=2), "seed and the 1 after it"),
        (lambda: edit(seed=LOW - 1), "seed and the 3 after it"),
        (lambda: evaluate(seed=HIGH), "seed and the 15 after it"),
        (lambda: StudyConfig(seeds=(0, 2**60)), "seed and the 63 after it"),
        (lambda: StudyConfig(seeds=(HIGH + 1,)), "seed must be in"),
        (lambda: Study(StudyConfig(seeds=(-1,), concepts=("gold-mug",))), "must be in 0"),
        (lambda: DemoArguments(seed=HIGH), "seed and the 7 after it"),
        (lambda: DemoArguments(num_images_per_prompt=0), "num_images_per_prompt must be 1 or more"),
        (lambda: ConceptCardArguments(files=(P,), seed=HIGH), "seed and the 3 after it"),
        (lambda: ConceptCardArguments(files=(P,), num_images_per_prompt=0), "must be 1 or more"),
        (lambda: SampleArguments(prompts=("a",), seed=HIGH), "seed and the 3 after it"),
        (lambda: PicturesArguments(concept="parrot", output_dir=P, seed=-1), "must be in 0"),
        (lambda: PeopleArguments(profession="baker", output_dir=P, seed=-1), "must be in 0"),
        (lambda: ExploreArguments(seed=-1), "must be in 0"),
        (lambda: MicroworldEvaluateArguments(seed=-1), "must be in 0"),
        (lambda: MicroworldTrainArguments(seed=-1), "must be in 0"),
        (lambda: InversionConfig(learning_rate=float("inf")), "learning_rate must be a finite"),
        (lambda: InversionConfig(adam_epsilon=float("inf")), "adam_epsilon must be a finite"),
        (lambda: TuningConfig(prior_loss_weight=float("inf")), "prior_loss_weight must be a"),
        (lambda: SamplingConfig(guidance_scale=float("nan")), "guidance_scale must be a finite"),
        (lambda: StudyConfig(guidance_scales=(1.0, float("inf"))), "guidance_scales must be a"),
        (lambda: StudyConfig(guidance_scales=(-1.0,)), "guidance_scales must be 0 or more"),
        (lambda: edit(strength=1.0, invert="a cat", keep=2), "keep must be in 1..1"),
        (lambda: ComposeConfig(images=(P, P), placeholder_tokens=("<a>", "{}"),
                               initializer_tokens=("a", "b")), "must not contain '{}', got '{}'"),
    ],
)  # fmt: skip
def test_settings_that_no_run_can_use_are_refused(make, message):
    with pytest.raises(ConfigError, match=message.replace("{", r"\{").replace("}", r"\}")):
        make()


@pytest.mark.parametrize("token", ["S*", "<my-cat>", "猫", "-cat", "👩\u200d🚀", "*", "Ünï"])
def test_a_new_word_may_be_any_text(token):
    check_placeholder(token)


@pytest.mark.parametrize("token", ["", "a b", "a\u3000b", "a\n", "\x1b[31m", "\udcff", "a{}"])
def test_but_none_with_spaces_or_control_characters(token):
    with pytest.raises(ConfigError, match=r"The new word must (be|not)"):
        check_placeholder(token, "The new word")


@pytest.mark.parametrize(
    ("texts", "seeds"),
    [
        (("1", "2", "3"), (1, 2, 3)),
        (("0-7",), tuple(range(8))),
        (("5", "0-1", "-3"), (5, 0, 1, -3)),
        (("7-7",), (7,)),
    ],
)
def test_seeds_are_numbers_and_ranges(texts, seeds):
    assert GenerateConfig(seeds=texts).drawn_seeds == seeds
    assert edit(seeds=texts).drawn_seeds == seeds


def test_a_first_seed_and_a_number_go_on_as_before():
    assert GenerateConfig(seed=3, num_images_per_prompt=2).drawn_seeds == (3, 4)
    assert GenerateConfig().drawn_seeds == (0, 1, 2, 3)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"seeds": ("x",)}, "seeds must be numbers or ranges, such as 1 2 3 or 0-7, got 'x'"),
        ({"seeds": ("1.5",)}, "numbers or ranges"),
        ({"seeds": ("1,2",)}, "numbers or ranges"),
        ({"seeds": ("9" * 200,)}, "numbers or ranges"),
        ({"seeds": ("7-3",)}, "must go from low to high, got '7-3'"),
        ({"seeds": ("0-3", "2")}, "each seed once, got 2 twice"),
        ({"seeds": ("0-999999999",)}, "at most 10000 seeds"),
        ({"seeds": (str(2**64),)}, "seed must be in"),
        ({"seeds": ("1",), "seed": 3}, "use --seeds with --seed 3 because"),
        ({"seeds": ("1",), "num_images_per_prompt": 2}, "--seeds with --num-images-per-prompt 2"),
        ({"seeds": ("1-3",), "keep": 4}, "keep must be in 1..3"),
    ],
)
def test_other_seeds_are_one_sentence(fields, message):
    with pytest.raises(ConfigError, match=message):
        GenerateConfig(**fields)
