"""Drawing every prompt with every seed, with any number of learned words."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace as changed
from pathlib import Path

import torch
from PIL import Image

from oneword import prompts as sentences
from oneword._typing import Masks, Pixels
from oneword._version import __version__
from oneword.concepts.concept import Concept
from oneword.config.checks import check_seeds
from oneword.config.drawing import SamplingConfig
from oneword.config.presets import sampler_of
from oneword.generation import told, wildcards
from oneword.generation.told import Spellings, spellings
from oneword.images import labelled_sheet, save_png, to_images
from oneword.models import samplers
from oneword.models.contract import Backbone, Reader
from oneword.vocabulary.inject import injected


OnPicture = Callable[[float, int], None]
"""``on_picture(done, total)``: pictures drawn so far; a batch in progress counts by its steps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """Pictures, with all their settings."""

    pixels: Pixels
    """One per (prompt, seed), seeds running fastest."""
    prompts: tuple[str, ...]
    """The prompt of each picture."""
    seeds: tuple[int, ...]
    """The seed of each picture."""
    settings: dict[str, str]
    """Settings that all pictures share: model, concepts with their hashes, sampling."""
    facts: tuple[dict[str, str], ...] = ()
    """More text entries of each picture, such as its similarities; empty, or one per picture."""
    spellings: Spellings = field(default_factory=dict)
    """How the words are written in other tools."""

    def only(self, indices: Sequence[int]) -> Drawing:
        """Some of the pictures, in that order."""
        return changed(
            self,
            pixels=self.pixels[list(indices)],
            prompts=tuple(self.prompts[i] for i in indices),
            seeds=tuple(self.seeds[i] for i in indices),
            facts=tuple(self.facts[i] for i in indices) if self.facts else (),
        )

    def asked(self, index: int) -> str:
        """The prompt of a picture as it was given, with its wildcards."""
        return (self.facts[index] if self.facts else {}).get("template", self.prompts[index])

    def told(self, facts: Sequence[Mapping[str, str]]) -> Drawing:
        """The same pictures with more text entries, as many as there are pictures."""
        own = self.facts or ({},) * len(self.prompts)
        return changed(self, facts=tuple(a | {**b} for a, b in zip(own, facts, strict=True)))

    def metadata(self, index: int) -> dict[str, str]:
        """Text entries for the PNG of one picture.

        "parameters" is for A1111 and most other tools, "workflow" for ComfyUI.
        """
        own = {"prompt": self.prompts[index], "seed": str(self.seeds[index])} | self.settings
        own |= self.facts[index] if self.facts else {}
        height, width = self.pixels.shape[-2:]
        own |= {"height": str(height), "width": str(width)}
        what = own["prompt"], self.seeds[index], own, self.spellings
        own["parameters"] = told.parameters(*what)
        if graph := told.workflow(*what):
            own["workflow"] = graph
        return own


def generate(
    backbone: Backbone,
    prompts: Sequence[str],
    seeds: Sequence[int],
    *,
    concepts: Sequence[Concept] = (),
    sampling: SamplingConfig | None = None,
    image: Pixels | None = None,
    mask: Masks | None = None,
    strength: float = 0.8,
    batch_size: int = 8,
    replace: bool = False,
    wildcard_dir: Path | None = None,
    on_picture: OnPicture | None = None,
) -> Drawing:
    """Draw every prompt with every seed.

    Args:
        backbone: The model.
        prompts: May contain the concepts' placeholders, as may the negative prompt, and wildcards,
            which are chosen by each picture's seed.
        seeds: One picture per prompt and seed; a picture does not depend on the others.
        concepts: Words that the prompts may use.
        sampling: Guidance, steps, size; unset fields take the family's default.
        image: One picture to start from, in the size that is drawn.
        mask: 1 where the picture is redrawn; the rest stays.
        strength: How much of it is drawn over, in (0, 1].
        batch_size: Pictures drawn at once.
        replace: Allow a placeholder that is already a word of the model.
        wildcard_dir: Folder with the files that wildcards name.
        on_picture: Called with the progress of drawing.

    Raises:
        ConfigError: a seed is out of range.
        PromptError: there is nothing to draw, a concept is used in no prompt, the negative prompt
            names a word that is not loaded, or a wildcard cannot be chosen.
        PlaceholderError: a placeholder is a word of the model, is used twice, or would be cut off.
        ConceptError: a concept does not fit the model.
        ModelError: the family cannot draw with the settings.
    """
    if not prompts or not seeds:
        raise sentences.PromptError(
            f"Cannot draw without a prompt and a seed, got {len(prompts)} prompts and "
            f"{len(seeds)} seeds; pass both."
        )
    for seed in (min(seeds), max(seeds)):
        check_seeds(seed)
    asked = backbone.sampling_for(drawn_as_learned(backbone, concepts, sampling))
    backbone.check_sampling(asked)
    pairs, facts = without_wildcards(
        prompts, seeds, folder=wildcard_dir, words=_loaded(concepts), away=asked.negative_prompt
    )
    said = list(dict.fromkeys(prompt for prompt, _ in pairs))
    backbone.check_prompts(said, asked)
    check_words(backbone, said, concepts, negative_prompt=asked.negative_prompt)
    chosen = away_from(concepts, asked)
    batches = []
    with injected(backbone, concepts, replace=replace):
        for start in range(0, len(pairs), batch_size):
            batch = pairs[start : start + batch_size]

            def report(step: int, steps: int, first: int = start, size: int = len(batch)) -> None:
                if on_picture is not None:
                    on_picture(first + size * step / steps, len(pairs))

            batches.append(
                backbone.draw(
                    [p for p, _ in batch],
                    [s for _, s in batch],
                    chosen,
                    image=None if image is None else image.expand(len(batch), -1, -1, -1),
                    mask=None if mask is None else mask.expand(len(batch), -1, -1, -1),
                    strength=strength,
                    on_step=report,
                ).cpu()
            )
    return Drawing(
        pixels=torch.cat(batches),
        prompts=tuple(p for p, _ in pairs),
        seeds=tuple(s for _, s in pairs),
        settings=settings_of(backbone, concepts, chosen)
        | ({} if image is None else {"strength": str(strength)}),
        facts=facts,
        spellings=spellings(concepts),
    )


