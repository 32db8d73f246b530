from __future__ import annotations

import pytest
import torch

from oneword.concepts.concept import Concept
from oneword.vocabulary.inject import injected
from oneword.vocabulary.vocabulary import distance_to_words, initial_rows
from oneword.vocabulary.word import PlaceholderError


@pytest.fixture
def vocabulary(tiny_sd):
    return tiny_sd.vocabularies["clip"]


def concept(vocabulary, token="S*", text="red cat", num_vectors=2):
    rows = initial_rows(vocabulary, text, num_vectors)
    return Concept(placeholder_token=token, rows={"clip": rows})


def states(backbone, prompt):
    return backbone.encode_prompt([prompt]).encoder_hidden_states


@pytest.mark.parametrize("token", ["S*", "*", "<my-Cat>", "Ünï", "s", "zebra-7"])
def test_a_word_with_the_rows_of_known_words_conditions_like_them(tiny_sd, vocabulary, token):
    word = concept(vocabulary, token)
    expected = states(tiny_sd, "a photo of a red cat on the moon")
    with injected(tiny_sd, [word], replace=True):
        found = states(tiny_sd, f"a photo of a {token} on the moon")
    assert torch.equal(found, expected)


def test_punctuation_may_follow_the_word(tiny_sd, vocabulary):
    expected = states(tiny_sd, "a photo of a red cat.")
    with injected(tiny_sd, [concept(vocabulary)]):
        assert torch.equal(states(tiny_sd, "a photo of a S*."), expected)


def test_a_word_inside_another_word_is_no_placeholder(tiny_sd, vocabulary):
    expected = states(tiny_sd, "a zebras and zebra7")
    with injected(tiny_sd, [concept(vocabulary, "zebra")]):
        assert torch.equal(states(tiny_sd, "a zebras and zebra7"), expected)
        assert not torch.equal(states(tiny_sd, "a zebra"), states(tiny_sd, "a zebras"))


def test_the_words_case_is_its_own(tiny_sd, vocabulary):
    with injected(tiny_sd, [concept(vocabulary, "Blip"), concept(vocabulary, "blip", "dog", 1)]):
        assert torch.equal(states(tiny_sd, "a Blip"), states(tiny_sd, "a red cat"))
        assert torch.equal(states(tiny_sd, "a blip"), states(tiny_sd, "a dog"))


def test_gradients_reach_the_rows_and_nothing_else(tiny_sd, vocabulary):
    rows = initial_rows(vocabulary, "cat", 1).requires_grad_(True)
    word = Concept(placeholder_token="S*", rows={"clip": rows})
    with injected(tiny_sd, [word]):
        states(tiny_sd, "a photo of a S*").square().sum().backward()
    assert rows.grad is not None
    assert rows.grad.abs().sum() > 0
    assert all(p.grad is None for p in tiny_sd.pipeline.text_encoder.parameters())


def test_everything_is_undone_on_exit_and_by_exception(tiny_sd, vocabulary):
    tokenizer = tiny_sd.pipeline.tokenizer
    size, table = len(tokenizer), vocabulary.weight.clone()
    before = states(tiny_sd, "a photo of a S*")

    def hooks():
        modules = tiny_sd.pipeline.text_encoder.modules()
        return [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in modules]

    there = hooks()
    with pytest.raises(RuntimeError, match="boom"), injected(tiny_sd, [concept(vocabulary)]):
        raise RuntimeError("boom")
    assert tiny_sd.pipeline.tokenizer is tokenizer
    assert len(tokenizer) == size
    assert torch.equal(vocabulary.weight, table)
    assert torch.equal(states(tiny_sd, "a photo of a S*"), before)
    assert hooks() == there


def test_seventy_five_vectors_fill_a_prompt_and_one_more_word_is_refused(tiny_sd, vocabulary):
    word = concept(vocabulary, num_vectors=75)
    with injected(tiny_sd, [word]):
        assert states(tiny_sd, "S*").shape[1] == 77
        with pytest.raises(PlaceholderError, match=r"got 76 tokens in 'a S\*'; shorten"):
            states(tiny_sd, "a S*")


def test_text_after_the_word_may_be_cut_off(tiny_sd, vocabulary):
    long = "a S* " + "cat " * 90
    with injected(tiny_sd, [concept(vocabulary)]):
        assert torch.equal(states(tiny_sd, long), states(tiny_sd, "a red cat " + "cat " * 90))
        with pytest.raises(PlaceholderError, match="must fit into 75 tokens"):
            states(tiny_sd, "cat " * 75 + "S*")


def test_the_tokenizer_still_does_what_it_did(tiny_sd, vocabulary):
    plain = tiny_sd.pipeline.tokenizer
    prompts = ["a red cat", "a dog on the moon"]
    with injected(tiny_sd, [concept(vocabulary)]):
        words = tiny_sd.pipeline.tokenizer
        assert words(prompts).input_ids == plain(prompts).input_ids
        single = words("a S*")
        assert single.input_ids[0] == plain.bos_token_id
        assert len(single.input_ids) == len(plain("a red cat").input_ids)
        bare = words("a S*", add_special_tokens=False).input_ids
        assert len(bare) == 3
        batch = words(["a S*", "a"], padding=True, return_tensors="pt")
        assert batch.input_ids.shape == (2, 5)
        assert batch.attention_mask.tolist() == [[1] * 5, [1, 1, 1, 0, 0]]
        decoded = words.batch_decode(batch.input_ids, skip_special_tokens=True)
        assert decoded[1] == plain.decode(plain("a").input_ids, skip_special_tokens=True)
        assert "S*" in decoded[0]
        assert words.convert_ids_to_tokens(bare[1]) == "S*"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda v: [concept(v, "cat")], "must be new to the model, got 'cat'"),
        (lambda v: [concept(v, "a b")], "without spaces"),
        (lambda v: [concept(v), concept(v)], r"must differ, got 'S\*' twice"),
        (
            lambda v: [Concept(placeholder_token="x1", rows={"clip": torch.zeros(1, 48)})],
            "embeddings of width 48 .* of width 32",
        ),
        (
            lambda v: [Concept(placeholder_token="x1", rows={"t5": torch.zeros(1, 48)})],
            "width 48 for the text encoder t5",
        ),
    ],
)
def test_what_cannot_be_injected_is_refused(tiny_sd, vocabulary, make, message):
    with (
        pytest.raises(PlaceholderError, match=message),
        injected(tiny_sd, make(vocabulary)),
    ):
        pass


