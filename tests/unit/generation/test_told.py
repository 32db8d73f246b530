"""What a picture says to other tools, read as they read it."""

from __future__ import annotations

import json
import re

import pytest
import torch
from PIL import Image

import png_texts
from oneword.concepts.concept import Concept
from oneword.config.drawing import SamplingConfig
from oneword.config.model import ModelConfig
from oneword.generation.generate import generate, save_drawing
from oneword.generation.told import parameters, spellings, workflow
from oneword.images import png_bytes
from oneword.models.emphasis import parts_of
from oneword.models.loading import load_backbone


SETTINGS = {
    "model": "/models/v1-5-pruned.safetensors",
    "family": "stable_diffusion",
    "solver": "DPM++ 2M Karras",
    "emphasis": "numbers",
    "guidance_scale": "7.5",
    "num_inference_steps": "20",
    "negative_prompt": "",
    "height": "512",
    "width": "768",
}


def word(token="<my-cat>", encoder="clip_l", width=768, **fields):
    rows = {encoder: torch.ones(2, width)}
    return Concept(placeholder_token=token, rows=rows, **fields)


def read_a1111(text):
    """As A1111 reads it (modules/infotext_utils.py, parse_generation_parameters)."""
    *lines, last = text.strip().split("\n")
    pairs = re.findall(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)', last)
    assert len(pairs) >= 3
    found = {k: json.loads(v) if v.startswith('"') else v.strip() for k, v in pairs}
    prompt, negative, into = [], [], None
    for line in lines:
        if line.startswith("Negative prompt:"):
            into, line = negative, line.removeprefix("Negative prompt:").strip()
        (prompt if into is None else into).append(line)
    return found | {"prompt": "\n".join(prompt), "negative": "\n".join(negative)}


def test_a1111_reads_what_made_the_picture():
    settings = SETTINGS | {"negative_prompt": "bad (hand:1.2)", "clip_skip": "1"}
    text = parameters("a <my-cat> (red:1.3) [so] (nice)", 7, settings, spellings([word()]))
    found = read_a1111(text)
    assert found["prompt"] == r"a my-cat (red:1.3) \[so\] \(nice\)"
    assert [(p.text, p.weight) for p in parts_of(found["prompt"], "a1111")] == [
        ("a my-cat ", 1), ("red", 1.3), (" [so] (nice)", 1)
    ]  # fmt: skip
    assert found["negative"] == "bad (hand:1.2)"
    expected = {"Steps": "20", "Sampler": "DPM++ 2M", "Schedule type": "Karras", "Seed": "7",
                "CFG scale": "7.5", "Size": "768x512", "Model": "v1-5-pruned.safetensors",
                "Clip skip": "2", "RNG": "CPU"}  # fmt: skip
    assert expected.items() <= found.items()


def test_odd_values_and_lines_do_not_break_it():
    settings = SETTINGS | {"model": 'models/a, "b": c', "solver": "Something Else"}
    found = read_a1111(parameters("one\nNegative prompt: two", -3, settings, {}))
    assert found["prompt"] == "one Negative prompt: two"
    assert found["negative"] == ""
    assert (found["Model"], found["Sampler"], found["Seed"]) == (
        'a, "b": c', "Something Else", "-3"
    )  # fmt: skip


