"""Editing a picture with words: inside a mask, drawn over as a whole, or inverted and redrawn.

All three use the family's own drawing. They differ in the start, and in what happens to the latents
between the steps.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, get_args, runtime_checkable

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler
from jaxtyping import Float
from PIL import Image, ImageOps
from torch import Tensor

from oneword._typing import Masks, Pixels
from oneword.concepts.concept import Concept
from oneword.config.checks import check_seeds
from oneword.config.drawing import SamplingConfig, check_way
from oneword.config.presets import INVERSION_STEPS
from oneword.errors import UserError
from oneword.generation.blending import Background, Blend, rejoined
from oneword.generation.ddim_inversion import inverted
from oneword.generation.generate import (
    SHEET,
    Drawing,
    OnPicture,
    away_from,
    check_words,
    drawn_as_learned,
    settings_of,
    slug,
)
from oneword.generation.told import spellings
from oneword.images import contact_sheet, from_uint8, read_image, save_png, to_images
from oneword.models.contract import Backbone
from oneword.models.emphasis import plain
from oneword.prompts import as_template, fill, names, without_placeholder
from oneword.vocabulary.inject import injected


AnyMask = Float[Tensor, "masks 1 rows columns"]
"""A mask that may not have its picture's size yet."""


class EditError(UserError):
    """A picture cannot be edited as requested."""


