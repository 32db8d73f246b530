"""The judge, the harness and the report, on a tiny CLIP with random weights."""

from __future__ import annotations

import dataclasses
import json
import math
import re

import pytest
import torch

from oneword.concepts.concept import Concept
from oneword.config.drawing import SamplingConfig
from oneword.evaluation import harness, metrics, report
from oneword.evaluation.features import JudgeError, load_judge
from oneword.images import from_uint8
from oneword.prompts import PromptError


@pytest.fixture(scope="module")
def judge(judge_folder, tiny_sd):
    return load_judge(str(judge_folder), tiny_sd)


def pictures(num, height=24, width=24, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.rand(num, 3, height, width, generator=g) * 2 - 1


def test_features_have_unit_length_and_follow_clips_own_preparation(judge):
    pixels = pictures(2)
    found = judge.images(pixels)
    assert torch.allclose(found.norm(dim=1), torch.ones(2), atol=1e-5)
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]
    raw = judge.model.get_image_features(pixel_values=((pixels + 1) / 2 - mean) / std)
    raw = raw if isinstance(raw, torch.Tensor) else raw.pooler_output
    cosines = torch.nn.functional.cosine_similarity(found, raw)
    assert torch.allclose(cosines, torch.ones(2), atol=1e-5)
    assert judge.texts(["a cat", "a dog on the moon"]).shape == (2, 12)


def test_other_sizes_are_cropped_to_the_middle(judge):
    wide = torch.full((1, 3, 24, 72), -1.0)
    wide[..., 24:48] = 1.0
    assert torch.allclose(judge.images(wide), judge.images(torch.ones(1, 3, 24, 24)), atol=1e-5)
    large = pictures(1, 96, 96)
    assert judge.images(large).shape == (1, 12)


def test_a_preprocessor_config_is_obeyed(judge_folder, tiny_sd, judge):
    path = judge_folder / "preprocessor_config.json"
    path.write_text(json.dumps({"image_mean": [0.5] * 3, "image_std": [0.5] * 3}))
    try:
        plain = load_judge(str(judge_folder), tiny_sd)
    finally:
        path.unlink()
    pixels = pictures(1)
    seen = plain.model.vision_model(pixel_values=pixels).pooler_output
    expected = torch.nn.functional.normalize(plain.model.visual_projection(seen), dim=-1)
    assert torch.allclose(plain.images(pixels), expected, atol=1e-5)
    assert not torch.allclose(plain.images(pixels), judge.images(pixels))


def test_what_is_no_clip_is_refused(tmp_path, tiny_sd, tiny_folder):
    with pytest.raises(JudgeError, match="must be a CLIP"):
        load_judge(str(tmp_path), tiny_sd)


def solid(value):
    def method(template, seeds):
        return torch.full((len(seeds), 3, 24, 24), value) + 0.001 * len(template)

    return method


def test_scores_are_what_their_definitions_say(judge):
    training, plain = pictures(3), pictures(4, seed=1)
    protocol = harness.protocol_for("microworld", plain=True, seeds=range(2))
    found = harness.evaluate(
        {"concept": solid(0.5), "initializer": solid(-0.5)}, training, judge, protocol, plain=plain
    )
    photo = judge.images(found.pictures["concept"][protocol.photo])
    score = found.scores["concept"]
    assert score.image_similarity == pytest.approx(
        metrics.image_similarity(photo, judge.images(training))
    )
    edit = protocol.edits[0]
    (text,) = judge.texts(["a photo of a on the moon"])
    assert edit == "a photo of a {} on the moon"
    assert score.by_prompt[edit] == pytest.approx(
        metrics.text_similarity(judge.images(found.pictures["concept"][edit]), text), abs=1e-6
    )
    assert score.text_similarity == pytest.approx(
        sum(score.by_prompt.values()) / len(protocol.edits)
    )
    assert list(found.scores) == ["concept", "initializer", "training pictures"]
    own = metrics.self_similarity(judge.images(plain))
    assert found.scores["training pictures"].plain_similarity == pytest.approx(own)
    start, value = (found.scores[n].plain_similarity for n in ("initializer", "concept"))
    expected = (value - start) / (own - start) if own > start else math.nan
    assert found.reached == pytest.approx(expected, nan_ok=True)
    assert json.dumps(found.plain())


def test_without_plain_pictures_there_is_no_plain_score(judge):
    protocol = harness.protocol_for("stable_diffusion", seeds=range(1))
    assert protocol.plain is None
    assert protocol.photo == "a photo of {}"
    found = harness.evaluate({"concept": solid(0.0)}, pictures(2), judge, protocol)
    assert math.isnan(found.scores["concept"].plain_similarity)
    assert math.isnan(found.reached)


