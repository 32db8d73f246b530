"""Drawing and editing as a config says; each picture stores the command that draws it again."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from oneword._files import read_bytes
from oneword._typing import Masks, Pixels
from oneword.concepts.concept import Concept
from oneword.config.commands import command
from oneword.config.drawing import EditConfig, GenerateConfig
from oneword.config.model import ModelConfig
from oneword.generation import editing, generate as generation
from oneword.generation.editing import Edits
from oneword.generation.generate import Drawing, OnPicture
from oneword.generation.wildcards import as_text
from oneword.images import MAX_BYTES, from_uint8, read_image
from oneword.models.contract import Backbone
from oneword.prompts import expanded, named


@dataclass(frozen=True, slots=True)
class Start:
    """The picture that is drawn over, at the drawn size; empty if pictures come from noise."""

    image: Pixels | None = None
    mask: Masks | None = None


def start_of(chosen: GenerateConfig, backbone: Backbone) -> Start:
    """The picture that is drawn over, and its mask, at the drawn size."""
    size = backbone.sampling_for(chosen.sampling)
    assert size.height
    assert size.width
    image = mask = None
    if chosen.image is not None:
        image = fitted(chosen.image, size.width, size.height)
    if chosen.mask_image is not None:
        mask = (fitted(chosen.mask_image, size.width, size.height)[:, :1] + 1) / 2
    return Start(image, mask)


def fitted(path: Path, width: int, height: int) -> Pixels:
    """A picture's middle, at the drawn size, as pixels."""
    picture = ImageOps.fit(read_image(path), (width, height), Image.Resampling.LANCZOS)
    return from_uint8(np.asarray(picture)[None])


def prompts_of(chosen: GenerateConfig, concepts: Sequence[Concept]) -> tuple[str, ...]:
    """The prompts of a config: lists inserted, and templates filled with the words.

    A word that is in the negative prompt fills templates only if there is no other.

    Args:
        chosen: The settings.
        concepts: The words, loaded.

    Raises:
        PromptError: a list or file is missing, or no word fits a list or template.
    """
    kinds = {c.placeholder_token: c.learnable_property for c in concepts}
    away = named(chosen.sampling.negative_prompt, kinds)
    return expanded(chosen.prompts, {w: k for w, k in kinds.items() if w not in away} or kinds)


def draw(
    chosen: GenerateConfig,
    backbone: Backbone,
    concepts: Sequence[Concept],
    on_picture: OnPicture,
    *,
    prompts: Sequence[str] = (),
    start: Start | None = None,
) -> Drawing:
    """Every prompt with every seed, as a config says.

    Args:
        chosen: The settings; its words and choosing are the caller's.
        backbone: The model.
        concepts: The words, loaded.
        on_picture: Called with the progress of drawing.
        prompts: Prompts to use instead of the config's; empty: the config's.
        start: The picture that is drawn over, if it is already loaded.

    Raises:
        UserError: a word, a prompt or a picture cannot be used.
    """
    start = start or start_of(chosen, backbone)
    drawing = generation.generate(
        backbone,
        prompts or chosen.prompts,
        chosen.drawn_seeds,
        concepts=concepts,
        sampling=chosen.sampling,
        image=start.image,
        mask=start.mask,
        strength=chosen.strength,
        batch_size=chosen.batch_size,
        replace=chosen.replace,
        wildcard_dir=chosen.wildcard_dir,
        on_picture=on_picture,
    )
    return _told_how(drawing, chosen)


def edit(
    chosen: EditConfig, backbone: Backbone, concepts: Sequence[Concept], on_picture: OnPicture
) -> Edits:
    """A picture's edits, as a config says.

    Args:
        chosen: The settings; its words and choosing are the caller's.
        backbone: The model.
        concepts: The words, loaded.
        on_picture: Called with the progress of drawing.

    Raises:
        UserError: the picture, the mask, a word or the prompt cannot be used.
    """
    picture, mask = editing.read_picture(
        chosen.picture, backbone, chosen.sampling, mask=chosen.mask
    )
    seeds = chosen.drawn_seeds
    edits = editing.edit(
        backbone,
        picture,
        chosen.prompt,
        seeds if chosen.invert is None else seeds[:1],
        mask=mask,
        mask_growth=chosen.mask_growth,
        background=chosen.background,
        pixel_blending=chosen.pixel_blending,
        strength=chosen.strength,
        invert=chosen.invert,
        concepts=concepts,
        sampling=chosen.sampling,
        batch_size=chosen.batch_size,
        replace=chosen.replace,
        on_picture=on_picture,
    )
    return dataclasses.replace(edits, drawing=_told_how(edits.drawing, chosen))


def _told_how(drawing: Drawing, chosen: GenerateConfig | EditConfig) -> Drawing:
    """Each picture with the command that draws it again, and checksums of what it starts from."""
    starts = {
        f"{name}_sha256": hashlib.sha256(read_bytes(path, most=MAX_BYTES)).hexdigest()
        for name in ("image", "mask_image", "picture", "mask")
        if (path := getattr(chosen, name, None)) is not None
    }
    facts = [
        starts | {"command": _again(chosen, drawing.settings, prompt, seed)}
        for prompt, seed in zip(drawing.prompts, drawing.seeds, strict=True)
    ]
    return drawing.told(facts)


_AS_LOADED = ("vae", "clip_skip", "single_file_config", "variant", "revision", "weights", "dtype")
_AS_DRAWN = ("guidance_scale", "num_inference_steps", "sampler", "emphasis")
_AS_EDITED = ("mask", "background", "mask_growth", "pixel_blending", "strength", "invert")


def _again(
    chosen: GenerateConfig | EditConfig, settings: Mapping[str, str], prompt: str, seed: int
) -> str:
    """The command that draws one picture again."""
    given = [("model", settings["model"])]
    given += [(n, v) for n in _AS_LOADED if (v := getattr(chosen.model, n)) not in (None, "auto")]
    given += [("pool", chosen.model.pool)] if chosen.model.pool != ModelConfig().pool else []
    size = chosen.sampling.height, chosen.sampling.width
    given += [(n, v) for n, v in zip(("height", "width"), size, strict=True) if v is not None]
    given += [(name, settings[name]) for name in _AS_DRAWN]
    negative = chosen.sampling.negative_prompt
    given += [("negative_prompt", negative)] if negative else []
    if isinstance(chosen, EditConfig):
        unset = {field.name: field.default for field in dataclasses.fields(chosen)}
        given += [(n, v) for n in _AS_EDITED if (v := getattr(chosen, n)) != unset[n]]
        verb, asked = ["edit", chosen.picture], f"--prompt={prompt}"
    else:
        over = [("image", chosen.image), ("mask_image", chosen.mask_image)]
        given += [(name, path) for name, path in over if path is not None]
        given += [("strength", chosen.strength)] if chosen.image is not None else []
        tokens = json.loads(settings["concepts"])
        verb, asked = ["generate"], f"--prompts={as_text(prompt, tokens)}"
    words: list[Any] = [f"--{name.replace('_', '-')}={value}" for name, value in given]
    words += ["--concepts", *chosen.concepts] if chosen.concepts else []
    words += ["--replace"] * chosen.replace
    words += ["--no-safety-checker"] * (not chosen.model.safety_checker)
    return command(*verb, *words, asked, "--seeds", seed)
