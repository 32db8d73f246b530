"""Variations of a picture: models guided by a picture's CLIP embedding instead of a word.

The paper's figure 3 uses DALL-E 2, which is not published. Its replacements here have their own
names: Karlo's unCLIP, Stable Diffusion 2.1's unCLIP, or the variations of Stable Diffusion 1.4,
each through diffusers' own pipeline; and on the embedded models a projector, which is ours
(``training/projector.py``).

Source:
    Gal et al. 2022, arXiv:2208.01618, section 4.1 and figure 3; Ramesh et al. 2022,
    arXiv:2204.06125.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, get_type_hints

import diffusers
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from oneword._devices import pick_device, pick_dtype
from oneword._files import read_json
from oneword._typing import Pixels
from oneword._version import __version__
from oneword.config.drawing import SamplingConfig
from oneword.config.model import EMBEDDED, ModelConfig, is_embedded
from oneword.config.variations import KARLO_TEXT, VARIATIONS
from oneword.errors import ModelError, UserError, reason_of
from oneword.generation.generate import Drawing, generate
from oneword.images import Frame, to_pixels
from oneword.microworld import weights
from oneword.models.assembly import load_pipeline, quiet
from oneword.models.clip_pairs import MEAN, STD
from oneword.models.contract import Backbone
from oneword.models.guide import Guide
from oneword.models.loading import load_backbone
from oneword.prompts import PHOTO_PROMPTS, fill, of_family
from oneword.training import projector as projecting


TOKEN = "<picture>"
"""Placeholder for the picture in a projector's prompts."""
OnPicture = Callable[[float, int], None]
"""``on_picture(done, total)``: variations drawn so far."""


class VariationsError(UserError):
    """A picture cannot be varied as requested."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """How variations are drawn; unset fields take the model's published values."""

    guidance_scale: float | None = None
    num_inference_steps: int | None = None
    noise_level: int | None = None
    revision: str | None = None
    dtype: Any = "auto"
    device: str = "auto"
    safety_checker: bool = True
    batch_size: int = 8
    judge: str | None = None
    """The CLIP that will score, which must not be the one that guides."""
    sampling: SamplingConfig | None = None
    """All settings of drawing with a projector's model; by default, those of the first two
    fields."""


class Variations(ABC):
    """A model that varies pictures."""

    name: str
    """Its name in reports."""
    reads_text: bool
    """Whether a prompt changes what it draws."""
    settings: dict[str, str]
    """Settings that all of its pictures share, as text for their files."""

    def said(self, prompt: str | None) -> str:
        """The part of a prompt that the model reads, with "{}" for the picture; empty if nothing.

        Raises:
            VariationsError: the model reads no text, or the prompt has no "{}".
        """
        if prompt is not None and not self.reads_text:
            raise VariationsError(
                f"Cannot use the prompt {prompt!r} with {self.name} because it reads no text next "
                "to the picture (sd-unclip, microworld and projectors do); leave it out."
            )
        return " ".join(fill(prompt or "", "").split())

    @abstractmethod
    def draw(
        self,
        picture: Image.Image,
        seeds: Sequence[int],
        prompt: str | None = None,
        on_picture: OnPicture | None = None,
    ) -> Pixels:
        """Draw a variation for each seed; each depends only on its own seed.

        Raises:
            VariationsError: the model does not read the prompt.
        """


# --- published models, through diffusers' pipelines


