"""Which base model is loaded, and how."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeGuard

from oneword._files import is_there
from oneword.errors import require


EMBEDDED = ("microworld", "microworld-nano")
"""Models that ship in the package; the second is a tiny one, for tests and quick trials."""
CARD = "card.json"
"""File that says how an embedded model was made; a folder with one is such a model."""
AUTO = "auto"
"""In a model's place: the one that the word's file names."""


def is_embedded(model: str | None) -> TypeGuard[str]:
    """Whether a model is one that ships, or the folder of one that the same recipe has made."""
    return model is not None and (model in EMBEDDED or is_there(Path(model) / CARD))


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """Which base model to load, and how."""

    model: str = "microworld"
    """Base model: "microworld" or "microworld-nano" (embedded), a hub id, a pipeline folder, a single-file checkpoint, or "auto" (the model that the word was learned on). Also --pretrained-model-name-or-path."""
    vae: str | None = None
    """VAE to use instead of the model's own: hub id or folder."""
    clip_skip: int | None = None
    """Number of layers to skip at the end of the CLIP text encoder, 0 or more (default: the model's own)."""
    single_file_config: str | None = None
    """Diffusers pipeline (folder or hub id) with the layout of a single-file checkpoint (default: detected from its tensors, which contacts the Hub once)."""
    variant: str | None = None
    """Weight variant of a hub model, such as "fp16"."""
    revision: str | None = None
    """Branch, tag or commit of a hub model."""
    dtype: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Data type of the frozen model; the learned vectors are always fp32. With "auto": bf16 on CUDA, and on CPUs that support it for models of 1 GB or more; fp32 elsewhere. Also --mixed-precision."""
    pool: Literal["eos", "legacy"] = "eos"
    """Where to read CLIP's pooled output (SDXL, SD3, Flux): "eos" (at the end of the prompt) or "legacy" (at the new word, as most other tools do)."""
    memory: Literal["auto", "low", "lowest"] = "auto"
    """How to save memory: "auto" (the fastest way that fits into free memory), "low" (recompute activations and offload VAE and text encoders) or "lowest" (4-bit weights, or layers that are moved to the GPU one by one). The choice is printed with its expected peak. The next four options set parts of it."""
    micro_batch_size: int | None = None
    """Samples that go through the model at once in a training step (default: all). It must divide train_batch_size. Smaller saves memory and gives the same vectors."""
    gradient_checkpointing: bool | None = None
    """Gradient checkpointing: recompute activations in the backward pass. It saves memory and makes training about half as slow again."""
    offload: Literal["none", "vae", "text", "all"] | None = None
    """What to keep in CPU memory while it is idle: "vae", "text" (also the text encoders' layers) or "all" (also the denoiser's layers, moved to the GPU one by one: slow)."""
    weights: Literal["full", "8bit", "4bit"] | None = None
    """Quantise the linear layers of the denoiser and text encoders. Needs pip install 'oneword[quant]'."""
    compile: Literal["auto", "on", "off"] = "auto"
    """Compile the denoiser for training, with CUDA graphs on a GPU. The first step then takes a minute or two. "auto" compiles on CUDA unless layers are offloaded or quantised."""
    device: str = "auto"
    """Device: "auto" (CUDA, then MPS, then CPU) or a torch device such as "cuda:1"."""
    safety_checker: bool = True
    """Keep the model's safety checker for drawing, if it has one."""

    def __post_init__(self) -> None:
        require(
            bool(self.model),
            "model must be a name, got an empty string; pass --model.",
        )
        if self.clip_skip is not None:
            require(
                self.clip_skip >= 0,
                f"clip_skip must be 0 or more, got {self.clip_skip}.",
            )
        require(
            self.micro_batch_size is None or self.micro_batch_size >= 1,
            f"micro_batch_size must be 1 or more, got {self.micro_batch_size}.",
        )
        moves = self.offload in ("text", "all")
        require(
            not moves or self.gradient_checkpointing is not False,
            f"Cannot use offload {self.offload!r} without gradient checkpointing because "
            "offloaded layers must be recomputed in the backward pass; leave one of them out.",
        )
        require(
            not moves or self.weights in (None, "full"),
            f"Cannot use weights {self.weights!r} with offload {self.offload!r} because quantised "
            "weights must stay on the device; leave one of them out.",
        )
        require(
            self.compile != "on" or self.offload != "all",
            "Cannot use compile 'on' with offload 'all' because a compiled denoiser must stay on "
            "the device; leave one of them out.",
        )


def of_the_word() -> ModelConfig:
    """For what is done with a learned word: on the model that its file names."""
    return ModelConfig(model=AUTO)