@runtime_checkable
class Judge(Protocol):
    """Ranks candidates; ``evaluation.features.Judge`` is one."""

    def images(self, pixels: Pixels) -> Tensor:
        """Features of pictures, of unit length."""
        ...

    def texts(self, texts: Sequence[str]) -> Tensor:
        """Features of texts, of unit length."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Edits:
    """A picture, the mask of what should change, and the candidates."""

    picture: Pixels
    """The edited picture, with the size of the candidates."""
    mask: Masks | None
    drawing: Drawing
    """One candidate per seed; the best first if they were ranked."""
    scores: tuple[float, ...] = ()
    """If they were ranked: cosine of each with the prompt, inside the mask."""


def edit(
    backbone: Backbone,
    picture: Pixels,
    prompt: str,
    seeds: Sequence[int] = (0,),
    *,
    mask: AnyMask | None = None,
    mask_growth: int | None = None,
    background: Background = "paste",
    pixel_blending: float = 0.0,
    strength: float = 1.0,
    invert: str | None = None,
    concepts: Sequence[Concept] = (),
    sampling: SamplingConfig | None = None,
    batch_size: int = 8,
    replace: bool = False,
    on_picture: OnPicture | None = None,
) -> Edits:
    """Edit one picture.

    With a mask: blended latent diffusion. Before each step, the latents outside the mask are
    replaced by the picture's own with fresh noise. Without a mask, the picture is noised up to
    ``strength`` and drawn over; or, with ``invert``, inverted to the noise that it would have been
    drawn from, and drawn again from there.

    Args:
        backbone: The model.
        picture: One picture, in the size that is drawn (see ``read_picture``).
        prompt: What the result should show; may contain the concepts' placeholders.
        seeds: One candidate for each. With ``invert`` they are all the same.
        mask: One mask of the same size; where it is over 0.5, the picture is redrawn.
        mask_growth: Cells of the latents by which the mask is wider at the first step; it then
            shrinks cell by cell. ``None``: as many as a thin mask needs.
        background: How the rest of a masked picture is restored.
        pixel_blending: Share of the steps, the last ones, in which picture and edit are blended as
            pixels, in [0, 1], for families that DDIM draws.
        strength: How much of the picture is drawn over, in (0, 1]; 1 starts from pure noise.
        invert: A sentence for what the picture shows; it may use learned words.
        concepts: Words that ``prompt`` and ``invert`` may use.
        sampling: Guidance and steps; unset fields take the family's default, except that an
            inversion takes 250 steps.
        batch_size: Candidates drawn at once.
        replace: Allow a placeholder that is already a word of the model.
        on_picture: Called with the progress of drawing.

    Raises:
        ConfigError: no way to edit is given or two that exclude each other, or a seed is out of
            range.
        EditError: the mask does not fit the picture, the strength is too low for a step, or the
            decoder cannot be tuned.
        PromptError: a concept is used in no sentence, or the negative prompt names a word that is
            not loaded.
        PlaceholderError: a placeholder is a word of the model, is used twice, or would be cut off.
        ModelError: the family has no pipeline for this kind of edit.

    Source:
        Avrahami et al. 2022, arXiv:2206.02779, sections 4.1 to 4.3 (mask); Meng et al. 2021,
        arXiv:2108.01073 (strength); Gal et al. 2022, arXiv:2208.01618, appendix A (inversion).
    """
    # refuse what cannot be done, before anything is computed
    _check(picture, mask, strength, invert, len(seeds))
    for seed in (min(seeds), max(seeds)):
        check_seeds(seed)
    if mask is not None:
        _check_background(backbone, background, mask_growth)
        _check_pixel_blending(backbone, pixel_blending)
    if invert is not None and (sampling is None or sampling.num_inference_steps is None):
        sampling = dataclasses.replace(
            sampling or SamplingConfig(), num_inference_steps=INVERSION_STEPS
        )
    asked = backbone.sampling_for(drawn_as_learned(backbone, concepts, sampling))
    backbone.check_sampling(asked)
    backbone.check_prompts([prompt, *([] if invert is None else [invert])], asked)
    check_words(
        backbone,
        [prompt, *filter(None, [invert])],
        concepts,
        negative_prompt=asked.negative_prompt,
    )
    height, width = picture.shape[-2:]
    chosen = away_from(concepts, asked)
    chosen = dataclasses.replace(chosen, height=height, width=width)
    steps = int((chosen.num_inference_steps or 1) * strength)
    if steps < 1:
        raise EditError(
            f"strength times the number of steps must be 1 or more, got {strength} of "
            f"{chosen.num_inference_steps}; raise one of them."
        )
    marked = None if mask is None else mask.to(backbone.device) > 0.5
    settings = settings_of(backbone, concepts, chosen) | {
        name: str(value)
        for name, value in (
            ("strength", None if strength == 1 else strength),
            ("invert", invert),
            ("background", None if mask is None else background),
            ("pixel_blending", pixel_blending or None),
        )
        if value is not None
    }

    def edits(pixels: Pixels) -> Edits:
        every = (prompt,) * len(seeds)
        drawing = Drawing(
            pixels=pixels,
            prompts=every,
            seeds=tuple(seeds),
            settings=settings,
            spellings=spellings(concepts),
        )
        return Edits(picture=picture.cpu(), mask=mask, drawing=drawing)

    if marked is not None and not bool(marked.any()):
        warnings.warn(
            "The mask is empty, so the picture comes back unchanged; white marks what changes.",
            stacklevel=2,
        )
        return edits(picture.cpu().expand(len(seeds), -1, -1, -1))
    # where every candidate starts
    original = picture.to(backbone.device)
    x0 = backbone.encode_image(original).mean
    start, candidates = None, []
    with injected(backbone, concepts, replace=replace):
        if invert is not None:
            start = inverted(backbone, x0, invert, chosen)
        # the candidates, a batch at a time
        for first in range(0, len(seeds), batch_size):
            batch = list(seeds[first : first + batch_size])

            def report(step: int, steps: int, first: int = first, size: int = len(batch)) -> None:
                if on_picture is not None:
                    on_picture(first + size * step / steps, len(seeds))

            # with a mask, the rest of the picture is restored at each step, and at the end
            blend = None
            if marked is not None:
                blend = Blend(
                    backbone,
                    original,
                    x0,
                    marked,
                    batch,
                    steps=steps,
                    growth=mask_growth,
                    pixel_blending=pixel_blending,
                    first=0 if strength == 1 else 1,
                )
            drawn = backbone.draw(
                [prompt] * len(batch),
                batch,
                chosen,
                image=original.expand(len(batch), -1, -1, -1) if strength < 1 else None,
                strength=strength,
                latents=None if start is None else start.expand(len(batch), -1, -1, -1),
                on_latents=blend,
                on_step=report,
            )
            if blend is not None and marked is not None:
                drawn = rejoined(backbone, background, original, marked, drawn, blend.finished, x0)
            candidates.append(drawn.cpu())
    return edits(torch.cat(candidates))


def _check(
    picture: Pixels, mask: AnyMask | None, strength: float, invert: str | None, num: int
) -> None:
    check_way(mask=mask is not None, strength=strength, invert=invert)
    size = tuple(picture.shape[-2:])
    if len(picture) != 1 or num < 1:
        raise EditError(
            f"An edit must have one picture and at least one seed, got {len(picture)} pictures "
            f"and {num} seeds."
        )
    if mask is not None and tuple(mask.shape) != (1, 1, *size):
        raise EditError(
            f"The mask must be {size[0]} x {size[1]} like its picture, got the shape "
            f"{tuple(mask.shape)}."
        )


def _check_background(backbone: Backbone, background: str, mask_growth: int | None) -> None:
    if background not in get_args(Background):
        raise EditError(
            f"background must be one of {', '.join(get_args(Background))}, got {background!r}."
        )
    kind = type(backbone.autoencoder.vae or backbone.autoencoder)
    if background == "optimize" and kind is not AutoencoderKL:
        raise EditError(
            f"Cannot tune the decoder of {backbone.name}, a {kind.__name__}, because this needs a "
            "plain autoencoder (AutoencoderKL); use background paste, poisson or blend."
        )
    if mask_growth is not None and mask_growth < 0:
        raise EditError(f"mask_growth must be 0 or more, got {mask_growth}.")


def _check_pixel_blending(backbone: Backbone, share: float) -> None:
    if not 0 <= share <= 1:
        raise EditError(f"pixel_blending must be in [0, 1], got {share}.")
    solver = backbone.pipeline.scheduler
    if share and not isinstance(solver, DDIMScheduler):
        raise EditError(
            f"Cannot blend as pixels with {backbone.name} because {type(solver).__name__} draws "
            "with it, not DDIM; leave out pixel_blending."
        )


# --- choosing among candidates


def boxed(
    pixels: Pixels, mask: Float[Tensor, "one 1 height width"], margin: float = 0.1
) -> Float[Tensor, "batch 3 rows columns"]:
    """The square around a mask, inside the picture; its margin is a share of its side."""
    rows, columns = (torch.nonzero((mask[0, 0] > 0.5).any(dim)).flatten() for dim in (1, 0))
    spans = [(int(r.min()), int(r.max()) + 1) for r in (rows, columns)]
    side = round((1 + 2 * margin) * max(stop - start for start, stop in spans))
    cut = []
    for (start, stop), size in zip(spans, pixels.shape[-2:], strict=True):
        side_here = min(side, size)
        first = min(max(0, (start + stop - side_here) // 2), size - side_here)
        cut.append(slice(first, first + side_here))
    return pixels[..., cut[0], cut[1]]


def ranked(
    edits: Edits, judge: Judge, *, concepts: Sequence[Concept] = (), keep: int | None = None
) -> Edits:
    """The candidates, best first, by CLIP's cosine of the masked part with the prompt.

    CLIP does not know a learned word, so it is replaced by its initialiser if that is known, and
    otherwise left out.

    Args:
        edits: The candidates.
        judge: A CLIP; without a mask it sees whole pictures.
        concepts: The words of the prompt.
        keep: How many to keep; ``None``: all.

    Raises:
        EditError: there are fewer candidates than ``keep``.

    Source:
        Avrahami et al. 2022, arXiv:2206.02779, section 4.4.
    """
    drawing = edits.drawing
    num = len(drawing.seeds)
    if keep is not None and not 1 <= keep <= num:
        raise EditError(f"keep must be in 1..{num}, the number of candidates, got {keep}.")
    seen = drawing.pixels
    if edits.mask is not None and bool((edits.mask > 0.5).any()):
        seen = boxed(seen, edits.mask)
    said = [plain(prompt, drawing.settings.get("emphasis", "none")) for prompt in drawing.prompts]
    texts = judge.texts([_known(prompt, concepts) for prompt in said])
    scores = (judge.images(seen) * texts).sum(1)
    order = scores.argsort(descending=True, stable=True)[:keep].tolist()
    kept = dataclasses.replace(
        drawing,
        pixels=drawing.pixels[order],
        prompts=tuple(drawing.prompts[i] for i in order),
        seeds=tuple(drawing.seeds[i] for i in order),
    )
    return dataclasses.replace(edits, drawing=kept, scores=tuple(float(scores[i]) for i in order))


def _known(prompt: str, concepts: Sequence[Concept]) -> str:
    for concept in concepts:
        token, start = concept.placeholder_token, concept.provenance.get("initializer_token")
        if start and names(prompt, token):
            prompt = fill(as_template(prompt, token), start)
    return without_placeholder(prompt, [c.placeholder_token for c in concepts])


# --- files


GRID_PX = 16
"""Sides are multiples of this number of px, which fits every family's latents and patches."""