class Published(Variations):
    """A published model behind its own pipeline."""

    pipeline_class: ClassVar[str]
    preset: ClassVar[str]
    takes_noise: ClassVar[bool] = False

    def __init__(self, source: str, wishes: Wishes, *, revision: str | None = None) -> None:
        """Load it.

        Args:
            source: Hub id or folder.
            wishes: How it draws.
            revision: Revision on the hub, if the wishes name none.

        Raises:
            ModelError: it cannot be loaded.
            VariationsError: the model takes no noise level, and one was given.
        """
        own = VARIATIONS[self.preset]
        if wishes.noise_level is not None and not self.takes_noise:
            raise VariationsError(
                f"Cannot use noise_level {wishes.noise_level} with {self.preset} because only "
                "sd-unclip has one; leave it out."
            )
        config = ModelConfig(
            model=source,
            revision=wishes.revision or revision,
            dtype=wishes.dtype,
            device=wishes.device,
        )
        self.pipeline = self._loaded(getattr(diffusers, self.pipeline_class), config, wishes)
        self.name = self.preset
        self.guidance_scale = _or(wishes.guidance_scale, own["guidance_scale"])
        self.num_inference_steps = _or(wishes.num_inference_steps, own["num_inference_steps"])
        self.noise_level = _or(wishes.noise_level, own.get("noise_level", 0))
        self.settings = {
            "model": source,
            "family": self.preset,
            "guidance_scale": str(self.guidance_scale),
            "num_inference_steps": str(self.num_inference_steps),
            "negative_prompt": "",
            "concepts": "{}",
            "software": f"oneword {__version__}",
        } | ({"noise_level": str(self.noise_level)} if self.takes_noise else {})
        if config.revision is not None:
            self.settings["revision"] = config.revision

    def _loaded(self, kind: Any, config: ModelConfig, wishes: Wishes) -> Any:  # noqa: ARG002
        """Load its pipeline.

        Raises:
            ModelError: it cannot be loaded.
        """
        return load_pipeline(config, kind, config.model)

    def draw(
        self,
        picture: Image.Image,
        seeds: Sequence[int],
        prompt: str | None = None,
        on_picture: OnPicture | None = None,
    ) -> Pixels:
        said, drawn = self.said(prompt), []
        for done, seed in enumerate(seeds, start=1):
            with torch.no_grad(), quiet():
                found = self._run(picture, said, torch.Generator().manual_seed(seed))
            drawn.append(_pixels(found))
            if on_picture is not None:
                on_picture(done, len(seeds))
        return torch.cat(drawn)

    @abstractmethod
    def _run(self, picture: Image.Image, said: str, generator: torch.Generator) -> Any:
        """Draw one variation, (1, height, width, 3) in [0, 1]."""


class Karlo(Published):
    """Karlo, an unCLIP: a decoder of CLIP's picture embedding, and two networks that enlarge.

    Source:
        kakaobrain/karlo-v1-alpha; Ramesh et al. 2022, arXiv:2204.06125.
    """

    pipeline_class, preset, reads_text = "UnCLIPImageVariationPipeline", "karlo", False

    def _loaded(self, kind: Any, config: ModelConfig, wishes: Wishes) -> Any:  # noqa: ARG002
        return _assembled(kind, config)

    def _run(self, picture: Image.Image, said: str, generator: torch.Generator) -> Any:  # noqa: ARG002
        return self.pipeline(
            image=picture,
            decoder_guidance_scale=self.guidance_scale,
            decoder_num_inference_steps=self.num_inference_steps,
            super_res_num_inference_steps=VARIATIONS[self.preset]["super_res_steps"],
            generator=generator,
            output_type="np",
            return_dict=False,
        )[0]


class StableUnclip(Published):
    """Stable Diffusion 2.1, tuned to read CLIP's picture embedding together with the text.

    Source:
        stabilityai/stable-diffusion-2-1-unclip.
    """

    pipeline_class, preset, reads_text = "StableUnCLIPImg2ImgPipeline", "sd-unclip", True
    takes_noise = True

    def _run(self, picture: Image.Image, said: str, generator: torch.Generator) -> Any:
        return self.pipeline(
            image=picture,
            prompt=said,
            guidance_scale=self.guidance_scale,
            num_inference_steps=self.num_inference_steps,
            noise_level=self.noise_level,
            generator=generator,
            output_type="np",
            return_dict=False,
        )[0]


