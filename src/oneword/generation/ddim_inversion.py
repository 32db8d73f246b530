"""Bipartite inversion: invert a picture under one sentence, and draw it again under another.

Gal et al. 2022, arXiv:2208.01618, appendix A.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch
from diffusers import DDIMInverseScheduler, DDIMScheduler
from jaxtyping import Float
from torch import Tensor

from oneword._typing import Latents, Pixels
from oneword.concepts.concept import Concept
from oneword.config.drawing import SamplingConfig
from oneword.config.presets import INVERSION_STEPS
from oneword.errors import ModelError
from oneword.generation.generate import check_words, settled
from oneword.models.assembly import quiet
from oneword.models.contract import Backbone
from oneword.vocabulary.inject import injected


Predict = Callable[[Latents, int], Latents]
"""``predict(x_t, t)``: the denoiser's own prediction, at the same timestep for all."""


LEAST_SIGNAL = 1e-3
"""Share of a picture's variance that a schedule must leave at its end; Stable Diffusion: 0.005."""


def ddim_inversion(
    predict: Predict,
    x0: Latents,
    scheduler: Any,
    num_inference_steps: int,
    *,
    as_published: bool = False,
) -> Latents:
    """The noise from which DDIM would draw these latents, in the same number of steps.

    Each step predicts at the latents' present noise level, not at the next one, because v and the
    noise in it belong to one timestep.

    Args:
        predict: The denoiser.
        x0: Clean latents.
        scheduler: The DDIM that will draw; its constants are used.
        num_inference_steps: Number of steps; with more steps, drawing again comes closer to the
            start.
        as_published: Start like the authors' code: the clean latents count as those of the first
            timestep, so there is one step less. Otherwise they are the result of the last drawing
            step, and every drawing step has its own step here.

    Source:
        Dhariwal and Nichol 2021, arXiv:2105.05233, appendix F; Gal et al. 2022, arXiv:2208.01618,
        appendix A.
    """
    with quiet():  # of settings that only the model's own solver has
        inverse: Any = DDIMInverseScheduler.from_config(scheduler.config, clip_sample=False)
    # 1 - abar near the clean end is worth four digits in float32
    inverse.alphas_cumprod = inverse.alphas_cumprod.double()
    inverse.initial_alpha_cumprod = inverse.initial_alpha_cumprod.double()
    inverse.set_timesteps(num_inference_steps)
    stride = inverse.config.num_train_timesteps // num_inference_steps
    x_t = x0
    for t in inverse.timesteps.tolist()[1 if as_published else 0 :]:
        prediction = predict(x_t, max(t - stride, 0))
        x_t = inverse.step(prediction, t, x_t).prev_sample
    return x_t


def inverted(backbone: Backbone, x0: Latents, sentence: str, sampling: SamplingConfig) -> Latents:
    """The noise from which a model would draw these latents under a sentence, without guidance.

    Inside ``injected`` the sentence may contain placeholders.

    Raises:
        ModelError: the family is not drawn by DDIM, or not in this many steps, or its schedule ends
            in pure noise.
    """
    num_inference_steps = backbone.sampling_for(sampling).num_inference_steps or 1
    with backbone.solving(sampling):
        scheduler = backbone.pipeline.scheduler
    if not isinstance(scheduler, DDIMScheduler):
        raise ModelError(
            f"Cannot invert with {backbone.name} of the family {backbone.family} because DDIM "
            "cannot draw with it; edit with a mask or a strength."
        )
    most = scheduler.config["num_train_timesteps"] // 2
    if num_inference_steps > most:
        raise ModelError(
            f"num_inference_steps must be at most {most} for inversion on {backbone.name}, half "
            f"of its training timesteps, got {num_inference_steps}."
        )
    left = float(scheduler.alphas_cumprod[-1])
    if scheduler.config["prediction_type"] == "epsilon" and left < LEAST_SIGNAL:
        # drawing again divides the error of every prediction by its root
        raise ModelError(
            f"Cannot invert with {backbone.name} because its noise keeps only {left:.1g} of the "
            f"picture's variance and {LEAST_SIGNAL:g} is needed to find the way back; edit with a "
            "mask or a strength."
        )
    with torch.no_grad(), backbone.weighing(sampling):
        cond = backbone.encode_prompt([sentence] * len(x0))

        def predict(x_t: Latents, t: int) -> Latents:
            times = torch.full((len(x_t),), t, device=x_t.device)
            return backbone.predict(x_t, times, cond)

        published = backbone.sampling_for(sampling).sampler in ("paper", "release")
        return ddim_inversion(predict, x0, scheduler, num_inference_steps, as_published=published)


def bipartite(
    backbone: Backbone,
    picture: Pixels,
    prompts: Sequence[str],
    guidance_scales: Sequence[float],
    *,
    invert: str,
    concepts: Sequence[Concept] = (),
    num_inference_steps: int = INVERSION_STEPS,
    sampler: str | None = None,
    batch_size: int = 16,
    replace: bool = False,
) -> dict[float, Float[Tensor, "prompts 3 height width"]]:
    """Keep a picture's noise and change the sentence: one drawing per prompt and guidance scale.

    In the paper, structure is kept only at low guidance, where the text has little effect.

    Args:
        backbone: The model.
        picture: One picture, in the size that is drawn.
        prompts: What the results should show; ``invert`` among them shows the round trip.
        guidance_scales: Scales for drawing again; the inversion has no guidance.
        invert: What the picture shows, such as "a photo of a S*".
        concepts: Words that the sentences may use.
        num_inference_steps: Number of steps, each way.
        sampler: Sampler whose DDIM is used; ``None``: that of the preset that the words were
            learned with. With "paper" and "release" the inversion starts like the authors'.
        batch_size: Pictures drawn at once.
        replace: Allow a placeholder that is already a word of the model.

    Returns:
        One picture per prompt, by guidance scale.

    Raises:
        ModelError: the family is not drawn by DDIM.

    Source:
        Gal et al. 2022, arXiv:2208.01618, appendix A ("bipartite inversion").
    """
    check_words(backbone, [invert, *prompts], concepts)
    height, width = picture.shape[-2:]
    wishes = SamplingConfig(
        height=height, width=width, num_inference_steps=num_inference_steps, sampler=sampler
    )
    sampling = settled(backbone, concepts, wishes)
    found = {}
    with injected(backbone, concepts, replace=replace):
        x0 = backbone.encode_image(picture.to(backbone.device)).mean
        start = inverted(backbone, x0, invert, sampling)
        for scale in guidance_scales:
            scaled = dataclasses.replace(sampling, guidance_scale=scale)
            batches = []
            for first in range(0, len(prompts), batch_size):
                some = prompts[first : first + batch_size]
                noise = start.expand(len(some), -1, -1, -1)
                seeds = [0] * len(some)  # not used: the noise comes from the picture
                batches.append(backbone.draw(some, seeds, scaled, latents=noise).cpu())
            found[scale] = torch.cat(batches)
    return found
