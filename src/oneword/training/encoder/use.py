"""Using an encoder: the start of a word, and the entry in its record."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from oneword.config.inversion import ResolvedConfig
from oneword.config.model import is_embedded
from oneword.microworld import weights
from oneword.models.contract import Backbone
from oneword.training.encoder.files import Encoder, EncoderError, load
from oneword.training.job import Job


def encoder_for(backbone: Backbone, config: ResolvedConfig) -> Encoder:
    """The encoder that settings name, or the embedded model's own.

    Raises:
        EncoderError: there is no encoder, or it is for another model, kind of word or number of
            rows.
    """
    file = config.encoder
    if file is None and is_embedded(backbone.name):
        file = weights.encoder_file(backbone.name, config.num_vectors)
    if file is None:
        raise EncoderError(
            f"Cannot find an encoder for {backbone.name} with {config.num_vectors} or fewer "
            "vectors because none comes with it; train one with oneword encoder train --model "
            f"{backbone.name}, and pass --encoder."
        )
    found = load(file)
    found.check(backbone)
    if config.learnable_property not in found.about.learns:
        raise EncoderError(
            f"The encoder must be trained for learnable_property {config.learnable_property}, got "
            f"one for {' and '.join(found.about.learns)} only; train one with "
            f"--learnable-property {config.learnable_property}."
        )
    if found.num_vectors > config.num_vectors:
        raise EncoderError(
            f"num_vectors must be at least the encoder's number of vectors, {found.num_vectors}, "
            f"got {config.num_vectors}; pass --num-vectors {found.num_vectors}."
        )
    return found


def encoded_rows(backbone: Backbone, job: Job, config: ResolvedConfig) -> dict[str, Tensor]:
    """Rows of a job's word, made from its pictures by the encoder of its settings.

    If the word needs more rows, the last one is repeated.

    Raises:
        UserError: there is no such encoder, or it cannot be used here.
    """
    encoder = encoder_for(backbone, config)
    own = encoder.rows(backbone, [part.pictures for _, part in job.by_size()])
    places = [min(i, encoder.num_vectors - 1) for i in range(config.num_vectors)]
    return {name: rows[places] for name, rows in own.items()}


def origin(backbone: Backbone, config: ResolvedConfig) -> dict[str, Any]:
    """The entry about the encoder in the record of a word; empty if there is none.

    Raises:
        UserError: as for ``encoded_rows``.
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
