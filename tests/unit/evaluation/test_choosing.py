"""Choosing among candidates, beside the same written out by loops."""

from __future__ import annotations

import itertools
import json
import math

import pytest
import torch
from torch.nn import functional as F
from transformers import CLIPConfig, CLIPModel

import tiny
from oneword.evaluation.choosing import ChoosingError, apart, best_of, choose
from oneword.evaluation.features import Judge
from oneword.evaluation.gallery import chosen_section, grid, save_gallery
from oneword.generation.generate import Drawing
from oneword.prompts import without_placeholder


@pytest.fixture(scope="module")
def eye():
    """A real judge with random weights that looks at 8 px."""
    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
            "num_attention_heads": 2}  # fmt: skip
    tokens = tiny.tokenizers.tokenizer()
    with torch.random.fork_rng():
        torch.manual_seed(0)  # noqa: TID251
        config = CLIPConfig(
            text_config=size | {"vocab_size": len(tokens), "eos_token_id": tokens.eos_token_id},
            vision_config=size | {"image_size": 8, "patch_size": 4},
            projection_dim=12,
        )
        return Judge(CLIPModel(config), tokens, name="eye")


def pixels(num, seed=0):
    return torch.rand(num, 3, 8, 8, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def drawing(prompts, num, concepts=("<a>", "<b>")):
    return Drawing(
        pixels=pixels(len(prompts) * num),
        prompts=tuple(p for p in prompts for _ in range(num)),
        seeds=tuple(range(num)) * len(prompts),
        settings={
            "concepts": json.dumps(dict.fromkeys(concepts, "")),
            "model": "m",
            "negative_prompt": "",
            "guidance_scale": "4",
            "num_inference_steps": "9",
        },
    )


def cosine(a, b):
    dot = sum(float(x) * float(y) for x, y in zip(a, b, strict=True))
    return dot / math.dist(a, [0] * len(a)) / math.dist(b, [0] * len(b))


@pytest.mark.parametrize("rank_by", ["image", "text", "mean"])
def test_the_kept_are_the_best_by_brute_force(eye, rank_by):
    prompts = ["a <a> at sea", "a <b> beside an <a>"]
    many = drawing(prompts, 16)
    references = {"<a>": pixels(5, 1), "<b>": pixels(3, 2)}
    choice = choose(many, eye, keep=4, rank_by=rank_by, references=references)
    seen = eye.images(many.pixels)
    expected = []
    for row, prompt in enumerate(prompts):
        text = eye.texts([without_placeholder(prompt, ["<a>", "<b>"])])[0]
        scores = {}
        for i in range(16 * row, 16 * row + 16):
            words = [w for w in references if w in prompt]
            means = [
                sum(cosine(seen[i], r) for r in eye.images(references[w])) / len(references[w])
                for w in words
            ]
            image, against_text = sum(means) / len(means), cosine(seen[i], text)
            scores[i] = {"image": image, "text": against_text, "mean": (image + against_text) / 2}[
                rank_by
            ]
            assert choice.scores[i] == pytest.approx(scores[i], abs=1e-5)
        expected += sorted(scores, key=lambda i: -scores[i])[:4]
    assert choice.kept == tuple(expected)
    assert choice.dropped == tuple(i for i in range(32) if i not in expected)


@pytest.mark.parametrize("diversity", [0.0, 0.3, 0.7, 1.0])
def test_diversity_is_the_greedy_rule_written_out(diversity):
    features = F.normalize(torch.randn(12, 3, generator=torch.Generator().manual_seed(3)), dim=1)
    scores = torch.rand(12, generator=torch.Generator().manual_seed(4)).tolist()
    taken = [max(range(12), key=scores.__getitem__)]
    for _ in range(4):
        values = {}
        for i in set(range(12)) - set(taken):
            nearest = max(cosine(features[i], features[j]) for j in taken)
            values[i] = (1 - diversity) * scores[i] - diversity * nearest
        taken.append(max(values, key=values.__getitem__))
    assert best_of(scores, features, 5, diversity) == taken


def test_diversity_passes_over_a_copy_of_the_best():
    features = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    assert best_of([0.9, 0.89, 0.5], features, 2) == [0, 1]
    assert best_of([0.9, 0.89, 0.5], features, 2, diversity=0.5) == [0, 2]


def test_keeping_one_of_sixteen_is_the_argmax(eye):
    many = drawing(["a <a>"], 16, ("<a>",))
    choice = choose(many, eye, keep=1, references={"<a>": pixels(4, 5)})
    assert choice.rank_by == "mean"
    assert choice.kept == (max(range(16), key=choice.scores.__getitem__),)


def test_text_ranks_where_a_prompt_has_no_known_pictures(eye):
    choice = choose(drawing(["a <a>", "a dog"], 2), eye, keep=1, references={"<a>": pixels(2)})
    assert choice.rank_by == "text"
    assert choice.scores == choice.text
    assert math.isnan(choice.image[3])


def test_kept_and_dropped_carry_their_similarities(eye):
    many = drawing(["a <a>"], 3, ("<a>",))
    choice = choose(many, eye, keep=1, references={"<a>": pixels(2)})
    kept, dropped = apart(many, choice)
    assert torch.equal(kept.pixels[0], many.pixels[choice.kept[0]])
    assert kept.metadata(0)["image_similarity"] == f"{choice.image[choice.kept[0]]:.4f}"
    assert dropped.seeds == tuple(many.seeds[i] for i in choice.dropped)
    assert apart(many, choose(many, eye, keep=3))[1] is None
    section = chosen_section(many, choice)
    assert [row.label for row in section.rows] == ["a <a> (kept)", "a <a> (dropped)"]
    worse = [choice.scores[int(c.split()[1][:-1])] for _, c in section.rows[1].pictures]
    assert worse == sorted(worse, reverse=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep": 0}, "keep must be in 1..2, .*, got 0"),
        ({"keep": 3}, "keep must be in 1..2, .*, got 3"),
        ({"keep": 1, "diversity": 1.5}, r"diversity must be in \[0, 1\], got 1.5"),
        ({"keep": 1, "rank_by": "image"}, "Cannot rank by 'image' because the training pictures"),
        ({"keep": 1, "rank_by": "mean"}, "unknown for 'a <a>'"),
    ],
)
def test_what_cannot_be_ranked_is_said(eye, options, message):
    with pytest.raises(ChoosingError, match=message):
        choose(drawing(["a <a>"], 2), eye, **options)


