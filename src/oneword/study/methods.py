"""Other people's systems, as rows of figures 3 and 5: a registry from names to methods that draw.

If a row cannot be drawn here because weights or code are missing, it raises ``NotAvailableError``
and is listed with that reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from oneword._typing import Pixels
from oneword.concepts.concept import Concept
from oneword.config.baselines import ClipDiffusionConfig
from oneword.config.drawing import SamplingConfig
from oneword.config.model import is_embedded
from oneword.config.palavra import PalavraWordConfig
from oneword.config.scoring import StudyConfig
from oneword.config.variations import KARLO_TEXT, VARIATIONS
from oneword.config.vqgan_clip import VQGANCLIPConfig
from oneword.errors import ConfigError, UserError
from oneword.generation import clip_diffusion, variations, vqgan_clip
from oneword.generation.clip_diffusion import Denoiser, LatentDenoiser
from oneword.generation.variations import KarloText, Variations, Wishes
from oneword.images import to_images
from oneword.models import quantised
from oneword.models.assembly import is_here
from oneword.models.clip_pairs import guide_source, is_same, judge_source
from oneword.models.contract import Backbone
from oneword.models.guide import Guide
from oneword.models.quantised import Quantised
from oneword.models.unconditional import load_unconditional
from oneword.prompts import COMMON_WORDS, PHOTO_PROMPTS, fill, of_family
from oneword.runs.palavra import learn_word
from oneword.study.plan import BASELINES, GUIDED, VARIED
from oneword.study.subjects import Subject
from oneword.training.projector import features_of


class NotAvailableError(UserError):
    """A method cannot be used here; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """The input of a method besides pictures, prompt and seed."""

    config: StudyConfig
    backbone: Backbone
    """The study's model."""
    subject: Subject
    seed: int
    """Seed of the job."""
    sampling: SamplingConfig
    """How the study's own model draws."""
    pictures_dir: Path
    """Folder of the training pictures."""

    @property
    def noun(self) -> str:
        """The coarse word of the thing; empty if it has none."""
        return self.subject.noun or ""

    def text(self, template: str) -> str:
        """A prompt in words, with the thing's coarse word; left out if it has none."""
        return " ".join(fill(template, self.noun).split())


Shown = Float[Tensor, "shown 3 height width"]
"""Training pictures, in [-1, 1]."""
One = Float[Tensor, "1 3 own_height own_width"]
"""One picture of the method's own size, in [-1, 1]."""
Draw = Callable[[Shown, str, int], One]
"""``draw(pictures, template, seed)``: one picture."""
Say = Callable[[str], str]
"""``say(template)``: a prompt in words."""
Load = Callable[[Given], Draw]
"""``load(given)``: the method, ready to draw; raises if it is not available."""


# --- variations


@cache
def _variations(
    name: str, judge: str | None, backbone: Backbone, sampling: SamplingConfig
) -> Variations:
    wishes = Wishes(judge=judge, device=backbone.config.device, sampling=sampling)
    return variations.load(name, wishes, backbone=backbone)


def _load_variations(given: Given) -> Draw:
    """Variations of the training pictures in turn; with the prompt if the model reads one."""
    config = given.config
    name = _varies(config)
    _check_here(config, VARIATIONS["karlo"]["source"])
    model = _variations(name, config.judge, given.backbone, given.sampling)
    known: dict[int, Tensor] = {}

    def draw(pictures: Shown, template: str, seed: int) -> One:
        index = seed % len(pictures)
        (picture,) = to_images(pictures[index : index + 1])
        if model.reads_text:
            prompt = template if isinstance(model, variations.Projected) else given.text(template)
            return model.draw(picture, [seed], prompt)
        if seed not in known:  # the same picture, whatever the prompt
            known[seed] = model.draw(picture, [seed])
        return known[seed]

    return draw


def _varies(config: StudyConfig) -> str:
    name = config.baselines.variations
    if name is not None:
        return name
    return config.model.model if is_embedded(config.model.model) else "karlo"


def _check_here(config: StudyConfig, source: str) -> None:
    """Refuse to download a model that only a default names.

    Raises:
        NotAvailableError: its weights are not on this machine.
    """
    named = config.baselines.variations is not None or is_embedded(config.model.model)
    if not named and not is_here(source):
        raise NotAvailableError(
            f"the weights of {source} are not on this machine; pass --variations karlo to download "
            "them, or another model for variations"
        )


@cache
def _karlo_text(device: str) -> KarloText:
    return KarloText(Wishes(device=device))


