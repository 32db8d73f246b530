"""A learned word beside every word that the embedded models have, on the same fixed batch."""

from __future__ import annotations

from functools import cache

import pytest

from oneword.config.inversion import InversionConfig
from oneword.config.model import ModelConfig
from oneword.images import from_uint8
from oneword.microworld.world import concepts, scenes
from oneword.microworld.world.drawn import concept_pictures
from oneword.microworld.world.held_out import HeldOut
from oneword.microworld.world.inventory import Thing
from oneword.models.loading import load_backbone
from oneword.training import extensions
from oneword.training.batches import Batches
from oneword.training.initializer import word_losses
from oneword.training.job import Job
from oneword.training.loop import invert


@cache
def backbone_of(model):
    return load_backbone(ModelConfig(model=model, device="cpu"))


def job_of(backbone, thing, **settings):
    config = InversionConfig(**{"num_evaluation_samples": 8} | settings)
    pictures = from_uint8(concept_pictures(thing, size=backbone.resolution))
    return Job(name=thing.name, pictures=pictures, config=config)


def losses_of(backbone, job, words):
    """Losses of existing words on the fixed batch of a job."""
    config = job.config.resolved(backbone.family)
    batches = Batches(backbone, job, config, prompts=extensions.form(config).prompts)
    return word_losses(batches, words, batches.fixed)


def every_word(backbone):
    """All words that the tokenizer knows as one token."""
    (vocabulary,) = backbone.vocabularies.values()
    texts = (token.removesuffix("</w>") for token in vocabulary.tokenizer.get_vocab())
    return [text for text in texts if vocabulary.is_word(text)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "name"), [("microworld-nano", "gold-mug"), ("microworld", "parrot")]
)
def test_no_existing_word_explains_the_pictures_as_well_as_the_learned_one(model, name):
    backbone, held_out = backbone_of(model), concepts.get(name)
    job = job_of(backbone, held_out, initializer_token=held_out.noun)
    words = every_word(backbone)
    assert len(words) > 1500
    losses = losses_of(backbone, job, words)
    assert len(losses) == len(set(words))
    result = invert(backbone, job)
    # the run's own first scoring is the initialiser's: both read the same batch
    assert losses[held_out.noun] == pytest.approx(result.losses[0][1], rel=1e-4)
    learned = min(loss for _, loss in result.losses)
    best = min(losses, key=losses.__getitem__)
    assert learned < losses[best], f"{best}: {losses[best]:.5f}, learned: {learned:.5f}"


NAMED = [(noun, name) for noun in ("cat", "mug", "bus") for name in list(scenes.named()[noun])[:1]]


def thing_of(noun, name):
    """What the training captions call by a name of its own: a whole look."""
    look = scenes.named()[noun][name]
    thing = Thing(noun=noun, colours=look.colours, pattern=look.pattern, badge=look.badge,
                  extras=look.extras)  # fmt: skip
    return HeldOut(name=name, noun=noun, family="recombination", thing=thing)


@pytest.mark.slow
@pytest.mark.parametrize(("noun", "name"), NAMED)
def test_where_the_thing_has_a_word_the_learned_one_is_no_worse(noun, name):
    backbone = backbone_of("microworld")
    job = job_of(backbone, thing_of(noun, name), initializer_token=noun)
    losses = losses_of(backbone, job, [noun, name])
    assert losses[name] < losses[noun]  # the name does say more than the noun
    learned = min(loss for _, loss in invert(backbone, job).losses)
    assert learned <= losses[name]
