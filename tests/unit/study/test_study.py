"""The study's parts: its plan, its scores against brute force, its statistics and its report."""

from __future__ import annotations

import base64
import dataclasses
import gzip
import io
import json
import math
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from oneword._files import InUseError
from oneword.cli.study import Meter
from oneword.config.drawing import SamplingConfig
from oneword.config.inversion import InversionConfig
from oneword.config.scoring import StudyConfig
from oneword.errors import ConfigError, UserError
from oneword.evaluation import harness, metrics, world
from oneword.evaluation.features import Judge, JudgeError, load_dino
from oneword.generation.generate import generate
from oneword.images import from_uint8
from oneword.microworld import weights
from oneword.microworld.world import concepts, drawing, learnable
from oneword.prompts import PromptError
from oneword.runs.events import Advanced, Ended
from oneword.study import findings, grid, page, plots, statistics, subjects, work
from oneword.study.plan import PAPER, Study, arm
from oneword.study.prompt_sets import KINDS, PROMPT_SETS, prompts_for
from oneword.study.subjects import Subject


# --- scores


class StubJudge(Judge):
    """Features that can be worked out by hand: mean colours, and letters counted."""

    def __init__(self):
        self.name = "stub"

    def images(self, pixels):
        return torch.nn.functional.normalize(pixels.mean((2, 3)) + 2.0, dim=-1)

    def texts(self, texts):
        counts = [[text.count(letter) for letter in "aot"] for text in texts]
        return torch.nn.functional.normalize(torch.tensor(counts).float() + 0.5, dim=-1)


def pictures(num, seed, side=24):
    g = torch.Generator().manual_seed(seed)
    return torch.rand(num, 3, side, side, generator=g) * 2 - 1


@pytest.fixture
def photos(tmp_path):
    """Two subjects as DreamBench lays them out."""
    folder = tmp_path / "photos"
    for name, count in (("my_cat", 4), ("mug", 2)):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            noise = np.random.default_rng(i).integers(0, 255, (30, 30, 3), dtype=np.uint8)
            Image.fromarray(noise).save(folder / name / f"{i}.png")
    (folder / "prompts_and_classes.txt").write_text("Classes\n\nmy_cat,cat\nmug,mug\n\nPrompts\n")
    return folder


def scorer(tiny_sd, training):
    tools = work.Bench(tiny_sd, StubJudge(), None, None)
    return work.Scorer(tools, Subject(name="x", noun=None, source=Path("x")), training)


def test_both_scores_equal_brute_force(tiny_sd):
    training, drawn = pictures(3, 0), pictures(5, 1)
    row = scorer(tiny_sd, training).row("a photo of {} on the moon", drawn)

    def feature(picture):
        values = [float(picture[c].mean()) + 2.0 for c in range(3)]
        norm = math.sqrt(sum(v * v for v in values))
        return [v / norm for v in values]

    def cosine(a, b):
        norms = math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))
        return sum(x * y for x, y in zip(a, b, strict=True)) / norms

    seen, true = [feature(p) for p in drawn], [feature(p) for p in training]
    pairs = [cosine(a, b) for a in seen for b in true]
    assert row["image_similarity"] == pytest.approx(sum(pairs) / len(pairs), abs=1e-6)
    text = [("a photo of on the moon".count(letter)) + 0.5 for letter in "aot"]
    middle = [sum(f[c] for f in seen) / len(seen) for c in range(3)]
    assert row["text_similarity"] == pytest.approx(cosine(middle, text), abs=1e-6)
    own = [cosine(f, text) for f in seen]
    assert row["text_similarity_code"] == pytest.approx(sum(own) / len(own), abs=1e-6)
    assert row["text_similarity"] > row["text_similarity_code"]
    unlike = [cosine(a, b) for i, a in enumerate(seen) for j, b in enumerate(seen) if i != j]
    assert row["diversity"] == pytest.approx(1 - sum(unlike) / len(unlike), abs=1e-6)


def test_the_image_only_row_scores_the_training_pictures_themselves(tiny_sd):
    training = pictures(4, 2)
    row = scorer(tiny_sd, training).row("an oil painting of {}", None)
    features = StubJudge().images(training).double()
    different = [float(features[i] @ features[j]) for i in range(4) for j in range(4) if i != j]
    assert row["image_similarity"] == pytest.approx(sum(different) / 12, abs=1e-6)
    (text,) = StubJudge().texts(["an oil painting of"]).double()
    expected = torch.nn.functional.cosine_similarity(features.mean(0), text, dim=0)
    assert row["text_similarity"] == pytest.approx(float(expected), abs=1e-6)


def shown_in(concept, *places):
    """Drawings of a concept in given places, 64 x 64."""
    rng = np.random.default_rng(0)
    scenes = [concepts.concept_scene(concept, place, rng) for place in places]
    return from_uint8(np.stack([drawing.render(scene, size=64) for scene in scenes]))


def test_what_leaks_is_read_from_pictures_whose_places_are_known(tiny_sd):
    mug = concepts.get("gold-mug")
    oracle = weights.load_oracle("microworld-nano")
    tools = work.Bench(tiny_sd, StubJudge(), None, oracle)
    subject = Subject(name="gold-mug", noun="mug", source=learnable.find("gold-mug", 1))
    scores = work.Scorer(tools, subject, shown_in(mug, "beach", "moon", "forest"))
    assert scores.places == {"beach", "moon", "forest"}
    drawn = shown_in(mug, "moon", "stage", "plain", "forest")
    assert scores.row("a photo of a {}", drawn)["background_leaked"] == 0.5
    assert scores.row("an oil painting of a {}", drawn[1:])["background_leaked"] == pytest.approx(
        1 / 3
    )
    assert scores.row("a photo of a {}", drawn[1:3])["background_leaked"] == 0.0
    asked = scores.row("a photo of a {} on the moon", drawn)
    assert "background_leaked" not in asked
    assert asked["scene_obeyed"] == 0.25
    assert (
        scores.row("a photo of a {}", None)["background_leaked"] == 1.0
    )  # the pictures themselves
    # of the set-size sweep: compared with more pictures than it was learned from
    fewer = work.Scorer(tools, subject, scores.pictures, scores.pictures[:1])
    assert fewer.places == {"beach"}
    assert fewer.row("a photo of a {}", scores.pictures)["background_leaked"] == 1 / 3


def test_a_leak_is_the_mean_over_all_prompts_that_may_have_one():
    shared = {"concept": "c", "seed": 0}
    rows = [
        shared | {"kind": kind, "background_leaked": value}
        for kind, value in (("photo", 0.25), ("style", 0.5), ("composition", 0.75), ("plain", None))
    ]
    rows.append(shared | {"kind": "training"})
    assert statistics.values(rows, "background leaked") == {"c": {0: 0.5}}


SAMPLING = SamplingConfig(num_inference_steps=2, guidance_scale=5.0)


def test_the_prompt_only_row_draws_the_prompt_without_its_word(tiny_sd):
    method = harness.prompt_only(tiny_sd, sampling=SAMPLING)
    direct = generate(tiny_sd, ["a photo of a on the moon"], [3, 4], sampling=SAMPLING)
    assert torch.equal(method("a photo of a {} on the moon", [3, 4]), direct.pixels)


def test_descriptions_take_turns_and_the_words_place(tiny_sd):
    method = harness.described(tiny_sd, ("a red cat", "The dog"), sampling=SAMPLING)
    drawn = method("a photo of a {} on the moon", [0, 1, 2])
    for index, (text, seed) in enumerate((("red cat", 0), ("dog", 1), ("red cat", 2))):
        prompt = f"a photo of a {text} on the moon"
        direct = generate(tiny_sd, [prompt], [seed], sampling=SAMPLING).pixels
        assert torch.allclose(drawn[index : index + 1], direct, atol=1e-5)
    bare = method("an oil painting of {}", [0])
    direct = generate(tiny_sd, ["an oil painting of a red cat"], [0], sampling=SAMPLING).pixels
    assert torch.equal(bare, direct)


