"""Tiny pipelines of the real classes with random weights, built in under a second."""

from __future__ import annotations

import string
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import sentencepiece
import torch
from diffusers import (
    AdaptiveProjectedMixGuidance,
    AuraFlowPipeline,
    AuraFlowTransformer2DModel,
    AutoencoderDC,
    AutoencoderKL,
    AutoencoderKLFlux2,
    AutoencoderKLHunyuanImage,
    AutoencoderKLQwenImage,
    AutoencoderKLQwenImage21,
    AutoencoderKLWan,
    AutoencoderTiny,
    BriaFibo2Pipeline,
    BriaFibo2Transformer2DModel,
    BriaPipeline,
    BriaTransformer2DModel,
    ChromaPipeline,
    ChromaTransformer2DModel,
    CogVideoXDDIMScheduler,
    CogView3PlusPipeline,
    CogView3PlusTransformer2DModel,
    CogView4Pipeline,
    CogView4Transformer2DModel,
    Cosmos2TextToImagePipeline,
    CosmosTransformer3DModel,
    DDIMScheduler,
    DDPMScheduler,
    DiffusionPipeline,
    DPMSolverMultistepScheduler,
    DreamLiteMobilePipeline,
    DreamLitePipeline,
    DreamLiteUNetModel,
    ErnieImagePipeline,
    ErnieImageTransformer2DModel,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Pipeline,
    Flux2Transformer2DModel,
    FluxPipeline,
    FluxTransformer2DModel,
    HiDreamImagePipeline,
    HiDreamImageTransformer2DModel,
    HunyuanDiT2DModel,
    HunyuanDiTPipeline,
    HunyuanImagePipeline,
    HunyuanImageTransformer2DModel,
    Ideogram4Pipeline,
    Ideogram4Transformer2DModel,
    IFPipeline,
    Kandinsky3Pipeline,
    Kandinsky3UNet,
    Kandinsky5T2IPipeline,
    Kandinsky5Transformer3DModel,
    KolorsPipeline,
    Krea2Pipeline,
    Krea2Transformer2DModel,
    LDMTextToImagePipeline,
    LongCatImagePipeline,
    LongCatImageTransformer2DModel,
    Lumina2Pipeline,
    Lumina2Transformer2DModel,
    LuminaNextDiT2DModel,
    LuminaPipeline,
    ModelMixin,
    NucleusMoEImagePipeline,
    NucleusMoEImageTransformer2DModel,
    OvisImagePipeline,
    OvisImageTransformer2DModel,
    PixArtAlphaPipeline,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
    PRXPipeline,
    PRXPixelPipeline,
    PRXTransformer2DModel,
    QwenImage21Pipeline,
    QwenImage21Transformer2DModel,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    SanaPipeline,
    SanaSprintPipeline,
    SanaTransformer2DModel,
    SCMScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
    VQModel,
    ZImageOmniPipeline,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from diffusers.models.unets.unet_kandinsky3 import Kandinsky3ConditionalGroupNorm
from diffusers.pipelines.cosmos import pipeline_cosmos2_text2image
from diffusers.pipelines.kolors.text_encoder import ChatGLMConfig, ChatGLMModel
from diffusers.pipelines.kolors.tokenizer import ChatGLMTokenizer
from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion import (
    LDMBertConfig,
    LDMBertModel,
)
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertModel,
    BertTokenizer,
    ByT5Tokenizer,
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    Gemma2Config,
    Gemma2Model,
    GemmaConfig,
    GemmaModel,
    GemmaTokenizer,
    GlmConfig,
    GlmModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaProcessor,
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    Mistral3Model,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3Model,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLModel,
    Siglip2ImageProcessor,
    Siglip2VisionConfig,
    Siglip2VisionModel,
    T5Config,
    T5EncoderModel,
    T5GemmaConfig,
    T5Tokenizer,
    UMT5Config,
    UMT5EncoderModel,
)
from transformers.models.t5gemma.modeling_t5gemma import T5GemmaEncoder


WORDS = """
a an the photo painting rendering rendition of cat dog mug bird car house tree ball robot boat
hat fish teapot mushroom chair red blue green on in at beach moon forest snow next to and my
cool nice good dark bright clean dirty cropped close up small large weird one depicting oil
style picture s
""".split()  # noqa: SIM905


def tokenizer(context: int = 77) -> CLIPTokenizer:
    """A CLIP tokenizer that knows WORDS as single tokens and can spell everything else."""
    letters = [*string.ascii_lowercase, *string.digits, *string.punctuation]
    pieces = dict.fromkeys([*letters, *(f"{c}</w>" for c in letters)])
    merges: list[tuple[str, str]] = []
    for word in WORDS:
        parts = [*word[:-1], word[-1] + "</w>"]
        while len(parts) > 1:  # from the end, so that words that share a beginning do not collide
            pair = (parts[-2], parts[-1])
            if pair not in merges:
                merges.append(pair)
            parts[-2:] = ["".join(pair)]
            pieces.setdefault(parts[-1])
    vocab = {piece: index for index, piece in enumerate(pieces)}
    for special in ("<|startoftext|>", "<|endoftext|>"):
        vocab[special] = len(vocab)
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=context)


def bert_tokenizer() -> BertTokenizer:
    """BERT's tokenizer: WORDS, and every letter as a piece."""
    letters = [*string.ascii_lowercase, *string.digits, *string.punctuation]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{c}" for c in letters)]
    return BertTokenizer(
        vocab={w: i for i, w in enumerate(dict.fromkeys([*pieces, *WORDS]))}, model_max_length=77
    )


def t5_tokenizer() -> T5Tokenizer:
    """T5's tokenizer: WORDS with their leading space, and every letter."""
    letters = [*string.ascii_letters, *string.digits, *string.punctuation, "\u2581"]
    words = dict.fromkeys(f"\u2581{word}" for word in WORDS)
    vocab = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -9.0)]
    vocab += [(word, -2.0) for word in words if len(word) > 2] + [(c, -8.0) for c in letters]
    vocab += [(word, -3.0) for word in words if len(word) == 2]
    return T5Tokenizer(vocab=vocab, extra_ids=0, model_max_length=64)


# words of the texts that Sana and Lumina 2 put in front of a prompt
INSTRUCTIONS = """
given user prompt prompts generate enhanced that provides detailed visual descriptions suitable
for image generation evaluate level detail in if is simple focus adding specifics about colors
shapes sizes textures spatial relationships create vivid concrete scenes already refine enhance
existing details slightly without overcomplicating here are examples how transform or fluffy white
curled up round shape sleeping peacefully warm sunny windowsill surrounded by pots blooming flowers
busy city street bustling scene dusk featuring glowing lamps diverse crowd people colorful clothing
double-decker bus passing towering glass skyscrapers please only description below avoid including
any additional commentary evaluations you assistant designed superior images with degree
image-text alignment based textual start
""".split()  # noqa: SIM905