NODES = {
    # comfyanonymous/ComfyUI, nodes.py: inputs that are linked, widgets in their order, outputs
    "CheckpointLoaderSimple": ({}, (str,), ("MODEL", "CLIP", "VAE")),
    "CLIPSetLastLayer": ({"clip": "CLIP"}, (int,), ("CLIP",)),
    "CLIPTextEncode": ({"clip": "CLIP"}, (str,), ("CONDITIONING",)),
    "EmptyLatentImage": ({}, (int, int, int), ("LATENT",)),
    "KSampler": (
        {"model": "MODEL", "positive": "CONDITIONING", "negative": "CONDITIONING",
         "latent_image": "LATENT"},
        # the page puts "control_after_generate" behind a seed
        (int, str, int, float, str, str, float),
        ("LATENT",),
    ),
    "VAEDecode": ({"samples": "LATENT", "vae": "VAE"}, (), ("IMAGE",)),
    "SaveImage": ({"images": "IMAGE"}, (str,), ()),
}  # fmt: skip
SAMPLERS = {"euler", "euler_ancestral", "heun", "dpm_2", "dpm_2_ancestral", "lms", "dpmpp_2m",
            "dpmpp_2m_sde", "ddpm", "lcm", "ddim", "uni_pc", "deis", "sa_solver"}  # fmt: skip
SCHEDULES = {"normal", "karras", "exponential", "sgm_uniform", "ddim_uniform", "beta"}
"""Those of comfy/samplers.py that we name."""


def checked(text):
    """A workflow whose every node and link is as ComfyUI defines it; widgets by type of node."""
    graph = json.loads(text)
    assert graph["version"] == 0.4
    nodes = {node["id"]: node for node in graph["nodes"]}
    assert graph["last_node_id"] == max(nodes)
    assert graph["last_link_id"] == len(graph["links"])
    links = {link[0]: link[1:] for link in graph["links"]}
    for number, (source, slot, target, place, kind) in links.items():
        assert nodes[source]["outputs"][slot]["type"] == kind
        assert number in nodes[source]["outputs"][slot]["links"]
        assert nodes[target]["inputs"][place] | {"link": number} == nodes[target]["inputs"][place]
        assert nodes[target]["inputs"][place]["type"] == kind
    for node in nodes.values():
        inputs, widgets, outputs = NODES[node["type"]]
        assert {i["name"]: i["type"] for i in node["inputs"]} == inputs
        assert all(i["link"] in links for i in node["inputs"])
        assert tuple(o["type"] for o in node["outputs"]) == outputs
        assert tuple(map(type, node["widgets_values"])) == widgets
    (sampler,) = [n["widgets_values"] for n in nodes.values() if n["type"] == "KSampler"]
    assert 0 <= sampler[0] < 2**64
    assert sampler[4] in SAMPLERS
    assert sampler[5] in SCHEDULES
    return [(n["type"], n["widgets_values"]) for n in nodes.values()]


def test_comfyui_loads_a_graph_of_its_own_nodes():
    settings = SETTINGS | {"negative_prompt": "bad [hand]"}
    text = workflow("a <my-cat> (red:1.3) (nice)", 7, settings, spellings([word()]))
    assert text.isascii()
    found = checked(text)
    assert ("CheckpointLoaderSimple", ["v1-5-pruned.safetensors"]) in found
    assert ("CLIPTextEncode", [r"a embedding:my-cat (red:1.3) \(nice\)"]) in found
    assert ("CLIPTextEncode", ["bad [hand]"]) in found
    assert ("EmptyLatentImage", [768, 512, 1]) in found
    assert ("KSampler", [7, "fixed", 20, 7.5, "dpmpp_2m", "karras", 1.0]) in found
    assert not any(kind == "CLIPSetLastLayer" for kind, _ in found)


@pytest.mark.parametrize(
    ("more", "node"),
    [
        ({"clip_skip": "1"}, ("CLIPSetLastLayer", [-2])),
        ({"clip_skip": "1", "family": "sdxl"}, ("CLIPSetLastLayer", [-3])),
        ({"model": "owner/name"}, ("CheckpointLoaderSimple", ["name.safetensors"])),
        ({"solver": "DDIM"}, ("KSampler", [0, "fixed", 20, 7.5, "ddim", "ddim_uniform", 1.0])),
        ({"solver": "Euler a"},
         ("KSampler", [0, "fixed", 20, 7.5, "euler_ancestral", "normal", 1.0])),
    ],
)  # fmt: skip
def test_settings_reach_their_nodes(more, node):
    assert node in checked(workflow("a cat", 0, SETTINGS | more, {"comfyui": {}}))