def test_dino_features_are_the_class_token_of_a_vision_transformer(tiny_sd, tmp_path):
    from transformers import ViTConfig, ViTModel

    with torch.random.fork_rng():
        torch.manual_seed(0)  # noqa: TID251
        model = ViTModel(
            ViTConfig(hidden_size=16, intermediate_size=32, num_hidden_layers=1,
                      num_attention_heads=2, image_size=24, patch_size=8),
            add_pooling_layer=False,
        )  # fmt: skip
    model.save_pretrained(tmp_path)
    dino = load_dino(str(tmp_path), tiny_sd)
    pixels = pictures(2, 0)
    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    std = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    with torch.no_grad():
        raw = model.eval()(pixel_values=((pixels + 1) / 2 - mean) / std).last_hidden_state[:, 0]
    expected = torch.nn.functional.normalize(raw, dim=-1)
    assert torch.allclose(dino.images(pixels), expected, atol=1e-5)
    tools = work.Bench(tiny_sd, StubJudge(), dino, None)
    subject = Subject(name="x", noun=None, source=Path("x"))
    row = work.Scorer(tools, subject, pixels).row("a photo of {}", pixels)
    assert row["dino_similarity"] == pytest.approx(float((expected @ expected.T).mean()), abs=1e-5)
    with pytest.raises(JudgeError, match="--dino must be a vision transformer"):
        load_dino(str(tmp_path / "nothing"), tiny_sd)


# --- prompts


def test_dreambench_has_its_25_prompts_for_objects_and_25_for_live_subjects():
    for kind, special in (("object", "floating in an ocean of milk"), ("live", "chef outfit")):
        found = prompts_for("dreambench", kind)
        edits = [t for templates in found.edits.values() for t in templates]
        assert len(edits) == len(set(edits)) == 25
        assert sum(special in t for t in edits) == 1
    shared = [set(prompts_for("dreambench", k).kinds) for k in ("object", "live")]
    assert len(shared[0] & shared[1]) == 1 + 10 + 5


def test_every_prompt_holds_one_word_and_has_a_known_kind():
    for kinds in PROMPT_SETS.values():
        assert {"object", "style"} <= kinds.keys()
        for found in kinds.values():
            assert all(t.count("{}") == 1 for t in found.kinds)
            assert set(found.edits) <= set(KINDS)
    assert prompts_for("paper", "live") == prompts_for("paper", "object")


def test_the_oracle_understands_every_edit_prompt_of_the_embedded_model():
    asked = {"background": "scene", "style": "style", "composition": "second_noun"}
    for kind, templates in prompts_for("microworld", "object").edits.items():
        for template in templates:
            assert set(world.asked(template)) == {asked[kind]}


# --- subjects


def test_a_folder_of_folders_is_a_subject_each_with_dreambenchs_class(photos):
    found = {s.name: s for s in subjects.find([str(photos)], "some/model")}
    assert {n: (s.noun, s.kind, s.num_pictures) for n, s in found.items()} == {
        "my_cat": ("cat", "live", 4),
        "mug": ("mug", "object", 2),
    }
    (alone,) = subjects.find([str(photos / "mug")], "some/model")
    assert alone.noun == "mug"


def test_held_out_concepts_go_by_name_and_by_half():
    test, development = (subjects.find([h], "microworld") for h in ("test", "development"))
    assert len(test) > 8
    assert not {s.name for s in test} & {s.name for s in development}
    (neon,) = subjects.find(["neon"], "microworld-nano")
    assert (neon.kind, neon.noun, neon.num_pictures) == ("style", "chalk", 5)


def test_fewer_pictures_are_the_first_of_more(photos, tmp_path):
    (cat,) = subjects.find([str(photos / "my_cat")], "some/model")
    (photos / "my_cat" / "1.txt").write_text("a caption")
    folder = cat.pictures_in(tmp_path / "made", seed=0, num=2, size_px=24)
    assert sorted(p.name for p in folder.iterdir()) == ["0.png", "1.png", "1.txt"]
    assert cat.pictures_in(tmp_path / "made", seed=0, num=4, size_px=24) == photos / "my_cat"


def test_the_worlds_pictures_are_drawn_once_and_differ_by_seed(tmp_path):
    pytest.importorskip("skia")
    (mug,) = subjects.find(["gold-mug"], "microworld")
    two, five = (mug.pictures_in(tmp_path, seed=1, num=n, size_px=32) for n in (2, 5))
    other = mug.pictures_in(tmp_path, seed=2, num=2, size_px=32)
    read = {p: [Image.open(f).tobytes() for f in sorted(p.iterdir())] for p in (two, five, other)}
    assert read[two] == read[five][:2]
    assert read[two] != read[other]
    assert mug.plain(32) is not None
    assert mug.outlines(32).any()
    assert len(mug.captions("captions-short")) == 5


def test_descriptions_lie_beside_the_pictures(photos):
    (mug,) = subjects.find([str(photos / "mug")], "some/model")
    with pytest.raises(
        ConfigError, match=r"for mug because it has no descriptions.*descriptions\.json"
    ):
        mug.captions("captions-long")
    texts = {"short": [f"a mug {i}" for i in range(5)], "long": [f"a big mug {i}" for i in "abcde"]}
    (photos / "mug" / "descriptions.json").write_text(json.dumps(texts))
    assert mug.captions("captions-long")[4] == "a big mug e"


@pytest.mark.parametrize(
    ("names", "model", "text"),
    [
        ((), "microworld", "without concepts; pass for example --concepts test"),
        ((), "other", "--concepts FOLDER"),
        (("nowhere",), "other", "must be a folder of pictures or a folder of such folders"),
        (("nowhere",), "microworld", "held-out thing must be one of the model's world"),
    ],
)
def test_concepts_that_do_not_exist_are_refused(names, model, text):
    with pytest.raises(ValueError, match=text):
        subjects.find(names, model)


def test_an_empty_folder_and_two_subjects_of_one_name_are_refused(photos, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="must contain pictures, or folders of pictures"):
        subjects.find([str(tmp_path / "empty")], "m")
    (tmp_path / "b").mkdir()
    (photos / "mug").rename(tmp_path / "b" / "my_cat")
    with pytest.raises(ConfigError, match="must differ, got two of 'my_cat'"):
        subjects.find([str(photos), str(tmp_path / "b")], "m")


# --- plan


def config(tmp_path, **fields):
    return StudyConfig(**{
        "output_dir": tmp_path / "out", "concepts": ("parrot", "neon"), "seeds": (0, 1),
        "setups": ("one-word", "prompt-only"),
    } | fields)  # fmt: skip


def test_every_concept_setup_and_seed_is_a_job_seed_by_seed(tmp_path):
    study = Study(config(tmp_path))
    assert len(study.specs) == 2 * 2 * 2
    assert [s.seed for s in study.specs] == [0] * 4 + [1] * 4
    assert len({s.name for s in study.specs}) == 8
    assert study.prompt_set == "microworld"


def test_a_setup_may_change_settings(tmp_path):
    study = Study(config(tmp_path, setups=("one-word:learning_rate=1e-3,keep=last", "one-word")))
    changed, plain = (study.inversion(s) for s in study.specs[::2][:2])
    assert (changed.learning_rate, changed.keep, changed.initializer_token) == (
        1e-3, "last", "bird",
    )  # fmt: skip
    assert plain.learning_rate is None
    assert {study.inversion(s).learnable_property for s in study.specs} == {"object", "style"}
    assert {study.inversion(s).seed for s in study.specs} == {0, 1}
    assert "=" not in study.specs[0].name


def test_a_setup_may_name_a_path(tmp_path):
    labels = ("encoder:encoder=my-encoder/2", "custom-diffusion:class_data_dir=class")
    study = Study(config(tmp_path, setups=labels, seeds=(0,), concepts=("parrot",)))
    encoder, custom = (study.inversion(spec) for spec in study.specs)
    assert encoder.encoder == Path("my-encoder/2")
    assert custom.tuning.class_data_dir == Path("class")


