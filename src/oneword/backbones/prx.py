"""PRX: the encoder of a T5-Gemma reads the prompt, cleaned; straight flow.

No paper; what is here is what diffusers' pipeline does.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from diffusers import PRXPipeline
from diffusers.pipelines.prx import pipeline_prx
from torch import Tensor

from oneword._typing import Latents, Timesteps
from oneword.backbones.base import Conditioning, ModelError
from oneword.backbones.frozen import FrozenPipeline, load_pipeline, refuse_clip_skip, sparing
from oneword.backbones.noise import Flow
from oneword.config import ModelConfig, SamplingConfig


# the defaults of diffusers' pipeline
DEFAULTS = SamplingConfig(guidance_scale=4.0, num_inference_steps=28)
_TEXT_ENCODERS = {2304: "t5gemma_2b"}


def load(config: ModelConfig) -> PRX:
    """Load a pipeline of this family.

    Raises:
        ModelError: it cannot be loaded, or what it cleans prompts with is not installed.
    """
    refuse_clip_skip(config, "PRX")
    if not hasattr(pipeline_prx, "ftfy"):
        raise ModelError("PRX cleans prompts with ftfy, got none installed; pip install ftfy.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of a class that the pipeline stems from
        pipeline = load_pipeline(config, PRXPipeline, config.model)
    return PRX(pipeline, config)


class PRX(FrozenPipeline):
    """A frozen PRX pipeline behind the contract of ``backbones.base``."""

    def __init__(self, pipeline: Any, config: ModelConfig) -> None:
        # lower-cased, and without addresses, file names and most signs
        cleaner = pipeline.text_preprocessor
        cleaner.clean_text = sparing(pipeline, cleaner.clean_text)
        encoder = pipeline.text_encoder
        key = _TEXT_ENCODERS.get(encoder.get_input_embeddings().weight.shape[1], "t5gemma")
        super().__init__(
            pipeline,
            config,
            family="prx",
            denoiser=pipeline.transformer,
            vae=pipeline.vae,
            encoders={key: ("tokenizer", encoder, None)},
            noise=Flow(pipeline.scheduler),
            resolution=pipeline.default_sample_size,
            sampling=DEFAULTS,
        )

    @property
    def vae_factor(self) -> int:
        """How many pixels wide a cell of the latents is; there are two kinds of autoencoder."""
        return self.pipeline.vae_scale_factor

    def encode_prompt(
        self,
        prompts: Sequence[str],
        t: Timesteps | None = None,  # noqa: ARG002  (part of the contract)
    ) -> Conditioning:
        """Last hidden states of T5-Gemma, and its mask in ``extra``; differentiable."""
        # the pipeline's own goes on from here without gradients
        ids, mask = self.pipeline._tokenize_prompts(list(prompts), self.device)
        states = self.pipeline.text_encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        return Conditioning(states, extra={"mask": mask})

    def predict(
        self,
        x_t: Latents,
        t: Timesteps,
        cond: Conditioning,
        crops: Tensor | None = None,  # noqa: ARG002  (part of the contract)
    ) -> Latents:
        """The transformer's own velocity, float32."""
        output = self.denoiser(
            hidden_states=x_t.to(self.dtype),
            timestep=t,
            encoder_hidden_states=self._states(cond),
            attention_mask=cond.extra["mask"],
        )
        return output.sample.float()

    @contextmanager
    def _following(self, prompts: Sequence[str]) -> Iterator[None]:
        """While the pipeline draws, let the transformer be told the time of every picture."""

        def told(module: Any, args: Any, kwargs: dict[str, Any]) -> Any:  # noqa: ARG001
            # with guidance it is told two times, which are one, however many pictures there are
            t, pictures = kwargs["timestep"], kwargs["hidden_states"]
            return args, kwargs | {"timestep": t[:1].expand(len(pictures))}

        hook = self.denoiser.register_forward_pre_hook(told, with_kwargs=True)
        try:
            with super()._following(prompts):
                yield
        finally:
            hook.remove()

    def _draw_options(self, sampling: SamplingConfig) -> dict[str, Any]:  # noqa: ARG002
        return {"use_resolution_binning": False}
