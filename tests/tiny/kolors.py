"""A tiny pipeline of Kolors."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import sentencepiece
import torch
from diffusers import EulerDiscreteScheduler, KolorsPipeline
from diffusers.pipelines.kolors.text_encoder import ChatGLMConfig, ChatGLMModel
from diffusers.pipelines.kolors.tokenizer import ChatGLMTokenizer

from tiny.parts import seeded, unet, vae
from tiny.registry import register
from tiny.tokenizers import WORDS


@cache
def _sentencepiece() -> tuple[TemporaryDirectory[str], str]:
    """A file with pieces of WORDS, bytes for the rest, and a space put before what comes first."""
    folder = TemporaryDirectory()
    path = Path(folder.name) / "tokenizer.model"
    with path.open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter([" ".join(WORDS)] * 2),
            model_writer=file,
            model_type="bpe",
            vocab_size=900,
            hard_vocab_limit=False,
            byte_fallback=True,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            minloglevel=2,
        )
    return folder, str(path)


def chatglm(tokens: int, width: int = 32) -> ChatGLMModel:
    """A ChatGLM of two layers, some spare rows in its table."""
    model = ChatGLMModel(
        ChatGLMConfig(
            num_layers=2,
            padded_vocab_size=tokens + 9,
            hidden_size=width,
            ffn_hidden_size=2 * width,
            kv_channels=width // 4,
            num_attention_heads=4,
            multi_query_attention=True,
            multi_query_group_num=2,
            add_qkv_bias=True,
            original_rope=True,
        )
    )
    for name, weight in model.named_parameters():  # the class leaves them as memory had them
        if "layernorm" in name:
            torch.nn.init.ones_(weight)
        else:
            torch.nn.init.normal_(weight, std=0.2)
    return model


@register("kolors")
def pipeline(seed: int = 0) -> KolorsPipeline:
    """A ChatGLM of width 32 with its own tokenizer, SDXL's UNet, the schedule of the real one."""
    tokens = ChatGLMTokenizer(_sentencepiece()[1], model_max_length=32768)
    with seeded(seed):
        return KolorsPipeline(
            vae=vae(scaling_factor=0.13025),
            text_encoder=chatglm(tokens.vocab_size),
            tokenizer=tokens,
            unet=unet(
                width=24,
                encoder_hid_dim=32,
                encoder_hid_dim_type="text_proj",
                addition_embed_type="text_time",
                addition_time_embed_dim=8,
                projection_class_embeddings_input_dim=6 * 8 + 32,
            ),
            scheduler=EulerDiscreteScheduler(
                num_train_timesteps=1100,
                beta_start=0.00085,
                beta_end=0.014,
                beta_schedule="scaled_linear",
                timestep_spacing="leading",
                steps_offset=1,
            ),
        )
