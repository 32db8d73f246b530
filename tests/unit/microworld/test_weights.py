"""The embedded model's own tokenizer."""

from __future__ import annotations

import re

import numpy as np

from oneword.microworld.making import models
from oneword.microworld.world import captions, held_out, scenes


def test_every_word_of_a_caption_is_one_token():
    tokens = models.tokenizer()
    for word in ("mug", "striped", "watercolor", "teapots", "moon", "professor"):
        known = word in " ".join(captions.vocabulary()).split()
        assert (len(tokens(word, add_special_tokens=False).input_ids) == 1) == known
    rng = np.random.default_rng(1)
    texts = [captions.caption(scenes.sample_scene(seed), rng) for seed in range(200)]
    texts += [prompt.text for prompt in captions.evaluation_prompts(100, seed=0)]
    texts += [text for c in held_out.HELD_OUT for text in (*c.captions_short, *c.captions_long)]
    for text in texts:
        ids = tokens(text, add_special_tokens=False).input_ids
        assert len(ids) == len(re.findall(r"\w+|[^\w\s]", text)), text
