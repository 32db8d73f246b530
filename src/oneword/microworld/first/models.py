"""The parts of the embedded model, built from the stock classes at small size.

Sizes follow a trial on two CPU cores: an autoencoder that shrinks by 4 to 4 channels, a denoiser
that attends at 8 x 8 and 4 x 4 cells only, and a text encoder of context 77 so that prompts of any
length work as they do on the big models.
"""

# The libraries' own annotations are narrower than what they take and return.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportOptionalMemberAccess=false, reportOptionalSubscript=false, reportOperatorIssue=false

from __future__ import annotations

import itertools
from typing import Any, ClassVar

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import nn
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
)

from oneword.microworld.first import captions, scenes


SIZE_PX = 64
LATENT_CHANNELS = 4
LATENT_SIZE = SIZE_PX // 4
TEXT_DIM = 128
CONTEXT = 77


def tokenizer() -> CLIPTokenizer:
    """A byte-pair tokenizer in which every word of the captions is one token."""
    words = sorted({w for text in captions.vocabulary() for w in text.replace(",", " ,").split()})
    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    learner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    # a hyphen splits a word in CLIP's own pre-tokenizer, so its halves are learned apart
    corpus = [part for word in words for part in word.replace("-", " - ").split()]
    learner.train_from_iterator(
        corpus,
        trainers.BpeTrainer(
            vocab_size=100_000,
            min_frequency=0,
            show_progress=False,
            end_of_word_suffix="</w>",
        ),
    )
    merges = learner.to_str()
    learned = [tuple(pair) for pair in _merges(merges)]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = itertools.chain(
        alphabet,
        (letter + "</w>" for letter in alphabet),
        ("".join(pair) for pair in learned),
    )
    vocab = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    for special in ("<|startoftext|>", "<|endoftext|>"):
        vocab[special] = len(vocab)
    return CLIPTokenizer(vocab=vocab, merges=learned, model_max_length=CONTEXT)


def _merges(serialized: str) -> list[list[str]]:
    import json

    merges = json.loads(serialized)["model"]["merges"]
    return [pair.split(" ") if isinstance(pair, str) else pair for pair in merges]


def autoencoder() -> AutoencoderKL:
    """VAE 64 x 64 x 3 -> 16 x 16 x 4, 0.65 M parameters; residual branches start at zero."""
    vae = AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 32, 64),
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=8,
        sample_size=SIZE_PX,
        scaling_factor=1.0,
        mid_block_add_attention=False,
    )
    for name, module in vae.named_modules():
        if name.endswith("conv2") and isinstance(module, nn.Conv2d):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)
    return vae


def clip(tokens: CLIPTokenizer, *, width: int, layers: int, text_layers: int) -> CLIPModel:
    """A CLIP pair on 64 px pictures in patches of 8 px; ``TEXT_DIM`` channels for text."""
    text: dict[str, Any] = text_config(tokens, text_layers).to_dict()
    vision = {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": width // 32,
        "image_size": SIZE_PX,
        "patch_size": 8,
        "projection_dim": TEXT_DIM,
    }
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=TEXT_DIM))


def text_config(tokens: CLIPTokenizer, layers: int) -> CLIPTextConfig:
    """Configuration of the text towers; the true end-of-text id makes pooling right."""
    return CLIPTextConfig(
        vocab_size=len(tokens),
        hidden_size=TEXT_DIM,
        intermediate_size=4 * TEXT_DIM,
        num_hidden_layers=layers,
        num_attention_heads=4,
        max_position_embeddings=CONTEXT,
        projection_dim=TEXT_DIM,
        eos_token_id=tokens.eos_token_id,
        bos_token_id=tokens.bos_token_id,
        pad_token_id=tokens.pad_token_id,
    )


def text_encoder_of(pair: CLIPModel) -> CLIPTextModel:
    """The text tower of a CLIP pair as a model of its own."""
    encoder = CLIPTextModel(pair.config.text_config)
    prefix = "text_model."
    state = {k.removeprefix(prefix): v for k, v in pair.state_dict().items() if prefix in k}
    encoder.load_state_dict(state)
    return encoder


def denoiser() -> UNet2DConditionModel:
    """UNet on 16 x 16 x 4 latents, about 8.5 M parameters."""
    return UNet2DConditionModel(
        sample_size=LATENT_SIZE,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        block_out_channels=(64, 128, 192),
        layers_per_block=1,
        # attention at 16 x 16 would double the time of a step
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=TEXT_DIM,
        attention_head_dim=4,  # diffusers' name for the NUMBER of heads
        norm_num_groups=16,
    )


def scheduler() -> DDIMScheduler:
    """Stable Diffusion's noise schedule with v-prediction."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


class Reader(nn.Module):
    """Reads the attributes of a picture: noun(s), colour of the first thing, scene and style.

    A plain convolutional classifier, trained on drawn pictures only and never used for training or
    choosing anything else.
    """

    HEADS: ClassVar[dict[str, tuple[str, ...]]] = {
        "noun": scenes.NOUNS,
        "colour": scenes.COLOURS,
        "scene": scenes.SCENES,
        "style": scenes.STYLES,
    }

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for stage in range(4):
            wide = width * min(2**stage, 4)
            layers += [
                nn.Conv2d(channels, wide, 3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(wide),
                nn.SiLU(),
                nn.Conv2d(wide, wide, 3, padding=1, bias=False),
                nn.BatchNorm2d(wide),
                nn.SiLU(),
            ]
            channels = wide
        self.features = nn.Sequential(*layers)
        self.hidden = nn.Sequential(nn.Flatten(), nn.Linear(channels * 16, 256), nn.SiLU())
        self.heads = nn.ModuleDict({n: nn.Linear(256, len(v)) for n, v in self.HEADS.items()})

    def forward(self, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        """Logits of every attribute; pixels are in [-1, 1], 64 x 64."""
        hidden = self.hidden(self.features(pixels))
        return {name: head(hidden) for name, head in self.heads.items()}