@pytest.mark.parametrize(
    ("more", "concepts"),
    [
        ({"family": "microworld"}, []),
        ({"family": "flux"}, []),
        ({"strength": "0.5"}, []),
        ({"background": "paste"}, []),
        ({"invert": "a cat"}, []),
        ({"solver": "TCD"}, []),
        ({}, [word(kind="xti", tensors={"x": torch.ones(1)})]),
        ({}, [word(deltas={"unet.a.diff": torch.ones(1, 1)})]),
    ],
)
def test_there_is_no_graph_where_comfyui_would_draw_something_else(more, concepts):
    assert workflow("a cat", 0, SETTINGS | more, spellings(concepts)) == ""


def test_a_seed_below_zero_is_the_one_that_torch_takes():
    nodes = checked(workflow("a cat", -1, SETTINGS, {"comfyui": {}}))
    (seed,) = [w[0] for kind, w in nodes if kind == "KSampler"]
    draws = [torch.randn(3, generator=torch.Generator().manual_seed(s)) for s in (-1, seed)]
    assert torch.equal(*draws)


def test_chunks_are_of_the_kind_that_each_tool_reads(tmp_path):
    image = Image.new("RGB", (16, 16))
    data = png_bytes(image, {"workflow": "{}", "parameters": "ä 猫"})
    assert b"tEXtworkflow\0{}" in data  # ComfyUI's page does not look into other kinds
    assert b"iTXtparameters\0" in data
    (tmp_path / "a.png").write_bytes(data)
    assert png_texts.read(tmp_path / "a.png") == {"workflow": "{}", "parameters": "ä 猫"}


def test_pictures_of_a_stable_diffusion_carry_both_and_all_that_made_them(tiny_folder, tmp_path):
    config = ModelConfig(model=str(tiny_folder), device="cpu", clip_skip=0)
    backbone = load_backbone(config)
    ((name, vocabulary),) = backbone.vocabularies.items()
    concept = Concept(placeholder_token="<my-cat>", rows={name: vocabulary.rows_of("cat")})
    sampling = SamplingConfig(num_inference_steps=2, sampler="euler a", negative_prompt="a dog")
    drawing = generate(backbone, ["a <my-cat>"], [5], concepts=[concept], sampling=sampling)
    file, _ = save_drawing(drawing, tmp_path)
    found = png_texts.read(file)
    side = str(backbone.resolution)
    expected = {"prompt": "a <my-cat>", "seed": "5", "sampler": "Euler a", "solver": "Euler a",
                "negative_prompt": "a dog", "emphasis": "numbers", "height": side, "width": side,
                "family": "stable_diffusion", "clip_skip": "0", "pool": "eos",
                "dtype": "float32", "num_inference_steps": "2"}  # fmt: skip
    assert expected.items() <= found.items()
    assert json.loads(found["concepts"]) == {"<my-cat>": concept.sha256()}
    assert read_a1111(found["parameters"])["Sampler"] == "Euler a"
    assert read_a1111(found["parameters"])["prompt"] == "a my-cat"
    nodes = checked(found["workflow"])
    assert ("CLIPTextEncode", ["a embedding:my-cat"]) in nodes
    # and by them alone it is drawn again
    again = generate(
        backbone, [found["prompt"]], [int(found["seed"])], concepts=[concept],
        sampling=SamplingConfig(
            num_inference_steps=int(found["num_inference_steps"]), sampler=found["sampler"],
            guidance_scale=float(found["guidance_scale"]), emphasis=found["emphasis"],
            negative_prompt=found["negative_prompt"], height=int(found["height"]),
            width=int(found["width"]),
        ),
    )  # fmt: skip
    assert torch.equal(again.pixels, drawing.pixels)