class StableVariations(Published):
    """Stable Diffusion 1.4, tuned to read CLIP's picture embedding instead of the text.

    Source:
        lambdalabs/sd-image-variations-diffusers. Its card resizes pictures without antialiasing, as
        in training.
    """

    pipeline_class, preset = "StableDiffusionImageVariationPipeline", "sd-variations"
    reads_text = False

    def _loaded(self, kind: Any, config: ModelConfig, wishes: Wishes) -> Any:
        options: dict[str, Any] = {}
        if not wishes.safety_checker:
            options |= {"safety_checker": None, "requires_safety_checker": False}
        return load_pipeline(config, kind, config.model, **options)

    def _run(self, picture: Image.Image, said: str, generator: torch.Generator) -> Any:  # noqa: ARG002
        side = int(self.pipeline.image_encoder.config.image_size)
        return self.pipeline(
            image=unsmoothed(picture, side),
            guidance_scale=self.guidance_scale,
            num_inference_steps=self.num_inference_steps,
            generator=generator,
            output_type="np",
            return_dict=False,
        )[0]


def unsmoothed(picture: Image.Image, side: int) -> Tensor:
    """A picture for CLIP, resized to a square by bicubic sampling without antialiasing.

    Args:
        picture: RGB of any shape, which is squashed.
        side: Side of the square, in px.

    Returns:
        (1, 3, side, side), normalised.

    Source:
        The card of lambdalabs/sd-image-variations-diffusers, version 2.
    """
    whole = Frame((picture.height, picture.width), "squash", "bicubic")
    values = (to_pixels(picture.convert("RGB"), whole) + 1) / 2
    values = F.interpolate(values, (side, side), mode="bicubic", align_corners=False)
    mean, std = (torch.tensor(own)[:, None, None] for own in (MEAN, STD))
    return (values - mean) / std


_CLASSES: dict[str, type[Published]] = {
    own.pipeline_class: own for own in (Karlo, StableUnclip, StableVariations)
}
_NAMES: dict[str, type[Published]] = {own.preset: own for own in _CLASSES.values()}


class KarloText:
    """Karlo's own path from a caption through its prior: replaces DALL-E 2 with a caption.

    Source:
        kakaobrain/karlo-v1-alpha; Ramesh et al. 2022, arXiv:2204.06125.
    """

    def __init__(self, wishes: Wishes, source: str = KARLO_TEXT["source"]) -> None:
        """Load it.

        Raises:
            ModelError: it cannot be loaded.
        """
        config = ModelConfig(model=source, dtype=wishes.dtype, device=wishes.device)
        self.pipeline = _assembled(diffusers.UnCLIPPipeline, config)

    def draw(self, caption: str, seed: int) -> Pixels:
        """Draw one picture for a caption."""
        own = KARLO_TEXT
        with torch.no_grad(), quiet():
            found = self.pipeline(
                prompt=caption,
                prior_guidance_scale=own["prior_guidance_scale"],
                prior_num_inference_steps=own["prior_steps"],
                decoder_guidance_scale=own["guidance_scale"],
                decoder_num_inference_steps=own["num_inference_steps"],
                super_res_num_inference_steps=own["super_res_steps"],
                generator=torch.Generator().manual_seed(seed),
                output_type="np",
                return_dict=False,
            )[0]
        return _pixels(found)


def _assembled(kind: Any, config: ModelConfig) -> Any:
    """A pipeline assembled from its parts, each loaded by the class that the pipeline names.

    diffusers no longer finds all parts of an unCLIP through its published index.

    Raises:
        ModelError: a part cannot be loaded.
    """
    device = pick_device(config.device)
    dtype = pick_dtype(config.dtype, device, config.model)
    try:
        with quiet():
            parts = {
                name: part.from_pretrained(
                    config.model,
                    subfolder=name,
                    revision=config.revision,
                    **({"dtype": dtype} if issubclass(part, nn.Module) else {}),
                )
                for name, part in get_type_hints(kind.__init__).items()
                if name != "return"
            }
            pipeline = kind(**parts)
    except Exception as error:
        raise ModelError(
            f"The model {config.model} must be a complete {kind.__name__} (hub id or folder), "
            f"got: {reason_of(error)}"
        ) from error
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device)


