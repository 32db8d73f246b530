"""Models of transformers that describe a picture: with a sentence, or by marking a thing in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image, ImageChops
from transformers import (
    MODEL_FOR_IMAGE_SEGMENTATION_MAPPING,
    MODEL_FOR_INSTANCE_SEGMENTATION_MAPPING,
    MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING,
    MODEL_FOR_UNIVERSAL_SEGMENTATION_MAPPING,
    AutoConfig,
    AutoImageProcessor,
    AutoModelForImageSegmentation,
    AutoModelForImageTextToText,
    AutoModelForInstanceSegmentation,
    AutoModelForSemanticSegmentation,
    AutoModelForUniversalSegmentation,
    AutoProcessor,
    AutoTokenizer,
    pipeline,
)

from oneword._devices import pick_device, pick_dtype
from oneword.errors import ModelError, reason_of
from oneword.models.assembly import quiet


_MOST_TOKENS = 64  # of a caption
_ASK = "Describe this picture in one plain sentence."
_BACKGROUND = {"background", "__background__", "unlabeled", "unlabelled", "unknown", "other"}


_SEGMENTING: dict[Any, Any] = {
    AutoModelForUniversalSegmentation: MODEL_FOR_UNIVERSAL_SEGMENTATION_MAPPING,
    AutoModelForInstanceSegmentation: MODEL_FOR_INSTANCE_SEGMENTATION_MAPPING,
    AutoModelForSemanticSegmentation: MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING,
    AutoModelForImageSegmentation: MODEL_FOR_IMAGE_SEGMENTATION_MAPPING,
}
"""Loaders of models that segment, and the settings that each is for."""


def _whole(auto: Any, model: str, device: torch.device) -> Any:
    """Load a model and check that its files hold every weight; one for another task lacks some."""
    dtype = pick_dtype("auto", device, model)
    found, told = auto.from_pretrained(
        model, dtype=dtype, trust_remote_code=False, output_loading_info=True
    )
    if told["missing_keys"]:
        raise ValueError(f"its files lack {sorted(told['missing_keys'])[0]}")
    return found.to(device).eval()


def _refusal(to: str, model: str, what: str, example: str, error: Exception) -> ModelError:
    """Why a model cannot be used, and what to do."""
    reason = reason_of(error)
    if isinstance(error, ImportError):
        return ModelError(
            f"Cannot {to} with {model} because a library that it needs is missing ({reason}); "
            "install it."
        )
    return ModelError(
        f"Cannot {to} with {model} because it is not a complete {what} model of transformers "
        f"({reason}); pass one, such as {example}."
    )


class Captioner:
    """A model that captions pictures; the same picture always gets the same caption."""

    def __init__(self, model: str, *, device: str = "auto", prompt: str | None = None) -> None:
        """Load it.

        Args:
            model: Hub id or folder of an image-text-to-text model of transformers.
            device: As of ``ModelConfig``.
            prompt: Question for a chat model; ``None`` asks for a plain sentence.

        Raises:
            ModelError: the model is of another kind, cannot be loaded, or gets a prompt and does
                not chat.
        """
        self.name, self.prompt = model, prompt or _ASK
        place = pick_device(device)
        try:
            with quiet():
                self.model: Any = _whole(AutoModelForImageTextToText, model, place)
                processor: Any = AutoProcessor.from_pretrained(model, trust_remote_code=False)
                # some models have no processor of both, and get one of the two
                self.reader: Any = getattr(processor, "tokenizer", None)
                self.reader = self.reader or AutoTokenizer.from_pretrained(model)
                self.images: Any = getattr(processor, "image_processor", None)
                self.images = self.images or AutoImageProcessor.from_pretrained(model)
        except Exception as error:  # loaders raise a dozen kinds
            what = "image-text-to-text"
            example = "Salesforce/blip-image-captioning-base"
            raise _refusal("caption", model, what, example, error) from error
        self.chats = processor if getattr(processor, "chat_template", None) else None
        if prompt is not None and self.chats is None:
            raise ModelError(
                f"Cannot ask {model} for {prompt!r} because it does not chat; leave out "
                "--caption-prompt."
            )

    @torch.no_grad()
    def __call__(self, image: Image.Image) -> str:
        """A caption of a picture, in one line.

        Raises:
            ModelError: the model cannot caption a picture without further input.
        """
        try:
            with quiet():
                inputs, start = self._asked(image) if self.chats else (self._seen(image), 0)
                inputs = inputs.to(self.model.device, self.model.dtype)
                made = self.model.generate(
                    **inputs, do_sample=False, num_beams=1, max_new_tokens=_MOST_TOKENS
                )
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # for models that need more than a picture
            raise ModelError(
                f"Cannot caption with {self.name} because it does not caption a picture alone "
                f"({reason_of(error)}); pass another model."
            ) from error
        return " ".join(self.reader.decode(made[0, start:], skip_special_tokens=True).split())

    def _seen(self, image: Image.Image) -> Any:
        """Input of a model that only captions."""
        return self.images(images=image, return_tensors="pt")

    def _asked(self, image: Image.Image) -> tuple[Any, int]:
        """Input of a chat model, and how many of its tokens are not part of the answer."""
        assert self.chats is not None
        content = [{"type": "image", "image": image}, {"type": "text", "text": self.prompt}]
        inputs = self.chats.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        )
        return inputs, inputs["input_ids"].shape[1]


class Marker:
    """A model that marks where a thing is in a picture."""

    def __init__(self, model: str, labels: Sequence[str] = (), *, device: str = "auto") -> None:
        """Load it.

        Args:
            model: Hub id or folder of an image segmentation model of transformers.
            labels: What to mark, by the model's own names; empty: its only label besides the
                background.
            device: As of ``ModelConfig``.

        Raises:
            ModelError: the model is of another kind, cannot be loaded, or does not know a label.
        """
        self.name = model
        place = pick_device(device)
        try:
            with quiet():
                config = AutoConfig.from_pretrained(model, trust_remote_code=False)
                auto = next(
                    (one for one, known in _SEGMENTING.items() if type(config) in known), None
                )
                if auto is None:
                    raise ValueError(f"it is a {config.model_type}")
                # the one family that takes its task as text
                words: dict[str, Any] = {}
                if config.model_type == "oneformer":
                    words["tokenizer"] = model
                self.pipeline: Any = pipeline(
                    "image-segmentation",
                    model=_whole(auto, model, place),
                    image_processor=AutoImageProcessor.from_pretrained(model),
                    device=place,
                    **words,
                )
        except Exception as error:  # loaders raise a dozen kinds
            what, example = "image segmentation", "nvidia/segformer-b0-finetuned-ade-512-512"
            raise _refusal("mask", model, what, example, error) from error
        self.known = [str(label) for label in self.pipeline.model.config.id2label.values()]
        self.labels = self._chosen(labels)

    def _chosen(self, labels: Sequence[str]) -> set[str]:
        """The model's own spellings of the labels to mark."""
        if not labels:
            things = [one for one in self.known if one.strip().lower() not in _BACKGROUND]
            if len(things) == 1:
                return {*things}
            raise ModelError(
                f"Cannot mask with {self.name} because it knows {len(things)} kinds of things; "
                f"name yours by --mask-labels: {_some(things)}."
            )
        found = {one for one in self.known for label in labels if _is_label(label, one)}
        strange = [one for one in labels if not any(_is_label(one, own) for own in self.known)]
        if strange:
            raise ModelError(
                f"Cannot mask with {self.name} because it does not know {strange[0]!r}; name what "
                f"it knows by --mask-labels: {_some(self.known)}."
            )
        return found

    @torch.no_grad()
    def __call__(self, image: Image.Image) -> Image.Image | None:
        """A grey mask of a picture's size, white where the thing is; ``None`` if it is not found.

        Raises:
            ModelError: the model cannot segment the picture.
        """
        try:
            with quiet():
                segments = self.pipeline(image)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # of models of many kinds
            raise ModelError(
                f"Cannot mask with {self.name} because it does not segment a picture alone "
                f"({reason_of(error)}); pass another model."
            ) from error
        whole = Image.new("L", image.size)
        for segment in segments:
            if segment["label"] in self.labels:
                whole = ImageChops.lighter(whole, segment["mask"].convert("L"))
        return whole if whole.getbbox() else None


def _is_label(asked: str, own: str) -> bool:
    """Whether a label is meant: its name, or one of several separated by commas."""
    asked = asked.strip().lower()
    return asked in {own.strip().lower(), *(part.strip().lower() for part in own.split(","))}


def _some(labels: Sequence[str]) -> str:
    shown = ", ".join(labels[:30])
    return f"{shown} and {len(labels) - 30} more" if len(labels) > 30 else shown
