"""Tokenizers of the real classes that know a few words."""

from __future__ import annotations

import string
from collections.abc import Sequence

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    BertTokenizer,
    CLIPImageProcessorPil,
    CLIPTokenizer,
    GemmaTokenizer,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    Qwen2Tokenizer,
    T5Tokenizer,
)


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


def byte_level(specials: Sequence[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
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
    vocab, merges = byte_level(["<|endoftext|>", *marks])
    tokens = Qwen2Tokenizer(
        vocab=vocab, merges=merges, extra_special_tokens=marks, model_max_length=context
    )
    tokens.chat_template = CHATML
    return tokens


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


def mistral_processor(context: int = 96) -> LlavaProcessor:
    """Mistral's tokenizer inside a processor, as Flux.2 dev keeps it.

    Its own class, PixtralProcessor, wants torchvision; this one handles text by the same code.
    """
    marks = ["[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"]
    marks += ["[IMG]", "[IMG_BREAK]", "[IMG_END]"]
    vocab, merges = byte_level(["<unk>", "<s>", "</s>", "<pad>", *marks])
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
