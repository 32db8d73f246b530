"""Ours beside the table of published constants: any change of any of them is seen."""

from __future__ import annotations

import re
import tomllib
from dataclasses import asdict, fields
from itertools import chain
from pathlib import Path

import pytest

import published
from oneword.config import (
    baselines,
    palavra,
    presets,
    tuning,
    variations,
    vqgan_clip as vqgan_clip_config,
)
from oneword.config.inversion import InversionConfig
from oneword.config.runs import ComposeConfig
from oneword.config.scoring import StudyConfig
from oneword.evaluation import features
from oneword.evaluation.harness import protocol_for
from oneword.generation import augmentations, blending, clip_diffusion, vqgan_clip
from oneword.models import clip_pairs, ldm_checkpoint, unconditional
from oneword.models.families import ldm, stable_diffusion
from oneword.study import findings, plan
from oneword.training import draws, projector
from oneword.training.extensions import cross_init, dreamartist, progressive
from oneword.training.tuning import named
from oneword.vocabulary import kinds


RECIPES = Path(__file__).parents[3] / "recipes"
_NAMES = (
    "model",
    "concepts",
    "output_dir",
    "setups",
    "prompts",
    "guidance_setups",
    "set_size_concepts",
)


def values(constants):
    return {name: value for name, (value, _) in constants.items()}


def flat(table):
    """By name, then by family, as one level."""
    return {(name, family): own for name, by in table.items() for family, own in by.items()}


def test_presets():
    ours = flat(presets.PRESETS)
    assert ours.keys() == published.PRESETS.keys()
    for name, constants in published.PRESETS.items():
        assert ours[name] == values(published.COMMON) | values(constants), name


def test_setups():
    assert {name: values(own) for name, own in published.SETUPS.items()} == presets.SETUPS


def test_samplers():
    assert flat(presets.SAMPLERS) == {n: values(own) for n, own in published.SAMPLERS.items()}
    assert values(published.DDIM) == presets.PUBLISHED_DDIM
    assert values(published.LDM_SCHEDULE) == ldm_checkpoint._SCHEDULE


def test_protocols():
    assert {name: values(own) for name, own in published.PROTOCOLS.items()} == presets.PROTOCOLS


def test_families():
    ours = {"ldm": ldm.DEFAULTS} | stable_diffusion.DEFAULTS
    for name, constants in published.FAMILIES.items():
        given = {k: v for k, v in asdict(ours[name]).items() if v not in (None, "")}
        assert given == values(constants), name
    assert ours.keys() == published.FAMILIES.keys()


def test_decoders():
    ours = {name: asdict(own) for name, own in blending.DECODER_TUNING.items()}
    assert ours == {name: values(own) for name, own in published.DECODERS.items()}


def test_weights():
    rates = {name: values(own) for name, own in published.TUNING_RATES.items()}
    assert rates == tuning.TUNING_RATES
    assert values(published.RATE_FACTORS) == presets.RATE_FACTORS
    assert flat(tuning.TUNING) == {name: values(own) for name, own in published.TUNING.items()}


def test_palavra(tmp_path):
    assert {name: values(own) for name, own in published.PALAVRA.items()} == palavra.PALAVRA
    word = palavra.PalavraWordConfig(train_data_dir=tmp_path)
    assert values(published.PALAVRA_SINGLE) == {
        "layers": palavra.LAYERS,
        "passes in an epoch": palavra.PASSES,
        "held back": palavra.HELD_BACK,
        "prompts": palavra.PROMPTS,
        "prompt of the test": palavra.TEST_PROMPT,
        "prompt of the word": palavra.WORD_PROMPT,
        "prompt that finds": palavra.FOUND_PROMPT,
        "steps": word.max_train_steps,
        "rate": word.learning_rate,
        "temperature": word.temperature,
        "mode": word.mode,
        "coarse phrase": palavra.COARSE,
    }


def test_vqgan_clip():
    ours = {name: asdict(own) for name, own in vqgan_clip_config.VQGAN_CLIP.items()}
    ours["on the embedded models"] = vqgan_clip_config.VQGAN_CLIP_EMBEDDED
    assert ours == {name: values(own) for name, own in published.VQGAN_CLIP.items()}
    named = {name: getattr(augmentations, name) for name in published.AUGMENTATIONS}
    assert named == values(published.AUGMENTATIONS)


def test_variations():
    config = variations.ProjectorConfig()
    names = ("num_vectors", "num_samples", "num_pictures", "train_batch_size", "learning_rate")
    ours = {name: dict(own) for name, own in variations.VARIATIONS.items()}
    ours["karlo from text"] = dict(variations.KARLO_TEXT)
    ours["candidates"] = {
        "of a word": variations.CANDIDATES,
        "of variations": variations.VARIATION_CANDIDATES,
    }
    ours["projector"] = {name: getattr(config, name) for name in names} | {
        "hidden": projector._HIDDEN,
        "warmup_steps": projector._WARMUP_STEPS,
        "weight_decay": projector._WEIGHT_DECAY,
        "initializer": projector.INITIALIZER,
    }
    assert ours == {name: values(own) for name, own in published.VARIATIONS.items()}