def _load_captions(given: Given) -> Draw:
    """People's captions, chosen at random, through the variation model's path from text.

    Source:
        Gal et al. 2022, arXiv:2208.01618, section 4.1.
    """
    name = _varies(given.config)
    if name != "karlo":
        raise NotAvailableError(
            f"{name} has no published way to draw from its own text; on a model of this package "
            "use captions-short and captions-long, or pass --variations karlo"
        )
    _check_here(given.config, KARLO_TEXT["source"])
    captions = [*given.subject.captions("captions-short"), *given.subject.captions("captions-long")]
    order = np.random.default_rng(given.seed % 2**64).permutation(len(captions)).tolist()
    model = _karlo_text(given.config.model.device)

    def draw(pictures: Shown, template: str, seed: int) -> One:  # noqa: ARG001
        return model.draw(fill(template, captions[order[seed % len(order)]]), seed)

    return draw


# --- drawn towards a CLIP


@cache
def _guide(name: str | None, model: str, judge: str | None, device: torch.device) -> Guide:
    return Guide.load(name, model, device=device, judge=judge)


def _guide_of(given: Given) -> Guide:
    config = given.config
    return _guide(config.baselines.guide, config.model.model, config.judge, given.backbone.device)


@cache
def _codes(checkpoint: Path | None, model: str, device: torch.device) -> Quantised:
    if checkpoint is not None:
        return quantised.published(checkpoint, None, device)
    if not is_embedded(model):
        raise NotAvailableError(
            "no VQGAN was given; pass --vqgan FILE, such as vqgan_imagenet_f16_16384.ckpt"
        )
    return quantised.embedded(model, device)


def _by_codes(given: Given, concepts: Sequence[Concept], say: Say, *, towards: bool) -> Draw:
    """VQGAN-CLIP, towards a text and on request also the training pictures."""
    config = given.config.baselines
    vq = _codes(config.vqgan, given.config.model.model, given.backbone.device)
    guide = _guide_of(given)
    settings = VQGANCLIPConfig(prompts=("-",), checkpoint=config.vqgan, steps=config.vqgan_steps)
    constants = settings.constants(vq.resolution)

    def draw(pictures: Shown, template: str, seed: int) -> One:
        shown = _sized(pictures, constants.resolution) if towards else None
        return vqgan_clip.draw(
            vq, guide, say(template), seed, constants, concepts=concepts, pictures=shown
        ).pixels

    return draw


@cache
def _denoiser(checkpoint: Path | None, backbone: Backbone) -> Denoiser:
    if checkpoint is None:
        return LatentDenoiser(backbone)
    return load_unconditional(checkpoint, backbone.device, backbone.dtype)


def _by_diffusion(given: Given, concepts: Sequence[Concept], say: Say, *, begun: bool) -> Draw:
    """CLIP-guided diffusion towards a text, from noise or on request from a training picture."""
    config = given.config.baselines
    denoiser, guide = _denoiser(config.unconditional, given.backbone), _guide_of(given)

    def draw(pictures: Shown, template: str, seed: int) -> One:
        index = seed % len(pictures)
        init = _sized(pictures[index : index + 1], denoiser.resolution) if begun else None
        settings = ClipDiffusionConfig(
            prompts=(say(template),),
            seeds=(str(seed),),
            checkpoint=config.unconditional,
            num_inference_steps=config.diffusion_steps,
        )
        return clip_diffusion.draw(denoiser, guide, settings, concepts=concepts, init=init).pixels

    return draw


def _own_clip(config: StudyConfig) -> str | None:
    """The embedded model whose guide PALAVRA's word is for; ``None``: the maps name their CLIP."""
    model = config.model.model
    return model if config.baselines.guide is None and is_embedded(model) else None


def _palavra(given: Given) -> tuple[Sequence[Concept], Say]:
    """PALAVRA's word for the training pictures, and prompts with its noun before it.

    Source:
        Gal et al. 2022, arXiv:2208.01618, section 4.2; Cohen et al. 2022, arXiv:2204.01694.
    """
    config = given.config
    if config.baselines.palavra is None:
        raise NotAvailableError(
            "PALAVRA's maps were not given; train them with oneword palavra train, and pass "
            "--palavra FOLDER"
        )
    token = config.inversion.placeholder_token
    found = learn_word(
        PalavraWordConfig(
            train_data_dir=given.pictures_dir,
            maps=config.baselines.palavra,
            clip=_own_clip(config),
            judge=config.judge,
            placeholder_token=token,
            initializer_token=given.noun or None,
            output_dir=config.output_dir / "palavra" / f"{given.subject.name}--seed{given.seed}",
            device=config.model.device,
        )
    ).concept
    guide = _guide_of(given)
    if found.provenance["clip_sha256"] != guide.sha256():
        raise NotAvailableError(
            f"the maps in {config.baselines.palavra} are for another CLIP than the guide "
            f"{guide.name}; pass theirs with --guide"
        )
    return [found], lambda template: fill(template, f"{given.noun} {token}".strip())


def _load_palavra_codes(given: Given) -> Draw:
    return _by_codes(given, *_palavra(given), towards=False)


