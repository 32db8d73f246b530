"""A record's settings make the config that they were written from."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from oneword.config.inversion import InversionConfig
from oneword.config.model import ModelConfig
from oneword.config.restored import restored
from oneword.config.runs import TrainConfig, plain_settings
from oneword.errors import ConfigError


def config(**inversion):
    return TrainConfig(
        train_data_dir=Path("photos"),
        model=ModelConfig(model="some/model", dtype="bf16"),
        inversion=InversionConfig(placeholder_token="<cat>", num_vectors=3, **inversion),
        report_to=("csv",),
        mask_dir=Path("masks"),
    )


def test_a_config_comes_back_as_it_was():
    asked = config(train_encoders=("clip_l",))
    assert restored(TrainConfig, plain_settings(asked)) == asked


@pytest.mark.parametrize("setup", ["one-word", "pivotal", "xti"])
def test_a_resolved_config_resolves_to_itself(setup):
    whole = config(setup=setup).resolved("stable-diffusion-1", 512)
    again = restored(TrainConfig, plain_settings(whole)).resolved("stable-diffusion-1", 512)
    assert plain_settings(again) == plain_settings(whole)


def test_what_the_class_does_not_know_is_left_out():
    plain = plain_settings(config()) | {"from_another_version": 1}
    assert restored(TrainConfig, plain) == config()


@pytest.mark.parametrize("value", [3, [1], "x"])
def test_a_value_of_another_kind_is_one_sentence(value):
    plain = json.loads(json.dumps(dataclasses.asdict(config()), default=str))
    with pytest.raises(ConfigError, match="settings must be those of"):
        restored(TrainConfig, plain | {"inversion": value})