def test_injections_do_not_nest(tiny_sd, vocabulary):
    with (
        injected(tiny_sd, [concept(vocabulary)]),
        pytest.raises(PlaceholderError, match="injected together"),
        injected(tiny_sd, [concept(vocabulary, "T*")]),
    ):
        pass


def test_initial_rows(vocabulary):
    red, cat = vocabulary.rows_of("red cat")
    assert torch.equal(initial_rows(vocabulary, "red cat", 1)[0], (red + cat) / 2)
    assert torch.equal(initial_rows(vocabulary, "red cat", 4), torch.stack([red, cat, cat, cat]))
    assert torch.equal(initial_rows(vocabulary, "red cat", 2), torch.stack([red, cat]))
    for unknown in ("", "zqé", "red zqé"):
        with pytest.raises(PlaceholderError, match="must be known to the model's tokenizer"):
            initial_rows(vocabulary, unknown, 1)


def test_nearest_words(vocabulary):
    ((first, *_),) = vocabulary.nearest(vocabulary.rows_of("cat") * 3, 2)
    assert first == ("cat</w>", 1.0)


def test_words_and_their_scale(vocabulary):
    assert vocabulary.is_word("cat")
    assert not vocabulary.is_word("*")
    assert not vocabulary.is_word("red cat")
    assert vocabulary.std() == pytest.approx(float(vocabulary.weight.std()))


class TwoEncoders:
    """A model with two text encoders, as XL, SD3 and Flux are."""

    name, pool, pipeline = "two", "eos", None

    def __init__(self, vocabulary):
        self.vocabularies = {"clip_l": vocabulary, "clip_g": vocabulary}


def test_a_word_for_some_of_a_models_encoders_is_refused(vocabulary):
    word = Concept(placeholder_token="<x>", rows={"clip_l": torch.ones(1, vocabulary.dim)})
    message = (
        r"must have embeddings for each text encoder of two \(clip_l, clip_g\), got none for clip_g"
    )
    with pytest.raises(PlaceholderError, match=message), injected(TwoEncoders(vocabulary), [word]):
        pass


# --- distances to existing words


def brute_gaps(vocabulary, rows):
    """Distances to every existing row one by one, in float64."""
    table = vocabulary.weight.detach().double()[: len(vocabulary.tokenizer)]
    return torch.stack([(table - row.double()).square().sum(1).sqrt().min() for row in rows])


def test_gaps_are_the_distances_to_the_nearest_existing_rows(vocabulary):
    noise = torch.randn(30, vocabulary.dim, generator=torch.Generator().manual_seed(0))
    rows = torch.cat([vocabulary.rows_of("red cat"), vocabulary.std() * noise])
    found = vocabulary.gaps(rows)
    assert found[:2].tolist() == [0.0, 0.0]  # not merely near it
    assert torch.allclose(found.double(), brute_gaps(vocabulary, rows), rtol=1e-5)
    assert bool((found[2:] > 0).all())


def test_rows_that_no_token_has_are_no_existing_words(vocabulary, monkeypatch):
    last = len(vocabulary.tokenizer) - 1
    row = vocabulary.weight.detach()[last:]
    assert float(vocabulary.gaps(row[:1])) == 0.0
    monkeypatch.setattr(type(vocabulary.tokenizer), "__len__", lambda _: last)
    assert float(vocabulary.gaps(row[:1])) > 0.0
    median = vocabulary.weight.detach()[:last].norm(dim=1).median()
    assert vocabulary.median_norm() == pytest.approx(float(median))


def test_a_words_distance_takes_all_its_vectors_together(tiny_sd, vocabulary):
    vocabularies, median = tiny_sd.vocabularies, vocabulary.median_norm()
    assert distance_to_words(vocabularies, {"clip": vocabulary.rows_of("red cat")}) == 0.0
    away = vocabulary.rows_of("cat") + 0.1
    one = distance_to_words(vocabularies, {"clip": away})
    assert one == pytest.approx(float(brute_gaps(vocabulary, away)) / median, rel=1e-5)
    two = distance_to_words(vocabularies, {"clip": away.repeat(2, 1)})
    assert two == pytest.approx(2**0.5 * one, rel=1e-5)
    with injected(tiny_sd, [concept(vocabulary)]):  # as while it learns
        assert distance_to_words(vocabularies, {"clip": away}) == one


def test_what_is_no_row_of_the_table_has_no_distance(tiny_sd, vocabulary):
    output = {"clip.last_hidden_state": torch.ones(1, vocabulary.dim)}
    assert distance_to_words(tiny_sd.vocabularies, output) is None
    assert distance_to_words(tiny_sd.vocabularies, {"clip": torch.ones(1, 3)}) is None