def gemma_tokenizer() -> GemmaTokenizer:
    """Gemma's tokenizer: words with the space before them; without it they are spelled."""
    letters = [*string.ascii_letters, *string.digits, *string.punctuation, "\u2581", "\n"]
    pieces = dict.fromkeys(["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *letters])
    merges: dict[tuple[str, str], None] = {}
    for word in dict.fromkeys([*WORDS, *INSTRUCTIONS, *(w.capitalize() for w in INSTRUCTIONS)]):
        piece = "\u2581"
        for letter in word:
            merges.setdefault((piece, letter))
            piece += letter
            pieces.setdefault(piece)
    vocab = {piece: index for index, piece in enumerate(pieces)}
    return GemmaTokenizer(vocab=vocab, merges=list(merges), add_bos_token=True)


def gemma(width: int = 32) -> Gemma2Model:
    """A Gemma, which multiplies what it looks up by the root of its width."""
    return Gemma2Model(
        Gemma2Config(
            vocab_size=len(gemma_tokenizer()),
            hidden_size=width,
            intermediate_size=2 * width,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
        )
    )


CHAT = """
the image by detailing color shape size texture quantity text spatial relationships of objects
background: and user assistant are an AI that reasons about descriptions. You give structured
responses focusing object attribution actions without speculation. , relationships, attribution .
""".split()  # noqa: SIM905  (what the chat templates of the families say around a prompt)
_STARTS = ("a", "the", "system", "user", "assistant", "Describe", "You")
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
INST = (
    "{{ bos_token }}{% for m in messages %}{% set text = m.content[0].text %}"
    "{% if m.role == 'system' %}[SYSTEM_PROMPT]{{ text }}[/SYSTEM_PROMPT]"
    "{% else %}[INST]{{ text }}[/INST]{% endif %}{% endfor %}"
)


def _byte_level(specials: Sequence[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges of a byte-level tokenizer: a word within a sentence holds its space."""
    pieces = dict.fromkeys(sorted(pre_tokenizers.ByteLevel.alphabet()))  # else in any order
    merges: dict[tuple[str, str], None] = {}
    words = [f"\u0120{word}" for word in (*WORDS, *CHAT)]
    for word in (*words, *_STARTS):  # from the front, where only "\u0120" begins a word
        for end in range(1, len(word)):
            merges.setdefault((word[:end], word[end]))
            pieces.setdefault(word[: end + 1])
    for special in specials:
        pieces.setdefault(special)
    return {piece: index for index, piece in enumerate(pieces)}, list(merges)


def qwen_tokenizer(context: int = 96, more_marks: Sequence[str] = ()) -> Qwen2Tokenizer:
    """Qwen's tokenizer: WORDS and the words of the templates, each with its leading space."""
    marks = ["<|im_start|>", "<|im_end|>", "<think>", "</think>", *more_marks]
    vocab, merges = _byte_level(["<|endoftext|>", *marks])
    tokens = Qwen2Tokenizer(
        vocab=vocab, merges=merges, extra_special_tokens=marks, model_max_length=context
    )
    tokens.chat_template = CHATML
    return tokens


def mistral_processor(context: int = 96) -> LlavaProcessor:
    """Mistral's tokenizer inside a processor, as Flux.2 dev keeps it.

    Its own class, PixtralProcessor, wants torchvision; this one handles text by the same code.
    """
    marks = ["[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"]
    marks += ["[IMG]", "[IMG_BREAK]", "[IMG_END]"]
    vocab, merges = _byte_level(["<unk>", "<s>", "</s>", "<pad>", *marks])
    backend = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokens = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        extra_special_tokens=marks,
        model_max_length=context,
    )
    return LlavaProcessor(
        image_processor=CLIPImageProcessorPil(),
        tokenizer=tokens,
        chat_template=INST,
        image_token="[IMG]",
    )


def glm_tokenizer() -> PreTrainedTokenizerFast:
    """GLM's tokenizer: two tokens before every prompt, and padding before those."""
    marks = ["[gMASK]", "<sop>", "<|user|>"]
    vocab, merges = _byte_level(["<|endoftext|>", *marks])
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


def language_model(width: int, layers: int, **options: object) -> dict[str, object]:
    """Settings that the language models' configurations share."""
    return {
        "vocab_size": len(qwen_tokenizer()) + 9,  # the real tables have spare rows, too
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": width // 2,
        "max_position_embeddings": 2048,
        "initializer_range": 0.6 / layers,  # so that bf16 goes through thirty layers
        **options,
    }


def clip(width: int = 32, *, projection: bool = False, context: int = 77) -> CLIPTextModel:
    """A CLIP text encoder that pools at the highest id, as those on the hub do."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer()),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=3 if projection else 2,
        num_attention_heads=4,
        max_position_embeddings=context,
        eos_token_id=2,
        projection_dim=width,
    )
    return (CLIPTextModelWithProjection if projection else CLIPTextModel)(config)


def t5(width: int) -> T5EncoderModel:
    """A T5 encoder whose table, as the real one's, has more rows than the tokenizer has tokens."""
    return T5EncoderModel(
        T5Config(
            vocab_size=len(t5_tokenizer()) + 9,
            d_model=width,
            d_kv=8,
            d_ff=2 * width,
            num_layers=2,
            num_heads=4,
            feed_forward_proj="gated-gelu",
        )
    )


def vae(levels: int = 2, channels: int = 4, **options: float) -> AutoencoderKL:
    """An autoencoder that shrinks by 2 between two levels."""
    return AutoencoderKL(
        block_out_channels=(8, 16, 16, 16)[:levels],
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        layers_per_block=1,
        latent_channels=channels,
        norm_num_groups=4,
        sample_size=32,
        **options,
    )


def unet(size: int = 16, width: int = 32, **options: object) -> UNet2DConditionModel:
    """A UNet of two levels."""
    return UNet2DConditionModel(
        sample_size=size,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=width,
        attention_head_dim=2,
        norm_num_groups=4,
        **options,
    )


def scheduler(prediction_type: str = "epsilon") -> DDIMScheduler:
    """The schedule of Stable Diffusion."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=prediction_type,
    )


def stable_diffusion(prediction_type: str = "epsilon", seed: int = 0) -> StableDiffusionPipeline:
    """A pipeline that draws 32 px pictures from 16 x 16 x 4 latents."""
    with _seeded(seed):
        return StableDiffusionPipeline(
            vae=vae(),
            text_encoder=clip(),
            tokenizer=tokenizer(),
            unet=unet(use_linear_projection=prediction_type == "v_prediction"),
            scheduler=scheduler(prediction_type),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )


def ldm(seed: int = 0) -> LDMTextToImagePipeline:
    """The paper's architecture: 64 px, since its pipeline takes latents to be 8 times smaller."""
    with _seeded(seed):
        tokens = bert_tokenizer()
        config = LDMBertConfig(
            vocab_size=len(tokens),
            d_model=32,
            encoder_layers=2,
            encoder_ffn_dim=64,
            encoder_attention_heads=4,
            head_dim=8,
        )
        return LDMTextToImagePipeline(
            vqvae=vae(4),
            bert=LDMBertModel(config),
            tokenizer=tokens,
            unet=unet(8),
            scheduler=scheduler(),
        )


def sdxl(seed: int = 0) -> StableDiffusionXLPipeline:
    """Two text encoders of widths 32 and 48."""
    with _seeded(seed):
        return StableDiffusionXLPipeline(
            vae=vae(scaling_factor=0.13025),
            text_encoder=clip(),
            text_encoder_2=clip(48, projection=True),
            tokenizer=tokenizer(),
            tokenizer_2=tokenizer(),
            unet=unet(
                width=80,
                addition_embed_type="text_time",
                addition_time_embed_dim=8,
                projection_class_embeddings_input_dim=6 * 8 + 48,
            ),
            scheduler=scheduler(),
            add_watermarker=False,
        )


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


def kolors(seed: int = 0) -> KolorsPipeline:
    """A ChatGLM of width 32 with its own tokenizer, SDXL's UNet, the schedule of the real one."""
    tokens = ChatGLMTokenizer(_sentencepiece()[1], model_max_length=32768)
    with _seeded(seed):
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


def deepfloyd_if(seed: int = 0, **parts: object) -> IFPipeline:
    """A T5 of width 32, a UNet that predicts a variance besides, thresholds and all."""
    with _seeded(seed):
        return IFPipeline(
            tokenizer=t5_tokenizer(),
            text_encoder=t5(32),
            unet=UNet2DConditionModel(
                sample_size=64,
                in_channels=3,
                out_channels=6,
                block_out_channels=(8, 16),
                layers_per_block=1,
                down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
                mid_block_type="UNetMidBlock2DSimpleCrossAttn",
                up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
                cross_attention_dim=32,
                encoder_hid_dim=32,
                attention_head_dim=8,
                addition_embed_type="text",
                addition_embed_type_num_heads=2,
                cross_attention_norm="group_norm",
                resnet_time_scale_shift="scale_shift",
                act_fn="gelu",
                norm_num_groups=4,
            ),
            scheduler=DDPMScheduler(
                beta_schedule="squaredcos_cap_v2",
                thresholding=True,
                dynamic_thresholding_ratio=0.95,
                sample_max_value=1.5,
                variance_type="learned_range",
            ),
            **{"safety_checker": None, "feature_extractor": None, "watermarker": None} | parts,
            requires_safety_checker=False,
        )


def sd3(seed: int = 0, *, with_t5: bool = True) -> StableDiffusion3Pipeline:
    """Two CLIPs of widths 32 and 48, a T5 of width 96, a transformer of two layers."""
    with _seeded(seed):
        return StableDiffusion3Pipeline(
            transformer=SD3Transformer2DModel(
                sample_size=16,
                patch_size=2,
                in_channels=16,
                out_channels=16,
                num_layers=2,
                attention_head_dim=8,
                num_attention_heads=4,
                caption_projection_dim=32,
                joint_attention_dim=96,
                pooled_projection_dim=80,
            ),
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
            vae=vae(channels=16, scaling_factor=1.5305, shift_factor=0.0609),
            text_encoder=clip(projection=True),
            tokenizer=tokenizer(),
            text_encoder_2=clip(48, projection=True),
            tokenizer_2=tokenizer(),
            text_encoder_3=t5(96) if with_t5 else None,
            tokenizer_3=t5_tokenizer() if with_t5 else None,
        )


def flux(seed: int = 0, *, guidance: bool = True) -> FluxPipeline:
    """CLIP of width 32, T5 of width 48, a transformer of one double and one single block."""
    with _seeded(seed):
        return FluxPipeline(
            transformer=FluxTransformer2DModel(
                patch_size=1,
                in_channels=16,
                num_layers=1,
                num_single_layers=1,
                attention_head_dim=16,
                num_attention_heads=2,
                joint_attention_dim=48,
                pooled_projection_dim=32,
                axes_dims_rope=(4, 4, 8),
                guidance_embeds=guidance,
            ),
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=guidance),
            vae=vae(scaling_factor=0.3611, shift_factor=0.1159),
            text_encoder=clip(),
            tokenizer=tokenizer(),
            text_encoder_2=t5(48),
            tokenizer_2=t5_tokenizer(),
        )


def judge(image_size: int = 24, seed: int = 0) -> CLIPModel:
    """A CLIP pair that scores; its tokenizer is ``tokenizer()``."""
    tokens = tokenizer()
    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
            "num_attention_heads": 2}  # fmt: skip
    config = CLIPConfig(
        text_config=size | {"vocab_size": len(tokens), "eos_token_id": tokens.eos_token_id},
        vision_config=size | {"image_size": image_size, "patch_size": 8},
        projection_dim=12,
    )
    with _seeded(seed):
        return CLIPModel(config)


def pixart(kind: type = PixArtSigmaPipeline, seed: int = 0, *, size: int = 8) -> DiffusionPipeline:
    """A T5 of width 48; Alpha of size 128 is told the picture's size."""
    with _seeded(seed):
        return kind(
            tokenizer=t5_tokenizer(),
            text_encoder=t5(48),
            vae=vae(4, scaling_factor=0.13025),
            transformer=PixArtTransformer2DModel(
                sample_size=size,
                num_layers=2,
                patch_size=2,
                attention_head_dim=8,
                num_attention_heads=3,
                caption_channels=48,
                in_channels=4,
                out_channels=8,
                cross_attention_dim=24,
                attention_bias=True,
            ),
            scheduler=DPMSolverMultistepScheduler(),
        )


def sana(seed: int = 0) -> SanaPipeline:
    """A Gemma of width 32, an autoencoder without a posterior, the solver of the real one."""
    return SanaPipeline(
        **_sana_parts(seed),
        scheduler=DPMSolverMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        ),
    )


