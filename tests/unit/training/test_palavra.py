"""PALAVRA on a tiny CLIP of the real class: its losses, its maps, its word, and that CLIP stays."""

from __future__ import annotations

import json
import math
import re
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from transformers import CLIPConfig, CLIPModel, CLIPTextModel

import tiny
from oneword.concepts import formats
from oneword.concepts.concept import Concept
from oneword.config.palavra import (
    HELD_BACK,
    PALAVRA,
    PROMPTS,
    PalavraFindConfig,
    PalavraTrainConfig,
    PalavraWordConfig,
    ResolvedPalavra,
)
from oneword.errors import ConfigError
from oneword.evaluation.retrieval import BOTH, NOUN, WORD, ranks_of, retrieval
from oneword.images import ImageError
from oneword.microworld.world import (
    artwork,
    inventory,
    scenes,
    unseen,
    wide_captions,
    wide_scenes,
)
from oneword.models.clip_pairs import ClipPair
from oneword.models.guide import Guide, GuideError
from oneword.runs import palavra as runs
from oneword.training.palavra import classes as gathering, pretrain as stage_a
from oneword.training.palavra.maps import (
    Maps,
    PalavraError,
    contrastive_loss,
    picture_features,
    reading,
    unit_distance,
)
from oneword.training.palavra.word import Learning, begun, learn, word_loss
from oneword.vocabulary.word import PlaceholderError


NANO = "microworld-nano"
SMALL = {"hidden": 24, "batch_size": 8, "set_size": 3}


