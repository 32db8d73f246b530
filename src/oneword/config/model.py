"""Which base model is loaded, and how."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from oneword._files import is_there
from oneword.errors import require


EMBEDDED = ("microworld", "microworld-nano")
"""Models that ship in the package; the second is a tiny one, for tests and quick trials."""
CARD = "card.json"
"""File that says how an embedded model was made; a folder with one is such a model."""
AUTO = "auto"
"""In a model's place: the one that the word's file names."""


def is_embedded(model: str) -> bool:
    """Whether a model is one that ships, or the folder of one that the same recipe has made."""
    return model in EMBEDDED or is_there(Path(model) / CARD)


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """Which base model to load, and how."""

    model: str = "microworld"
    """Base model: "microworld" or "microworld-nano" (embedded), a hub id, a local pipeline folder, or a single-file checkpoint; "auto": the one that the loaded word's file names. Also --pretrained-model-name-or-path."""
    vae: str | None = None
    """Another VAE (hub id or folder) in place of the model's own."""
    clip_skip: int | None = None
    """Layers of the CLIP text encoder to skip from its end, 0 or more; unset: the model's own habit."""
    single_file_config: str | None = None
    """Diffusers pipeline (folder or hub id) that a single-file checkpoint has the layout of; unset: found from its tensors, which asks the hub once."""
    variant: str | None = None
    """Weight variant of a hub model, such as "fp16"."""
    revision: str | None = None
    """Branch, tag or commit of a hub model."""
    dtype: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Compute type of the frozen model; the learned rows are always fp32. auto: bf16 on CUDA and, for models of 1 GB or more, on CPUs with instructions for it; fp32 elsewhere. Also --mixed-precision."""
    pool: Literal["eos", "legacy"] = "eos"
    """Where CLIP's pooled output is taken (SDXL, SD3, Flux): "eos" (the end of the prompt), "legacy" (at the new word, as stock tools do on most models)."""
    memory: Literal["auto", "low", "lowest"] = "auto"
    """How to need less memory: "auto" (the fastest way that fits what is free), "low" (recompute, and let the VAE and text encoders leave the GPU), "lowest" (the least of all ways: 4-bit weights, or layers that visit the GPU one by one). What was picked is printed with the expected peak; the next four options fix parts of it."""
    micro_batch_size: int | None = None
    """Samples of a training step that go through the model at once, the others after them: less memory, the same rows; it must divide train_batch_size. Unset: all."""
    gradient_checkpointing: bool | None = None
    """Keep less for the backward pass and compute it again: less memory, about half as slow again."""
    offload: Literal["none", "vae", "text", "all"] | None = None
    """What lies in the computer's memory while it has nothing to do: the VAE; "text": the text encoders' layers too; "all": the denoiser's layers too, each of which visits the GPU in turn (slow)."""
    weights: Literal["full", "8bit", "4bit"] | None = None
    """Store the linear layers of denoiser and text encoders in fewer bits (pip install 'oneword[quant]')."""
    compile: Literal["auto", "on", "off"] = "auto"
    """Compile the denoiser for training, with CUDA graphs on a GPU; the first step then takes a minute or two. auto: on CUDA, where the layers stay and are whole."""
    device: str = "auto"
    """"auto" (CUDA, then MPS, then CPU) or a torch device such as "cuda:1"."""
    safety_checker: bool = True
    """Keep the model's safety checker, where it has one, for drawing."""

    def __post_init__(self) -> None:
        require(
            bool(self.model),
            "The model must be named, got an empty string; pass --model.",
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
            f"Layers that visit the device must be computed again in the backward pass, got offload "
            f"{self.offload!r} without gradient checkpointing; leave one of them out.",
        )
        require(
            not moves or self.weights in (None, "full"),
            f"Packed weights must stay on the device, got {self.weights!r} with offload "
            f"{self.offload!r}; leave one of them out.",
        )
        require(
            self.compile != "on" or self.offload != "all",
            "A compiled denoiser must stay on the device, got compile 'on' with offload 'all'; leave "
            "one of them out.",
        )


def of_the_word() -> ModelConfig:
    """For what is done with a learned word: on the model that its file names."""
    return ModelConfig(model=AUTO)