def test_setups_keep_their_ratio_to_a_studys_rate(tmp_path):
    """Otherwise the rows of high-lr and low-lr would be those of the method."""
    setups = ("one-word", "high-lr", "low-lr", "neti", "high-lr:learning_rate=0.5")
    given = InversionConfig(learning_rate=5e-3)
    study = Study(config(tmp_path, setups=setups, inversion=given))
    rates = {s.setup: study.inversion(s).resolved("microworld").learning_rate for s in study.specs}
    assert list(rates.values()) == pytest.approx([5e-3, 2e-2, 1e-4, 8e-3, 0.5])
    fixed = Study(
        config(
            tmp_path,
            setups=setups[:2],
            inversion=dataclasses.replace(given, learning_rate_ratio=1.0),
        )
    )
    assert {fixed.inversion(s).resolved("ldm").learning_rate for s in fixed.specs} == {5e-3}


def test_groups_stand_for_setups_each_once(tmp_path):
    study = Study(config(tmp_path, setups=("one-word", "paper", "xti")))
    assert list(study.arms) == [*PAPER, "xti"]
    assert {*PAPER, "pivotal", "initializer"} < Study(config(tmp_path, setups=("all",))).arms.keys()


def test_a_setup_that_changes_weights_takes_their_settings(tmp_path):
    label = "pivotal:tuned_weights=lora,tuning_steps=7,max_train_steps=9"
    study = Study(config(tmp_path, setups=(label,)))
    found = study.inversion(study.specs[0])
    assert (found.tuning.tuned_weights, found.tuning.tuning_steps) == ("lora", 7)
    assert (found.setup, found.max_train_steps) == ("pivotal", 9)


@pytest.mark.parametrize(
    ("label", "text"),
    [
        ("one-wrod", "A setup must be one of one-word, two-words"),
        ("one-word:rate=1", "must be training settings"),
        ("one-word:learning_rate", "must be training settings"),
        ("one-word:seed=3", "must be training settings"),
        ("one-word:tuning_steps=3", "must be training settings"),
        ("pivotal:tuning=3", "must be training settings"),
        ("pivotal:tuning_steps=0", "tuning_steps must be 1 or more"),
        ("image-only:keep=last", "must be training settings"),
        ("one-word:num_vectors=0", "num_vectors must be in 1..75"),
    ],
)
def test_setups_that_cannot_be_are_refused(label, text):
    with pytest.raises(ConfigError, match=text):
        arm(label)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"prompts": "mine"}, "prompts must be one of paper"),
        ({"inversion": InversionConfig(seed=3)}, "Cannot set seed because the study sets it"),
        ({"set_sizes": (1, 2), "set_size_concepts": ("mug",)}, "set_size_concepts must be conc"),
        ({"setups": ("one-word:keep=last", "one-word:keep_last")}, "training settings"),
    ],
)
def test_plans_that_cannot_be_are_refused(tmp_path, fields, text):
    with pytest.raises(ConfigError, match=text):
        Study(config(tmp_path, **fields))


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"seeds": (1, 1)}, "seeds must differ from each other, got 1 twice"),
        ({"setups": ()}, "setups must name a setup"),
        ({"seeds": ()}, "seeds must name a seed"),
        ({"set_sizes": (0,)}, "set_sizes must be 1 or more"),
        ({"num_processes": 0}, "num_processes must be 1 or more"),
        ({"workers": 2}, "--workers 2 without --cluster"),
        ({"cluster": "local", "num_processes": 2}, "Cannot use --cluster with --num-processes"),
    ],
)
def test_settings_of_a_study_are_checked(fields, text):
    with pytest.raises(ConfigError, match=text):
        StudyConfig(**fields)


def test_a_negative_prompt_that_names_a_word_is_refused(tmp_path):
    for negative in ("S*", "<nobody>"):
        sampling = SamplingConfig(
            guidance_scale=5.0, num_inference_steps=50, negative_prompt=negative
        )
        with pytest.raises(PromptError, match="only loaded words"):
            Study(StudyConfig(output_dir=tmp_path, concepts=("gold-mug",), sampling=sampling))


def test_the_set_size_sweep_has_every_size_and_the_references_once(tmp_path):
    study = Study(config(tmp_path, set_sizes=(1, 5, 25), seeds=(0,)))
    swept = [(s.concept, s.setup, s.num_pictures) for s in study.specs if s.num_pictures]
    assert swept == [
        ("parrot", "one-word", 1), ("parrot", "one-word", 5), ("parrot", "one-word", 25),
        ("parrot", "prompt-only", 25),
    ]  # fmt: skip
    assert study.most_pictures(study.subjects["parrot"]) == 25
    assert len({s.name for s in study.specs}) == len(study.specs)


def test_sizes_that_a_folder_has_not_are_left_out_and_said(tmp_path, photos):
    study = Study(config(tmp_path, concepts=(str(photos / "my_cat"),), set_sizes=(2, 3, 10)))
    assert {s.num_pictures for s in study.specs} == {None, 2, 3}
    assert study.notes == ["my_cat has 4 pictures; the set sizes 10 are left out."]


def test_chunks_hold_every_job_once_and_setups_apart(tmp_path):
    study = Study(config(tmp_path, concepts=("development",), seeds=(0, 1, 2), slots=2))
    chunks = study.chunks(study.specs, 2)
    assert sorted(s.name for c in chunks for s in c) == sorted(s.name for s in study.specs)
    assert all(len({(s.setup, s.seed) for s in chunk}) == 1 for chunk in chunks)
    assert max(len(chunk) for chunk in chunks) == 8
    assert max(len(chunk) for chunk in study.chunks(study.specs[:4], 4)) == 1


def test_the_guidance_sweep_is_drawn_by_its_setups_alone(tmp_path):
    study = Study(config(tmp_path, guidance_scales=(1.0, 5.0, 10.0)))
    scales = {s.setup: study.guidance_scales(s) for s in study.specs}
    assert scales == {"one-word": (5.0, 1.0, 10.0), "prompt-only": (5.0,)}


def test_costs_count_samples_through_the_denoiser(tmp_path):
    inversion = InversionConfig(max_train_steps=10, train_batch_size=4, evaluation_steps=5,
                                num_evaluation_samples=16)  # fmt: skip
    sampling = SamplingConfig(guidance_scale=5.0, num_inference_steps=7)
    study = Study(config(
        tmp_path, inversion=inversion, sampling=sampling, num_images_per_prompt=3,
        setups=("one-word", "image-only"), guidance_scales=(2.0,),
    ))  # fmt: skip
    by_setup = {(s.concept, s.setup): s for s in study.specs}
    word = by_setup["parrot", "one-word"]
    assert study.training_passes(word, "microworld") == 3 * 10 * 4 + 3 * 16
    templates = 1 + 6 + 1  # photo, edits, plain
    assert study.pictures(word) == 3 * templates * 2
    assert study.drawing_passes(word) == 3 * templates * 2 * 7 * 2
    assert study.pictures(by_setup["neon", "one-word"]) == 3 * 5 * 2
    tuned = "lora-dreambooth:tuning_steps=20,num_class_images=6"
    changed = Study(dataclasses.replace(study.config, setups=("pivotal", tuned, "dreamartist")))
    cost = {s.setup: changed.training_passes(s, "microworld") for s in changed.specs}
    assert cost["pivotal"] == 3 * 20 * 4 + 5 * 16
    # a class picture beside each picture, and their drawing; the loop's steps are the tuning's
    assert cost[tuned] == 2 * 3 * 20 * 4 + 6 * 7 * 2 + 5 * 16
    assert cost["dreamartist"] == 2 * 3 * 10 * 4 + 3 * 16
    image_only = by_setup["parrot", "image-only"]
    assert study.pictures(image_only) == study.training_passes(image_only, "microworld") == 0