def draws(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.fixture(scope="module")
def guide(judge_folder):
    return runs.load_clip(str(judge_folder), device="cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Four classes of pictures in a colour each; one has captions, and another words of its own."""
    folder = tmp_path_factory.mktemp("classes")
    rng = np.random.default_rng(0)
    for word, colour in {"cat": (200, 30, 30), "dog": (30, 200, 30), "blue-car": (30, 30, 200),
                         "house": (200, 200, 30)}.items():  # fmt: skip
        place = folder / word
        place.mkdir()
        for i in range(6):
            noise = rng.integers(-30, 30, (24, 24, 3)) + np.array(colour)
            Image.fromarray(noise.clip(0, 255).astype(np.uint8)).save(place / f"{i}.png")
            if word == "cat":
                (place / f"{i}.txt").write_text(f"a small cat on the beach {i}")
    (folder.parent / "words.json").write_text(json.dumps({"dog": ["robot", "ball"]}))
    return folder


@pytest.fixture(scope="module")
def classes(guide, data):
    with reading(guide) as reader:
        words = data.parent / "words.json"
        return gathering.of_folder(reader, data, num_pictures=100, words_file=words)


def settings(**more):
    return PalavraTrainConfig(**SMALL | more).resolved()


def new_maps(guide, **more):
    width = guide.vocabularies[guide.tower].dim
    return Maps(settings(**more), guide.dim, width).drawn(guide.device)


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


# --- losses


@pytest.mark.parametrize("num", [1, 7])
def test_the_contrastive_loss_is_that_of_a_double_loop(num):
    first, second = (draws(num, 5, seed=seed, dtype=torch.float64) for seed in (0, 1))
    one, two = ([v / v.norm() for v in side] for side in (first, second))
    both, total = [*one, *two], 0.0
    for i, vector in enumerate(both):
        partner = math.exp(float(one[i % num] @ two[i % num]) / 0.25)
        others = sum(
            math.exp(float(vector @ other) / 0.25) for j, other in enumerate(both) if j != i
        )
        total -= math.log(partner / others)
    found = contrastive_loss(first, second, 0.25)
    assert float(found) == pytest.approx(total / (2 * num), abs=1e-12)
    if num == 1:  # nothing to be told apart from
        assert abs(float(found)) < 1e-12


def test_the_contrastive_loss_stays_finite_where_powers_would_not():
    assert torch.isfinite(contrastive_loss(draws(3, 4), draws(3, 4, seed=1), 1e-3))


def test_the_distance_is_the_mean_of_squares_between_unit_vectors():
    a, b = draws(2, 3, 5), draws(2, 3, 5, seed=1)
    expected = [
        (x / x.norm() - y / y.norm()).square().mean()
        for x, y in zip(a.flatten(0, 1), b.flatten(0, 1), strict=True)
    ]
    assert float(unit_distance(a, b)) == pytest.approx(
        float(torch.stack(expected).mean()), rel=1e-6
    )
    assert float(unit_distance(a, 3 * a)) == pytest.approx(0, abs=1e-12)


def test_each_mode_of_the_word_is_what_its_words_say():
    pictures, read, coarse = (draws(3, 5, seed=s) for s in range(3))
    by_hand = [
        contrastive_loss(
            torch.stack([pictures[i], coarse[i]]), torch.stack([read[i], coarse[i]]), 0.3
        )
        for i in range(3)
    ]
    found = word_loss("coarse", pictures, read, coarse, 0.3)
    assert torch.allclose(found, torch.stack(by_hand).mean())
    # a phrase that lies where the word does is worse than one that lies elsewhere
    alike = word_loss("coarse", read[:1], read[:1], read[:1] + 0.1, 0.3)
    assert alike > word_loss("coarse", read[:1], read[:1], -read[:1], 0.3)
    assert torch.equal(
        word_loss("distance", pictures, read, None, 0.3), unit_distance(pictures, read)
    )
    assert torch.equal(
        word_loss("batch", pictures, read, None, 0.3), contrastive_loss(pictures, read, 0.3)
    )
    assert abs(float(word_loss("batch", pictures[:1], read[:1], None, 0.3))) < 1e-6


# --- reading


def test_texts_are_read_as_the_clip_reads_them(guide):
    texts = ["a photo of a cat", "dog", "we see an house in this photo on the beach"]
    batch = guide._holder.tokenizer(texts, padding=True, return_tensors="pt")
    own = guide.model.text_projection(guide.model.text_model(**batch).pooler_output)
    with reading(guide) as reader:
        found = reader.texts(texts)
    assert torch.allclose(found, own, atol=1e-6)
    assert (found.norm(dim=1) - 1).abs().max() > 0.1  # not of unit length
    assert torch.allclose(F.normalize(found, dim=-1), guide.text_features(texts), atol=1e-6)


@pytest.mark.parametrize("prompt", PROMPTS)
def test_a_words_own_row_in_the_stars_place_reads_as_the_word(guide, prompt):
    words = ["cat", "dog", "robot"]
    with reading(guide) as reader:
        rows = torch.stack([reader.first_row(word) for word in words])
        found = reader.with_rows(prompt, rows)
        assert torch.allclose(
            found, reader.texts([prompt.replace("*", w) for w in words]), atol=1e-5
        )


def test_gradients_reach_each_row_and_no_other(guide):
    with reading(guide) as reader:
        rows = draws(3, 16).requires_grad_()
        found = reader.with_rows("a photo of a *", rows)
        (gradient,) = torch.autograd.grad(found[1].sum(), rows)
    assert gradient[1].norm() > 0
    assert not gradient[[0, 2]].any()
    assert not any(p.requires_grad or p.grad is not None for p in guide.model.parameters())


def test_afterwards_the_clip_is_as_it_was(guide):
    table = guide.model.text_model.embeddings.token_embedding
    tokenizer = guide._holder.tokenizer
    with reading(guide) as reader:
        reader.with_rows("*", draws(2, 16))
        assert guide._holder.tokenizer is not tokenizer
    assert guide._holder.tokenizer is tokenizer
    assert not table._forward_hooks
    assert not table._forward_pre_hooks


# --- classes


def test_a_folder_of_folders_is_read_with_its_captions_and_further_words(guide, data, classes):
    assert [own.words for own in classes.members] == [
        ("blue car",), ("cat",), ("dog", "robot", "ball"), ("house",)
    ]  # fmt: skip
    assert classes.tested == (0, 1, 2, 3)
    cat, dog = classes.members[1:3]
    with reading(guide) as reader:
        assert torch.allclose(
            cat.texts[0, 4], reader.texts(["a small cat on the beach 4"])[0], atol=1e-6
        )
        for i, word in enumerate(dog.words):
            assert torch.allclose(
                dog.texts[i, 0], reader.texts([f"a photo of a {word}"])[0], atol=1e-6
            )
    assert cat.pictures.norm(dim=1).sub(1).abs().max() < 1e-5
    assert cat.held_back.tolist() == [0, HELD_BACK]
    assert cat.learned.tolist() == [1, 2, 3, 4]


def test_so_many_pictures_are_taken_of_each_class(guide, data):
    with reading(guide) as reader:
        some = gathering.of_folder(reader, data, num_pictures=2)
    assert {len(own.pictures) for own in some.members} == {2}
    assert {len(own.words) for own in some.members} == {1}


@pytest.mark.parametrize(
    ("made", "error", "message"),
    [
        (lambda f: None, PalavraError, "one per class, got 0"),
        (lambda f: (f / "cat").mkdir(), PalavraError, "one per class, got 1"),
        (lambda f: [(f / n).mkdir() for n in ("a", "b")], ImageError, "at least one picture"),
    ],
)
def test_folders_without_classes_or_pictures_are_refused(guide, tmp_path, made, error, message):
    made(tmp_path)
    with reading(guide) as reader, pytest.raises(error, match=message):
        gathering.of_folder(reader, tmp_path, num_pictures=5)


def test_a_class_of_one_picture_has_none_to_hold_back(guide, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (24, 24)).save(tmp_path / name / "1.png")
    with reading(guide) as reader, pytest.raises(PalavraError, match="two or more pictures"):
        gathering.of_folder(reader, tmp_path, num_pictures=5)


@pytest.mark.parametrize(
    ("text", "message"),
    [('{"mouse": ["rat"]}', "must name classes of the training data, got 'mouse'"),
     ('{"cat": "kitten"}', "must contain lists of texts by class"), ("[", "must contain lists")],
)  # fmt: skip
def test_further_words_of_no_class_are_refused(guide, data, tmp_path, text, message):
    path = tmp_path / "words.json"
    path.write_text(text)
    with reading(guide) as reader, pytest.raises(PalavraError, match=message):
        gathering.of_folder(reader, data, num_pictures=5, words_file=path)


def test_the_worlds_nouns_and_names_are_classes_with_exact_captions(guide, monkeypatch):
    seen = []
    plain = gathering._Gathering.add
    monkeypatch.setattr(
        gathering._Gathering,
        "add",
        lambda self, words, sentences, pixels: (
            seen.append((words, sentences)), plain(self, words, sentences, pixels)
        ),
    )  # fmt: skip
    monkeypatch.setattr(inventory, "NOUNS", inventory.NOUNS[:3])
    with reading(guide) as reader:
        found = gathering.of_world(reader, num_pictures=3)
    named = scenes.named()
    names = [name for noun in inventory.NOUNS for name in named[noun]]
    assert {own.words[0] for own in found.members} == {*inventory.NOUNS, *names}
    tested = [found.members[i] for i in found.tested]
    assert [own.words for own in tested] == [(n, *named[n]) for n in inventory.NOUNS]
    assert {len(own.pictures) for own in found.members} == {3}
    assert all(s.count("{}") == 1 and not s.startswith("{}, ") for _, own in seen for s in own)
    said = " ".join(s for _, own in seen for s in own)
    assert not re.search(rf"\b({'|'.join(names)})\b", said)
    with reading(guide) as reader:
        assert gathering.of_world(reader, num_pictures=3).sha256 == found.sha256
        assert gathering.of_world(reader, num_pictures=3, seed=1).sha256 != found.sha256


def few_of(world, monkeypatch):
    """Let there be two nouns of the first world, and of a later one three artists' things too."""
    kinds = gathering._kinds(0, world)
    count = len(inventory.NOUNS)
    few = [*kinds[:2], *kinds[count : count + 3]]
    monkeypatch.setattr(gathering, "_kinds", lambda seed, world: few if world == 2 else few[:2])
    return few


def test_the_second_worlds_things_are_classes_too(guide, monkeypatch):
    few = few_of(2, monkeypatch)
    names, keywords = wide_scenes.names(), wide_captions.keywords()
    with reading(guide) as reader:
        found = gathering.of_world(reader, num_pictures=3, world=2)
        first = gathering.of_world(reader, num_pictures=3)
    tested = [found.members[i].words for i in found.tested]
    assert tested[:2] == [first.members[i].words for i in first.tested]
    slugs = [next(s for s in unseen.known() if artwork.things()[s].noun == k.noun) for k in few[2:]]
    assert tested[2:] == [
        (artwork.things()[slug].noun, *keywords[slug], names[slug][1]) for slug in slugs
    ]
    assert len(found.members) == len(first.members) + 2 * 3  # a class for each name
    assert {len(own.pictures) for own in found.members} == {3}
    assert found.sha256 != first.sha256


def test_every_known_thing_has_a_sentence_and_no_held_out_word_is_among_them():
    rng = np.random.default_rng(0)
    kinds = gathering._kinds(0, 2)
    assert len({kind.noun for kind in kinds}) == len(kinds) > 600
    forbidden = unseen.forbidden_words()
    for kind in kinds:
        scene = kind.sample(kind.first)
        text = gathering._sentence(wide_captions.caption, scene, kind.noun, rng)
        assert text.count("{}") == 1
        said = {kind.noun, *kind.keywords, *kind.names, *text.split()}
        assert not forbidden & {word for part in said for word in part.split()}


# --- stage A


def test_maps_do_not_mind_the_order_of_a_set_and_mind_its_members(guide):
    maps, sets = new_maps(guide), F.normalize(draws(4, 5, guide.dim), dim=-1)
    found = maps.to_word(sets)
    assert (maps.to_word(sets[:, [3, 1, 4, 0, 2]]) - found).abs().max() < 1e-6
    other = sets.clone()
    other[:, 2] = F.normalize(draws(4, guide.dim, seed=5), dim=-1)
    assert (maps.to_word(other) - found).abs().amax(dim=1).min() > 1e-3


def test_texts_are_mapped_by_a_change(guide):
    maps, texts = new_maps(guide), draws(3, 2, guide.dim)
    change = maps.to_image.change
    assert torch.allclose(maps.to_image(texts), texts + texts @ change.weight.T + change.bias)


def test_the_rate_falls_to_a_fifth_every_two_hundred_passes_of_three_an_epoch():
    own = ResolvedPalavra(**PALAVRA["*"])
    assert [own.rate(p) for p in (0, 199, 200, 400)] == pytest.approx([1e-4, 1e-4, 2e-5, 4e-6])


def test_each_pass_moves_what_it_should(guide, classes):
    maps = new_maps(guide, dropout=0.25)
    with reading(guide) as reader:
        for by_texts in (True, False):
            before = {n: t.clone() for n, t in maps.tensors().items() if "adam" not in n}
            g = torch.Generator().manual_seed(3)
            own = list(classes.members)
            stage_a._step(reader, own, maps, "a photo of a *", g, by_texts=by_texts)
            after = maps.tensors()
            moved = {n.partition(".")[0] for n in before if not torch.equal(before[n], after[n])}
            assert moved == ({"to_word"} if by_texts else {"to_word", "to_image"})


def test_the_loss_of_a_step_is_the_published_sum(guide, classes):
    """By pictures, with sets that are the whole class, so that order and picks do not matter."""
    maps = new_maps(guide, dropout=0.0)
    own = [
        type(member)(
            words=member.words, pictures=member.pictures[1:2].repeat(6, 1),
            texts=member.texts[:, 1:2].repeat(1, 6, 1),
        )
        for member in classes.members
    ]  # fmt: skip
    words = [member.words[0] for member in own]
    with reading(guide) as reader:
        with torch.no_grad():
            sets = torch.stack([member.pictures[:3] for member in own])
            rows = maps.to_word(sets)
            one = reader.texts([f"A photo of a {word}" for word in words])
            two = reader.with_rows("A photo of a *", rows)
            table = torch.stack([reader.first_row(word) for word in words])
            expected = contrastive_loss(one, two, 0.25) + 512 * unit_distance(rows, table)
        g = torch.Generator().manual_seed(3)
        found = stage_a._step(reader, own, maps, "A photo of a *", g, by_texts=False)
    assert found["loss"] == pytest.approx(float(expected), rel=1e-5)
    assert found["row"] == pytest.approx(float(unit_distance(rows, table)), rel=1e-5)


def test_maps_learn_and_the_clip_stays_bit_for_bit(guide, classes):
    before = {n: t.clone() for n, t in guide.model.state_dict().items()}
    maps = new_maps(guide, dropout=0.0, learning_rate=3e-3)
    with reading(guide) as reader:
        stage_a.pretrain(reader, classes, maps, 60)
        last = stage_a.accuracy(reader, classes, maps)
        with torch.no_grad():
            unseen = [own.pictures[own.held_back].mean(dim=0)[None] for own in classes.members]
            rows = F.normalize(maps.to_word(torch.stack(unseen)), dim=1)
        words = torch.stack([reader.first_row(own.words[0]) for own in classes.members])
    assert equal(guide.model.state_dict(), before)
    assert [own["epoch"] for own in maps.history] == [10, 20, 30, 40, 50, 60]
    assert maps.history[-1]["loss"] < 0.5 * maps.history[0]["loss"]
    nearest = (rows @ F.normalize(words, dim=1).T).argmax(dim=1)
    assert nearest.tolist() == [0, 1, 2, 3]  # each row is nearest to its own class's
    assert maps.history[-1]["accuracy"] == last


@pytest.mark.parametrize("word", range(4))
def test_the_tests_share_is_that_of_rows_which_read_as_their_own_class(guide, classes, word):
    """Maps that give every set the row of one class's word are right for that class alone."""
    maps = new_maps(guide)
    with reading(guide) as reader, torch.no_grad():
        maps.to_word.last.weight.zero_()
        maps.to_word.last.bias.copy_(reader.first_row(["car", "cat", "dog", "house"][word]))
        members = tuple(replace(own, words=(own.words[0].split()[-1],)) for own in classes.members)
        assert stage_a.accuracy(reader, replace(classes, members=members), maps) == 0.25
        one = replace(classes, members=members, tested=(word,))
        assert stage_a.accuracy(reader, one, maps) == 1.0


def test_a_loss_that_is_no_number_ends_it(guide, classes):
    maps = new_maps(guide)
    with torch.no_grad():
        maps.to_word.last.bias.fill_(torch.nan)
    with reading(guide) as reader, pytest.raises(PalavraError, match="loss is not a number"):
        stage_a.pretrain(reader, classes, maps, 1)


# --- stage B


@pytest.mark.parametrize("mode", ["coarse", "distance", "batch"])
def test_a_word_comes_nearer_to_its_pictures_and_the_clip_stays(guide, classes, mode):
    before = {n: t.clone() for n, t in guide.model.state_dict().items()}
    maps = new_maps(guide)
    sets = [own.pictures for own in classes.members[: 1 if mode != "batch" else 3]]
    words = begun(maps, sets, guide.device)
    assert words.rows.shape == (len(sets), 16)
    kept = words.rows.clone()
    own = {n: t.clone() for n, t in maps.tensors().items()}
    with reading(guide) as reader:

        def near(rows):
            read = reader.with_rows("*", rows)
            return F.cosine_similarity(read, torch.stack([s.mean(0) for s in sets]))

        start = near(kept)
        learn(reader, maps, sets, words, max_train_steps=30, mode=mode, coarse="car",
              learning_rate=1e-2, temperature=0.25)  # fmt: skip
        end = near(words.rows)
    assert equal(guide.model.state_dict(), before)
    assert equal(maps.tensors(), own)
    assert words.step == len(words.losses) == 30
    assert words.losses[-1] < words.losses[0]
    if mode != "batch":
        assert (end > start).all()


def test_a_word_begins_at_what_the_maps_make_of_its_pictures(guide, classes):
    maps, own = new_maps(guide), classes.members[0].pictures
    words = begun(maps, [own, own[:2]], guide.device)
    assert torch.allclose(words.rows[0], maps.to_word(own[None])[0])
    assert torch.allclose(words.rows[1], maps.to_word(own[None, :2])[0])


@pytest.mark.parametrize("sets", [[], [torch.zeros(0, 12)]])
def test_a_set_of_no_picture_is_refused(guide, sets):
    with pytest.raises(PalavraError, match="one or more pictures, got none"):
        begun(new_maps(guide), sets, guide.device)


def test_a_word_whose_loss_is_no_number_ends(guide, classes):
    words = Learning(rows=torch.full((1, 16), torch.nan))
    maps, sets = new_maps(guide), [classes.members[0].pictures]
    with reading(guide) as reader, pytest.raises(PalavraError, match="loss is not a number"):
        learn(reader, maps, sets, words, max_train_steps=1, mode="distance", coarse="item",
              learning_rate=1e-2, temperature=0.25)  # fmt: skip


# --- on disk


def train_config(judge_folder, data, tmp_path, **more):
    return PalavraTrainConfig(
        clip=str(judge_folder), train_data_dir=data, output_dir=tmp_path / "maps", device="cpu",
        **SMALL | {"epochs": 2} | more,
    )  # fmt: skip


@pytest.fixture(scope="module")
def trained(judge_folder, data, tmp_path_factory):
    config = train_config(judge_folder, data, tmp_path_factory.mktemp("trained"))
    return runs.train_maps(config)


def word_config(trained, data, tmp_path, **more):
    given = {
        "placeholder_token": "<my-cat>", "initializer_token": "cat", "max_train_steps": 3,
        "train_data_dir": data / "cat", "maps": trained.path.parent,
        "output_dir": tmp_path / "word", "device": "cpu",
    }  # fmt: skip
    return PalavraWordConfig(**given | more)


def test_maps_that_are_taken_up_learn_the_same_to_the_bit(judge_folder, data, tmp_path, trained):
    whole = runs.train_maps(train_config(judge_folder, data, tmp_path / "whole", epochs=4))
    for epochs in (2, 4):
        config = train_config(judge_folder, data, tmp_path / "parts", epochs=epochs)
        parts = runs.train_maps(config)
    assert equal(parts.maps.tensors(), whole.maps.tensors())
    assert any("exp_avg" in name for name in whole.maps.tensors())
    # done already: nothing is written
    before = parts.path.stat().st_mtime_ns
    runs.train_maps(config)
    assert parts.path.stat().st_mtime_ns == before


def test_a_word_that_is_taken_up_learns_the_same_to_the_bit(data, tmp_path, trained):
    whole = runs.learn_word(word_config(trained, data, tmp_path / "a", max_train_steps=6))
    for steps in (3, 6):
        config = word_config(trained, data, tmp_path / "b", max_train_steps=steps)
        parts = runs.learn_word(config)
    assert parts.concept.sha256() == whole.concept.sha256()
    assert parts.losses == whole.losses
    state = "state.safetensors"
    assert (tmp_path / "a/word" / state).read_bytes() == (tmp_path / "b/word" / state).read_bytes()


def test_the_words_file_says_what_it_is(data, tmp_path, trained, guide):
    found = runs.learn_word(word_config(trained, data, tmp_path))
    word = formats.load_concept(found.path)
    assert {n: tuple(rows.shape) for n, rows in word.rows.items()} == {"clip_b8": (1, 16)}
    told = word.provenance
    assert (told["method"], told["initializer_token"], told["steps"]) == ("palavra", "cat", 3)
    assert told["clip_sha256"] == guide.sha256()
    assert "base_model" not in told
    assert guide.text_features(["a photo of a cat <my-cat>"], [word]).shape == (1, 12)


@pytest.mark.parametrize(
    ("more", "message"),
    [({"learning_rate": 1e-3}, "differ: learning_rate 0.001 instead of 0.01"),
     ({"mode": "distance"}, "mode distance instead of coarse"),
     ({"train_data_dir": "dog"}, "differ: other pictures")],
)  # fmt: skip
def test_a_word_goes_on_with_what_it_was_begun_with(data, tmp_path, trained, more, message):
    runs.learn_word(word_config(trained, data, tmp_path))
    if "train_data_dir" in more:
        more = {"train_data_dir": data / more["train_data_dir"]}
    config = word_config(trained, data, tmp_path, **more)
    with pytest.raises(PalavraError, match=message):
        runs.learn_word(config)


@pytest.mark.parametrize(
    ("more", "message"),
    [({"hidden": 12}, "differ: hidden 12 instead of 24"),
     ({"seed": 1}, "differ: seed 1 instead of 0"),
     ({"num_pictures": 3}, "differ: other pictures or captions")],
)  # fmt: skip
def test_maps_go_on_with_what_they_were_begun_with(judge_folder, data, trained, more, message):
    config = train_config(judge_folder, data, trained.path.parents[1], **more)
    with pytest.raises(PalavraError, match=message):
        runs.train_maps(config)


@pytest.fixture
def other_clip(tmp_path):
    """A CLIP of other weights, and of other sizes."""
    tokens = tiny.tokenizers.tokenizer()
    size = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1,
            "num_attention_heads": 2}  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(1)  # noqa: TID251
        config = CLIPConfig(
            text_config=size | {"vocab_size": len(tokens), "eos_token_id": tokens.eos_token_id},
            vision_config=size | {"image_size": 16, "patch_size": 8},
            projection_dim=6,
        )
        CLIPModel(config).save_pretrained(tmp_path / "other")
    tokens.save_pretrained(tmp_path / "other")
    return tmp_path / "other"


def test_maps_of_another_clip_are_refused(data, tmp_path, trained, other_clip):
    config = word_config(trained, data, tmp_path, clip=str(other_clip))
    with pytest.raises(PalavraError, match="Cannot use the maps"):
        runs.learn_word(config)


def test_maps_of_another_world_are_refused(wide_model, monkeypatch, tmp_path):
    """Both models have the same guide."""
    few_of(2, monkeypatch)
    config = train_config(wide_model, None, tmp_path, num_pictures=2, epochs=1)
    path = runs.train_maps(config).path
    guide = runs.load_clip(wide_model, device="cpu")
    assert runs.load_maps(path, guide, wide_model).epochs == 1
    says = r"world, version 1, got maps of version 2; run oneword palavra train --clip microworld-n"
    with pytest.raises(PalavraError, match=says):
        runs.load_maps(path, runs.load_clip(NANO, device="cpu"), NANO)


def test_a_text_encoder_alone_is_refused(guide, data, tmp_path):
    text = tmp_path / "text"
    half = CLIPTextModel(guide.model.config.text_config)
    half.save_pretrained(text)
    guide._holder.tokenizer.save_pretrained(text)
    config = train_config(text, data, tmp_path)
    with pytest.raises(GuideError, match="must be a CLIP"):
        runs.train_maps(config)


def test_the_clip_that_judges_is_refused_unless_asked_for(judge_folder, data, tmp_path):
    config = train_config(judge_folder, data, tmp_path, judge=str(judge_folder))
    with pytest.raises(GuideError, match="because it is also the judge"):
        runs.train_maps(config)
    asked = train_config(
        judge_folder, data, tmp_path, judge=str(judge_folder), allow_same_clip=True, epochs=1
    )
    assert runs.train_maps(asked).maps.epochs == 1


def test_a_folder_of_no_pictures_and_a_word_that_clip_has_are_refused(data, tmp_path, trained):
    (tmp_path / "empty").mkdir()
    config = word_config(trained, data, tmp_path, train_data_dir=tmp_path / "empty")
    with pytest.raises(ImageError, match="at least one picture"):
        runs.learn_word(config)
    config = word_config(trained, data, tmp_path, placeholder_token="dog")
    with pytest.raises(PlaceholderError, match="must be new to the model"):
        runs.learn_word(config)


def _damaged(path, kind):
    if kind == "no maps":
        path.write_bytes(b"no tensors at all")
    elif kind == "a word":
        formats.save_concept(Concept(placeholder_token="S*", rows={"clip": torch.ones(1, 4)}), path)
    elif kind == "cut":
        path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize("kind", ["no maps", "a word", "cut"])
def test_what_are_no_maps_is_refused(data, tmp_path, trained, kind):
    path = tmp_path / "maps.safetensors"
    path.write_bytes(trained.path.read_bytes())
    _damaged(path, kind)
    config = word_config(trained, data, tmp_path, maps=path)
    with pytest.raises(PalavraError, match="must be the maps of oneword palavra train"):
        runs.learn_word(config)


def test_maps_that_lack_a_tensor_or_hold_a_strange_one_are_refused(guide):
    tensors = new_maps(guide).tensors()
    maps = Maps(settings(), guide.dim, 16)
    for name in ("to_word.last.weight", "to_image.change.bias"):
        rest = {n: t for n, t in tensors.items() if n != name}
        with pytest.raises(PalavraError, match="must be complete and of this CLIP's sizes"):
            Maps(settings(), guide.dim, 16).put(rest, guide.device)
    with pytest.raises(PalavraError, match="must contain nothing else, got more"):
        maps.put(tensors | {"more": torch.zeros(1)}, guide.device)
    with pytest.raises(PalavraError, match="of this CLIP's sizes"):
        Maps(settings(), guide.dim, 32).put(tensors, guide.device)
    bad = {"adam.to_word.0.exp_avg": torch.zeros(1)}
    with pytest.raises(PalavraError, match="state of Adam must fit"):
        Maps(settings(), guide.dim, 16).put(tensors | bad, guide.device)


# --- settings


@pytest.mark.parametrize(
    ("kind", "given", "message"),
    [
        (PalavraTrainConfig, {"epochs": 0}, "epochs must be 1 or more, got 0"),
        (PalavraTrainConfig, {"num_pictures": 1}, "num_pictures must be 2 or more"),
        (PalavraTrainConfig, {"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1.0"),
        (PalavraTrainConfig, {"learning_rate": 0.0}, "learning_rate must be above 0"),
        (PalavraTrainConfig, {"seed": -1}, "seed must be in 0"),
        (PalavraTrainConfig, {"clip": "a/b"}, "without pictures because only"),
        (PalavraTrainConfig, {"words_file": "w.json"}, "words_file without train_data_dir"),
        (PalavraWordConfig, {"coarse": " "}, "coarse must be a word or phrase"),
        (PalavraWordConfig, {"mode": "batch"}, "because mode batch needs them"),
        (PalavraWordConfig, {"beside": ("p",)}, "because mode batch needs them"),
        (PalavraWordConfig, {"temperature": 0.0}, "temperature must be above 0"),
        (PalavraWordConfig, {"max_train_steps": -1}, "max_train_steps must be 0 or more"),
        (PalavraWordConfig, {"placeholder_token": "a b"}, "without spaces"),
        (PalavraFindConfig, {}, "pass both folders, or only a name"),
        (PalavraFindConfig, {"pictures": "p"}, "pass both folders, or only a name"),
        (
            PalavraFindConfig,
            {"held_out": "gold-mug", "among": "p"},
            "pass both folders, or only a name",
        ),
        (PalavraFindConfig, {"held_out": "gold-mug", "prompt": "cat"}, 'prompt must contain "\\*"'),
        (PalavraFindConfig, {"held_out": "gold-mug", "num_others": 0}, "num_others must be 1"),
    ],
)
def test_settings_out_of_range_are_refused(tmp_path, kind, given, message):
    paths = {"words_file", "pictures", "among"}
    given = {n: tmp_path / v if n in paths else v for n, v in given.items()}
    if "beside" in given:
        given["beside"] = (tmp_path,)
    needed = {PalavraWordConfig: {"train_data_dir": tmp_path},
              PalavraFindConfig: {"concept": tmp_path}}.get(kind, {})  # fmt: skip
    with pytest.raises(ConfigError, match=message):
        kind(**needed | given)


def test_unset_settings_are_published_ones_but_on_the_embedded_models(tmp_path):
    real = PalavraTrainConfig(clip="openai/clip-vit-base-patch32", train_data_dir=tmp_path)
    assert {n: getattr(real.resolved(), n) for n in PALAVRA["*"]} == PALAVRA["*"]
    own = PalavraTrainConfig(clip="microworld-nano", hidden=7).resolved()
    assert {n: getattr(own, n) for n in PALAVRA["*"]} == PALAVRA["microworld"] | {"hidden": 7}


def test_a_word_is_held_apart_from_an_item_or_its_noun(tmp_path):
    def config(**given):
        return PalavraWordConfig(train_data_dir=tmp_path, **given)

    assert config().apart_from("openai/clip-vit-base-patch32") == "item"
    assert config(coarse="cat").apart_from("microworld") == "cat"
    assert config(initializer_token="dog").apart_from("microworld-nano") == "dog"
    assert config(mode="distance").apart_from("microworld") == "item"
    with pytest.raises(ConfigError, match='default phrase "item" with the guide of'):
        config().apart_from("microworld")


# --- what tower a word is for


@pytest.mark.parametrize(
    ("width", "activation", "px", "key"),
    [(768, "quick_gelu", 224, "clip_l"), (768, "gelu", 224, "clip_b112"),
     (768, "quick_gelu", 336, "clip_b112"), (512, "quick_gelu", 224, "clip_b112")],
)  # fmt: skip
def test_only_openais_large_clip_has_stable_diffusions_table(width, activation, px, key):
    size = {"intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1,
            "hidden_act": activation}  # fmt: skip
    tokens = tiny.tokenizers.tokenizer()
    config = CLIPConfig(
        text_config=size | {"hidden_size": width, "vocab_size": len(tokens)},
        vision_config=size | {"hidden_size": 8, "image_size": px, "patch_size": 112},
        projection_dim=4,
    )
    pair = ClipPair(CLIPModel(config), tokens, (0.5,) * 3, (0.5,) * 3)
    assert Guide(pair, name="", source="").tower == key


# --- finding


def test_places_are_those_of_a_sort():
    text = F.normalize(draws(6), dim=0)
    pictures, others = (F.normalize(draws(n, 6, seed=n), dim=1) for n in (4, 9))
    for picture, rank in zip(pictures, ranks_of(text, pictures, others), strict=True):
        order = sorted([float(o @ text) for o in others] + [float(picture @ text)], reverse=True)
        assert order.index(float(picture @ text)) + 1 == rank
    # as near as another: behind it
    assert ranks_of(text, others[:1], others[:1]) == (2,)


def test_pictures_that_lie_where_the_sentence_does_are_found_first(guide):
    word = Concept(placeholder_token="<c>", rows={guide.tower: draws(1, 16)})
    (text,) = guide.text_features(["cat <c>"], [word])
    pictures = F.normalize(text + 0.01 * draws(6, guide.dim, seed=1), dim=1)
    others = F.normalize(draws(18, guide.dim, seed=2), dim=1)
    found = retrieval(guide, word, pictures, others, noun="cat", prompt="*")
    assert [*found.ranks] == [BOTH, WORD, NOUN]
    assert found.prompts == {BOTH: "cat <c>", WORD: "<c>", NOUN: "cat"}
    assert found.mrr(BOTH) == found.plain()[BOTH]["first"] == 1.0
    for name, prompt in found.prompts.items():
        own = guide.text_features([prompt], [word])[0]
        assert found.ranks[name] == ranks_of(own, pictures, others)
        assert found.mrr(name) == pytest.approx(sum(1 / r for r in found.ranks[name]) / 6)
    gains = [1 - 1 / rank for rank in found.ranks[NOUN]]
    assert found.gain().value == pytest.approx(sum(gains) / 6)
    alone = retrieval(guide, word, pictures, others, prompt="*")
    assert alone.ranks == {WORD: found.ranks[WORD]}
    assert alone.gain() is None


def test_a_word_of_other_weights_is_refused(guide):
    rows = {guide.tower: torch.ones(1, 16)}
    for sha256, fits in ((guide.sha256(), True), ("0" * 64, False), (None, True)):
        word = Concept(placeholder_token="<c>", rows=rows, provenance={"clip_sha256": sha256})
        with nullcontext() if fits else pytest.raises(PalavraError, match="with other weights"):
            runs.check_clip(word, guide)


def test_a_word_of_another_clip_finds_nothing_here(guide, classes):
    word = Concept(placeholder_token="<c>", rows={"clip_b32": torch.ones(1, 16)})
    own = classes.members[0].pictures
    with pytest.raises(PlaceholderError, match="must have embeddings for clip_b8"):
        retrieval(guide, word, own, own)


def test_features_are_those_of_the_clips_own_pictures(guide):
    pixels = draws(3, 3, 24, 24).clamp(-1, 1)
    found = picture_features(guide, pixels)
    assert torch.allclose(found, guide.image_features((pixels + 1) / 2), atol=1e-6)
