"""How far a word goes from the existing ones: with a higher rate and more vectors, farther."""

from __future__ import annotations

import pytest

from oneword.config.inversion import InversionConfig
from oneword.config.model import ModelConfig
from oneword.images import from_uint8
from oneword.microworld.world import concepts
from oneword.microworld.world.drawn import concept_pictures
from oneword.models.loading import load_backbone
from oneword.training.job import Job
from oneword.training.loop import invert_many
from oneword.vocabulary.vocabulary import distance_to_words


SEEDS = (0, 1, 2)
SETTINGS = {
    "one vector": {},
    "tenth of the rate": {"learning_rate_ratio": 0.1},
    "two vectors": {"num_vectors": 2},
    "three vectors": {"num_vectors": 3},
}


@pytest.fixture(scope="module")
def distances():
    """Distance to the nearest words after 20 steps, by settings, of each seed."""
    nano = load_backbone(ModelConfig(model="microworld-nano", device="cpu"))
    mug = concepts.get("gold-mug")
    jobs = {
        (name, seed): Job(
            name=f"{name} {seed}",
            pictures=from_uint8(concept_pictures(mug, seed=seed, size=64)),
            config=InversionConfig(
                initializer_token=mug.noun, seed=seed, max_train_steps=20, train_batch_size=4,
                num_evaluation_samples=2, evaluation_steps=20, keep="last", early_stopping=False,
                **settings,
            ),
        )
        for name, settings in SETTINGS.items()
        for seed in SEEDS
    }  # fmt: skip
    results = invert_many(nano, list(jobs.values()), slots=4)
    found: dict[str, list[float]] = {}
    for (name, _), result in zip(jobs, results, strict=True):
        assert result.concept is not None
        far = distance_to_words(nano.vocabularies, result.concept.rows)
        found.setdefault(name, []).append(far)
    return found


def each_rises(lower, higher):
    return all(a < b for a, b in zip(lower, higher, strict=True))


def test_the_word_goes_farther_with_the_rate(distances):
    assert each_rises(distances["tenth of the rate"], distances["one vector"])


def test_the_word_goes_farther_with_its_vectors(distances):
    assert each_rises(distances["one vector"], distances["two vectors"])
    assert each_rises(distances["two vectors"], distances["three vectors"])