def test_the_time_left_follows_the_work_done(tmp_path):
    study = Study(config(tmp_path, concepts=("parrot",), seeds=(0,)))
    now = [0.0]
    meter = Meter(study, lambda: now[0])
    assert meter.left_s() is None
    word, bare = study.specs
    work_of_word = meter.learning[word.name] + meter.drawing[word.name]
    now[0] = 10.0
    meter.tell(Advanced(word.name, "learning", 0.5))
    rest = meter.total - 0.5 * meter.learning[word.name]
    assert meter.left_s() == pytest.approx(10 * rest / (0.5 * meter.learning[word.name]))
    meter.tell(Ended(word.name, "done"))
    assert meter.left_s() == pytest.approx(10 * meter.drawing[bare.name] / work_of_word)
    meter.tell(Ended(bare.name, "done"))
    assert meter.left_s() == 0


def test_a_folder_holds_one_protocol(tmp_path):
    study = Study(config(tmp_path))
    grid.claim(study)
    grid.claim(Study(config(tmp_path, concepts=("mosaic",), seeds=(5,))))  # wider is well
    with pytest.raises(
        ConfigError, match="protocol differs: num_images_per_prompt was 64 and is 2"
    ):
        grid.claim(Study(config(tmp_path, num_images_per_prompt=2)))
    other = tmp_path / "other"
    other.mkdir()
    (other / "letter.txt").write_text("mine")
    with pytest.raises(ConfigError, match="must be empty or contain a study"):
        grid.claim(Study(config(tmp_path, output_dir=other)))


# --- statistics


def rows_of(setup, image, text, *, concepts=6, scale=5.0, set_size=None, seeds=(0, 1), **more):
    """Rows whose scores differ by concept and seed around given means."""
    found = []
    for c in range(concepts):
        for seed in seeds:
            shift = 0.01 * (c - (concepts - 1) / 2) + 0.001 * seed
            base = {"concept": f"c{c}", "setup": setup, "seed": seed, "set_size": set_size,
                    "guidance_scale": scale, "draw_time_s": 1.0}  # fmt: skip
            wobble = 0.002 * math.sin(7 * c + 3 * seed + len(setup))
            found += [
                base | {"kind": "photo", "image_similarity": image + shift + wobble},
                base | {"kind": "style", "text_similarity": text - 0.01 + shift - wobble} | more,
                base
                | {"kind": "background", "text_similarity": text + 0.01 + shift - wobble}
                | more,
            ]
    return found


def test_a_run_has_one_value_and_a_concept_counts_once():
    rows = rows_of("one-word", 0.8, 0.3, concepts=2)
    runs = statistics.values(rows, statistics.TEXT)
    first = [r["text_similarity"] for r in rows[:3] if "text_similarity" in r]
    assert runs["c0"][0] == pytest.approx(sum(first) / 2)
    rows = [r for r in rows if (r["concept"], r["seed"]) != ("c1", 1)]
    found = statistics.estimate(statistics.values(rows, statistics.TEXT))
    runs = statistics.values(rows, statistics.TEXT)
    expected = ((runs["c0"][0] + runs["c0"][1]) / 2 + runs["c1"][0]) / 2
    assert (found.value, found.num, found.runs) == (pytest.approx(expected), 2, 3)


def test_every_interval_is_students_over_concepts():
    runs = {"a": {0: 0.0, 1: 0.4}, "b": {0: 1.0}, "c": {0: 0.6}}
    found = statistics.estimate(runs)
    half = 4.302653 * np.std([0.2, 1.0, 0.6], ddof=1) / math.sqrt(3)  # two degrees of freedom
    assert (found.low, found.high) == pytest.approx((0.6 - half, 0.6 + half), rel=1e-3)
    assert (found.num, found.runs) == (3, 4)
    assert str(found) == f"0.600 ± {half:.3f}"
    rows = rows_of("one-word", 0.8, 0.3) + rows_of("low-lr", 0.7, 0.33)
    change = statistics.table(rows, ["one-word", "low-lr"], 5.0)["low-lr"]["Δ text similarity"]
    (claim,) = (f for f in findings.findings(rows, ["one-word", "low-lr"], 5.0)
                if f.claim.startswith("A lower"))  # fmt: skip
    assert f"low-lr minus one-word {change.told('+.3f')} (6 concepts)" in claim.parts[0].text
    rng = np.random.default_rng(0)
    many = {str(i): {0: float(v)} for i, v in enumerate(rng.normal(size=200))}
    found = statistics.estimate(many)
    deviation = np.std([v[0] for v in many.values()]) / math.sqrt(200)
    assert found.high - found.value == pytest.approx(1.96 * deviation, rel=0.06)
    assert found == statistics.estimate(many)
    alone = statistics.estimate({"a": {0: 0.25, 1: 0.75}})
    assert (alone.value, math.isnan(alone.low), str(alone)) == (0.5, True, "0.500")
    assert statistics.estimate({}) is None


def test_differences_are_paired_by_concept_and_seed():
    one, other = {"a": {0: 1.0, 1: 2.0}, "b": {0: 5.0}}, {"a": {1: 0.5, 2: 9.0}, "c": {0: 1.0}}
    assert statistics.paired(one, other) == {"a": {1: 1.5}}
    rows = rows_of("one-word", 0.8, 0.3) + rows_of("two-words", 0.7, 0.3)
    line = statistics.table(rows, ["one-word", "two-words"], 5.0)["two-words"]
    change = line["Δ image similarity"]
    assert change.value == pytest.approx(-0.1, abs=0.002)
    # concepts differ far more than the setups' difference does
    spread = line["image similarity"]
    assert change.high - change.low < 0.2 * (spread.high - spread.low)


def test_objects_and_styles_are_apart():
    rows = [{"family": "shape"}, {"family": "style"}, {"family": "live"}, {}]
    assert statistics.apart(rows) == {"objects": [rows[0], rows[2], rows[3]], "styles": [rows[1]]}
    assert list(statistics.apart(rows[1:2])) == ["styles"]
    assert statistics.apart([]) == {}


def test_the_trade_off_is_read_over_the_setups_means():
    rng = np.random.default_rng(3)
    runs = {
        setup: tuple({c: {0: float(level + rng.normal(0, 0.3))} for c in "abcde"}
                     for level in (x, -x))
        for x, setup in enumerate(("p", "q", "r", "s", "t"))
    }  # fmt: skip
    found = statistics.correlation(runs)

    def over(concepts):
        plane = [[np.mean([own[c][0] for c in concepts]) for own in pair] for pair in runs.values()]
        return np.corrcoef(np.array(plane).T)[0, 1]

    assert found.value == pytest.approx(over("abcde"))
    left_out = [5 * found.value - 4 * over("abcde".replace(c, "")) for c in "abcde"]
    half = 2.776445 * np.std(left_out, ddof=1) / math.sqrt(5)
    assert found.half_width == pytest.approx(half, rel=1e-3)
    assert (found.num, found.runs) == (5, 25)
    # a concept that a setup lacks counts in none
    first, second = runs["p"]
    runs["p"] = ({c: first[c] for c in "abcd"}, second)
    assert statistics.correlation(runs).value == pytest.approx(over("abcd"))
    assert statistics.correlation({s: runs[s] for s in "pqr"}) is None
    flat = {c: {0: 1.0} for c in "abcde"}
    assert statistics.correlation(dict.fromkeys("pqrst", (flat, flat))) is None
    assert math.isnan(statistics.correlation({
        s: tuple({"a": own["a"]} for own in pair) for s, pair in runs.items()
    }).low)  # fmt: skip


# --- findings


WORLD = {
    "one-word": (0.80, 0.30), "two-words": (0.80, 0.26), "three-words": (0.80, 0.25),
    "progressive": (0.80, 0.26), "regularized": (0.74, 0.33), "low-lr": (0.72, 0.34),
    "high-lr": (0.84, 0.24), "captions-short": (0.70, 0.28), "captions-long": (0.70, 0.25),
    "image-only": (0.80, 0.20), "prompt-only": (0.60, 0.36), "pivotal": (0.83, 0.28),
    "bipartite": (0.80, 0.30),
}  # fmt: skip