def test_single_ones():
    study, inversion = StudyConfig(), InversionConfig()
    weights = [label.rpartition("=")[2] for label in plan.GROUPS["regularization-weights"]]
    regularized = presets.SETUPS["regularized"]["regularization_weight"]
    composed = {field.name: field.default for field in fields(ComposeConfig)}
    assert values(published.SINGLE) == {
        "inversion steps": presets.INVERSION_STEPS,
        "judge": features.DEFAULT_JUDGE,
        "DINO": features.DEFAULT_DINO,
        "AdamW's first decay": inversion.adam_beta1,
        "AdamW's second decay": inversion.adam_beta2,
        "AdamW's epsilon": inversion.adam_epsilon,
        "study: pictures per prompt": study.num_images_per_prompt,
        "study: guidance": study.sampling.guidance_scale,
        "study: steps": study.sampling.num_inference_steps,
        "study: inversion steps": study.num_inversion_steps,
        "evaluation: pictures per prompt": len(protocol_for("ldm").seeds),
        "study: seeds": study.seeds,
        "study: least of comparable setups": findings.MARGIN,
        "study: low guidance": findings.LOW_GUIDANCE,
        "study: high guidance": findings.HIGH_GUIDANCE,
        "study: pictures that are best": findings.SET_SIZE,
        "regularized: the weights that are compared": tuple(
            regularized if text == "regularized" else float(text) for text in weights
        ),
        "progressive: steps until the next vector": progressive.STAGE,
        "progressive: share of a shorter run": progressive.SHARE,
        "cross-init: weight of the distance": cross_init.WEIGHT,
        "dreamartist: noise of the negative word": dreamartist.NOISE,
        "neti: frequencies": kinds.FREQUENCIES,
        "neti: spread of the frequencies of time and layer": kinds.SCALES,
        "neti: anchors along the time": kinds.TIMES,
        "neti: width of the hidden layers": kinds.HIDDEN,
        "letters of a rare word": named.RARE_LETTERS,
        "average of the last rows": inversion.average_decay,
        "scorings that decide when to stop": inversion.stop_window,
        "samples of the fixed batch": inversion.resolved("sdxl").num_evaluation_samples,
        "diffusion times of the fixed batch": draws.EVALUATION_SPAN,
        "share of composites": composed["paste"],
        "heads of LDM's attention": ldm_checkpoint._HEADS,
        "scaling factor of LDM's latents": ldm_checkpoint._SCALING_FACTOR,
        "LDM's context": ldm.CONTEXT,
        "mask cells of an edit": blending.THICK,
        "VQGAN-CLIP: share of the pictures": vqgan_clip_config.VQGANCLIPConfig(
            prompts=("a",)
        ).image_share,
        "VQGAN-CLIP: least side of a cutout that the guide sees whole": vqgan_clip._SMALLEST,
        "rank of a LoRA": tuning.TuningConfig().rank,
        "rate of Prodigy": presets.PRODIGY_RATE,
        "course of the rate: cycles": inversion.lr_num_cycles,
        "course of the rate: power": inversion.lr_power,
        "guide": clip_pairs.DEFAULT_GUIDE,
        "mean of CLIP's pixels": clip_pairs.MEAN,
        "spread of CLIP's pixels": clip_pairs.STD,
        "times left out before a picture": baselines.INIT_SKIP,
        "shortest cutout of a small picture": clip_diffusion.LEAST_CUT,
        "older script: most blur": clip_diffusion.MOST_BLUR,
        "older script: blur by noise over signal": clip_diffusion.BLUR,
        "older script: most shift": clip_diffusion.SHIFT,
        "unconditional model: betas": unconditional._BETAS,
        "unconditional model: channels of a head": unconditional._HEAD_CHANNELS,
        "unconditional model: groups of a norm": unconditional._GROUPS,
        "unconditional model: blocks of a level": unconditional._BLOCKS,
    }


def test_clip_diffusion():
    ours = baselines.CLIP_DIFFUSION
    assert ours == {name: values(own) for name, own in published.CLIP_DIFFUSION.items()}


@pytest.mark.parametrize("name", list(published.RECIPES))
def test_recipes(name):
    text = tomllib.loads((RECIPES / f"{name}.toml").read_text(encoding="utf-8"))
    assert {k: v for k, v in text.items() if k not in _NAMES} == values(published.RECIPES[name])


def test_the_papers_method_in_its_own_numbers():
    """Of one word as it is trained: what a researcher gets who types ``--preset paper``."""
    paper = InversionConfig(preset="paper").resolved("ldm")
    assert paper.learning_rate * paper.train_batch_size == 0.04  # row 8
    rates = {
        setup: InversionConfig(preset="paper", setup=setup).resolved("ldm").learning_rate
        for setup in ("high-lr", "low-lr")
    }
    assert rates == pytest.approx({"high-lr": 2e-2, "low-lr": 1e-4})  # row 41
    release = InversionConfig(preset="release").resolved("ldm")
    assert release.learning_rate * release.train_batch_size == 0.02  # 2.8


def test_every_constant_has_a_source():
    tables = (
        {"": published.COMMON}, published.PRESETS, published.SETUPS, published.SAMPLERS,
        {"": published.DDIM}, {"": published.LDM_SCHEDULE}, published.PROTOCOLS,
        published.FAMILIES, {"": published.SINGLE}, published.DECODERS,
        published.TUNING_RATES, published.TUNING, {"": published.RATE_FACTORS}, published.RECIPES,
        published.CLIP_DIFFUSION, published.VQGAN_CLIP, {"": published.AUGMENTATIONS},
        published.PALAVRA, {"": published.PALAVRA_SINGLE},
        published.VARIATIONS,
    )  # fmt: skip
    named = r"their code|\d{4}\.\d{5}|diffusers|ours|Crowson 2021|openai/CLIP|nerdyrodent"
    start = rf"(section \d(\.\d)?|appendix [A-D]|{named})\b"
    for constants in chain.from_iterable(table.values() for table in tables):
        for name, (_, source) in constants.items():
            assert re.match(start, source), (name, source)
            for row in re.findall(r"\(rows? (\d+)", source):
                assert 1 <= int(row) <= 49, (name, source)