def test_a_concept_meets_its_initialiser_and_the_best_noun(tiny_sd, judge):
    rows = tiny_sd.vocabularies["clip"].rows_of("cat")
    concept = Concept(
        placeholder_token="S*", rows={"clip": rows}, provenance={"initializer_token": "dog"}
    )
    methods = harness.concept_methods(
        tiny_sd, concept, judge, pictures(2), sampling=SamplingConfig(num_inference_steps=1)
    )
    assert methods["concept"][0] == "S*"
    assert methods["initializer"][0] == "dog"
    noun = methods["best noun"][0]
    texts = {n: judge.texts([f"a photo of a {n}"])[0] for n in ("cat", "dog", "mug", noun)}
    training = judge.images(pictures(2))
    assert max(texts, key=lambda n: float((training @ texts[n]).mean())) == noun
    started = dataclasses.replace(concept, provenance={"initializer_token": noun})
    same = harness.concept_methods(tiny_sd, started, judge, pictures(2))
    assert same["initializer"] == same["best noun"]
    cat = harness.word(tiny_sd, "cat", sampling=SamplingConfig(num_inference_steps=1))
    assert torch.equal(methods["concept"][1]("a {}", [3]), cat("a {}", [3]))


def test_the_negative_prompt_must_not_name_what_is_scored(tiny_sd, judge):
    rows = {"clip": tiny_sd.vocabularies["clip"].rows_of("cat")}
    concept = Concept(placeholder_token="easy", rows=rows)
    for negative in ("easy, blurry", "<nobody>"):
        sampling = SamplingConfig(negative_prompt=negative)
        with pytest.raises(PromptError, match=r"must contain only loaded words, got"):
            harness.concept_methods(tiny_sd, concept, judge, pictures(2), sampling=sampling)


def test_pictures_of_one_method_under_two_names_are_drawn_once(judge):
    calls = []

    def method(template, seeds):
        calls.append(template)
        return solid(0.1)(template, seeds)

    protocol = harness.protocol_for("microworld", seeds=range(1))
    found = harness.evaluate(
        {"initializer": method, "best noun": method, "other": solid(0.2)},
        pictures(2), judge, protocol,
    )  # fmt: skip
    assert sorted(calls) == sorted(protocol.templates)
    assert found.scores["best noun"].text_similarity == found.scores["initializer"].text_similarity
    assert found.scores["other"].text_similarity != found.scores["initializer"].text_similarity


def test_a_report_is_one_file_with_everything_in_it(judge, tmp_path):
    protocol = harness.protocol_for("microworld", plain=True, seeds=range(2))
    evaluation = harness.evaluate(
        {"concept": solid(0.5), "initializer": solid(-0.5)},
        pictures(3), judge, protocol, plain=pictures(4, seed=1),
    )  # fmt: skip
    words = {"concept": "S*<script>", "initializer": "mug"}
    images = from_uint8(torch.zeros(1, 8, 8, 3, dtype=torch.uint8).numpy())
    curve = [{"step": s, "loss": 1.0 / (s + 1), "distance": s / 10} for s in range(4)]
    page = report.Report(
        title="One word: S*",
        sections=[
            *report.learning(
                training=images, names=["a.png"], previews=[], metrics=curve, best_step=2
            ),
            report.drawings(evaluation, words),
            report.scores(evaluation, words),
            report.Section(title="Again", commands=["oneword demo"]),
        ],
    )
    text = report.write(page, tmp_path / "report.html").read_text()
    assert "<script" not in text
    assert "S*&lt;script&gt;" in text
    assert all(uri.startswith("data:") for uri in re.findall(r'src="([^"]*)', text))
    assert "<link" not in text
    assert text.count("data:image/png") == 1 + 2 * len(protocol.templates) + 2
    assert "kept: step 2" in text or "<svg" in text
    assert f"{evaluation.scores['concept'].image_similarity:.3f}" in text


def test_the_way_from_the_words_is_a_curve_where_it_was_recorded():
    old = [{"step": s, "loss": 1.0 / (s + 1), "distance": s / 10} for s in range(4)]
    new = [m | {"word_distance": m["step"] / 5} for m in old]
    images = from_uint8(torch.zeros(1, 8, 8, 3, dtype=torch.uint8).numpy())
    axes = []
    for course in (old, new, [*old[:2], *new[2:]]):  # the last: half of it by an older version
        curves = report.learning(
            training=images, names=["a.png"], previews=[], metrics=course, best_step=2
        )[-1]
        assert ("median length" in curves.note) == (course is not old)
        axes.append(curves.plot.count('<g id="axes_'))
    assert axes == [2, 3, 3]