def sana_sprint(seed: int = 0) -> SanaSprintPipeline:
    """The same with a transformer that is told the guidance."""
    parts = _sana_parts(seed, guidance_embeds=True, qk_norm="rms_norm_across_heads")
    return SanaSprintPipeline(**parts, scheduler=SCMScheduler())


def _sana_parts(seed: int, **options: object) -> dict[str, Any]:
    levels = 4
    with _seeded(seed):
        return {
            "tokenizer": gemma_tokenizer(),
            "text_encoder": gemma(),
            "vae": AutoencoderDC(
                latent_channels=8,
                attention_head_dim=2,
                encoder_block_types="ResBlock",
                decoder_block_types="ResBlock",
                encoder_block_out_channels=(8, 8, 16, 16),
                decoder_block_out_channels=(8, 8, 16, 16),
                encoder_layers_per_block=(1,) * levels,
                decoder_layers_per_block=(1,) * levels,
                encoder_qkv_multiscales=((),) * levels,
                decoder_qkv_multiscales=((),) * levels,
                scaling_factor=0.41407,
            ),
            "transformer": SanaTransformer2DModel(
                in_channels=8,
                out_channels=8,
                num_attention_heads=4,
                attention_head_dim=8,
                num_layers=2,
                num_cross_attention_heads=4,
                cross_attention_head_dim=8,
                cross_attention_dim=32,
                caption_channels=32,
                sample_size=8,
                **options,
            ),
        }


