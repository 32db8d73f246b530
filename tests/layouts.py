"""Embedding files as other tools write them, from their documented keys, without our writers."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import torch
from PIL import Image, PngImagePlugin
from safetensors.torch import save_file
from torch import Tensor, nn


def rows(num: int = 2, dim: int = 768, seed: int = 0) -> Tensor:
    return torch.randn(num, dim, generator=torch.Generator().manual_seed(seed))


class _Encoder(json.JSONEncoder):
    def default(self, o):
        return {"TORCHTENSOR": o.detach().numpy().tolist()} if isinstance(o, Tensor) else o


def _a1111(param: object, name: str = "my-cat") -> dict:
    return {
        "string_to_token": {"*": 265},
        "string_to_param": {"*": param},
        "name": name,
        "step": 1200,
        "sd_checkpoint": "cc6cb27103",
        "sd_checkpoint_name": "v1-5-pruned-emaonly",
    }


def _png(path: Path, content: dict) -> None:
    info = PngImagePlugin.PngInfo()
    text = json.dumps(content, cls=_Encoder).encode()
    info.add_text("sd-ti-embedding", base64.b64encode(text).decode())
    Image.new("RGB", (64, 64)).save(path, pnginfo=info)


def _authors(path: Path, words: dict[str, Tensor]) -> None:
    parameters = nn.ParameterDict({word: nn.Parameter(t) for word, t in words.items()})
    content = {
        "string_to_token": {word: torch.tensor(265) for word in words},
        "string_to_param": parameters,
    }
    torch.save(content, path)


R, G, H, T = rows(), rows(2, 1280, 1), rows(2, 1024, 2), rows(2, 4096, 3)
LORA = {f"lora_unet_{i}.lora_up.weight": torch.zeros(4, 4) for i in range(3)}

LAYOUTS = {
    # name: (file name, writer, {word: {encoder: rows}})
    "authors": ("e.pt", lambda p: _authors(p, {"*": R}), {"e": {"clip_l": R}}),
    "authors merged": (
        "e.pt", lambda p: _authors(p, {"*": R, "@": R + 1}),
        {"e": {"clip_l": R}, "@": {"clip_l": R + 1}},
    ),
    "authors of the paper's model": (
        "e.pt", lambda p: _authors(p, {"S*": G}), {"S*": {"clip_g": G}}
    ),
    "diffusers bin, one dimension": (
        "learned_embeds.bin", lambda p: torch.save({"<toy>": R[0]}, p), {"<toy>": {"clip_l": R[:1]}}
    ),
    "diffusers bin, old container": (
        "learned_embeds.bin",
        lambda p: torch.save({"<toy>": R}, p, _use_new_zipfile_serialization=False),
        {"<toy>": {"clip_l": R}},
    ),
    "diffusers safetensors": (
        "x.safetensors", lambda p: save_file({"<toy>": H}, p, {"format": "pt"}),
        {"<toy>": {"clip_h": H}},
    ),
    "diffusers half": (
        "x.safetensors", lambda p: save_file({"<toy>": R.half()}, p),
        {"<toy>": {"clip_l": R.half().float()}},
    ),
    "diffusers pair": (
        "learned_embeds.safetensors",
        lambda p: (save_file({"<toy>": R}, p),
                   save_file({"<toy>": G}, p.with_name("learned_embeds_2.safetensors"))),
        {"<toy>": {"clip_l": R, "clip_g": G}},
    ),
    "several words": (
        "x.bin", lambda p: torch.save({"<a_v0>": H, "<a_v1>": H + 1}, p),
        {"<a_v0>": {"clip_h": H}, "<a_v1>": {"clip_h": H + 1}},
    ),
    "a1111 pt": ("file.pt", lambda p: torch.save(_a1111(R), p), {"my-cat": {"clip_l": R}}),
    "a1111 pt, a parameter": (
        "file.pt", lambda p: torch.save(_a1111(nn.Parameter(R), "my cat"), p),
        {"my-cat": {"clip_l": R}},
    ),
    "a1111 png": ("x.png", lambda p: _png(p, _a1111(R)), {"my-cat": {"clip_l": R}}),
    "kohya": ("cat.safetensors", lambda p: save_file({"emb_params": R}, p), {"cat": {"clip_l": R}}),
    "kohya pt": ("cat.pt", lambda p: torch.save({"emb_params": H}, p), {"cat": {"clip_h": H}}),
    "kohya with its name": (
        "x.safetensors",
        lambda p: save_file({"emb_params": R}, p, {"modelspec.trigger_phrase": "sks cat"}),
        {"sks-cat": {"clip_l": R}},
    ),
    "sdxl": (
        "cat.safetensors", lambda p: save_file({"clip_l": R, "clip_g": G}, p),
        {"cat": {"clip_l": R, "clip_g": G}},
    ),
    "flux of diffusers": (
        "x_emb.safetensors", lambda p: save_file({"clip_l": R, "t5": T}, p),
        {"x_emb": {"clip_l": R, "t5xxl": T}},
    ),
    "sd3 of comfy": (
        "x.safetensors", lambda p: save_file({"clip_l": R, "clip_g": G, "t5xxl": T}, p),
        {"x": {"clip_l": R, "clip_g": G, "t5xxl": T}},
    ),
    "onetrainer": (
        "x.safetensors", lambda p: save_file({"emp_params": R, "emp_params_out": R + 1}, p),
        {"x": {"clip_l": R}},
    ),
    "onetrainer xl": (
        "x.safetensors",
        lambda p: save_file({"clip_l": R, "clip_g": G, "clip_l_out": R + 1}, p),
        {"x": {"clip_l": R, "clip_g": G}},
    ),
    "ai-toolkit": (
        "x.safetensors",
        lambda p: save_file({"emb_params": R}, p, {"name": "toy", "step": "500"}),
        {"toy": {"clip_l": R}},
    ),
    "cog": (
        "embeddings.pti", lambda p: save_file({"text_encoders_0": R, "text_encoders_1": G}, p),
        {"run": {"clip_l": R, "clip_g": G}},
    ),
    "lora bundle": (
        "x.safetensors", lambda p: save_file(LORA | {"bundle_emb.toy.string_to_param.*": R}, p),
        {"toy": {"clip_l": R}},
    ),
    "lora bundle xl": (
        "x.safetensors",
        lambda p: save_file(LORA | {"bundle_emb.a.clip_l": R, "bundle_emb.a.clip_g": G,
                                    "bundle_emb.b.clip_l": R + 1}, p),
        {"a": {"clip_l": R, "clip_g": G}, "b": {"clip_l": R + 1}},
    ),
    "pivotal tuning": (
        "x.safetensors",
        lambda p: save_file(LORA | {"<s1>": R[0], "<s2>": R[1]}, p,
                            {"<s1>": "<embed>", "<s2>": "<embed>", "rank": "4"}),
        {"<s1>": {"clip_l": R[:1]}, "<s2>": {"clip_l": R[1:]}},
    ),
}  # fmt: skip


def write(name: str, folder: Path) -> Path:
    """Write a layout into ``folder/run`` and return its file."""
    file_name, writer, _ = LAYOUTS[name]
    path = folder / "run" / file_name
    path.parent.mkdir(exist_ok=True)
    writer(path)
    return path


def in_memory(name: str, folder: Path) -> bytes:
    """The bytes of a layout's file."""
    return io.BytesIO(write(name, folder).read_bytes()).getvalue()
