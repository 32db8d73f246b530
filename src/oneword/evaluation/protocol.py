"""The protocol of scores, compared with the paper's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from oneword.config.drawing import SamplingConfig
from oneword.config.presets import PROTOCOLS
from oneword.config.scoring import ResolvedEvaluateConfig
from oneword.evaluation.features import DEFAULT_JUDGE
from oneword.evaluation.harness import Protocol, protocol_for


_IN_WORDS = {
    "num_images_per_prompt": "{} pictures per prompt",
    "num_inference_steps": "{} steps",
    "sampler": "sampler {}",
    "guidance_scale": "guidance {:g}",
    "judge": "judge {}",
    "photo_prompt": "image similarity on “{}”",
    "edit_prompts": "text similarity on {}",
    "training_pictures": "training pictures {}",
    "negative_prompt": "negative prompt “{}”",
}


def facts(
    config: ResolvedEvaluateConfig,
    protocol: Protocol,
    sampling: SamplingConfig,
    judge: str,
    learnable_property: str,
) -> dict[str, Any]:
    """Everything that decides scores, as JSON values, and what of it differs from the paper.

    Args:
        config: How a word is evaluated.
        protocol: What is drawn.
        sampling: How it is drawn; no field is None.
        judge: The CLIP that scores.
        learnable_property: "object" or "style".

    Source:
        Gal et al. 2022, arXiv:2208.01618, section 5.1; ViT-B/32 and guidance 5 come from their
        code.
    """
    paper = PROTOCOLS["paper"]
    theirs = protocol_for("*", preset="paper", learnable_property=learnable_property)
    published = {
        "num_images_per_prompt": paper["num_images_per_prompt"],
        "num_inference_steps": paper["sampling"]["num_inference_steps"],
        "sampler": "paper",
        "guidance_scale": paper["sampling"]["guidance_scale"],
        "judge": DEFAULT_JUDGE,
        "photo_prompt": theirs.photo,
        "edit_prompts": list(theirs.edits),
        "training_pictures": _reading(paper["fit"], paper["interpolation"]),
        "negative_prompt": "",
    }
    ours = {
        "num_images_per_prompt": len(protocol.seeds),
        "num_inference_steps": sampling.num_inference_steps,
        "sampler": sampling.sampler,
        "guidance_scale": sampling.guidance_scale,
        "judge": judge,
        "photo_prompt": protocol.photo,
        "edit_prompts": list(protocol.edits),
        "training_pictures": _reading(config.fit, config.interpolation),
        "negative_prompt": sampling.negative_prompt,
    }
    differs = {name: published[name] for name in ours if ours[name] != published[name]}
    return {"preset": config.preset, **ours, "paper_has": differs}


def _reading(fit: str, interpolation: str) -> str:
    return f"{'cropped' if fit == 'crop' else 'squashed'} to squares ({interpolation})"


def sentence(found: Mapping[str, Any]) -> str:
    """The same as a sentence."""
    said = ", ".join(_said(name, found[name]) for name in _IN_WORDS if found[name] != "")
    differs = found["paper_has"]
    if not differs:
        return f"Protocol: the paper's (Gal et al. 2022, section 5.1): {said}."
    theirs = ", ".join(_said(name, value) for name, value in differs.items())
    takes = "" if found["preset"] == "paper" else "; to use it, pass --preset paper"
    return f"Protocol: {said}. It is not the paper's, which has {theirs or 'none'}{takes}."


def _said(name: str, value: Any) -> str:
    if name == "edit_prompts":
        value = _quoted(value)
    elif value == "":
        return "no negative prompt"
    return _IN_WORDS[name].format(value)


def _quoted(prompts: Sequence[str]) -> str:
    return ", ".join(f"“{prompt}”" for prompt in prompts)
