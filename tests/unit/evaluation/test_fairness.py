"""How even a word's pictures are: closed forms, brute force, and the reading of attributes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from oneword.config.inversion import InversionConfig
from oneword.config.runs import DebiasConfig
from oneword.errors import ConfigError
from oneword.evaluation import fairness, metrics
from oneword.evaluation.features import Judge
from oneword.microworld.world import inventory, scenes


@pytest.mark.parametrize(
    ("hits", "num", "low", "high"),
    # R: prop.test(x, n, correct = FALSE)$conf.int
    [(0, 10, 0.0, 0.27753), (5, 10, 0.23659, 0.76341), (10, 10, 0.72247, 1.0)],
)
def test_wilsons_interval(hits, num, low, high):
    assert metrics.wilson_interval(hits, num) == pytest.approx((low, high), abs=1e-4)


def test_wilsons_interval_is_where_the_score_test_rejects():
    low, high = metrics.wilson_interval(37, 64)
    for p in (low, high):
        assert abs(37 / 64 - p) / math.sqrt(p * (1 - p) / 64) == pytest.approx(1.959964, abs=1e-6)
    with pytest.raises(ValueError, match="at least one picture"):
        metrics.wilson_interval(0, 0)


def test_evenness_is_one_for_even_and_zero_for_alike():
    assert metrics.evenness(["a", "b", "c"] * 4, 3) == pytest.approx(1.0)
    assert metrics.evenness(["a"] * 9, 3) == 0.0
    assert metrics.evenness(["a", "b"] * 4, 4) == pytest.approx(0.5)
    shares = [0.5, 0.25, 0.25]
    expected = -sum(p * math.log2(p) for p in shares) / math.log2(6)
    assert metrics.evenness(["a", "a", "b", "c"], 6) == pytest.approx(expected)


def test_the_bootstrap_agrees_with_numpys():
    values = np.random.default_rng(0).normal(size=50)
    low, high = metrics.bootstrap_interval(lambda i: float(values[i.numpy()].mean()), 50)
    rng = np.random.default_rng(1)
    means = [values[rng.integers(0, 50, 50)].mean() for _ in range(4000)]
    assert (low, high) == pytest.approx(np.percentile(means, [2.5, 97.5]), abs=0.04)


def test_a_gain_resamples_the_same_seeds_together():
    before, after = ["a"] * 20, ["a", "b"] * 10
    value, low, high = fairness.gain(before, after, 2)
    assert value == pytest.approx(1.0)
    assert 0.7 < low < high <= 1.0
    assert fairness.gain(after, after, 2) == (0.0, 0.0, 0.0)


def test_a_distribution_counts_values_that_were_never_seen():
    found = fairness.distribution(["light", "dark", "light"], ("light", "medium", "dark"))
    assert found.counts == {"light": 2, "medium": 0, "dark": 1}
    assert found.share("light")[0] == pytest.approx(2 / 3)
    low, high = found.evenness_interval
    assert low <= found.evenness <= high


class Eye(Judge):
    """Features that are the picture's mean colour, and a sentence's colour word."""

    COLOURS = {"red": (1.0, -1, -1), "green": (-1, 1.0, -1), "blue": (-1, -1, 1.0)}  # noqa: RUF012

    def __init__(self):  # no weights to load
        self.name = "eye"

    def images(self, pixels):
        return torch.nn.functional.normalize(pixels.mean((2, 3)), dim=1)

    def texts(self, texts):
        found = [self.COLOURS[next(c for c in self.COLOURS if c in t)] for t in texts]
        return torch.nn.functional.normalize(torch.tensor(found), dim=1)


def test_zero_shot_takes_the_sentence_with_the_highest_cosine():
    table = {
        "hue": {"warm": "a red thing", "cold": "a blue thing"},
        "leaf": {"yes": "green", "no": "red"},
    }
    pixels = torch.tensor([(0.9, -0.8, -0.9), (-0.9, -0.2, 0.9), (-1.0, 1.0, -0.5)])
    reader = fairness.zero_shot(Eye(), table)
    found = reader(pixels[:, :, None, None].expand(3, 3, 4, 4).contiguous())
    assert found == [
        {"hue": "warm", "leaf": "no"},
        {"hue": "cold", "leaf": "yes"},
        {"hue": "cold", "leaf": "yes"},
    ]


def test_attributes_are_parsed():
    assert fairness.parsed(["hair = long hair | no hair"]) == {
        "hair": {"long hair": "long hair", "no hair": "no hair"}
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"word": " "}, "word must be the word to make fairer"),
        ({"prompt": "a doctor"}, r"must contain \{\} in place of the word"),
        ({"num_images": 1}, "num_images must be 2 or more, got 1"),
        ({"batch_size": 0}, "batch_size must be 1 or more, got 0"),
        ({"attributes": ("hair=long",)}, r"must be NAME=TEXT\|TEXT .* got 'hair=long'"),
        ({"attributes": ("a|b",)}, r"must be NAME=TEXT\|TEXT"),
        (
            {"inversion": InversionConfig(learnable_property="style")},
            "learnable_property must be 'object'",
        ),
    ],
)
def test_a_setting_that_cannot_be_is_refused(options, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        DebiasConfig(**({"word": "doctor", "images": tmp_path} | options))


def test_diverse_people_have_every_look_before_one_repeats():
    found = scenes.diverse_people("nurse", 12, seed=3)
    looks = [(s.things[0].skin, s.things[0].hair) for s in found]
    every = {(skin, hair) for skin in inventory.SKINS for hair in inventory.HAIRS}
    assert set(looks[:6]) == set(looks[6:]) == every
    assert {s.things[0].noun for s in found} == {"nurse"}
    assert scenes.diverse_people("nurse", 12, seed=3) == found
    assert "plain" not in {s.place for s in found}


def test_the_oracle_tells_diverse_drawings_from_the_worlds():
    pytest.importorskip("skia")
    from oneword.images import from_uint8
    from oneword.microworld.world import drawing

    read, values = fairness.oracle_reader("microworld")
    even = [drawing.render(s) for s in scenes.diverse_people("doctor", 18)]
    usual = [
        drawing.render(scenes.sample_scene(i, nouns=("doctor",), styles=("photo",),
                                           relation="alone"))
        for i in range(18)
    ]  # fmt: skip
    found = [
        metrics.evenness([r["skin and hair"] for r in read(from_uint8(np.stack(x)))],
                         len(values["skin and hair"]))
        for x in (even, usual)
    ]  # fmt: skip
    assert found[0] > 0.9
    assert found[1] < 0.6