def verdicts(scores, extra=()):
    rows = [r for setup, pair in scores.items() for r in rows_of(setup, *pair)] + list(extra)
    found = findings.findings(rows, list(scores), 5.0)
    return {f.claim.split(",")[0].split(" and ")[0].rstrip("."): f.verdict for f in found}


def test_the_papers_claims_hold_where_the_numbers_are_the_papers():
    sweep = [
        *rows_of("one-word", 0.7, 0.31, set_size=1), *rows_of("one-word", 0.8, 0.3, set_size=5),
        *rows_of("one-word", 0.81, 0.25, set_size=25),
        *rows_of("one-word", 0.8, 0.28, scale=2.0), *rows_of("one-word", 0.8, 0.32, scale=10.0),
        *rows_of("pivotal", 0.8, 0.28, scale=2.0), *rows_of("pivotal", 0.8, 0.2, scale=10.0),
        *rows_of("bipartite", 0.9, 0.2, scale=2.0, structure_kept=0.9),
        *rows_of("bipartite", 0.6, 0.3, scale=10.0, structure_kept=0.3),
    ]  # fmt: skip
    assert set(verdicts(WORLD, sweep).values()) == {"holds"}


def test_the_opposite_numbers_refute_them():
    against = {name: (1.5 - a, 0.6 - t) for name, (a, t) in WORLD.items()}
    against["image-only"], against["prompt-only"] = (0.95, 0.2), (0.6, 0.4)
    found = verdicts(against)
    assert found["One word is easier to edit than several"] == "does not hold"
    assert found["A lower learning rate makes the word easier to edit"] == "does not hold"
    assert found["A higher learning rate makes the word more faithful"] == "does not hold"
    assert found[
        "Many setups reconstruct about as well as random pictures of the training set"
    ] == ("does not hold")


def test_what_was_not_run_or_is_too_close_is_undecided():
    rows = rows_of("one-word", 0.8, 0.3) + rows_of("low-lr", 0.8, 0.3)
    found = {f.claim: f for f in findings.findings(rows, ["one-word", "low-lr"], 5.0)}
    assert {f.verdict for f in found.values()} == {"undecided"}
    close = found["A lower learning rate makes the word easier to edit and less faithful."]
    assert re.search(r"low-lr minus one-word [+-]0\.00\d ± 0\.00\d \(6 concepts\)", close.numbers)
    assert "needs captions-short" in found[next(c for c in found if "descriptions" in c)].numbers
    assert "--set-sizes" in found[next(c for c in found if "five pictures" in c)].numbers
    alone = findings.findings(rows_of("one-word", 0.8, 0.3, concepts=1), ["one-word"], 5.0)
    assert {f.verdict for f in alone} == {"undecided"}


def test_the_trade_off_within_runs_stands_beside_and_decides_nothing():
    setups = ["one-word", "two-words", "low-lr", "high-lr"]
    rows = [row for i, s in enumerate(setups) for row in rows_of(s, 0.6 + 0.1 * i, 0.4 - 0.1 * i)]
    (found,) = (f for f in findings.findings(rows, setups, 5.0) if "curve" in f.claim)
    assert found.verdict == found.parts[0].verdict == "holds"
    assert "over the setups' means -1.000 ± 0.0" in found.parts[0].text
    assert "within each concept and seed -1.000 ± 0.0" in found.beside[0].text
    alone = [row for row in rows if row["concept"] == "c0"]
    (found,) = (f for f in findings.findings(alone, setups, 5.0) if "curve" in f.claim)
    assert "needs at least four setups and two concepts" in found.parts[0].text
    # one score alone is no trade
    turned = [row | {"text_similarity": 0.5} for row in rows if "text_similarity" in row]
    rows = [row for row in rows if "text_similarity" not in row] + turned
    (found,) = (f for f in findings.findings(rows, setups, 5.0) if "curve" in f.claim)
    assert found.verdict == "undecided"


def test_a_claim_of_several_parts_lists_them():
    rows = [r for s in ("one-word", "regularized") for r in rows_of(s, *WORLD[s])]
    (found,) = (f for f in findings.findings(rows, ["one-word", "regularized"], 5.0)
                if f.claim.startswith("Held"))  # fmt: skip
    assert [part.verdict for part in found.parts] == ["holds", "holds"]
    assert found.summary == "holds (2 of 2 parts hold)"
    rows = [r for r in rows if r["setup"] == "one-word"] + rows_of("regularized", 0.9, 0.33)
    (found,) = (f for f in findings.findings(rows, ["one-word", "regularized"], 5.0)
                if f.claim.startswith("Held"))  # fmt: skip
    assert found.summary == "does not hold (1 of 2 parts holds)"
    head, *lines = page._verdicts([found])
    assert head == ["by the judge", "corrected", "the paper's claim", "numbers"]
    assert [line[0] for line in lines] == [found.summary, "holds", "does not hold"]
    assert [line[1] for line in lines] == ["does not hold", "holds", "does not hold"]
    assert lines[0][3] == ""
    assert lines[1][3].startswith("text similarity, regularized minus one-word +")
    assert lines[2][3].startswith("image similarity, one-word minus regularized -")
    assert page._refuted([found]) == (
        " These claims do not hold here: “Held near its coarse descriptor, the word is easier to "
        "edit and less faithful” (by the judge)."
    )


def test_students_p_is_that_of_its_density():
    """Against the density, integrated finely, and against the points of the intervals."""
    for df in (1, 2, 3, 4, 7, 10, 25):
        scale = math.exp(math.lgamma((df + 1) / 2) - math.lgamma(df / 2)) / math.sqrt(df * math.pi)
        x = np.linspace(0, 2.3, 200_001)
        density = scale * (1 + x**2 / df) ** (-(df + 1) / 2)
        within = float(((density[1:] + density[:-1]) / 2 * np.diff(x)).sum())
        assert metrics.t_p(2.3, df) == metrics.t_p(-2.3, df) == pytest.approx(1 - 2 * within)
        assert metrics.t_p(0.0, df) == 1
    for df in (1, 2, 5, 17, 30, 31, 60, 500):
        assert metrics.t_p(metrics.t_95(df), df) == pytest.approx(0.05)


def test_holms_correction_is_the_closed_test_of_bonferroni():
    """Brute force: a comparison is kept if every set of comparisons with it is, by its least p."""
    rng = np.random.default_rng(0)
    for num in (1, 2, 5, 7):
        values = (rng.random(num) ** 3).tolist()
        values[-1] = values[0]  # alike ones
        sets = [[i for i in range(num) if mask >> i & 1] for mask in range(1, 2**num)]
        closed = [
            max(min(1.0, len(own) * min(values[i] for i in own)) for own in sets if one in own)
            for one in range(num)
        ]
        assert statistics.holm(values) == pytest.approx(closed)
    assert statistics.holm([]) == []


def test_the_p_of_a_mean_and_its_interval_say_the_same():
    rng = np.random.default_rng(1)
    for num in (2, 3, 8, 20):
        for _ in range(20):
            found = statistics.estimate({
                str(i): {0: float(v)} for i, v in enumerate(rng.normal(0.4, 1, num))
            })  # fmt: skip
            if abs(abs(found.value - 0.1) / found.half_width - 1) > 0.01:
                inside = found.low < 0.1 < found.high
                assert (statistics.p_value(found, 0.1) > 0.05) == inside
    same = statistics.estimate({"a": {0: 0.5}, "b": {0: 0.5}})
    assert (statistics.p_value(same, 0.5), statistics.p_value(same, 0.4)) == (1.0, 0.0)