def lumina2(seed: int = 0) -> Lumina2Pipeline:
    """A Gemma of width 32, a transformer of two layers."""
    with _seeded(seed):
        return Lumina2Pipeline(
            tokenizer=gemma_tokenizer(),
            text_encoder=gemma(),
            vae=vae(4, channels=16, scaling_factor=0.3611, shift_factor=0.1159),
            transformer=Lumina2Transformer2DModel(
                sample_size=8,
                patch_size=2,
                in_channels=16,
                hidden_size=32,
                num_layers=2,
                num_refiner_layers=1,
                num_attention_heads=4,
                num_kv_heads=2,
                multiple_of=16,
                axes_dim_rope=(4, 2, 2),
                axes_lens=(300, 32, 32),
                cap_feat_dim=32,
            ),
            scheduler=FlowMatchEulerDiscreteScheduler(shift=6.0),
        )


def chroma(seed: int = 0) -> ChromaPipeline:
    """T5 of width 48, a transformer of one double and one single block."""
    with _seeded(seed):
        return ChromaPipeline(
            tokenizer=t5_tokenizer(),
            text_encoder=t5(48),
            vae=vae(4, scaling_factor=0.3611, shift_factor=0.1159),
            transformer=ChromaTransformer2DModel(
                patch_size=1,
                in_channels=16,
                num_layers=1,
                num_single_layers=1,
                attention_head_dim=16,
                num_attention_heads=2,
                joint_attention_dim=48,
                axes_dims_rope=(4, 4, 8),
                approximator_num_channels=8,
                approximator_hidden_dim=16,
                approximator_layers=1,
            ),
            scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        )


def _film_vae() -> AutoencoderKLQwenImage:
    """A VAE for films whose latents are scaled by channel."""
    return AutoencoderKLQwenImage(
        base_dim=8,
        z_dim=4,
        dim_mult=[1, 2],
        num_res_blocks=1,
        temperal_downsample=[False],
        latents_mean=[-0.7571, 0.1075, 1.5508, 0.4134],
        latents_std=[2.8184, 1.4541, 0.7708, 1.6052],
    )


def _qwen25_vl(layers: int) -> Qwen2_5_VLForConditionalGeneration:
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}
    return Qwen2_5_VLForConditionalGeneration(
        Qwen2_5_VLConfig(
            text_config=language_model(32, layers, rope_parameters=rope),
            vision_config={
                "depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2,
                "out_hidden_size": 32, "fullatt_block_indexes": [0],
            },
        )
    )  # fmt: skip


def qwen_image(seed: int = 0) -> QwenImagePipeline:
    """Qwen2.5-VL of width 32, a VAE for films, a transformer of one block."""
    with _seeded(seed):
        encoder = _qwen25_vl(2)
        return QwenImagePipeline(
            transformer=QwenImageTransformer2DModel(
                in_channels=16,
                out_channels=4,
                num_layers=1,
                attention_head_dim=16,
                num_attention_heads=2,
                joint_attention_dim=32,
                axes_dims_rope=(4, 6, 6),
            ),
            scheduler=FlowMatchEulerDiscreteScheduler(
                use_dynamic_shifting=True,
                base_shift=0.5,
                max_shift=0.9,
                max_image_seq_len=8192,
                shift_terminal=0.02,
            ),
            vae=_film_vae(),
            text_encoder=encoder,
            tokenizer=qwen_tokenizer(131072),
        )


class Guardrail:
    """In the place of Cosmos' safety checker, whose library brings models of its own."""

    def to(self, device: object) -> None: ...

    def check_text_safety(self, prompt: str) -> bool:
        """Every prompt passes."""
        return bool(prompt)

    def check_video_safety(self, frames: np.ndarray) -> np.ndarray:
        """Every picture passes."""
        return frames


pipeline_cosmos2_text2image.CosmosSafetyChecker = Guardrail


def cosmos2(seed: int = 0, *, masked: bool = False) -> Cosmos2TextToImagePipeline:
    """A T5 of width 48, a VAE for films, a transformer of two blocks; masked needs torchvision."""
    with _seeded(seed):
        return Cosmos2TextToImagePipeline(
            text_encoder=t5(48),
            tokenizer=t5_tokenizer(),
            transformer=CosmosTransformer3DModel(
                in_channels=4,
                out_channels=4,
                num_attention_heads=2,
                attention_head_dim=16,
                num_layers=2,
                mlp_ratio=2,
                text_embed_dim=48,
                adaln_lora_dim=4,
                max_size=(4, 32, 32),
                rope_scale=(1.0, 4.0, 4.0),
                concat_padding_mask=masked,
                extra_pos_embed_type=None,
            ),
            vae=AutoencoderKLWan(
                base_dim=8,
                z_dim=4,
                dim_mult=[1, 2],
                num_res_blocks=1,
                temperal_downsample=[False],
                latents_mean=[-0.7571, 0.1075, 1.5508, 0.4134],
                latents_std=[2.8184, 1.4541, 0.7708, 1.6052],
            ),
            scheduler=FlowMatchEulerDiscreteScheduler(use_karras_sigmas=True),
        )


def kandinsky5(seed: int = 0) -> Kandinsky5T2IPipeline:
    """Qwen2.5-VL of width 32 and a CLIP, a transformer of one block for each side.

    Its own processor class wants torchvision; this one handles text by the same code.
    """
    with _seeded(seed):
        transformer = Kandinsky5Transformer3DModel(
            in_visual_dim=4,
            in_text_dim=32,
            in_text_dim2=32,
            time_dim=16,
            out_visual_dim=4,
            model_dim=32,
            ff_dim=64,
            num_text_blocks=1,
            num_visual_blocks=1,
            axes_dims=(4, 6, 6),
        )
        for name, weight in transformer.named_parameters():
            if "modulation" in name:  # zero, so that neither prompt nor picture would count
                weight.data.normal_(0, 0.3)
        marks = ["<|image_pad|>", " prompt", " engineer", " Describe"]
        return Kandinsky5T2IPipeline(
            transformer=transformer,
            vae=vae(4, scaling_factor=0.3611, shift_factor=0.1159),
            text_encoder=_qwen25_vl(2),
            tokenizer=LlavaProcessor(
                image_processor=CLIPImageProcessorPil(),
                tokenizer=qwen_tokenizer(131072, marks),
                image_token=marks[0],
            ),
            text_encoder_2=clip(),
            tokenizer_2=tokenizer(),
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        )


def longcat_image(seed: int = 0) -> LongCatImagePipeline:
    """Qwen2.5-VL of width 32, a transformer of one double and one single block."""
    with _seeded(seed):
        return LongCatImagePipeline(
            scheduler=FlowMatchEulerDiscreteScheduler(
                use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15
            ),
            vae=vae(4, scaling_factor=0.3611, shift_factor=0.1159),
            text_encoder=_qwen25_vl(2),
            tokenizer=qwen_tokenizer(),
            text_processor=None,
            transformer=LongCatImageTransformer2DModel(
                in_channels=16,
                num_layers=1,
                num_single_layers=1,
                attention_head_dim=16,
                num_attention_heads=2,
                joint_attention_dim=32,
                pooled_projection_dim=32,
                axes_dims_rope=[4, 6, 6],
            ),
        )


