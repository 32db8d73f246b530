"""Entries of a picture's file for other tools: A1111's parameters, and a workflow for ComfyUI.

Both are what those tools need to draw the same picture. Their samplers and compute types differ
from ours, so a picture drawn there is similar and not the same to the bit.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from oneword._version import __version__
from oneword.concepts import formats
from oneword.concepts.concept import Concept
from oneword.concepts.formats import Layout
from oneword.concepts.formats.names import file_name
from oneword.errors import ConfigError
from oneword.models import samplers
from oneword.models.emphasis import spelled
from oneword.prompts import replaced


Spellings = Mapping[str, Mapping[str, str]]
"""What to type, by tool and then by placeholder; tools that cannot use all words are left out."""

_TOOLS: tuple[Layout, ...] = ("a1111", "comfyui")
_IN_COMFYUI = ("stable_diffusion", "sdxl")
"""Families whose models a single node of ComfyUI loads."""
_FROM_A_PICTURE = {"strength", "invert", "background"}
"""Settings of drawings that start from a picture, which text entries cannot store."""


def spellings(concepts: Sequence[Concept]) -> Spellings:
    """How to write words in other tools, by the file names of ``oneword concept convert``."""
    words = [word for concept in concepts for word in (concept, *concept.companions())]
    found: dict[str, dict[str, str]] = {}
    for tool in _TOOLS:
        try:
            found[tool] = {
                word.placeholder_token: formats.to_type(word, path, tool)
                for word in words
                for path in formats.files_of(
                    word, Path(file_name(word.placeholder_token) + formats.WRITERS[tool][0]), tool
                )
            }
        except formats.FormatError:
            continue
    return found


def parameters(prompt: str, seed: int, settings: Mapping[str, str], words: Spellings) -> str:
    """The text from which A1111, and tools that read its pictures, take a picture's settings.

    Args:
        prompt: The picture's prompt.
        seed: Its seed.
        settings: Settings that all pictures of a drawing share.
        words: How its words are written in other tools.

    Source:
        AUTOMATIC1111/stable-diffusion-webui 1.10, modules/processing.py, ``create_infotext``, and
        modules/infotext_utils.py, which reads it.
    """

    def written(text: str) -> str:
        text = replaced(text, words.get("a1111", {}))
        return " ".join(spelled(text, settings.get("emphasis", "none")).split("\n"))

    sampler = _sampler(settings)
    fields = {
        "Steps": settings["num_inference_steps"],
        "Sampler": sampler.a1111 or sampler.name,
        "Schedule type": sampler.schedule,
        "CFG scale": _number(settings["guidance_scale"]),
        "Seed": str(seed),
        "Size": f"{settings['width']}x{settings['height']}",
        "Model": Path(settings["model"]).name,
        "Denoising strength": settings.get("strength", ""),
        # ours is the number of skipped layers, A1111's the position from the end that is read
        "Clip skip": str(int(settings["clip_skip"]) + 1) if settings.get("clip_skip") else "",
        "RNG": "CPU",
        "Version": f"oneword {__version__}",
    }
    lines = [written(prompt)]
    if settings["negative_prompt"]:
        lines.append(f"Negative prompt: {written(settings['negative_prompt'])}")
    lines.append(", ".join(f"{name}: {_quoted(value)}" for name, value in fields.items() if value))
    return "\n".join(lines)


def _sampler(settings: Mapping[str, str]) -> samplers.Sampler:
    name = settings.get("solver", "")
    try:
        return samplers.find(name)
    except ConfigError:
        return samplers.Sampler(name=name, kind="")


def _number(text: str) -> str:
    return f"{float(text):g}"


def _quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=False) if {*value} & {*',:\n"'} else value


# --- ComfyUI


def workflow(prompt: str, seed: int, settings: Mapping[str, str], words: Spellings) -> str:
    """A graph of ComfyUI's own nodes that draws the picture, as JSON; empty if there is none.

    ComfyUI loads it when the picture is dropped on its page. The words are files in its
    ``models/embeddings``, with the names of ``oneword concept convert --to comfyui``. The
    checkpoint has its file name here; if it has another name there, it must be selected.

    Args:
        prompt: The picture's prompt.
        seed: Its seed.
        settings: Settings that all pictures of a drawing share.
        words: How its words are written in other tools.

    Source:
        comfyanonymous/ComfyUI, nodes.py for the nodes; the graph is litegraph's, version 0.4.
    """
    sampler = _sampler(settings)
    draws = settings.get("family") in _IN_COMFYUI and "comfyui" in words and sampler.comfyui
    if not draws or not _FROM_A_PICTURE.isdisjoint(settings):
        return ""

    def written(text: str) -> str:
        return spelled(
            replaced(text, words["comfyui"]), settings.get("emphasis", "none"), squares=False
        )

    model = Path(settings["model"])
    file = model.name if model.suffix in (".safetensors", ".ckpt") else f"{model.name}.safetensors"
    schedule = (
        "ddim_uniform"
        if sampler.comfyui == "ddim"
        else samplers.COMFYUI_SCHEDULES[sampler.schedule]
    )
    steps, scale = int(settings["num_inference_steps"]), float(settings["guidance_scale"])
    graph = _Graph()
    checkpoint = graph.add("CheckpointLoaderSimple", [file], {}, ("MODEL", "CLIP", "VAE"))
    clip = (checkpoint, 1)
    if settings.get("clip_skip"):
        # XL reads the last layer but one if nothing is skipped
        skipped = int(settings["clip_skip"]) + (2 if settings["family"] == "sdxl" else 1)
        clip = (graph.add("CLIPSetLastLayer", [-skipped], {"clip": clip}, ("CLIP",)), 0)
    positive, negative = (
        graph.add("CLIPTextEncode", [written(text)], {"clip": clip}, ("CONDITIONING",))
        for text in (prompt, settings["negative_prompt"])
    )
    size = [int(settings["width"]), int(settings["height"]), 1]
    latent = graph.add("EmptyLatentImage", size, {}, ("LATENT",))
    drawn = graph.add(
        "KSampler",
        [seed % 2**64, "fixed", steps, scale, sampler.comfyui, schedule, 1.0],
        {
            "model": (checkpoint, 0),
            "positive": (positive, 0),
            "negative": (negative, 0),
            "latent_image": (latent, 0),
        },
        ("LATENT",),
    )
    decoded = graph.add(
        "VAEDecode", [], {"samples": (drawn, 0), "vae": (checkpoint, 2)}, ("IMAGE",)
    )
    graph.add("SaveImage", ["oneword"], {"images": (decoded, 0)}, ())
    return graph.dumped()


class _Graph:
    """A graph as ComfyUI's page stores it."""

    def __init__(self) -> None:
        self.nodes: list[dict[str, Any]] = []
        self.links: list[list[Any]] = []

    def add(
        self,
        kind: str,
        widgets: Sequence[Any],
        inputs: Mapping[str, tuple[int, int]],
        outputs: Sequence[str],
    ) -> int:
        """Add a node; ``inputs`` names the node and the output that each comes from."""
        number = len(self.nodes) + 1
        taken = []
        for slot, (name, (source, output)) in enumerate(inputs.items()):
            link = len(self.links) + 1
            given = self.nodes[source - 1]["outputs"][output]
            given["links"].append(link)
            self.links.append([link, source, output, number, slot, given["type"]])
            taken.append({"name": name, "type": given["type"], "link": link})
        self.nodes.append(
            {
                "id": number,
                "type": kind,
                "pos": [40 + 360 * ((number - 1) // 2), 80 + 320 * ((number - 1) % 2)],
                "size": [320, 260],
                "flags": {},
                "order": number - 1,
                "mode": 0,
                "inputs": taken,
                "outputs": [
                    {"name": name, "type": name, "links": [], "slot_index": slot}
                    for slot, name in enumerate(outputs)
                ],
                "properties": {"Node name for S&R": kind},
                "widgets_values": list(widgets),
            }
        )
        return number

    def dumped(self) -> str:
        """The graph as JSON in plain ASCII, which every reader of PNG chunks accepts."""
        return json.dumps(
            {
                "last_node_id": len(self.nodes),
                "last_link_id": len(self.links),
                "nodes": self.nodes,
                "links": self.links,
                "groups": [],
                "config": {},
                "extra": {},
                "version": 0.4,
            }
        )