def test_a_gallery_shows_everything_and_needs_no_other_file(eye, tmp_path):
    prompts = [f"a {w} in place {n}" for n, w in itertools.product(range(10), ("<a>", "<b>"))]
    many = drawing([*prompts, "a dog"], 2)
    choice = choose(many, eye, keep=1)
    files = save_gallery(many, tmp_path, choice=choice, commands=["oneword generate"])
    assert [f.name for f in files] == [
        "gallery.html", "sheet-a-1.png", "sheet-a-2.png", "sheet-b-1.png", "sheet-b-2.png",
        "sheet-plain.png", "grid.png",
    ]  # fmt: skip
    page = files[0].read_text()
    assert page.count("<img src=") == page.count('src="data:image/') == 42
    assert page.count(", kept<") == 21
    assert "http" not in page
    assert list(grid(many)["a {} in place 3"]) == ["<a>", "<b>"]
    assert len(grid(many)) == 10


def test_large_pictures_are_shrunk_in_a_gallery(tmp_path):
    large = drawing(["a dog"], 1)
    large = Drawing(
        pixels=torch.zeros(1, 3, 600, 300),
        prompts=large.prompts,
        seeds=large.seeds,
        settings=large.settings,
    )
    page, _ = save_gallery(large, tmp_path)
    assert "data:image/jpeg" in page.read_text()
    assert page.stat().st_size < 12_000
