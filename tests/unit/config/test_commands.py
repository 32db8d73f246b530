"""A command that is printed asks for what the config asked for."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import Any

import pytest

from oneword.cli import options
from oneword.cli.arguments import (
    ChooseArguments,
    EditArguments,
    GenerateArguments,
    TrainArguments,
)
from oneword.config.commands import command, command_for
from oneword.config.drawing import EditConfig, GenerateConfig, SamplingConfig
from oneword.config.inversion import InversionConfig
from oneword.config.model import ModelConfig
from oneword.config.runs import TrainConfig
from oneword.config.scoring import ChooseConfig


_PICTURE = Path("my 'best' picture.png")
_CONFIGS = (
    ("generate", GenerateArguments, GenerateConfig(prompts=("a photo of a <cat>", "$HOME")), ()),
    (
        "generate",
        GenerateArguments,
        GenerateConfig(
            prompts=("-1 degrees",),
            concepts=(Path("a"), Path("b c")),
            model=ModelConfig(model="microworld-nano", safety_checker=False, clip_skip=1),
            sampling=SamplingConfig(
                guidance_scale=1.5, negative_prompt="--blurred", num_inference_steps=3
            ),
            num_images_per_prompt=2,
            seed=7,
            keep=1,
            replace=True,
        ),
        (),
    ),
    (
        "edit",
        EditArguments,
        EditConfig(
            picture=_PICTURE, prompt="a <cat>", mask=Path("m.png"), background="poisson",
            strength=0.35, seeds=("1", "2-4"), model=ModelConfig(),
        ),
        ("picture",),
    ),
    (
        "edit",
        EditArguments,
        EditConfig(picture=_PICTURE, prompt="a <cat>", invert="a cat", keep=1),
        ("picture",),
    ),
    ("choose", ChooseArguments, ChooseConfig(run=Path("words/a"), prompts=("x", "y")), ("run",)),
    (
        "train",
        TrainArguments,
        TrainConfig(
            train_data_dir=Path("pictures"),
            model=ModelConfig(model="microworld-nano", gradient_checkpointing=False),
            inversion=InversionConfig(
                placeholder_token="<thing>", learnable_property="style", num_vectors=3,
                random_flip=True,
            ),
            masks=False,
            save_steps=20,
        ),
        (),
    ),
)  # fmt: skip


@pytest.mark.parametrize(("verb", "kind", "config", "positional"), _CONFIGS)
def test_a_printed_command_is_read_as_the_config(
    verb: str, kind: type[Any], config: Any, positional: tuple[str, ...]
) -> None:
    words = shlex.split(command_for(verb, config, *positional))
    assert words[:2] == ["oneword", verb]
    read, _ = options.parse(kind, verb, words[2:])
    assert options.settings(type(config), read) == config


def test_what_is_as_usual_is_left_out() -> None:
    assert command_for("generate", GenerateConfig(prompts=("x",))) == (
        "oneword generate --prompts x"
    )
    assert command_for("generate", GenerateConfig(prompts=("x",)), always=("seed",)) == (
        "oneword generate --prompts x --seed 0"
    )


def test_a_model_that_is_not_the_usual_one_of_the_verb_is_named() -> None:
    config = GenerateConfig(prompts=("x",), model=ModelConfig())
    assert command_for("generate", config) == "oneword generate --prompts x --model microworld"
    assert dataclasses.replace(config, model=ModelConfig(model="auto")) == GenerateConfig(
        prompts=("x",)
    )


def test_no_word_is_read_by_the_shell() -> None:
    assert command("concept push", "a b", "$(x)") == "oneword concept push 'a b' '$(x)'"