def test_so_many_concepts_as_are_needed_would_decide():
    """Brute force: the same mean and spread over more and more concepts."""
    rng = np.random.default_rng(2)
    for mean in (0.2, 0.5, 1.0):
        values = rng.normal(mean, 1, 6)
        found = statistics.estimate({str(i): {0: float(v)} for i, v in enumerate(values)})
        needed = statistics.concepts_needed(found, 0.0)
        spread = np.std(values, ddof=1)
        halves = {n: metrics.t_95(n - 1) * spread / math.sqrt(n) for n in range(2, 3000)}
        assert needed == min(n for n, half in halves.items() if half < abs(found.value))
    nothing = statistics.estimate({"a": {0: 1.0}, "b": {0: -1.0}})
    assert statistics.concepts_needed(nothing, 0.0) is None


def test_verdicts_are_corrected_for_all_comparisons_that_decide():
    rows = [r for s, pair in WORLD.items() for r in rows_of(s, *pair)]
    # one comparison that is decided by a little, among many
    jitter = [0.02, 0.0, 0.03, 0.005, 0.01, 0.035]
    low = [
        r | {"text_similarity": r["text_similarity"] - 0.026 - jitter[int(r["concept"][1])] / 2
             + 0.0} if "text_similarity" in r else r
        for r in rows_of("low-lr", *WORLD["low-lr"])
    ]  # fmt: skip
    rows = [r for r in rows if r["setup"] != "low-lr"] + low
    found = findings.findings(rows, list(WORLD), 5.0)
    parts = [part for one in found for part in one.parts if part.p is not None]
    assert [part.holm for part in parts] == statistics.holm([part.p for part in parts])
    assert all(one.oracle == () and one.by_oracle is None for one in found)
    for part in parts:
        sure = part.holm < findings.LEVEL
        assert part.corrected == (part.verdict if sure else "undecided")
        assert (part.needed is not None) <= (part.verdict == "undecided")
    (beside,) = (part for one in found for part in one.beside)
    assert beside.holm is None
    for one in found:
        if not one.most and one.parts:
            kinds = {part.corrected for part in one.parts}
            assert one.corrected == (
                "does not hold" if "does not hold" in kinds
                else "holds" if kinds == {"holds"} else "undecided"
            )  # fmt: skip


def test_the_oracle_decides_beside_the_judge():
    """Its shares say the opposite of the judge's cosines: each has a verdict of its own."""

    def with_oracle(setup, image, text, seen, obeyed):
        return [
            row | {"seen": seen + 0.01 * int(row["concept"][1]), "obeyed": obeyed
                   + 0.02 * (int(row["concept"][1]) % 3)}
            for row in rows_of(setup, image, text)
        ]  # fmt: skip

    rows = [
        *with_oracle("one-word", 0.8, 0.3, 0.5, 0.5),
        *with_oracle("regularized", 0.74, 0.33, 0.5, 0.5),
        *with_oracle("image-only", 0.9, 0.1, 0.9, 0.0),
        *with_oracle("prompt-only", 0.4, 0.4, 0.0, 0.9),
        *with_oracle("two-words", 0.8, 0.2, 0.9, 0.8),
    ]
    setups = ["one-word", "regularized", "image-only", "prompt-only", "two-words"]
    found = {f.claim.split(",")[0]: f for f in findings.findings(rows, setups, 5.0)}
    held = found["Held near its coarse descriptor"]
    assert (held.verdict, held.by_oracle) == ("holds", "undecided")  # it sees no difference
    assert [part.text.partition(",")[0] for part in held.oracle] == ["edits obeyed", "concept seen"]
    edits = found["One word is easier to edit than several."]
    assert (edits.verdict, edits.by_oracle) == ("holds", "does not hold")
    suffices = found["One word reconstructs as well as several."]
    assert (suffices.verdict, suffices.by_oracle) == ("holds", "does not hold")
    assert "must be above -0.180" in suffices.oracle[0].text  # a fifth of its own scale
    head, *lines = page._verdicts([edits])
    assert head[:4] == ["by the judge", "corrected", "by the oracle", "corrected"]
    assert lines[0][:4] == ["holds", "holds", "does not hold", "does not hold"]
    assert lines[-1][:4] == ["", "", "does not hold", "does not hold"]
    assert "(by the oracle)" in page._refuted([edits])
    # without truth there is no oracle
    plain = [{k: v for k, v in row.items() if k not in ("seen", "obeyed")} for row in rows]
    assert all(f.by_oracle is None for f in findings.findings(plain, setups, 5.0))


def test_a_setup_that_ran_with_other_settings_alone_stands_for_its_claim():
    label = "low-lr:max_train_steps=2500"
    rows = rows_of("one-word", *WORLD["one-word"]) + rows_of(label, *WORLD["low-lr"])
    (found,) = (f for f in findings.findings(rows, ["one-word", label], 5.0)
                if f.claim.startswith("A lower"))  # fmt: skip
    assert found.verdict == "holds"
    assert f"{label} minus one-word" in found.parts[0].text


def test_pivotal_tuning_of_equal_compute_stands_beside():
    half = "pivotal:max_train_steps=125,tuning_steps=125"
    setups = ["one-word", "pivotal", half]
    rows = [r for s, image in zip(setups, (0.8, 0.83, 0.78), strict=True)
            for r in rows_of(s, image, 0.3)]  # fmt: skip
    (found,) = (f for f in findings.findings(rows, setups, 5.0) if "shape" in f.claim)
    assert found.verdict == "holds"
    assert [(p.verdict, p.holm) for p in found.beside] == [("does not hold", None)]


def test_every_learned_concept_may_be_swept_by_size(tmp_path):
    study = Study(config(tmp_path, set_sizes=(1, 5), set_size_concepts=("all",), seeds=(0,)))
    assert {s.concept for s in study.specs if s.num_pictures} == {*study.subjects}


# --- figures and report


def test_the_front_is_what_nothing_beats_on_both_scores():
    rng = np.random.default_rng(1)
    points = {str(i): tuple(p) for i, p in enumerate(rng.random((40, 2)).tolist())}
    found = plots.front(points)
    for name, (x, y) in points.items():
        beaten = any(u > x and v > y for u, v in points.values())
        assert beaten != (name in found)
    assert [points[n][0] for n in found] == sorted(points[n][0] for n in found)


def test_figures_are_drawn_where_their_rows_are_and_are_the_same_each_time():
    setups = ["one-word", "high-lr", "prompt-only"]
    rows = [r for s in setups for r in rows_of(s, *WORLD[s])]
    assert set(plots.draw(rows, setups, 5.0)) == {"plane"}
    training = {"kind": "training", "set_size": None, "guidance_scale": None}
    rows += [
        training | {"setup": s, "concept": "c0", "seed": 0, "learning_rate": r}
        for s, r in (("one-word", 5e-3), ("high-lr", 2e-2))
    ]
    rows += rows_of("one-word", 0.7, 0.3, set_size=1) + rows_of("one-word", 0.8, 0.3, set_size=5)
    rows += rows_of("one-word", 0.7, 0.3, scale=2.0)
    drawn = plots.draw(rows, setups, 5.0)
    assert set(drawn) == {"plane", "set-size", "learning-rate", "guidance"}
    again = plots.draw(rows, setups, 5.0)
    for name, (_, figure) in drawn.items():
        text = plots.svg(figure)
        assert text == plots.svg(again[name][1])
        assert plots.png(figure).startswith(b"\x89PNG")
    assert all(s in plots.svg(drawn["plane"][1]) for s in setups)


def fake_study(tmp_path, **fields):
    """A study all of whose jobs are done, with numbers made up."""
    study = Study(config(tmp_path, **fields))
    grid.claim(study)
    for i, spec in enumerate(study.specs):
        rows = rows_of(spec.setup, 0.8, 0.3, concepts=1, seeds=(spec.seed,))
        kind = {"family": study.subjects[spec.concept].family, "concept": spec.concept}
        work.write_rows(study.folder, spec, [r | kind for r in rows])
        work.write_gallery(work.gallery_file(study.folder, spec), [pictures(2, i), pictures(2, i)])
    return study


