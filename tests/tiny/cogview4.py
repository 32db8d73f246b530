"""A tiny pipeline of CogView4."""

from __future__ import annotations

from diffusers import CogView4Pipeline, CogView4Transformer2DModel, FlowMatchEulerDiscreteScheduler
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import GlmConfig, GlmModel, PreTrainedTokenizerFast

from tiny.encoders import language_model
from tiny.parts import listening, seeded, vae
from tiny.registry import register
from tiny.tokenizers import byte_level


def glm_tokenizer() -> PreTrainedTokenizerFast:
    """GLM's tokenizer: two tokens before every prompt, and padding before those."""
    marks = ["[gMASK]", "<sop>", "<|user|>"]
    vocab, merges = byte_level(["<|endoftext|>", *marks])
    backend = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.TemplateProcessing(
        single="[gMASK] <sop> $A", special_tokens=[(mark, vocab[mark]) for mark in marks[:2]]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<|endoftext|>",
        eos_token="<|endoftext|>",
        extra_special_tokens=marks,
        padding_side="left",
        model_max_length=128000,
    )


@register("cogview4", own_times=True)
def pipeline(seed: int = 0) -> CogView4Pipeline:
    """GLM of width 32, a transformer of one layer; noise levels shifted as the real ones are."""
    with seeded(seed):
        tokens = glm_tokenizer()
        settings = language_model(32, 2, vocab_size=len(tokens) + 9, pad_token_id=None)
        return CogView4Pipeline(
            tokenizer=tokens,
            text_encoder=GlmModel(GlmConfig(**settings)),
            vae=vae(4, scaling_factor=0.3611, shift_factor=0.0),
            transformer=listening(
                CogView4Transformer2DModel(
                    in_channels=4,
                    out_channels=4,
                    num_layers=1,
                    attention_head_dim=16,
                    num_attention_heads=2,
                    text_embed_dim=32,
                    time_embed_dim=16,
                    condition_dim=8,
                    sample_size=8,
                    pos_embed_max_size=8,
                    rope_axes_dim=(16, 16),
                ),
                "norm1.linear",
                "to_v",
                "to_out",
            ),
            scheduler=FlowMatchEulerDiscreteScheduler(
                use_dynamic_shifting=True,
                base_shift=0.25,
                max_shift=0.75,
                time_shift_type="linear",
            ),
        )