def hunyuan_image(seed: int = 0, *, distilled: bool = False) -> HunyuanImagePipeline:
    """Qwen2.5-VL of width 32 and three layers, a ByT5, a transformer of two blocks."""
    with _seeded(seed):
        spelling = ByT5Tokenizer()
        guiders = [None, None]
        if not distilled:
            guiders = [
                AdaptiveProjectedMixGuidance(
                    adaptive_projected_guidance_scale=scale,
                    adaptive_projected_guidance_start_step=0,
                )
                for scale in (10.0, 4.0)
            ]
        return HunyuanImagePipeline(
            scheduler=FlowMatchEulerDiscreteScheduler(shift=5.0),
            vae=AutoencoderKLHunyuanImage(
                in_channels=3,
                out_channels=3,
                latent_channels=4,
                block_out_channels=(32,) * 4,  # its norms are of 32 groups
                layers_per_block=1,
                spatial_compression_ratio=8,
                sample_size=64,
                scaling_factor=0.75289,
            ),
            text_encoder=_qwen25_vl(3),
            tokenizer=qwen_tokenizer(131072),
            text_encoder_2=T5EncoderModel(
                T5Config(
                    vocab_size=len(spelling),
                    d_model=16,
                    d_kv=8,
                    d_ff=32,
                    num_layers=1,
                    num_heads=2,
                    feed_forward_proj="gated-gelu",
                )
            ),
            tokenizer_2=spelling,
            transformer=HunyuanImageTransformer2DModel(
                in_channels=4,
                out_channels=4,
                num_attention_heads=2,
                attention_head_dim=16,
                num_layers=1,
                num_single_layers=1,
                num_refiner_layers=1,
                text_embed_dim=32,
                text_embed_2_dim=16,
                rope_axes_dim=(8, 8),
                guidance_embeds=distilled,
                use_meanflow=distilled,
            ),
            guider=guiders[0],
            ocr_guider=guiders[1],
        )


def z_image(seed: int = 0) -> ZImagePipeline:
    """Qwen3 of width 32 and three layers, a transformer of one layer with its refiners."""
    with _seeded(seed):
        return ZImagePipeline(**_z_image_parts())


def z_image_omni(seed: int = 0) -> ZImageOmniPipeline:
    """The same beside a Siglip of one layer, which is asked about no picture."""
    with _seeded(seed):
        reader = Siglip2VisionConfig(
            hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
            num_patches=16, patch_size=4,
        )  # fmt: skip
        return ZImageOmniPipeline(
            **_z_image_parts(siglip_feat_dim=16),
            siglip=Siglip2VisionModel(reader),
            siglip_processor=Siglip2ImageProcessor(patch_size=4, max_num_patches=16),
        )


def _z_image_parts(**options: object) -> dict[str, Any]:
    return {
        "transformer": ZImageTransformer2DModel(
            in_channels=4,
            dim=32,
            n_layers=1,
            n_refiner_layers=1,
            n_heads=2,
            n_kv_heads=2,
            cap_feat_dim=32,
            axes_dims=[4, 6, 6],
            axes_lens=[256, 64, 64],
            **options,
        ),
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=3.0),
        "vae": vae(scaling_factor=0.3611, shift_factor=0.1159),
        "text_encoder": Qwen3Model(Qwen3Config(**language_model(32, 3))),
        "tokenizer": qwen_tokenizer(),
    }


def _flux2_vae() -> AutoencoderKLFlux2:
    autoencoder = AutoencoderKLFlux2(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=32,
    )
    autoencoder.bn.running_mean.normal_()
    autoencoder.bn.running_var.uniform_(0.5, 2.0)
    return autoencoder


def _flux2_parts(width: int, *, guidance: bool) -> dict[str, object]:
    autoencoder = _flux2_vae()
    return {
        "transformer": Flux2Transformer2DModel(
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=3 * width,
            timestep_guidance_channels=16,
            axes_dims_rope=(4, 4, 4, 4),
            guidance_embeds=guidance,
        ),
        "scheduler": FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        "vae": autoencoder,
    }


def flux2_klein(seed: int = 0, *, distilled: bool = True) -> Flux2KleinPipeline:
    """Qwen3 of width 16, with as many layers as the pipeline looks for."""
    with _seeded(seed):
        return Flux2KleinPipeline(
            **_flux2_parts(16, guidance=False),
            text_encoder=Qwen3ForCausalLM(Qwen3Config(**language_model(16, 28))),
            tokenizer=qwen_tokenizer(),
            is_distilled=distilled,
        )


def flux2_dev(seed: int = 0) -> Flux2Pipeline:
    """Mistral of width 16, with as many layers as the pipeline looks for, and a processor."""
    with _seeded(seed):
        processor = mistral_processor()
        config = _mistral3(16, 31, "mistral", vocab_size=len(processor.tokenizer) + 9)
        return Flux2Pipeline(
            **_flux2_parts(16, guidance=True),
            text_encoder=Mistral3ForConditionalGeneration(config),
            tokenizer=processor,
        )


def _mistral3(width: int, layers: int, kind: str, **options: object) -> Mistral3Config:
    vision = {
        "model_type": "pixtral", "hidden_size": 16, "intermediate_size": 16, "head_dim": 8,
        "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 32, "patch_size": 16,
    }  # fmt: skip
    text = {"model_type": kind} | language_model(width, layers, **options)
    return Mistral3Config(text_config=text, vision_config=vision)


def ernie_image(seed: int = 0) -> ErnieImagePipeline:
    """Ministral of width 32 and three layers, a transformer of two layers with open gates."""
    with _seeded(seed):
        tokens = mistral_processor().tokenizer
        transformer = ErnieImageTransformer2DModel(
            hidden_size=32,
            num_attention_heads=2,
            num_layers=2,
            ffn_hidden_size=64,
            in_channels=16,
            out_channels=16,
            text_in_dim=24,
            rope_axes_dim=(4, 6, 6),
        )
        for layer in (transformer.adaLN_modulation[-1], transformer.final_linear):
            layer.weight.data.normal_(0, 0.1)  # zero, so that nothing would count
        return ErnieImagePipeline(
            transformer=transformer,
            vae=_flux2_vae(),
            text_encoder=Mistral3Model(_mistral3(24, 3, "ministral3", vocab_size=len(tokens) + 9)),
            tokenizer=tokens,
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        )


def listening(transformer: ModelMixin, *parts: str, factor: float = 3.0) -> ModelMixin:
    """Scale what lets prompts through: random gates of the usual size hardly do.

    On such a transformer the loss of a few steps would tell of chance alone.
    """
    for name, weight in transformer.named_parameters():
        if any(part in name for part in parts):
            weight.data *= factor
    return transformer


def cogview4(seed: int = 0) -> CogView4Pipeline:
    """GLM of width 32, a transformer of one layer; noise levels shifted as the real ones are."""
    with _seeded(seed):
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