def _load_palavra_diffusion(given: Given) -> Draw:
    return _by_diffusion(given, *_palavra(given), begun=False)


def _load_codes(given: Given) -> Draw:
    return _by_codes(given, (), given.text, towards=True)


def _load_diffusion(given: Given) -> Draw:
    return _by_diffusion(given, (), given.text, begun=True)


# --- the registry


METHODS: Mapping[str, Load] = {
    "palavra-vqgan-clip": _load_palavra_codes,
    "palavra-clip-diffusion": _load_palavra_diffusion,
    "vqgan-clip": _load_codes,
    "clip-diffusion": _load_diffusion,
    "variations-captions": _load_captions,
    "variations": _load_variations,
}
"""Methods by the name of the setup: those of ``plan.BASELINES``."""


def check(config: StudyConfig, setups: Sequence[str]) -> None:
    """Refuse a judge that guides one of the methods.

    Args:
        config: The study's settings.
        setups: Its setups, by name.

    Raises:
        ConfigError: guide and judge are the same CLIP.
    """
    if not {*setups} & {*BASELINES}:
        return
    model, given = config.model.model, config.baselines.guide
    if is_same(guide_source(given, model), judge_source(config.judge, model)):
        raise ConfigError(
            f"Cannot use {judge_source(config.judge, model)} to guide the methods of figures 3 "
            "and 5 because it is also the judge; pass another --guide or --judge."
        )


def steps_of(setup: str, given: Given) -> int:
    """Steps of each picture of a setup that a CLIP guides.

    Raises:
        NotAvailableError: its weights are missing.
    """
    config = given.config.baselines
    if setup.endswith("vqgan-clip"):
        vq = _codes(config.vqgan, given.config.model.model, given.backbone.device)
        settings = VQGANCLIPConfig(
            prompts=("-",), checkpoint=config.vqgan, steps=config.vqgan_steps
        )
        return settings.constants(vq.resolution).num_steps
    return ClipDiffusionConfig(
        prompts=("-",),
        checkpoint=config.unconditional,
        num_inference_steps=config.diffusion_steps,
    ).settled("num_inference_steps")


def downloads(config: StudyConfig, setups: Sequence[str]) -> list[str]:
    """What the methods will load from the hub, because it is not on this machine.

    Args:
        config: The study's settings.
        setups: Its setups, by name.
    """
    model, own = config.model.model, config.baselines
    wanted: list[tuple[str, str | None]] = []
    if {*setups} & {*GUIDED}:
        wanted.append((guide_source(own.guide, model), None))
    name = own.variations
    if name is not None and {*setups} & {*VARIED} and not is_embedded(name):
        published = VARIATIONS.get(name, {"source": name})
        wanted.append((published["source"], published.get("revision")))
        if name == "karlo" and "variations-captions" in setups:
            wanted.append((KARLO_TEXT["source"], None))
    return [source for source, revision in wanted if not is_here(source, revision)]


def method(setup: str, given: Given, pictures: Shown) -> Callable[[str, Sequence[int]], Pixels]:
    """A setup for the study: pictures of the model's size, whatever the method's own size.

    Args:
        setup: One of ``METHODS``.
        given: Its input.
        pictures: The training pictures.

    Raises:
        NotAvailableError: its weights or its code are missing.
    """
    try:
        one = METHODS[setup](_with_noun(setup, given, pictures))
    except NotAvailableError:
        raise
    except UserError as error:
        raise NotAvailableError(str(error)) from error
    side = given.backbone.resolution

    def draw(template: str, seeds: Sequence[int]) -> Pixels:
        return torch.cat([_sized(one(pictures, template, seed), side) for seed in seeds])

    return draw


@torch.no_grad()
def _with_noun(setup: str, given: Given, pictures: Shown) -> Given:
    """The same; a drawn thing without a noun gets the one whose text its pictures are nearest to.

    The guide decides, among common nouns that its text encoder knows. Photographs without a class
    stay without a noun, as they were.
    """
    subject = given.subject
    if setup not in GUIDED or subject.held_out is None or subject.noun is not None:
        return given
    guide = _guide_of(given)
    common = of_family(COMMON_WORDS, given.backbone.family, subject.learnable_property)
    nouns = [noun for noun in common if guide.vocabularies[guide.tower].is_word(noun)]
    said = guide.text_features([fill(PHOTO_PROMPTS["microworld"]["object"], n) for n in nouns])
    near = said @ features_of(guide, pictures).to(said).mean(dim=0)
    return replace(given, subject=replace(subject, noun=nouns[int(near.argmax())]))


def _sized(drawn: Tensor, side: int) -> Pixels:
    if drawn.shape[-2:] == (side, side):
        return drawn.float().cpu()
    resized = F.interpolate(drawn.float(), (side, side), mode="bicubic", antialias=True)
    return resized.clamp(-1, 1).cpu()
