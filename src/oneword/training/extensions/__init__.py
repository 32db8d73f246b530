"""One published idea per file, each a part of the training loop that settings switch on.

The loop takes its default parts from here, and names none of them.
"""

from __future__ import annotations

from oneword.config.inversion import ResolvedConfig
from oneword.training.extensions import (
    averaging,
    captions,
    cross_init,
    dreamartist,
    early_stopping,
    encoded,
    huber,
    losses,
    min_snr,
    neti,
    norm,
    offset_noise,
    per_image,
    progressive,
    random_crops,
    regularized,
    timesteps,
    wording,
    xti,
)
from oneword.training.parts import Form


FORMS: dict[str, Form] = {
    "rows": Form(rows=cross_init.start),
    "progressive": progressive.FORM,
    "per-image": per_image.FORM,
    "captions-short": captions.FORM,
    "captions-long": captions.FORM,
    "xti": xti.FORM,
    "neti": neti.FORM,
    "dreamartist": dreamartist.FORM,
    "encoder": encoded.FORM,
}
"""What a word consists of, by ``InversionConfig.form``."""
TIMESTEPS = timesteps.sampled
PENALTIES = (regularized.distance, cross_init.distance)
AFTER = (norm.drawn, averaging.followed)
STOP = early_stopping.variance
LOSS = losses.loss
NOISE = offset_noise.shifted
VIEWS = random_crops.views
WORDING = wording.varied
SAMPLES = (huber.scaled, min_snr.weighed)
"""Additions to the samples of training; those of the fixed batch stay unchanged."""


def form(config: ResolvedConfig) -> Form:
    """What the word of a job with these settings consists of."""
    return FORMS[config.form]