def auraflow(seed: int = 2) -> AuraFlowPipeline:
    """A UMT5 of width 32, a transformer of one joint and one single block, which listen.

    Among 256 tokens of padding a prompt would otherwise move the output by 1e-5 of itself.
    """
    with _seeded(seed):
        tokens = t5_tokenizer()
        return AuraFlowPipeline(
            tokenizer=tokens,
            text_encoder=UMT5EncoderModel(
                UMT5Config(
                    vocab_size=len(tokens) + 9,
                    d_model=32,
                    d_kv=8,
                    d_ff=64,
                    num_layers=2,
                    num_heads=4,
                )
            ),
            vae=vae(4, scaling_factor=0.13025),
            transformer=listening(
                AuraFlowTransformer2DModel(
                    sample_size=8,
                    patch_size=2,
                    in_channels=4,
                    out_channels=4,
                    num_mmdit_layers=1,
                    num_single_dit_layers=1,
                    attention_head_dim=8,
                    num_attention_heads=4,
                    joint_attention_dim=32,
                    caption_projection_dim=32,
                    pos_embed_max_size=64,
                ),
                "norm1",
                "attn.",
                "ff.",
                factor=4.0,
            ),
            scheduler=FlowMatchEulerDiscreteScheduler(shift=1.73),
        )


def cogview3(seed: int = 0) -> CogView3PlusPipeline:
    """A T5 of width 48, a transformer of one layer, a schedule that ends in noise alone."""
    with _seeded(seed):
        return CogView3PlusPipeline(
            tokenizer=t5_tokenizer(),
            text_encoder=t5(48),
            vae=vae(4, scaling_factor=0.13025),
            transformer=listening(
                CogView3PlusTransformer2DModel(
                    in_channels=4,
                    out_channels=4,
                    num_layers=1,
                    attention_head_dim=8,
                    num_attention_heads=4,
                    text_embed_dim=48,
                    time_embed_dim=16,
                    condition_dim=8,
                    sample_size=8,
                    pos_embed_max_size=8,
                ),
                "norm1.linear",
                "to_v",
                "to_out",
            ),
            scheduler=CogVideoXDDIMScheduler(
                prediction_type="v_prediction",
                clip_sample=False,
                timestep_spacing="trailing",
                rescale_betas_zero_snr=True,
                snr_shift_scale=4.0,
            ),
        )


def hunyuan_dit(seed: int = 0, **options: object) -> HunyuanDiTPipeline:
    """A BERT of width 32 and a T5 of 48, a transformer of four layers, the last with a skip."""
    with _seeded(seed):
        tokens = bert_tokenizer()
        bert = BertConfig(
            vocab_size=len(tokens),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=77,
        )
        return HunyuanDiTPipeline(
            tokenizer=tokens,
            text_encoder=BertModel(bert, add_pooling_layer=False),
            tokenizer_2=t5_tokenizer(),
            text_encoder_2=t5(48),
            vae=vae(4, scaling_factor=0.13025),
            transformer=HunyuanDiT2DModel(
                sample_size=8,
                patch_size=2,
                in_channels=4,
                num_layers=4,
                hidden_size=32,
                num_attention_heads=4,
                attention_head_dim=8,
                cross_attention_dim=32,
                cross_attention_dim_t5=48,
                pooled_projection_dim=16,
                **options,
            ),
            scheduler=DDPMScheduler(
                beta_start=0.00085,
                beta_end=0.018,
                beta_schedule="scaled_linear",
                clip_sample=False,
                steps_offset=1,
                prediction_type="v_prediction",
            ),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )


def llama_tokenizer() -> PreTrainedTokenizerFast:
    """Llama's tokenizer: one token before every prompt, none after it."""
    vocab, merges = _byte_level(["<|begin_of_text|>", "<|eot_id|>"])
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


def hidream(seed: int = 0) -> HiDreamImagePipeline:
    """CLIPs of widths 32 and 48, a T5 of 40, a Llama of 32; two blocks of four experts."""
    with _seeded(seed):
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


def bria(seed: int = 0) -> BriaPipeline:
    """A T5 of width 48, a transformer of one double and one single block."""
    with _seeded(seed):
        return BriaPipeline(
            tokenizer=t5_tokenizer(),
            text_encoder=t5(48),
            vae=vae(4, scaling_factor=0.13025, shift_factor=0.0),
            transformer=listening(
                BriaTransformer2DModel(
                    patch_size=1,
                    in_channels=16,
                    num_layers=1,
                    num_single_layers=1,
                    attention_head_dim=16,
                    num_attention_heads=2,
                    joint_attention_dim=48,
                    axes_dims_rope=(4, 4, 8),
                ),
                "norm1.linear",
                "norm.linear",
                "to_v",
                "to_out",
            ),
            scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        )


def lumina(seed: int = 2) -> LuminaPipeline:
    """A Gemma of the first kind and of width 32, a transformer of two layers with open gates."""
    with _seeded(seed):
        tokens = gemma_tokenizer()
        transformer = LuminaNextDiT2DModel(
            sample_size=8,
            patch_size=2,
            in_channels=4,
            hidden_size=32,
            num_layers=2,
            num_attention_heads=4,
            num_kv_heads=2,
            multiple_of=16,
            cross_attention_dim=32,
        )
        torch.nn.init.zeros_(transformer.pad_token)  # which its class leaves as memory had it
        for layer in transformer.layers:
            torch.nn.init.ones_(layer.gate)  # closed before training
        return LuminaPipeline(
            tokenizer=tokens,
            text_encoder=GemmaModel(
                GemmaConfig(
                    vocab_size=len(tokens),
                    hidden_size=32,
                    intermediate_size=64,
                    num_hidden_layers=2,
                    num_attention_heads=4,
                    num_key_value_heads=2,
                    head_dim=8,
                )
            ),
            vae=vae(4, scaling_factor=0.13025),
            transformer=transformer,
            scheduler=FlowMatchEulerDiscreteScheduler(shift=4.0),
        )


def ovis_image(seed: int = 0) -> OvisImagePipeline:
    """Qwen3 of width 32 and two layers, a transformer of one double and one single block."""
    with _seeded(seed):
        return OvisImagePipeline(
            tokenizer=qwen_tokenizer(512),
            text_encoder=Qwen3Model(Qwen3Config(**language_model(32, 2))),
            vae=vae(4, scaling_factor=0.3611, shift_factor=0.1159),
            transformer=listening(
                OvisImageTransformer2DModel(
                    in_channels=16,
                    out_channels=16,
                    num_layers=1,
                    num_single_layers=1,
                    attention_head_dim=16,
                    num_attention_heads=2,
                    joint_attention_dim=32,
                    axes_dims_rope=(4, 4, 8),
                ),
                "norm1.linear",
                "norm.linear",
                "to_v",
                "to_out",
                "context_embedder",
                factor=6.0,
            ),
            scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        )


def _qwen3vl(kind: Callable[[Qwen3VLConfig], Any], **options: object) -> Any:
    """Qwen3-VL of width 32 and two layers."""
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}
    config = Qwen3VLConfig(
        text_config=language_model(32, 2, rope_parameters=rope, **options),
        vision_config={
            "depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2,
            "out_hidden_size": 32, "num_position_embeddings": 16,
            "deepstack_visual_indexes": [0],
        },
    )  # fmt: skip
    return kind(config)