def test_the_report_needs_no_other_file_and_shows_everything(tmp_path):
    study = fake_study(tmp_path)
    html = page.write(study, command="oneword study --x").read_text()
    loaded = re.findall(r"""\b(?:src|href)\s*=\s*["']?([^"'> ]+)|url\(([^)]+)\)""", html)
    assert loaded
    assert all((a or b).startswith(("data:", "#")) for a, b in loaded)
    assert html.count("data:image/jpeg;base64,") == 2
    for text in ("one-word", "prompt-only", "<svg", "undecided", "oneword study --x", "parrot"):
        assert text in html
    markdown = (study.folder / "report.md").read_text()
    for link in re.findall(r"\]\((.*?)\)", markdown):
        assert (study.folder / link).is_file()
    lines = (study.folder / "results.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == page.gather(study)
    summary = json.loads((study.folder / "summary.json").read_text())
    assert summary["jobs"] == {"done": 8, "failed": 0, "left": 0}
    assert [*summary["scores"]] == ["objects", "styles"]
    assert all([*own] == ["one-word", "prompt-only"] for own in summary["scores"].values())
    assert {one["of"] for one in summary["findings"]} == {"objects"}  # there is one style
    for title in ("Scores: objects", "Scores: styles", "Differences from one-word: styles"):
        assert f"## {title}\n" in markdown
        assert title in html
    assert "1 style. Scores and intervals as above. A single concept has no" in markdown
    assert "Only objects are shown." in markdown
    objects = [row for row in page.gather(study) if row["family"] != "style"]
    _, plane = plots.draw(objects, [*study.arms], study.guidance_scale)["plane"]
    assert (study.folder / "figures" / "plane.svg").read_text() == plots.svg(plane)


def test_every_raw_number_is_in_the_parquet_file(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    study = fake_study(tmp_path)
    page.write(study, command="x")
    table = parquet.read_table(study.folder / "results.parquet").to_pylist()
    given = page.gather(study)
    assert [{k: v for k, v in row.items() if v is not None} for row in table] == [
        {k: v for k, v in row.items() if v is not None} for row in given
    ]


def test_objects_alone_need_no_headings_of_their_own(tmp_path):
    study = fake_study(tmp_path, concepts=("parrot", "snowman"))
    page.write(study, command="x")
    markdown = (study.folder / "report.md").read_text()
    assert "## Scores\n\n2 objects. Means" in markdown
    assert "## The paper's findings\n" in markdown
    assert "Only objects" not in markdown


def test_the_landed_page_is_that_of_its_rows():
    """Its tables, line by line; a change of how they are computed or written prints it anew."""
    docs = Path(__file__).parents[3] / "docs"
    landed = (docs / "explanation" / "study.md").read_text(encoding="utf-8")
    with gzip.open(docs / "data" / "study" / page.ROWS, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    setups = list(dict.fromkeys(row["setup"] for row in rows))
    groups = page._groups(rows, setups, setups, 5.0)
    assert [(group.kind, group.num) for group in groups] == [("objects", 7), ("styles", 1)]
    for group in groups:
        for table in (page._scores(group.means), page._changes(group.means)):
            assert set(page._lines(table)) <= set(landed.splitlines())
    lines = page._lines(page._verdicts(groups[0].found))
    assert set(lines) <= set(landed.splitlines())
    (curve,) = (f for f in findings.findings(rows, setups, 5.0) if "curve" in f.claim)
    assert "over the setups' means -0.888 ±" in curve.parts[0].text


def test_results_go_between_the_marks_of_a_page(tmp_path):
    study = fake_study(tmp_path)
    target = tmp_path / "docs" / "study.md"
    target.parent.mkdir()
    target.write_text(f"# Mine\n\nbefore\n\n{page.BEGIN}\noutdated\n{page.END}\n\nafter\n")
    for _ in range(2):
        page.write(study, command="x", markdown=target)
        text = target.read_text()
        assert text.startswith("# Mine\n\nbefore\n")
        assert text.endswith("after\n")
        assert "outdated" not in text
        assert text.count("## Scores: objects") == 1
    links = re.findall(r"\]\((.*?)\)", text)
    assert links
    assert all((target.parent / link).is_file() for link in links)
    page.write(study, command="x", markdown=target, figures=tmp_path / "data" / "mine")
    moved = re.findall(r"\]\((.*?)\)", target.read_text())
    assert len(moved) == len(links)
    assert all(link.startswith("../data/mine/") for link in moved)
    assert all((target.parent / link).is_file() for link in moved)
    assert (tmp_path / "data" / "mine" / page.ROWS).is_file()
    target.write_text("no marks")
    with pytest.raises(page.StudyError, match="must contain the lines"):
        page.write(study, command="x", markdown=target)


def test_a_report_of_nothing_is_refused(tmp_path):
    study = Study(config(tmp_path))
    grid.claim(study)
    with pytest.raises(page.StudyError, match="because no job in"):
        page.write(study, command="x")


def test_landed_rows_are_done_jobs_of_a_new_folder(tmp_path):
    made = fake_study(tmp_path)
    target = tmp_path / "docs" / "study.md"
    page.write(made, command="x", markdown=target)
    landed = target.parent / "study" / "results.jsonl.gz"
    again = Study(config(tmp_path, output_dir=tmp_path / "again"))
    assert grid.take_in(again, landed) == 8
    assert grid.take_in(again, landed) == 0
    assert page.gather(again) == page.gather(made)
    assert not grid.standing(again).left
    before = target.read_text()
    page.write(again, command="x", markdown=target)  # the pictures are those beside the page
    assert target.read_text() == before
    one = Study(config(tmp_path, output_dir=tmp_path / "one", setups=("one-word",)))
    assert grid.take_in(one, landed) == 4
    assert grid.take_in(Study(config(tmp_path, output_dir=tmp_path / "plain")),
                        made.folder / "results.jsonl") == 8  # fmt: skip
    broken = tmp_path / "broken.jsonl"
    for text in ('{"concept": "parrot"}\n', "no rows"):
        broken.write_text(text)
        with pytest.raises(ConfigError, match=r"--rows must be a results\.jsonl of a study"):
            grid.take_in(one, broken)


# --- its folder


def test_hidden_files_make_no_folder_foreign_and_others_do(tmp_path):
    study = Study(config(tmp_path))
    study.folder.mkdir(parents=True)
    for name in (".DS_Store", ".study.json.x1.oneword", ".oneword-probe"):
        (study.folder / name).write_text("")
    grid.claim(study).release()
    assert {p.name for p in study.folder.iterdir()} == {".DS_Store", "study.json"}
    (study.folder / "study.json").rename(study.folder / "notes.txt")
    with pytest.raises(ConfigError, match="must be empty or contain a study"):
        grid.claim(study)


def test_a_study_has_one_writer(tmp_path):
    study = Study(config(tmp_path))
    with grid.claim(study), pytest.raises(InUseError, match="another process is working there"):
        grid.run(study, on_event=lambda _: None)


ROW = {"concept": "a", "setup": "b", "seed": 0, "set_size": None, "kind": "photo", "draw_time_s": 1}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[]", "line 1 must be an object"),
        ("{", "Expecting property name"),
        ('{"a": 1}', "line 1 has no 'concept'"),
        (json.dumps(ROW | {"seed": "0"}), r"line 1\['seed'\] must be a whole number, got '0'"),
        (json.dumps(ROW | {"text_similarity": "x"}), "must be a number or null, got 'x'"),
        (json.dumps(ROW | {"kind": None}), r"line 1\['kind'\] must be a string"),
        (json.dumps(ROW | {"prompt": ["x"]}), "must be a string or null"),
        ("[" * 99_999, "nested too deeply"),
        ("\u00ff".encode("latin-1"), "must be text in UTF-8"),
    ],
)
def test_rows_of_another_form_are_one_sentence(text, why, tmp_path):
    study = Study(config(tmp_path))
    data = text if isinstance(text, bytes) else text.encode()
    (tmp_path / "rows.jsonl").write_bytes(data)
    with pytest.raises(ConfigError, match=why):
        grid.take_in(study, tmp_path / "rows.jsonl")
    assert not study.folder.exists()
    path = work.rows_file(study.folder, study.specs[0])
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    with pytest.raises(UserError, match=why):
        page.gather(study)


@pytest.mark.parametrize(
    "data", [b"", b"no gzip", gzip.compress(b"[]", mtime=0)[:-6], b"\x1f\x8b\x08"]
)
def test_a_damaged_archive_of_rows_is_one_sentence(data, tmp_path):
    (tmp_path / "rows.jsonl.gz").write_bytes(data)
    study = Study(config(tmp_path))
    if data:
        with pytest.raises(ConfigError, match="--rows must be a"):
            grid.take_in(study, tmp_path / "rows.jsonl.gz")
    else:
        assert grid.take_in(study, tmp_path / "rows.jsonl.gz") == 0


def test_half_a_copied_picture_is_never_learned_from(photos, tmp_path, monkeypatch):
    (subject,) = (s for s in subjects.find([str(photos)], "x") if s.name == "my_cat")

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)  # as late as it can be
        with pytest.raises(KeyboardInterrupt):
            subject.pictures_in(tmp_path / "place", seed=0, num=2, size_px=24)
    folder = subject.pictures_in(tmp_path / "place", seed=0, num=2, size_px=24)
    pairs = zip(sorted(folder.iterdir()), subject.files, strict=False)
    assert [copy.read_bytes() == file.read_bytes() for copy, file in pairs] == [True, True]