def _pixels(found: Any) -> Pixels:
    """A pipeline's (num, height, width, 3) in [0, 1] as pixels."""
    return torch.as_tensor(found).float().permute(0, 3, 1, 2).contiguous() * 2 - 1


def _or(wish: Any, own: Any) -> Any:
    return own if wish is None else wish


# --- a projector on a model of the package


class Projected(Variations):
    """A model of the package that reads a picture's features through a projector; ours."""

    reads_text = True

    def __init__(
        self, backbone: Backbone, guide: Guide, trained: projecting.Trained, wishes: Wishes
    ) -> None:
        self.backbone, self.guide, self.trained = backbone, guide, trained
        self.batch_size = wishes.batch_size
        self.sampling = wishes.sampling or SamplingConfig(
            guidance_scale=wishes.guidance_scale, num_inference_steps=wishes.num_inference_steps
        )
        self.name = f"projector (ours) on {backbone.name}"
        drawn = backbone.sampling_for(self.sampling)
        self.settings = {
            "model": backbone.name,
            "family": "projector",
            "guide": guide.name,
            "guidance_scale": str(drawn.guidance_scale),
            "num_inference_steps": str(drawn.num_inference_steps),
            "negative_prompt": "",
            "concepts": "{}",
            "software": f"oneword {__version__}",
        }

    def said(self, prompt: str | None) -> str:
        if prompt is None:
            return fill(of_family(PHOTO_PROMPTS, self.backbone.family, "object"), TOKEN)
        if "{}" not in prompt:
            raise VariationsError(
                f"A prompt must contain {{}} in place of the picture, got {prompt!r} for "
                f"{self.name}."
            )
        return fill(prompt, TOKEN)

    def draw(
        self,
        picture: Image.Image,
        seeds: Sequence[int],
        prompt: str | None = None,
        on_picture: OnPicture | None = None,
    ) -> Pixels:
        side = self.guide.size
        seen = to_pixels(picture.convert("RGB"), Frame((side, side), "crop", "lanczos"))
        word = self.trained.word(projecting.features_of(self.guide, seen), TOKEN)
        return generate(
            self.backbone,
            [self.said(prompt)],
            seeds,
            concepts=[word],
            sampling=self.sampling,
            batch_size=self.batch_size,
            on_picture=on_picture,
        ).pixels


def load_projected(
    folder: Path,
    wishes: Wishes,
    *,
    backbone: Backbone | None = None,
    model: str | None = None,
) -> Projected:
    """A projector of a folder, with the model and the guide that it was trained for.

    Args:
        folder: A folder that ``oneword baseline projector`` wrote.
        wishes: How it draws.
        backbone: A loaded model; it is used if it is the projector's.
        model: The model to load otherwise; ``None``: the one that the projector names.

    Raises:
        ProjectorError: there is no projector, or it does not fit its model or guide.
        ModelError: the model cannot be loaded.
        GuideError: the guide cannot be loaded, or is the judge.
    """
    for name in ("noise_level", "revision"):
        if getattr(wishes, name) is not None:
            raise VariationsError(
                f"Cannot use {name} {getattr(wishes, name)} with the projector in {folder} "
                "because it is for published models; leave it out."
            )
    trained = projecting.load(folder, torch.device("cpu"))
    if backbone is None or not projecting.is_for(trained, backbone):
        config = ModelConfig(
            model=model or trained.base_model,
            dtype=wishes.dtype,
            device=wishes.device,
            safety_checker=wishes.safety_checker,
        )
        backbone = load_backbone(config)
    guide = Guide.load(trained.guide, backbone.name, device=backbone.device, judge=wishes.judge)
    projecting.check_fits(trained, backbone, guide, folder)
    return Projected(backbone, guide, trained, wishes)


