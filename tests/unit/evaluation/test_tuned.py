"""Drift and guidance of concepts that change weights, against the same drawn by hand."""

from __future__ import annotations

import dataclasses

import pytest
import torch

import tiny
from oneword.concepts.concept import Concept
from oneword.concepts.deltas import WEIGHT
from oneword.config.drawing import SamplingConfig
from oneword.evaluation import harness, report, tuned
from oneword.evaluation.features import Judge
from oneword.prompts import names
from oneword.vocabulary.inject import injected


FAST = SamplingConfig(num_inference_steps=2)
KEY = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_v"


@pytest.fixture(scope="module")
def judge():
    return Judge(tiny.parts.judge(), tiny.tokenizers.tokenizer())


@pytest.fixture(scope="module")
def word(tiny_sd):
    return Concept(
        placeholder_token="S*",
        rows={"clip": tiny_sd.vocabularies["clip"].rows_of("cat")},
        provenance={"initializer_token": "cat"},
    )


@pytest.fixture(scope="module")
def concept(word):
    g = torch.Generator().manual_seed(0)
    return dataclasses.replace(word, deltas={KEY + WEIGHT: torch.randn(8, 32, generator=g)})


def test_a_word_alone_moves_nothing(tiny_sd, word, judge):
    found = tuned.drift(tiny_sd, word, judge, ["a dog"], [0, 1], sampling=FAST)
    assert found.similarity == pytest.approx(1.0, abs=1e-6)
    assert found.pixel_change == 0
    assert found.text_before == found.text_after


def test_drift_is_the_mean_over_pairs_of_one_prompt_and_seed(tiny_sd, concept, judge):
    prompts, seeds = ["a dog", "a red mug"], [3, 4]
    found = tuned.drift(tiny_sd, concept, judge, prompts, seeds, sampling=FAST, batch_size=3)
    cosines, changes = {p: [] for p in prompts}, []
    for prompt in prompts:
        for seed in seeds:
            before = tiny_sd.draw([prompt], [seed], FAST)
            with injected(tiny_sd, [concept]):
                after = tiny_sd.draw([prompt], [seed], FAST)
            one, other = judge.images(before)[0], judge.images(after)[0]
            cosines[prompt].append(float(one @ other))
            changes.append(float((before - after).abs().mean()))
    assert min(changes) > 1e-4
    assert found.pixel_change == pytest.approx(sum(changes) / 4, rel=1e-3)
    for prompt in prompts:
        assert found.by_prompt[prompt] == pytest.approx(sum(cosines[prompt]) / 2, abs=1e-5)
    assert found.similarity == pytest.approx(sum(found.by_prompt.values()) / 2)
    assert "before" not in found.plain()
    page = report.drift(found)
    assert len(page.rows) == 4
    assert [line[0] for line in page.table] == ["", "all prompts", *prompts]


def test_unrelated_prompts_name_other_things(tiny_sd, concept):
    prompts = tuned.unrelated_prompts(tiny_sd, concept)
    assert len(set(prompts)) == 4
    assert not any(names(prompt, "cat") or names(prompt, "S*") for prompt in prompts)
    assert tuned.class_prompts(tiny_sd, concept) == ("a photo of cat",)
    nameless = dataclasses.replace(concept, provenance={})
    assert tuned.class_prompts(tiny_sd, nameless) == ()


def test_a_guidance_sweep_is_the_same_evaluation_at_each_scale(tiny_sd, word, concept, judge):
    g = torch.Generator().manual_seed(2)
    pictures = torch.rand(2, 3, 32, 32, generator=g) * 2 - 1
    protocol = harness.protocol_for("stable_diffusion", edits=["a red {}"], seeds=[0, 1])
    both = {"one-word": word, "pivotal": concept}
    found = tuned.guidance_sweep(
        tiny_sd, both, pictures, judge, protocol, [1.0, 6.0], sampling=FAST
    )
    own = dataclasses.replace(FAST, guidance_scale=6.0)
    alone = harness.evaluate(
        {"pivotal": harness.word(tiny_sd, "S*", [concept], sampling=own)},
        pictures, judge, protocol,
    )  # fmt: skip
    assert found[6.0].scores["pivotal"].text_similarity == pytest.approx(
        alone.scores["pivotal"].text_similarity, abs=1e-6
    )
    assert not torch.equal(
        found[1.0].pictures["pivotal"]["a red {}"], found[6.0].pictures["pivotal"]["a red {}"]
    )
    assert not torch.equal(
        found[6.0].pictures["one-word"]["a red {}"], found[6.0].pictures["pivotal"]["a red {}"]
    )