# --- the pictures page, figure 3


def test_a_study_may_learn_from_fewer_pictures(photos, tmp_path):
    study = Study(config(tmp_path, concepts=(str(photos), "parrot"), num_pictures=3))
    counts = {name: subject.num_pictures for name, subject in study.subjects.items()}
    assert counts == {"mug": 2, "my_cat": 3, "parrot": 3}
    assert {s.num_pictures for s in study.specs} == {None}  # no sweep of sizes
    (spec,) = {s for s in study.specs if (s.concept, s.seed, s.setup) == ("my_cat", 0, "one-word")}
    with grid.claim(study):
        work.write_rows(study.folder, spec, rows_of("one-word", 0.5, 0.3, concepts=1))
        folder = work._training_folder(study, spec, 24)
    assert [p.name for p in sorted(folder.iterdir())] == ["0.png", "1.png", "2.png"]
    assert len(study.subjects["my_cat"].pixels(0, 24)) == 3
    more = Study(config(tmp_path, concepts=(str(photos), "parrot")))
    with pytest.raises(ConfigError, match="num_pictures was 3 and is None"):
        grid.claim(more)
    with pytest.raises(ConfigError, match="num_pictures must be 1 or more, got 0"):
        config(tmp_path, num_pictures=0)


def test_fig3_stands_for_the_word_and_both_kinds_of_descriptions(tmp_path):
    study = Study(config(tmp_path, setups=("fig3",)))
    assert list(study.arms) == [
        "image-only", "one-word", "captions-short", "captions-long", "variations-captions",
        "variations",
    ]  # fmt: skip
    assert study.wants_pictures
    assert not Study(config(tmp_path, setups=tuple(study.arms))).wants_pictures


def colour(setup, kind, i):
    """Of the i-th picture that a setup drew of a kind of prompts: far from all others."""
    return (40 * setup + 30, 40 * kind + 20, 60 * i + 10)


def cells_of_page(html):
    """By section, method and prompt: (colour in the middle, caption) of each picture."""
    found = {}
    for section in html.split("<h2>")[1:]:
        title = section.partition("</h2>")[0]
        heads = re.findall(r"<th>([^<]*)</th>", section.partition("</thead>")[0])[1:]
        for line in re.findall(r"<tr><th>(.*?)</tr>", section.partition("<tbody>")[2], re.S):
            label, _, rest = line.partition("</th>")
            for head, cell in zip(heads, rest.split("<td>")[1:], strict=False):
                shown = []
                for uri, below in re.findall(
                    r'base64,([^"]*)".*?>\s*(?:<figcaption>(.*?)</figcaption>)?</figure>', cell
                ):
                    image = Image.open(io.BytesIO(base64.b64decode(uri)))
                    shown.append((image.getpixel((image.width // 2,) * 2), below))
                found[title, label, head] = shown
    return found


def test_the_pictures_page_has_a_row_for_each_method_and_a_column_for_each_prompt(tmp_path):
    study = Study(config(tmp_path, setups=("fig3",), seeds=(0, 3), num_images_per_prompt=3))
    kinds = {"parrot": 5, "neon": 2}
    grid.claim(study)
    for spec in study.specs:
        place = list(study.arms).index(spec.setup)
        rows = [r | {"concept": spec.concept} for r in
                rows_of(spec.setup, 0.8, 0.3, concepts=1, seeds=(spec.seed,))]  # fmt: skip
        work.write_rows(study.folder, spec, rows)
        count = 1 if spec.setup == "image-only" else kinds[spec.concept]
        drawn = np.array(
            [[colour(place, kind, i) for i in range(3)] for kind in range(count)], dtype=np.uint8
        )
        pixels = from_uint8(
            np.tile(drawn[:, :, None, None], (1, 1, 20, 20, 1)).reshape(-1, 20, 20, 3)
        )
        work.write_gallery(work.gallery_file(study.folder, spec), pixels.split(3))
    page.write(study, command="oneword study --setups fig3")
    html = (study.folder / "pictures.html").read_text()
    found = cells_of_page(html)
    heads = {
        "parrot": ["a photo of a S*", "a photo of a S* on the moon",
                   "an oil painting of a S*", "a photo of a S* next to a cat",
                   "a photo of a S* on a plain background"],
        "neon": ["a painting in the style of S*", "a cat in the style of S*"],
    }  # fmt: skip
    titles = [f"{name}, seed {seed}" for name in ("parrot", "neon") for seed in (0, 3)]
    assert list(dict.fromkeys(title for title, *_ in found)) == titles
    assert list(dict.fromkeys(label for _, label, _ in found)) == [
        "training pictures", "one-word", "captions-short", "captions-long", "variations-captions",
        "variations",
    ]  # fmt: skip
    for name, count in kinds.items():
        for seed in (0, 3):
            texts = {"captions-short": learnable.find(name, 1).of.captions_short,
                     "captions-long": learnable.find(name, 1).of.captions_long}  # fmt: skip
            title = f"{name}, seed {seed}"
            first = found[title, "training pictures", heads[name][0]]
            assert [below for _, below in first] == [""] * 3
            for place, label in enumerate(list(study.arms)[1:], 1):
                for kind in range(count):
                    cell = found[title, label, heads[name][kind]]
                    for i, (seen, below) in enumerate(cell):
                        own = texts.get(label)
                        assert below == f"seed {1000 * seed + i}" + (f": {own[i]}" if own else "")
                        far = np.subtract(seen, colour(place, kind, i))
                        assert np.abs(far).max() <= 15  # the nearest other one is 40 away
                    assert len(cell) == 3
    assert "We wrote the descriptions of the embedded model" in html
    assert all(a.startswith("data:") for a in re.findall(r'\bsrc="([^"]*)', html))
    assert "oneword study --setups fig3" in html


def test_without_pictures_or_fig3_there_is_no_pictures_page(tmp_path):
    other = fake_study(tmp_path)
    page.write(other, command="x")
    assert not (other.folder / "pictures.html").exists()
    landed = Study(config(tmp_path, output_dir=tmp_path / "landed", setups=("fig3",)))
    grid.take_in(landed, other.folder / "results.jsonl")  # rows come without pictures
    page.write(landed, command="x")
    assert not (landed.folder / "pictures.html").exists()
