"""Custom Diffusion: a new word, and the keys and values by which the denoiser reads the text.

The paper's sentence is "a photo of a [new word] [class]"; the placeholder stands for both words
here, of which the first learns. The paper takes its class pictures from LAION (pass a folder of
them as ``class_data_dir``) and also shows the thing at other sizes, with words for them; here the
model draws them, as in DreamBooth, and pictures keep their size.
"""

from __future__ import annotations

from oneword.models.contract import Backbone
from oneword.training.job import Job, Result
from oneword.training.parts import OnStep
from oneword.training.state import Checkpoint
from oneword.training.tuning import named


def invert(
    backbone: Backbone,
    job: Job,
    *,
    on_step: OnStep | None = None,
    checkpoint: Checkpoint | None = None,
) -> Result:
    """Tune the keys and values of the cross-attention, together with a word that starts rare.

    Args:
        backbone: The model; it is its old self on return.
        job: What to learn; ``config.tuning`` says how.
        on_step: As in ``inversion.invert``.
        checkpoint: As in ``inversion.invert``.

    Raises:
        UserError: the job cannot be trained as it was given.

    Source:
        Kumari et al. 2022, arXiv:2212.04488, sections 3.2 and 3.3.
    """
    return named.tune_named(backbone, job, on_step=on_step, checkpoint=checkpoint)
