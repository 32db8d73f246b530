from __future__ import annotations

import json

import pytest
import torch

import png_texts
from oneword.concepts.concept import Concept
from oneword.config.drawing import SamplingConfig
from oneword.errors import ConfigError
from oneword.generation.editing import edit
from oneword.generation.generate import SHEET, generate, save_drawing, slug
from oneword.prompts import PromptError


FEW = SamplingConfig(num_inference_steps=2)


@pytest.fixture(scope="module")
def word(tiny_sd):
    rows = tiny_sd.vocabularies["clip"].rows_of("red cat")
    return Concept(placeholder_token="S*", rows={"clip": rows})


def test_every_prompt_meets_every_seed_whatever_the_batch(tiny_sd, word):
    prompts, told = ["a photo of a S*", "a house"], []

    def tell(done, total):
        told.append((done, total))

    whole = generate(tiny_sd, prompts, [3, 4], concepts=[word], sampling=FEW, on_picture=tell)
    single = generate(tiny_sd, prompts, [3, 4], concepts=[word], sampling=FEW, batch_size=1)
    assert whole.prompts == ("a photo of a S*",) * 2 + ("a house",) * 2
    assert whole.seeds == (3, 4, 3, 4)
    assert torch.allclose(whole.pixels, single.pixels, atol=1e-4)
    assert told == [(2, 4), (4, 4)]
    known = generate(tiny_sd, ["a photo of a red cat"], [3], sampling=FEW)
    assert torch.allclose(known.pixels, whole.pixels[:1], atol=1e-4)


def test_two_words_in_one_prompt(tiny_sd, word):
    dog = Concept(
        placeholder_token="<d>", rows={"clip": tiny_sd.vocabularies["clip"].rows_of("dog")}
    )
    both = generate(tiny_sd, ["a S* and a <d>"], [0], concepts=[word, dog], sampling=FEW)
    known = generate(tiny_sd, ["a red cat and a dog"], [0], sampling=FEW)
    assert torch.equal(both.pixels, known.pixels)


def test_a_concept_that_no_prompt_uses_is_refused(tiny_sd, word):
    with pytest.raises(PromptError, match=r"must contain the placeholder 'S\*' of the concept"):
        generate(tiny_sd, ["a cat", "a s*"], [0], concepts=[word], sampling=FEW)
    with pytest.raises(PromptError, match="without a prompt and a seed, got 0 prompts"):
        generate(tiny_sd, [], [0])
    with pytest.raises(PromptError, match="got 1 prompts and 0 seeds"):
        generate(tiny_sd, ["a cat"], [])


def test_a_word_may_stand_in_the_negative_prompt_alone(tiny_sd, word):
    away = SamplingConfig(num_inference_steps=2, negative_prompt="S*, blue", guidance_scale=3)
    known = SamplingConfig(num_inference_steps=2, negative_prompt="red cat, blue", guidance_scale=3)
    found = generate(tiny_sd, ["a dog"], [0], concepts=[word], sampling=away)
    assert torch.allclose(found.pixels, generate(tiny_sd, ["a dog"], [0], sampling=known).pixels)


@pytest.mark.parametrize("negative", ["<nobody>", "blurry, <nobody>", "a S*"])
def test_a_word_in_the_negative_prompt_that_is_not_loaded_is_refused(tiny_sd, negative):
    sampling = SamplingConfig(num_inference_steps=1, negative_prompt=negative)
    with pytest.raises(PromptError, match=r"must contain only loaded words, got '(<n|S\*)"):
        generate(tiny_sd, ["a cat"], [0], sampling=sampling)


def test_a_rating_in_the_negative_prompt_is_text(tiny_sd):
    sampling = SamplingConfig(num_inference_steps=1, negative_prompt="a 1* hotel")
    assert len(generate(tiny_sd, ["a cat"], [0], sampling=sampling).pixels) == 1


def test_what_only_looks_like_a_word_is_text_and_said_once(tiny_sd, word):
    few = SamplingConfig(num_inference_steps=1)
    prompts = ["a 5* S*", "a 5* house", "<hello> on a hat"]
    with pytest.warns(UserWarning, match="is not a loaded word and is read as text") as caught:
        generate(tiny_sd, prompts, [0], concepts=[word], sampling=few)
    assert [str(w.message)[:9].split()[0] for w in caught] == ["'5*'", "'<hello>'"]


def test_a_misspelt_word_is_named_where_its_concept_is_missed(tiny_sd, word):
    with pytest.raises(PromptError, match=r"placeholder 'S\*' .*got 'a T\*'; not loaded: 'T\*'\."):
        generate(tiny_sd, ["a T*"], [0], concepts=[word], sampling=FEW)
    other = Concept(placeholder_token="S*2", rows=word.rows)
    with pytest.raises(PromptError, match=r"placeholder 'S\*' "):  # the longer word is meant
        generate(tiny_sd, ["a S*2"], [0], concepts=[word, other], sampling=FEW)


def test_the_words_that_a_concept_brings_along_are_loaded(tiny_sd, word):
    rows = word.rows["clip"]
    both = Concept(placeholder_token="<a>", rows={"clip": rows}, kind="dreamartist",
                   tensors={"negative/clip": rows})  # fmt: skip
    sampling = SamplingConfig(num_inference_steps=1, negative_prompt="<a-negative>")
    assert len(generate(tiny_sd, ["a <a>"], [0], concepts=[both], sampling=sampling).pixels) == 1


@pytest.mark.parametrize("seed", [2**64, -(2**63) - 1])
def test_seeds_out_of_range_are_refused(tiny_sd, seed):
    with pytest.raises(ConfigError, match=f"seed must be in .*, got {seed}"):
        generate(tiny_sd, ["a cat"], [0, seed], sampling=FEW)
    with pytest.raises(ConfigError, match=f"seed must be in .*, got {seed}"):
        edit(tiny_sd, torch.zeros(1, 3, 24, 24), "a cat", [0, seed], strength=0.5, sampling=FEW)


def test_pictures_carry_what_made_them(tiny_sd, word, tmp_path):
    drawing = generate(tiny_sd, ["a S*", "a S* at sea"], [7, 8], concepts=[word], sampling=FEW)
    files = save_drawing(drawing, tmp_path)
    assert [f.name for f in files] == [
        "000-a-s-seed7.png", "000-a-s-seed8.png", "001-a-s-at-sea-seed7.png",
        "001-a-s-at-sea-seed8.png", SHEET,
    ]  # fmt: skip
    facts = png_texts.read(files[3])
    assert facts["prompt"] == "a S* at sea"
    assert facts["seed"] == "8"
    assert json.loads(facts["concepts"]) == {"S*": word.sha256()}
    assert facts["num_inference_steps"] == "2"
    # A1111 calls a word as its file, which is S.pt
    assert facts["parameters"].startswith("a S at sea\nSteps: 2, Sampler: DDIM, CFG scale: 7.5,")


def test_slugs():
    assert slug("A photo of <S*>, at sea!") == "a-photo-of-s-at-sea"
    assert slug("***") == "picture"
    assert len(slug("word " * 50)) <= 48
