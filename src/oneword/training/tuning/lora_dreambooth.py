"""DreamBooth through a LoRA: the attention learns a thing under a rare word, and keeps its class.

DreamBooth's sentence is "a photo of a [rare word] [class]". The placeholder stands for both words
here, so that the same prompts serve every method: with the LoRA alone, "a photo of a sks dog" in a
stock pipeline is "a photo of a S*" with this concept.
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
    """Tune a LoRA of the denoiser's attention; the rare word learns too with ``train_word``.

    Args:
        backbone: The model; it is its old self on return.
        job: What to learn; ``config.tuning`` says how.
        on_step: As in ``inversion.invert``.
        checkpoint: As in ``inversion.invert``.

    Raises:
        UserError: the job cannot be trained as it was given.

    Source:
        Ruiz et al. 2022, arXiv:2208.12242; Hu et al. 2021, arXiv:2106.09685.
    """
    return named.tune_named(backbone, job, on_step=on_step, checkpoint=checkpoint)
