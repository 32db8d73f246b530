"""A tiny pipeline of HiDream."""

from __future__ import annotations

from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    HiDreamImagePipeline,
    HiDreamImageTransformer2DModel,
)
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from tiny.encoders import clip, language_model, t5
from tiny.parts import seeded, vae
from tiny.registry import register
from tiny.tokenizers import byte_level, t5_tokenizer, tokenizer


def llama_tokenizer() -> PreTrainedTokenizerFast:
    """Llama's tokenizer: one token before every prompt, none after it."""
    vocab, merges = byte_level(["<|begin_of_text|>", "<|eot_id|>"])
    backend = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    start = "<|begin_of_text|>"
    backend.post_processor = processors.TemplateProcessing(
        single=f"{start} $A", special_tokens=[(start, vocab[start])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=start, eos_token="<|eot_id|>", model_max_length=131072
    )


@register("hidream")
def pipeline(seed: int = 0) -> HiDreamImagePipeline:
    """CLIPs of widths 32 and 48, a T5 of 40, a Llama of 32; two blocks of four experts."""
    with seeded(seed):
        tokens = llama_tokenizer()
        settings = language_model(32, 2, vocab_size=len(tokens) + 9, pad_token_id=None)
        return HiDreamImagePipeline(
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
            vae=vae(4, channels=16, scaling_factor=0.3611, shift_factor=0.1159),
            text_encoder=clip(projection=True, context=248),
            tokenizer=tokenizer(248),
            text_encoder_2=clip(48, projection=True, context=248),
            tokenizer_2=tokenizer(248),
            text_encoder_3=t5(40),
            tokenizer_3=t5_tokenizer(),
            text_encoder_4=LlamaForCausalLM(LlamaConfig(**settings)),
            tokenizer_4=tokens,
            transformer=HiDreamImageTransformer2DModel(
                patch_size=2,
                in_channels=16,
                out_channels=16,
                num_layers=1,
                num_single_layers=1,
                attention_head_dim=16,
                num_attention_heads=2,
                caption_channels=[40, 32],
                text_emb_dim=80,
                axes_dims_rope=(8, 4, 4),
                max_resolution=(16, 16),
                llama_layers=[0, 1],
            ),
        )
