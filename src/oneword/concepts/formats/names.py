"""Names in other tools' files: which text encoder a width means, and what the word is called."""

from __future__ import annotations

from pathlib import Path


_WIDTHS = {768: "clip_l", 1024: "clip_h", 1280: "clip_g", 2304: "gemma", 4096: "t5xxl"}
_WIDTHS |= {2560: "qwen3_4b", 3584: "qwen25_7b", 5120: "mistral3_24b"}
ALIASES = {
    "clip_l": "clip_l",
    "clip_g": "clip_g",
    "clip_h": "clip_h",
    "t5": "t5xxl",
    "t5xxl": "t5xxl",
    "llama": "llama",
    "gemma2_2b": "gemma",
    "gemma": "gemma",
    "qwen25": "qwen25",
    "qwen25_7b": "qwen25_7b",
    "qwen3": "qwen3",
    "qwen3_2b": "qwen3_2b",
    "qwen3vl": "qwen3vl",
    "qwen3vl_4b": "qwen3vl_4b",
    "qwen3vl_8b": "qwen3vl_8b",
    "qwen3_4b": "qwen3_4b",
    "qwen3_8b": "qwen3_8b",
    "mistral3": "mistral3",
    "mistral3_24b": "mistral3_24b",
    "ministral3": "ministral3",
    "ministral3_3b": "ministral3_3b",
    "pile_t5xl": "pile_t5xl",
    "chinese_roberta": "chinese_roberta",
    "mt5xl": "mt5xl",
    "flan_ul2": "flan_ul2",
    "t5gemma": "t5gemma",
    "t5gemma_2b": "t5gemma_2b",
    "glm4": "glm4",
    "glm4_9b": "glm4_9b",
    "chatglm3": "chatglm3",
    "chatglm3_6b": "chatglm3_6b",
    "text_encoders_0": "clip_l",
    "text_encoders_1": "clip_g",
}
"""Keys of files that name the text encoder, and our name of it."""
NAMED_ALONE = {"t5xxl", "gemma", "qwen25", "qwen25_7b", "qwen3", "qwen3_4b", "qwen3_8b"}
NAMED_ALONE |= {"mistral3", "mistral3_24b", "ministral3", "ministral3_3b"}
NAMED_ALONE |= {"pile_t5xl", "glm4", "glm4_9b", "qwen3_2b", "qwen3vl", "qwen3vl_4b"}
NAMED_ALONE |= {"qwen3vl_8b", "t5gemma", "t5gemma_2b", "flan_ul2", "chatglm3", "chatglm3_6b"}
"""Encoders that files name even where they are the only one: ComfyUI looks for these keys."""
_SAY_NOTHING = {"learned_embeds", "embeddings", "embedding", "emb_params", "emp_params", "*", ""}


def encoder_of_width(dim: int, *, second: bool = False) -> str:
    """Our name of the text encoder whose rows are so wide, where the file names none.

    1280 is OpenCLIP-bigG or the paper's BERT; a model with one encoder takes either.
    """
    return _WIDTHS.get(dim, "clip_2" if second else "clip")


def family_of(rows: dict[str, int]) -> str:
    """The family that encoders of such widths belong to, in words."""
    names = set(rows)
    if names >= {"clip_l", "clip_g", "llama"}:
        return "HiDream"
    if names >= {"clip_l", "clip_g"}:
        return "Stable Diffusion 3" if "t5xxl" in names else "Stable Diffusion XL"
    if names >= {"clip_l", "t5xxl"}:
        return "Flux"
    if names >= {"clip_l", "qwen25_7b"}:
        return "Kandinsky 5"
    if names == {"chinese_roberta", "mt5xl"}:
        return "Hunyuan-DiT"
    if rows == {"t5xxl": 1024}:
        return "Cosmos 2"
    if names == {"chatglm3_6b"}:
        return "Kolors"
    if names == {"qwen3_8b"}:
        return "a Qwen3 encoder (Flux.2 klein 9B)"
    return {
        768: "Stable Diffusion 1 (or one encoder of XL, 3 or Flux)",
        1024: "Stable Diffusion 2",
        1280: "the paper's latent diffusion model, or half of a Stable Diffusion XL pair",
        4096: "a T5 encoder alone (PixArt, Chroma), or a Llama",
        2304: "a Gemma encoder (Sana, Lumina 2)",
        2560: "a Qwen3 encoder (Z-Image, Flux.2 klein)",
        3072: "a Ministral encoder (ERNIE-Image)",
        3584: "a Qwen2.5-VL encoder (Qwen-Image)",
        5120: "a Mistral encoder (Flux.2 dev)",
    }.get(next(iter(rows.values())), "unknown")


def token_of(name: object, path: Path) -> str:
    """A word without spaces from a name in a file, or else from the file's own name."""
    word = str(name).strip() if isinstance(name, str) else ""
    if word.lower() in _SAY_NOTHING:
        stem = path.stem if path.stem.lower() not in _SAY_NOTHING else path.parent.name
        word = stem or word
    return "-".join(word.split()) or "S*"
