"""The paper's model from the file that its authors published: ``model.ckpt`` of txt2img-1p4B.

Rombach et al. 2021, arXiv:2112.10752. Names of tensors and settings are those of their code; sizes
are read from the tensors. UNet and autoencoder have the names of Stable Diffusion's files, which
diffusers knows; those of the BERT that was trained along are here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, LDMTextToImagePipeline, UNet2DConditionModel
from diffusers.loaders import single_file_utils
from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion import (
    LDMBertConfig,
    LDMBertModel,
)
from torch import Tensor, nn
from transformers import BertTokenizer

from oneword.models import single_file


VOCABULARY = "google-bert/bert-base-uncased"
"""The tokenizer that the model was trained with; a ``vocab.txt`` next to the file is preferred."""
_UNET, _VAE, _BERT = "model.diffusion_model.", "first_stage_model.", "cond_stage_model.transformer."
TOLD_BY = _BERT + "token_emb.weight"
"""A tensor that tells this layout from every other."""
_HEADS = 8  # of every attention, which no size tells
_SCALING_FACTOR = 0.18215
_SCHEDULE: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}
_NOT_WEIGHTS = re.compile(
    r"betas|lvlb_weights|logvar|scale_factor|model_ema\.(decay|num_updates)|posterior_.*|"
    r"(.*_)?alphas_cumprod(_prev)?|first_stage_model\.loss\..*"
)
"""Tensors in the authors' training files that are not weights."""
_BERT_NAMES = (
    (r"token_emb\.", "model.embed_tokens."),
    (r"pos_emb\.emb\.", "model.embed_positions."),
    (r"norm\.", "model.layer_norm."),
    (r"to_logits\.", "to_logits."),
)
_ATTENTION = {
    "0": "self_attn_layer_norm", "1.to_q": "self_attn.q_proj", "1.to_k": "self_attn.k_proj",
    "1.to_v": "self_attn.v_proj", "1.to_out": "self_attn.out_proj",
}  # fmt: skip
_FEED_FORWARD = {"0": "final_layer_norm", "1.net.0.0": "fc1", "1.net.2": "fc2"}


class PublishedLDM(LDMTextToImagePipeline):
    """The pipeline of the paper's model, which diffusers reads from folders alone."""

    @classmethod
    def from_single_file(
        cls, source: str, *, dtype: torch.dtype = torch.float32, config: str | None = None
    ) -> LDMTextToImagePipeline:
        """Read a checkpoint.

        Args:
            source: The file.
            dtype: Of the weights.
            config: Folder or hub id of a pipeline, or of a BERT, whose tokenizer is taken.

        Raises:
            ValueError: a tensor is missing, is one too many or has another size, or the file's
                schedule is not the published one.
        """
        checkpoint = single_file.read(source)
        unet, vae, bert = parts(checkpoint)
        for part in (unet, vae, bert):
            nn.Module.to(part, dtype)
        scheduler = DDIMScheduler(**_SCHEDULE)
        _check_schedule(checkpoint, scheduler)
        return LDMTextToImagePipeline(
            vqvae=vae,
            bert=bert,
            tokenizer=_tokenizer(Path(source), config, bert.config.vocab_size),
            unet=unet,
            scheduler=scheduler,
        )


def parts(
    checkpoint: Mapping[str, Tensor],
) -> tuple[UNet2DConditionModel, AutoencoderKL, LDMBertModel]:
    """The three networks of a checkpoint, every tensor of it in its place.

    Raises:
        ValueError: a tensor is missing, is one too many or has another size.
    """
    sizes = {name: tuple(value.shape) for name, value in checkpoint.items()}
    rest = [
        name
        for name in sizes
        if not name.startswith((_UNET, _VAE, _BERT)) and not _NOT_WEIGHTS.fullmatch(name)
    ]
    if rest:
        raise ValueError(f"it contains tensors of something else, such as {', '.join(rest[:3])}")
    weights = {n: v for n, v in checkpoint.items() if not _NOT_WEIGHTS.fullmatch(n)}
    try:
        with torch.device("meta"):
            unet = UNet2DConditionModel(**_unet_settings(sizes))
            vae = AutoencoderKL(**_vae_settings(sizes))
            bert = LDMBertModel(LDMBertConfig(**_bert_settings(sizes)))
    except KeyError as error:
        raise ValueError(f"it lacks the tensor {error.args[0]}") from error
    single_file.fill(
        unet, single_file_utils.convert_ldm_unet_checkpoint(dict(weights), unet.config)
    )
    single_file.fill(vae, single_file_utils.convert_ldm_vae_checkpoint(dict(weights), vae.config))
    single_file.fill(bert, {_in_bert(n): v for n, v in weights.items() if n.startswith(_BERT)})
    return unet, vae, bert