def prx(seed: int = 0, *, autoencoder: AutoencoderDC | None = None) -> PRXPipeline:
    """The encoder of a T5-Gemma of width 32, a transformer of two layers with open gates."""
    with _seeded(seed):
        tokens = gemma_tokenizer()
        tokens.model_max_length = 64
        autoencoder = autoencoder or vae(4, scaling_factor=0.3611, shift_factor=0.1159)
        transformer = PRXTransformer2DModel(
            in_channels=autoencoder.config.latent_channels,
            context_in_dim=32,
            hidden_size=32,
            mlp_ratio=2.0,
            num_heads=2,
            depth=2,
            axes_dim=[8, 8],
        )
        for block in transformer.blocks:
            torch.nn.init.ones_(block.modulation.lin.bias)  # closed before training
        return PRXPipeline(
            tokenizer=tokens,
            text_encoder=T5GemmaEncoder(_t5gemma(len(tokens)).encoder),
            vae=autoencoder,
            transformer=transformer,
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
            default_sample_size=64,
        )


def prx_pixel(seed: int = 0) -> PRXPixelPipeline:
    """Qwen3-VL of width 32, a transformer of two layers with open gates on patches of 4 px."""
    with _seeded(seed):
        tokens = qwen_tokenizer()
        transformer = PRXTransformer2DModel(
            in_channels=3,
            patch_size=4,
            context_in_dim=32,
            hidden_size=32,
            mlp_ratio=2.0,
            num_heads=2,
            depth=2,
            axes_dim=[8, 8],
            bottleneck_size=24,
            resolution_embeds=True,
        )
        for block in transformer.blocks:
            torch.nn.init.ones_(block.modulation.lin.bias)  # closed before training
        whole = _qwen3vl(Qwen3VLForConditionalGeneration, vocab_size=len(tokens) + 9)
        return PRXPixelPipeline(
            transformer=transformer,
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
            text_encoder=whole.model.language_model,
            tokenizer=tokens,
            default_sample_size=64,
            prompt_max_tokens=48,
        )


def kandinsky3(seed: int = 1) -> Kandinsky3Pipeline:
    """A T5 of width 48, a UNet of one level, a MoVQ that shrinks by 8."""
    with _seeded(seed):
        denoiser = Kandinsky3UNet(
            time_embedding_dim=32,
            groups=4,
            attention_head_dim=8,
            layers_per_block=2,
            block_out_channels=(16,),
            cross_attention_dim=16,
            encoder_hid_dim=48,
        )
        for module in denoiser.modules():
            if isinstance(module, Kandinsky3ConditionalGroupNorm):
                module.context_mlp[1].reset_parameters()  # deaf to time before training
                module.context_mlp[1].weight.data *= 0.3
        return Kandinsky3Pipeline(
            tokenizer=t5_tokenizer(),
            text_encoder=t5(48),
            unet=denoiser,
            scheduler=DDPMScheduler(
                beta_schedule="squaredcos_cap_v2", clip_sample=False, steps_offset=1
            ),
            movq=VQModel(
                block_out_channels=(8, 8, 8, 8),
                down_block_types=("DownEncoderBlock2D",) * 4,
                up_block_types=("UpDecoderBlock2D",) * 4,
                latent_channels=4,
                num_vq_embeddings=12,
                norm_num_groups=4,
                vq_embed_dim=4,
            ),
        )


def _t5gemma(vocab_size: int) -> T5GemmaConfig:
    """Settings of a whole T5-Gemma, of which PRX has the encoder."""
    half = {
        "vocab_size": vocab_size, "hidden_size": 32, "intermediate_size": 64, "head_dim": 8,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    }  # fmt: skip
    return T5GemmaConfig(encoder=half, decoder=half, vocab_size=vocab_size)


def krea2(seed: int = 0) -> Krea2Pipeline:
    """Qwen3-VL of width 32, of which two layers are read, and a transformer of one block."""
    with _seeded(seed):
        return Krea2Pipeline(
            tokenizer=qwen_tokenizer(1024),
            text_encoder=_qwen3vl(Qwen3VLModel),
            text_encoder_select_layers=(1, 2),
            vae=_film_vae(),
            transformer=listening(
                Krea2Transformer2DModel(
                    in_channels=16,
                    num_layers=1,
                    attention_head_dim=16,
                    num_attention_heads=2,
                    num_key_value_heads=2,
                    intermediate_size=32,
                    timestep_embed_dim=16,
                    text_hidden_dim=32,
                    num_text_layers=2,
                    text_num_attention_heads=2,
                    text_num_key_value_heads=2,
                    text_intermediate_size=32,
                    num_layerwise_text_blocks=1,
                    num_refiner_text_blocks=1,
                    axes_dims_rope=(4, 6, 6),
                ),
                "to_v",
                "to_out",
                "txt_in",
            ),
            scheduler=FlowMatchEulerDiscreteScheduler(
                use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15, max_image_seq_len=6400
            ),
        )


def qwen_processor(context: int = 1024) -> LlavaProcessor:
    """The processor of Qwen3-VL's pipelines, for prompts.

    Its own class, Qwen3VLProcessor, wants torchvision; this one handles text by the same code.
    """
    return LlavaProcessor(
        image_processor=CLIPImageProcessorPil(),
        tokenizer=qwen_tokenizer(context, ["<|image_pad|>"]),
        chat_template=CHATML.replace(
            "m.content", "m.content if m.content is string else m.content[0].text"
        ),
        image_token="<|image_pad|>",
    )


def bria_fibo2(seed: int = 0) -> BriaFibo2Pipeline:
    """Qwen3-VL of width 32, with as many layers as the pipeline looks for; six blocks."""
    with _seeded(seed):
        processor = qwen_processor(128)
        settings = {"num_hidden_layers": 36, "initializer_range": 0.6 / 36}
        transformer = BriaFibo2Transformer2DModel(
            in_channels=4,
            dim=32,
            n_layers=6,
            n_refiner_layers=1,
            n_heads=2,
            cap_feat_dim=96,
            injection_layer_ids=(0, 1, 2, 3, 4),
            perceiver_num_layers=1,
            min_num_gist_tokens=4,
            max_num_gist_tokens=8,
            gist_step=2,
            gist_min_text_len=8,
            gist_max_text_len=64,
            axes_dims=(4, 6, 6),
            axes_lens=(64, 32, 32),
        )
        for block in transformer.layers[:5]:
            torch.nn.init.ones_(block.cross_attn_gate)  # closed before training
        return BriaFibo2Pipeline(
            processor=processor,
            text_encoder=_qwen3vl(
                Qwen3VLForConditionalGeneration,
                vocab_size=len(processor.tokenizer) + 9,
                **settings,
            ),
            vae=_flux2_vae(),
            transformer=transformer,
            scheduler=FlowMatchEulerDiscreteScheduler(
                use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15
            ),
        )


