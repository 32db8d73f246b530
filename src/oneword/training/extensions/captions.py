"""No training: a person's description replaces the word."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from oneword.config.inversion import ResolvedConfig
from oneword.models.contract import Backbone
from oneword.prompts import descriptions
from oneword.training.job import Job, JobError
from oneword.training.parts import Form, Words


def text_of(job: Job, config: ResolvedConfig) -> str:
    """The description that replaces a job's word; the seed picks one of the five.

    Its first article is dropped, because the templates have one.

    Raises:
        JobError: the job has no descriptions.
    """
    if job.descriptions is None:
        raise JobError(
            f"Cannot use the setup {config.setup} for job {job.name!r} because it has no "
            f"{descriptions.FILE} next to the pictures; write one with {descriptions.COUNT} short "
            f"and {descriptions.COUNT} long descriptions of the thing."
        )
    kind = str(config.form).removeprefix("captions-")
    texts: tuple[str, ...] = getattr(job.descriptions, kind)
    return re.sub(r"(?i)^(an?|the)\s+", "", texts[config.seed % len(texts)].strip())


def rows(backbone: Backbone, job: Job, config: ResolvedConfig) -> dict[str, Tensor]:
    """The table's rows of the description, as if prompts contained the text itself.

    Raises:
        JobError: there is no description, or the text encoders tokenise it to different lengths.
    """
    text = text_of(job, config)
    found = {name: v.rows_of(text) for name, v in backbone.vocabularies.items()}
    counts = {name: len(many) for name, many in found.items()}
    if len(set(counts.values())) > 1:
        raise JobError(
            f"Cannot use {text!r} in place of a word because the text encoders split it into "
            f"different numbers of tokens ({counts}); put the text itself into the prompt."
        )
    return found


def words(
    tensors: Mapping[str, Tensor],
    config: ResolvedConfig,  # noqa: ARG001  (the shape of the part)
    step: int,  # noqa: ARG001
) -> Words:
    """The rows unchanged, with nothing to train."""
    return Words(rows=tensors, resting=frozenset(tensors))


FORM = Form(rows=rows, words=words, described=True)
"""Human captions.

Source:
    Gal et al. 2022, arXiv:2208.01618, sections 4.1 and 5.2.
"""