def read_picture(
    path: Path,
    backbone: Backbone,
    sampling: SamplingConfig | None = None,
    *,
    mask: Path | None = None,
) -> tuple[Pixels, Masks | None]:
    """Read a picture, and its mask, at the size that is drawn.

    The shorter side becomes the model's own size, unless ``sampling`` sets it; the rest is cropped.

    Args:
        path: The picture.
        backbone: The model, which gives the size.
        sampling: ``height`` and ``width``, if they are set.
        mask: Another picture of the same aspect, white where the first should change.

    Raises:
        ImageError: one of them is not a picture.
        EditError: the picture is smaller than what is drawn, or the mask has another aspect.
    """
    picture = read_image(path)
    sampling = sampling or SamplingConfig()
    scale = backbone.resolution / min(picture.size)
    width, height = (
        given or max(backbone.resolution, round(side * scale / GRID_PX) * GRID_PX)
        for given, side in zip((sampling.width, sampling.height), picture.size, strict=True)
    )
    if picture.width < width or picture.height < height:
        raise EditError(
            f"A picture must be at least as large as what the model draws, {width} x {height} px, "
            f"got {path.name} of {picture.width} x {picture.height}; use a larger one, or pass "
            "--width and --height."
        )

    def fitted(image: Image.Image, how: Image.Resampling) -> Pixels:
        return from_uint8(np.asarray(ImageOps.fit(image, (width, height), how))[None])

    pixels = fitted(picture, Image.Resampling.LANCZOS)
    if mask is None:
        return pixels, None
    marks = read_image(mask)
    # same aspect: the height is correct to the pixel
    if abs(marks.width * picture.height / picture.width - marks.height) > 1:
        raise EditError(
            f"A mask must have its picture's aspect ratio, got {mask.name} of {marks.width} x "
            f"{marks.height} for {path.name} of {picture.width} x {picture.height}."
        )
    marks = marks.resize(picture.size, Image.Resampling.NEAREST)
    return pixels, (fitted(marks, Image.Resampling.NEAREST)[:, :1] + 1) / 2


def save_edits(edits: Edits, folder: Path) -> list[Path]:
    """Write each edit as a PNG that stores its settings, and a sheet: picture, mask, edits.

    Returns:
        Paths of the edits, then of the sheet.

    Raises:
        OutputError: the folder cannot be written.
    """
    files = []
    for i, image in enumerate(to_images(edits.drawing.pixels)):
        name = f"{i:03d}-{slug(edits.drawing.prompts[i])}-seed{edits.drawing.seeds[i]}.png"
        score = {"score": f"{edits.scores[i]:.4f}"} if edits.scores else {}
        save_png(image, folder / name, edits.drawing.metadata(i) | score)
        files.append(folder / name)
    shown = [edits.picture]
    if edits.mask is not None:
        shown.append(edits.mask.expand(-1, 3, -1, -1).cpu() * 2 - 1)
    every = torch.cat([*shown, edits.drawing.pixels])
    sheet = contact_sheet(every, columns=min(len(every), 6), row_labels=[edits.drawing.prompts[0]])
    save_png(sheet, folder / SHEET)
    return [*files, folder / SHEET]