# --- all of them


def load(name: str, wishes: Wishes, *, backbone: Backbone | None = None) -> Variations:
    """Load a model that varies pictures, by name.

    Args:
        name: One of ``VARIATIONS``, an embedded model, a projector's folder, or a hub id or folder
            of a pipeline of one of the classes.
        wishes: How it draws.
        backbone: A loaded model, which is used if it is a projector's.

    Raises:
        VariationsError: there is no such model, or it cannot draw with these settings.
        ModelError: it cannot be loaded.
        ProjectorError: a projector is damaged, or does not fit.
        GuideError: a projector's guide cannot be loaded, or is the judge.
    """
    if name in _NAMES:
        own = VARIATIONS[name]
        return _NAMES[name](own["source"], wishes, revision=own.get("revision"))
    if is_embedded(name):
        folder = weights.projector_folder(name)
        if not (folder / projecting.FILE).is_file():
            raise VariationsError(
                f"Cannot vary pictures with {name} because it has no projector; train one with "
                f"oneword baseline projector --model {name}, and pass its folder."
            )
        return load_projected(folder, wishes, backbone=backbone, model=name)
    if (Path(name) / projecting.FILE).is_file():
        return load_projected(Path(name), wishes, backbone=backbone)
    return _CLASSES[_class_of(name, wishes)](name, wishes)


def _class_of(name: str, wishes: Wishes) -> str:
    """The pipeline class of a folder or hub id, one of ours."""
    known = f"{', '.join(_NAMES)}, {', '.join(EMBEDDED)}"
    must = (
        f"A model that varies pictures must be {known}, a projector's folder, or a pipeline "
        f"({', '.join(_CLASSES)})"
    )
    index = Path(name) / "model_index.json"
    if index.is_file():
        found = read_json(index, {"_class_name": str}, error=VariationsError)["_class_name"]
    elif Path(name).exists() or name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise VariationsError(f"{must}, got {name}.")
    else:
        try:
            config: Any = diffusers.DiffusionPipeline.load_config(name, revision=wishes.revision)
            found = config.get("_class_name")
        except Exception as error:  # no network, no such model, or no permission
            raise VariationsError(f"{must}, got {name}: {reason_of(error)}") from error
    if found not in _CLASSES:
        raise VariationsError(f"{must}, got {name}, which is a {found}.")
    return found


def vary(
    model: Variations,
    pictures: Mapping[str, Image.Image],
    seeds: Sequence[int],
    *,
    prompt: str | None = None,
    on_picture: OnPicture | None = None,
) -> Drawing:
    """Vary each of some pictures with every seed.

    Args:
        model: The model.
        pictures: RGB pictures, by name.
        seeds: One variation of each picture for each seed.
        prompt: What the variations should show, with "{}" for the picture.
        on_picture: Called with the progress of drawing.

    Raises:
        VariationsError: the model does not read the prompt.
    """
    said, drawn = model.said(prompt), []
    total = len(pictures) * len(seeds)
    for first, picture in zip(range(0, total, len(seeds)), pictures.values(), strict=True):

        def report(done: float, _of: int, first: int = first) -> None:
            if on_picture is not None:
                on_picture(first + done, total)

        drawn.append(model.draw(picture, seeds, prompt, report))
    labels = [f"{name}: {said}" if said else name for name in pictures]
    return Drawing(
        pixels=torch.cat(drawn),
        prompts=(said,) * total,
        seeds=tuple(seeds) * len(pictures),
        settings=model.settings,
        facts=tuple(
            {"template": label, "picture": name}
            for label, name in zip(labels, pictures, strict=True)
            for _ in seeds
        ),
    )