def without_wildcards(
    prompts: Sequence[str],
    seeds: Sequence[int],
    *,
    folder: Path | None,
    words: Sequence[str],
    away: str = "",
) -> tuple[list[tuple[str, int]], tuple[dict[str, str], ...]]:
    """Every prompt with every seed, with its wildcards chosen, and messages about it.

    Raises:
        PromptError: a wildcard cannot be chosen, or is in the negative prompt, ``away``.
    """
    if wildcards.has_wildcards(away, words):
        raise sentences.PromptError(
            f"Cannot use wildcards in the negative prompt {away!r} because it must be the same "
            f"for every picture; choose one, or write \\{{ if the braces are text."
        )
    asked = [(prompt, seed) for prompt in prompts for seed in seeds]
    pairs = [
        (wildcards.resolved(prompt, seed, folder=folder, words=words), seed)
        for prompt, seed in asked
    ]
    templates = [
        {"template": prompt} if prompt != own else {}
        for (prompt, _), (own, _) in zip(asked, pairs, strict=True)
    ]
    return pairs, tuple(templates) if any(templates) else ()


def check_words(
    backbone: Reader,
    prompts: Sequence[str],
    concepts: Sequence[Concept],
    *,
    negative_prompt: str = "",
) -> None:
    """Refuse words that are not used or not loaded; report what is read as text, and poolings.

    A word may be in the negative prompt only. What looks like a placeholder and is not loaded is
    text in a prompt, because the picture shows it. In the negative prompt it is refused, because no
    picture would show it.

    Raises:
        PromptError: a concept is used in no prompt, or the negative prompt names a word that is not
            loaded.
    """
    for text in (*prompts, negative_prompt):
        sentences.check_text(text)
    loaded = _loaded(concepts)
    used = {word for text in (*prompts, negative_prompt) for word in sentences.named(text, loaded)}
    strange = dict.fromkeys(w for prompt in prompts for w in sentences.strangers(prompt, loaded))
    for concept in concepts:
        token = concept.placeholder_token
        if token not in used:
            others = f"; not loaded: {', '.join(map(repr, strange))}" if strange else ""
            raise sentences.PromptError(
                f"A prompt must contain the placeholder {token!r} of the concept, got "
                f"{', '.join(repr(p) for p in prompts[:3])}{' and more' * (len(prompts) > 3)}"
                f"{others}."
            )
        pool = concept.provenance.get("pool", backbone.pool)
        if pool != backbone.pool and len(backbone.vocabularies) > 1:
            warnings.warn(
                f"The concept {token!r} was learned with CLIP pooled {pool!r}, but is drawn with "
                f"{backbone.pool!r}; pass --pool {pool}.",
                stacklevel=3,
            )
    check_negative_prompt(negative_prompt, concepts)
    for word in strange:
        if all(vocabulary.is_word(word) for vocabulary in backbone.vocabularies.values()):
            continue  # a model that was saved with the word
        warnings.warn(
            f"{word!r} is not a loaded word and is read as text; if it is a word, load its file "
            "(on the command line with --concepts).",
            stacklevel=3,
        )