def ideogram4(seed: int = 0) -> Ideogram4Pipeline:
    """Qwen3-VL of width 32, with as many layers as the pipeline looks for; two transformers."""
    with _seeded(seed):
        processor = qwen_processor(128)
        tokens = processor.tokenizer
        tokens.chat_template = processor.chat_template
        one, other = (
            Ideogram4Transformer2DModel(
                in_channels=16,
                num_layers=2,
                attention_head_dim=16,
                num_attention_heads=2,
                intermediate_size=64,
                adaln_dim=16,
                llm_features_dim=13 * 32,
                mrope_section=(4, 2, 2),
            )
            for _ in range(2)
        )
        return Ideogram4Pipeline(
            scheduler=FlowMatchEulerDiscreteScheduler(),
            vae=_flux2_vae(),
            text_encoder=_qwen3vl(
                Qwen3VLModel,
                vocab_size=len(tokens) + 9,
                num_hidden_layers=36,
                initializer_range=0.6 / 36,
            ),
            tokenizer=tokens,
            transformer=one,
            unconditional_transformer=other,
        )


def nucleus_moe(seed: int = 0) -> NucleusMoEImagePipeline:
    """Qwen3-VL of width 32 and nine layers, of which the second is read; two blocks of experts."""
    with _seeded(seed):
        processor = qwen_processor()
        transformer = NucleusMoEImageTransformer2DModel(
            in_channels=16,
            out_channels=4,
            num_layers=2,
            attention_head_dim=16,
            num_attention_heads=2,
            num_key_value_heads=1,
            joint_attention_dim=32,
            axes_dims_rope=(4, 6, 6),
            dense_moe_strategy="all_moe",
            num_experts=4,
            moe_intermediate_dim=16,
            capacity_factors=2.0,
        )
        for name, weight in transformer.named_parameters():
            if "experts." in name:  # not initialised by its class
                torch.nn.init.normal_(weight, std=0.2)
        return NucleusMoEImagePipeline(
            processor=processor,
            text_encoder=_qwen3vl(
                Qwen3VLForConditionalGeneration,
                vocab_size=len(processor.tokenizer) + 9,
                num_hidden_layers=9,
            ),
            vae=_film_vae(),
            transformer=listening(transformer, "add_v_proj", "to_out"),
            scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        )


def dreamlite(
    kind: type[DreamLitePipeline] | type[DreamLiteMobilePipeline] = DreamLitePipeline, seed: int = 0
) -> DreamLitePipeline | DreamLiteMobilePipeline:
    """Qwen3-VL of width 32, a UNet of two blocks, a tiny autoencoder of cells of 2 px."""
    with _seeded(seed):
        tokens = qwen_tokenizer(1024)
        return kind(
            text_encoder=_qwen3vl(Qwen3VLForConditionalGeneration, vocab_size=len(tokens) + 9),
            tokenizer=tokens,
            processor=qwen_processor(),
            vae=AutoencoderTiny(
                encoder_block_out_channels=(8, 8),
                decoder_block_out_channels=(8, 8),
                num_encoder_blocks=(1, 1),
                num_decoder_blocks=(1, 1),
                scaling_factor=1.3,
                shift_factor=0.1,
            ),
            unet=listening(
                DreamLiteUNetModel(
                    down_block_types=(
                        "DreamLiteCrossAttnNoSelfAttnDownBlock2D",
                        "DreamLiteCrossAttnDownBlock2D",
                    ),
                    up_block_types=("DreamLiteCrossAttnUpBlock2D", "DreamLiteUpBlock2D"),
                    block_out_channels=(16, 32),
                    layers_per_block=1,
                    norm_num_groups=4,
                    cross_attention_dim=32,
                    attention_head_dim=2,
                    encoder_hid_dim=32,
                    encoder_hid_dim_type="text_proj_rms",
                    addition_embed_type="time",
                    addition_time_embed_dim=8,
                    projection_class_embeddings_input_dim=16,
                    ff_mult=2,
                ),
                "attn2.to_v",
                "attn2.to_out",
            ),
            scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, max_shift=1.16),
        )


def qwen_image21(seed: int = 0) -> QwenImage21Pipeline:
    """Qwen3-VL of width 32 inside a processor, a VAE of RGBA films, a transformer of one block."""
    with _seeded(seed):
        processor = qwen_processor()
        return QwenImage21Pipeline(
            processor=processor,
            text_encoder=_qwen3vl(
                Qwen3VLForConditionalGeneration, vocab_size=len(processor.tokenizer) + 9
            ),
            vae=AutoencoderKLQwenImage21(
                base_dim=8,
                decoder_base_dim=8,
                z_dim=4,
                dim_mult=[1, 1, 1, 1, 1],
                num_res_blocks=1,
                temperal_downsample=[False, False, False, False],
                latents_mean=[-0.7571, 0.1075, 1.5508, 0.4134],
                latents_std=[2.8184, 1.4541, 0.7708, 1.6052],
            ),
            transformer=listening(
                QwenImage21Transformer2DModel(
                    in_channels=4,
                    out_channels=4,
                    num_layers=1,
                    attention_head_dim=16,
                    num_attention_heads=2,
                    context_in_dim=32,
                    axes_dims_rope=(4, 6, 6),
                ),
                "to_v",
                "to_out",
                "txt_in",
            ),
            scheduler=FlowMatchEulerDiscreteScheduler(
                use_dynamic_shifting=True, base_shift=0.5, max_shift=0.9, max_image_seq_len=8192
            ),
        )


FAMILIES = {
    "stable_diffusion": stable_diffusion,
    "stable_diffusion_v": lambda: stable_diffusion("v_prediction", 1),
    "ldm": ldm,
    "sdxl": sdxl,
    "sd3": sd3,
    "flux": flux,
    "pixart": pixart,
    "pixart_alpha": lambda: pixart(PixArtAlphaPipeline, size=128),
    "sana": sana,
    "sana_sprint": sana_sprint,
    "lumina2": lumina2,
    "chroma": chroma,
    # more T5, Gemma and GLM
    "lumina": lumina,
    "bria": bria,
    "bria_fibo2": bria_fibo2,
    "dreamlite": dreamlite,
    "dreamlite_mobile": lambda: dreamlite(DreamLiteMobilePipeline),
    "ernie_image": ernie_image,
    "ideogram4": ideogram4,
    "longcat_image": longcat_image,
    "nucleus_moe": nucleus_moe,
    "hunyuan_dit": hunyuan_dit,
    "hidream": hidream,
    "cogview3": cogview3,
    "auraflow": auraflow,
    "cogview4": cogview4,
    "cosmos2": cosmos2,
    "kolors": kolors,
    "deepfloyd_if": deepfloyd_if,
    "prx": prx,
    "prx_pixel": prx_pixel,
    "kandinsky3": kandinsky3,
    # more Qwen
    "krea2": krea2,
    "ovis_image": ovis_image,
    "qwen_image": qwen_image,
    "qwen_image21": qwen_image21,
    "hunyuan_image": hunyuan_image,
    "kandinsky5": kandinsky5,
    "z_image": z_image,
    "z_image_omni": z_image_omni,
    "flux2": flux2_klein,
    "flux2_dev": flux2_dev,
}


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(seed)  # noqa: TID251
        yield


def save(pipeline: DiffusionPipeline, folder: Path) -> Path:
    """Save a pipeline and return its folder."""
    pipeline.save_pretrained(folder)
    if isinstance(pipeline, PRXPipeline):  # its loader looks for the settings of a whole T5-Gemma
        _t5gemma(pipeline.text_encoder.config.vocab_size).save_pretrained(folder / "text_encoder")
    return folder
