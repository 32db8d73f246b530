"""An encoder at work: what a word starts from, and where its record says that it comes from."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from oneword.config.inversion import ResolvedConfig
from oneword.config.model import EMBEDDED
from oneword.microworld import weights
from oneword.models.contract import Backbone
from oneword.training.encoder.files import Encoder, EncoderError, load
from oneword.training.job import Job


def encoder_for(backbone: Backbone, config: ResolvedConfig) -> Encoder:
    """The encoder that settings name, or the embedded model's own.

    Raises:
        EncoderError: there is none, or it is for another model, kind of word or number of rows.
    """
    file = config.encoder
    if file is None and backbone.name in EMBEDDED:
        file = weights.encoder_file(backbone.name, config.num_vectors)
    if file is None:
        raise EncoderError(
            f"An encoder must be named for {backbone.name}, since none with {config.num_vectors} "
            f"or fewer rows comes with it; train one with oneword encoder train --model "
            f"{backbone.name}, and pass --encoder."
        )
    found = load(file)
    found.check(backbone)
    if config.learnable_property not in found.about.learns:
        raise EncoderError(
            f"The encoder must have learned what the word is to be, {config.learnable_property}, "
            f"got one of {' and '.join(found.about.learns)} alone; train one with "
            f"--learnable-property {config.learnable_property}."
        )
    if found.num_vectors > config.num_vectors:
        raise EncoderError(
            f"The new word must have as many vectors as the encoder gives, {found.num_vectors}, or "
            f"more, got {config.num_vectors}; pass --num-vectors {found.num_vectors}."
        )
    return found


def encoded_rows(backbone: Backbone, job: Job, config: ResolvedConfig) -> dict[str, Tensor]:
    """Rows of a job's word, as the encoder of its settings makes them of the pictures.

    Where they are fewer than the word is to have, the last is repeated.

    Raises:
        UserError: there is no such encoder, or it cannot be used here.
    """
    encoder = encoder_for(backbone, config)
    own = encoder.rows(backbone, [part.pictures for _, part in job.by_size()])
    places = [min(i, encoder.num_vectors - 1) for i in range(config.num_vectors)]
    return {name: rows[places] for name, rows in own.items()}


def origin(backbone: Backbone, config: ResolvedConfig) -> dict[str, Any]:
    """What the record of a word says of the encoder that it comes from; empty where there is none.

    Raises:
        UserError: as of ``encoded_rows``.
    """
    if config.initializer != "encoder":
        return {}
    encoder = encoder_for(backbone, config)
    about = encoder.about
    return {
        "encoder": {
            "sha256": encoder.sha256(),
            "model": about.model,
            "version": about.version,
            "guide": about.guide,
            "num_vectors": encoder.num_vectors,
            "trained": dict(about.trained),
        }
    }
