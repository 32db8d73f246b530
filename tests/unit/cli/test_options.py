"""Options: other tools' names, and values that begin with a dash."""

from __future__ import annotations

import pytest
from diffusers.optimization import SchedulerType

from oneword.cli.arguments import ComposeArguments, GenerateArguments, JobsArguments, TrainArguments
from oneword.cli.options import parse, words_of
from oneword.errors import ConfigError


BASE = ("--train-data-dir", "p")


@pytest.mark.parametrize(
    ("words", "fit"),
    [
        (["--center_crop"], "crop"), (["--center-crop", "True"], "crop"),
        (["--no_center_crop"], "squash"),
        (["--center-crop=False"], "squash"), (["--no-center-crop", "False"], "crop"),
        (["--center_crop", "--fit", "pad"], "pad"), ([], None),
        (words_of(TrainArguments, {"center_crop": True}, "run.toml"), "crop"),
        (words_of(TrainArguments, {"center_crop": False}, "run.toml"), "squash"),
    ],
)  # fmt: skip
def test_cropping_by_its_old_name_is_a_way_to_fit(words, fit):
    chosen, notes = parse(TrainArguments, "train", [*BASE, *words])
    assert chosen.inversion.fit == fit
    assert notes == []


def test_every_course_of_the_rate_of_diffusers_is_taken():
    for one in SchedulerType:
        rules = ["--lr_step_rules", "1:5,0.1"] if one.value == "piecewise_constant" else []
        words = [*BASE, "--lr_scheduler", one.value, "--lr_num_cycles", "3", *rules]
        chosen, notes = parse(TrainArguments, "train", words)
        assert (chosen.inversion.lr_scheduler, chosen.inversion.lr_num_cycles) == (one.value, 3)
        assert not notes


def test_an_option_that_is_dropped_takes_no_other_option_with_it():
    chosen, notes = parse(TrainArguments, "train", ["--local_rank", "--train-data-dir", "p"])
    assert str(chosen.train_data_dir) == "p"
    assert len(notes) == 1


def test_a_file_of_options_may_name_them_too():
    table = {"train_data_dir": "p", "allow_tf32": False, "push_to_hub": False, "repeats": 100}
    chosen, notes = parse(TrainArguments, "train", words_of(TrainArguments, table, "run.toml"))
    assert str(chosen.train_data_dir) == "p"
    assert [note.split()[0] for note in notes] == ["--repeats"]


# --- values that begin with a dash


@pytest.mark.parametrize(
    "words",
    [
        ["--placeholder-token=-cat"], ["--placeholder-token", "-cat"], ["--placeholder_token=-cat"],
        words_of(TrainArguments, {"placeholder_token": "-cat"}, "run.toml"),
    ],
)  # fmt: skip
def test_a_placeholder_may_begin_with_a_dash(words):
    for kind, needed in ((TrainArguments, BASE), (JobsArguments, ("--jobs", "jobs"))):
        chosen, _ = parse(kind, "train", [*needed, *words, "--seed", "-1"])
        assert chosen.inversion.placeholder_token == "-cat"
        assert chosen.inversion.seed == -1


def test_with_two_dashes_it_is_written_with_an_equals_sign():
    chosen, _ = parse(TrainArguments, "train", [*BASE, "--placeholder-token=--cat"])
    assert chosen.inversion.placeholder_token == "--cat"
    with pytest.raises(ConfigError, match=r"is no option either.* To pass a value that"):
        parse(TrainArguments, "train", [*BASE, "--placeholder-token", "--cat"])
    chosen, _ = parse(
        TrainArguments, "train", words_of(TrainArguments, {"train_data_dir": "p"} | {
            "placeholder_token": "--seed"}, "run.toml"))  # fmt: skip
    assert chosen.inversion.placeholder_token == "--seed"


def test_prompts_may_begin_with_a_dash():
    chosen, _ = parse(GenerateArguments, "generate", ["--prompts", "-cat on the moon", "a cat"])
    assert chosen.prompts == ("-cat on the moon", "a cat")
    chosen, _ = parse(
        ComposeArguments, "compose",
        ["--images", "a", "b", "--placeholder-tokens=-a", "<b>", "--initializer-tokens", "c", "d"],
    )  # fmt: skip
    assert chosen.placeholder_tokens == ("-a", "<b>")


@pytest.mark.parametrize("words", [["--prompts", "a", "-o", "out"], ["--gallery", "-x"], ["-q"]])
def test_a_word_with_one_dash_elsewhere_is_a_sentence(words):
    with pytest.raises(ConfigError, match=r"Options must begin with two dashes, got '-[oxq]'"):
        parse(GenerateArguments, "generate", words)
    with pytest.raises(ConfigError, match=r"must come first in prompts .*, got '-b'"):
        words_of(GenerateArguments, {"prompts": ["a", "-b"]}, "run.toml")


# --- what is misspelt


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--placeholder-tokn", "x"], "--placeholder-tokn is not an option here; did you mean "
         r"--placeholder-token\?"),
        ([*BASE, "--mixed-precison", "no"], r"did you mean --mixed-precision\?"),
        ([*BASE, "--no-mask"], r"--no-mask is not an option here; did you mean --no-masks\?"),
        ([*BASE, "--dtype", "--seeed", "1"], r"no option either; did you mean --seed\? To pass"),
        ([*BASE, "--qqq"], r"--qqq is not an option here\.$"),
        ([*BASE, "--preset", "fsat"], r"--preset must be one of paper, release, default, fast, got "
         r"'fsat'; did you mean fast\?"),
        ([*BASE, "--setup", "two-word"], r"--setup must be one of one-word, .*, custom-diffusion, "
         r"got 'two-word'; did you mean two-words\?"),
    ],
)  # fmt: skip
def test_what_is_misspelt_gets_the_nearest_name(words, message):
    with pytest.raises(ConfigError, match=message):
        parse(TrainArguments, "train", words)
