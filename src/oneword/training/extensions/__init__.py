"""One published idea per file, each a part of the training loop that the settings switch on.

The loop takes its default parts from here, and names none of them.
"""

from __future__ import annotations

import importlib

from oneword.config.inversion import InversionConfig
from oneword.training.extensions import (
    averaging,
    cross_init,
    early_stopping,
    norm,
    regularized,
    timesteps,
)
from oneword.training.parts import Form


FORMS = {
    "progressive": "progressive",
    "per-image": "per_image",
    "captions-short": "captions",
    "captions-long": "captions",
    "xti": "xti",
    "neti": "neti",
    "dreamartist": "dreamartist",
}
"""Module of this folder, whose ``FORM`` it is, by ``InversionConfig.form``; "rows" needs none."""
TIMESTEPS = timesteps.sampled
PENALTIES = (regularized.distance, cross_init.distance)
AFTER = (norm.drawn, averaging.followed)
STOP = early_stopping.variance


def form(config: InversionConfig) -> Form:
    """What the word of a job with these settings is made of."""
    if config.form == "rows":
        return Form(rows=cross_init.start)
    return importlib.import_module(f"oneword.training.extensions.{FORMS[str(config.form)]}").FORM