def _in_bert(name: str) -> str:
    """Name in diffusers' BERT of a tensor of the authors'."""
    own = name.removeprefix(_BERT)
    found = re.match(r"attn_layers\.layers\.(\d+)\.(.*)\.(weight|bias)", own)
    if found is not None:
        place, kind, end = int(found[1]), found[2], found[3]
        names = _FEED_FORWARD if place % 2 else _ATTENTION
        return f"model.layers.{place // 2}.{names.get(kind, kind)}.{end}"
    for theirs, ours in _BERT_NAMES:
        if re.match(theirs, own):
            return re.sub(theirs, ours, own, count=1)
    return own


def _unet_settings(sizes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    block = _UNET + "input_blocks.{}.{}"
    ends = [i for i in range(len(sizes)) if block.format(i, "0.op.weight") in sizes]
    if not ends:
        raise KeyError(block.format(3, "0.op.weight"))
    per_level = ends[0]  # layers, and what halves the size after them
    firsts = range(1, ends[-1] + 2, per_level)
    channels = [sizes[block.format(i, "0.out_layers.3.weight")][0] for i in firsts]
    attends = [block.format(i, "1.norm.weight") in sizes for i in firsts]
    first = firsts[attends.index(True)] if any(attends) else 1
    text = sizes[block.format(first, "1.transformer_blocks.0.attn2.to_k.weight")][1]
    down = ["CrossAttnDownBlock2D" if yes else "DownBlock2D" for yes in attends]
    up = ["CrossAttnUpBlock2D" if yes else "UpBlock2D" for yes in reversed(attends)]
    return {
        "sample_size": 32,
        "in_channels": sizes[block.format(0, "0.weight")][1],
        "out_channels": sizes[_UNET + "out.2.weight"][0],
        "down_block_types": down,
        "up_block_types": up,
        "block_out_channels": channels,
        "layers_per_block": per_level - 1,
        "cross_attention_dim": text,
        "attention_head_dim": _HEADS,  # diffusers' name for their number
    }


def _vae_settings(sizes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    block = _VAE + "encoder.down.{}.block.{}.conv2.weight"
    levels = [i for i in range(16) if block.format(i, 0) in sizes]
    layers = [j for j in range(16) if block.format(0, j) in sizes]
    return {
        "in_channels": sizes[_VAE + "encoder.conv_in.weight"][1],
        "out_channels": sizes[_VAE + "decoder.conv_out.weight"][0],
        "down_block_types": ["DownEncoderBlock2D"] * len(levels),
        "up_block_types": ["UpDecoderBlock2D"] * len(levels),
        "block_out_channels": [sizes[block.format(i, 0)][0] for i in levels],
        "layers_per_block": len(layers),
        "latent_channels": sizes[_VAE + "post_quant_conv.weight"][0],
        "sample_size": 256,
        "scaling_factor": _SCALING_FACTOR,
    }


def _bert_settings(sizes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    layer = _BERT + "attn_layers.layers.{}.1."
    words, width = sizes[TOLD_BY]
    layers = [i for i in range(0, len(sizes), 2) if layer.format(i) + "to_q.weight" in sizes]
    return {
        "vocab_size": words,
        "d_model": width,
        "max_position_embeddings": sizes[_BERT + "pos_emb.emb.weight"][0],
        "encoder_layers": len(layers),
        "encoder_ffn_dim": sizes[layer.format(1) + "net.0.0.weight"][0],
        "encoder_attention_heads": _HEADS,
        "head_dim": sizes[layer.format(0) + "to_q.weight"][0] // _HEADS,
    }


def _check_schedule(checkpoint: Mapping[str, Tensor], scheduler: DDIMScheduler) -> None:
    alphas = checkpoint.get("alphas_cumprod")
    if alphas is None:
        return
    known = scheduler.alphas_cumprod
    if alphas.shape != known.shape or not torch.allclose(alphas.float(), known, atol=1e-5):
        raise ValueError("its noise schedule (alphas_cumprod) is not that of txt2img-1p4B")


def _tokenizer(source: Path, config: str | None, words: int) -> Any:
    """BERT's, of so many words, from what is named, from beside the file, or from the hub."""
    beside = source.with_name("vocab.txt")
    if config is None and beside.is_file():
        return BertTokenizer(vocab=str(beside), model_max_length=77)
    place, options = config or VOCABULARY, {}
    if (Path(place) / "tokenizer").is_dir():
        options["subfolder"] = "tokenizer"
    try:
        found = BertTokenizer.from_pretrained(place, **options)
    except (OSError, ValueError):
        found = None
    # without files transformers makes one that knows five words
    if found is None or len(found) < words:
        raise ValueError(
            f"BERT's tokenizer cannot be read from {place}; put the vocab.txt of {VOCABULARY} "
            "next to the file, or pass a folder that has it with --single-file-config"
        )
    return found