def check_negative_prompt(
    negative_prompt: str, concepts: Sequence[Concept] = (), *, absent: Sequence[str] = ()
) -> None:
    """Refuse words in a negative prompt that are not loaded; a number with a star is not a word.

    Args:
        negative_prompt: The drawing's.
        concepts: Words that it may name.
        absent: Placeholders that it may not name, because some pictures are drawn without them.

    Raises:
        PromptError: it names a word that is not loaded or absent.
    """
    loaded = _loaded(concepts)
    strange = [
        *sentences.named(negative_prompt, absent),
        *(w for w in sentences.strangers(negative_prompt, loaded) if not w[:-1].isdecimal()),
    ]
    if strange:
        known = ", ".join(map(repr, loaded)) or "no word"
        raise sentences.PromptError(
            f"A negative prompt must contain only loaded words, got {strange[0]!r} in "
            f"{negative_prompt!r} with {known} loaded; check the spelling, or load its file with "
            "--concepts."
        )


def _loaded(concepts: Sequence[Concept]) -> list[str]:
    """Placeholders of concepts and of their companions."""
    return [word.placeholder_token for c in concepts for word in (c, *c.companions())]


_LOADED = ("revision", "variant", "vae", "clip_skip", "pool", "weights", "safety_checker")
"""Settings of loading a model that change pictures."""


def settings_of(
    backbone: Backbone, concepts: Sequence[Concept], sampling: SamplingConfig
) -> dict[str, str]:
    """Settings of a set of pictures, as text for their files."""
    with backbone.solving(sampling):
        solver = samplers.told(sampling.sampler or "model", backbone.pipeline.scheduler)
    loaded = {
        name: str(value)
        for name in _LOADED
        if (value := getattr(backbone.config, name)) not in (None, "full", "none")
    }
    return {
        "model": backbone.name,
        "family": backbone.family,
        **loaded,
        "dtype": str(backbone.dtype).removeprefix("torch."),
        "concepts": json.dumps({c.placeholder_token: c.sha256() for c in concepts}),
        "guidance_scale": str(sampling.guidance_scale),
        "num_inference_steps": str(sampling.num_inference_steps),
        "sampler": str(sampling.sampler),
        "solver": solver.name,
        "emphasis": str(sampling.emphasis),
        "negative_prompt": sampling.negative_prompt,
        "software": f"oneword {__version__}",
    }


def settled(
    backbone: Backbone, concepts: Sequence[Concept], wishes: SamplingConfig | None
) -> SamplingConfig:
    """Sampling with every setting resolved, and with the concepts' negative words."""
    return away_from(concepts, backbone.sampling_for(drawn_as_learned(backbone, concepts, wishes)))


def drawn_as_learned(
    backbone: Backbone, concepts: Sequence[Concept], wishes: SamplingConfig | None
) -> SamplingConfig:
    """The given settings; without a sampler, with that of the preset that all words share."""
    wishes = wishes or SamplingConfig()
    if wishes.sampler is not None:
        return wishes
    presets = {(c.provenance.get("config") or {}).get("preset") for c in concepts}
    preset = presets.pop() if len(presets) == 1 else None
    return changed(wishes, sampler=sampler_of(preset, backbone.family))


def away_from(concepts: Sequence[Concept], sampling: SamplingConfig) -> SamplingConfig:
    """Sampling with the concepts' negative words in its negative prompt."""
    tokens = [c.negative_token for c in concepts if c.negative_token is not None]
    negative = ", ".join([*filter(None, [sampling.negative_prompt]), *tokens])
    return changed(sampling, negative_prompt=negative)


SHEET = "contact-sheet.png"


def save_drawing(drawing: Drawing, folder: Path) -> list[Path]:
    """Write each picture as a PNG that stores its settings, and a contact sheet of all.

    Returns:
        Paths of the pictures, then of the contact sheet.

    Raises:
        OutputError: the folder cannot be written.
    """
    files = save_pictures(drawing, folder)
    groups: dict[str, list[Image.Image]] = {}
    for i, image in enumerate(to_images(drawing.pixels)):
        groups.setdefault(drawing.asked(i), []).append(image)
    save_png(labelled_sheet(groups), folder / SHEET)
    return [*files, folder / SHEET]


def save_pictures(drawing: Drawing, folder: Path, *, mark: str = "") -> list[Path]:
    """Write each picture as a PNG that stores its settings.

    Args:
        drawing: The pictures.
        folder: The folder.
        mark: Part of the file names that tells them from another drawing's.

    Raises:
        OutputError: the folder cannot be written.
    """
    asked = [drawing.asked(i) for i in range(len(drawing.prompts))]
    order = {prompt: place for place, prompt in enumerate(dict.fromkeys(asked))}
    end = f"-{slug(mark, 80)}" if mark else ""
    files = []
    for i, image in enumerate(to_images(drawing.pixels)):
        prompt, seed = drawing.prompts[i], drawing.seeds[i]
        path = folder / f"{order[asked[i]]:03d}-{slug(prompt)}-seed{seed}{end}.png"
        save_png(image, path, drawing.metadata(i))
        files.append(path)
    return files


def slug(text: str, most: int = 48) -> str:
    """A text as part of a file name: lower-case letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:most].rstrip("-") or "picture"
