"""Names in other tools' files: which text encoder a width means, and what the word is called."""

from __future__ import annotations

from pathlib import Path

from oneword import catalog
from oneword._escaping import is_control
from oneword.concepts.concept import is_of_pair


_SAY_NOTHING = {"learned_embeds", "embeddings", "embedding", "emb_params", "emp_params", "*", ""}
_MAX_STEM = 180  # bytes of a file's name; endings and numbers follow


def keys() -> dict[str, str]:
    """Keys in files that name a text encoder, with our name for it."""
    ours = {}
    for encoder in catalog.text_encoders():
        if encoder.named != "never":
            ours |= {key: key for key in (encoder.key, encoder.other_size) if key}
            ours |= dict.fromkeys(encoder.aliases, encoder.key)
    return ours


def is_named_alone(key: str) -> bool:
    """Whether files name the encoder even if it is the only one, because ComfyUI looks for it."""
    return any(
        encoder.named == "always" and key in (encoder.key, encoder.other_size)
        for encoder in catalog.text_encoders()
    )


def encoder_of_width(dim: int, *, second: bool = False) -> str:
    """Our name for the text encoder with rows of this width, if the file names none.

    1280 is OpenCLIP-bigG or the paper's BERT; a model with one encoder takes either.
    """
    return next(
        (e.key for e in catalog.text_encoders() if e.by_width and e.width == dim),
        "clip_2" if second else "clip",
    )


def family_of(rows: dict[str, int]) -> str:
    """The family that encoders of these widths belong to, in words."""
    told = [f for f in catalog.FAMILIES.values() if f.told_by and rows.keys() >= {*f.told_by}]
    if told:  # the one with the most encoders here
        return max(told, key=lambda f: sum(e.key in rows for e in f.text_encoders)).title
    key, width = next(iter(rows.items()))
    if is_of_pair(key):
        return "a CLIP pair, which cannot draw"
    as_wide = [e for e in catalog.text_encoders() if e.width == width]
    own = [e for e in as_wide if len(rows) == 1 and e.key == key]
    return next((e.fits for e in (*own, *as_wide) if e.fits), "unknown")


def token_of(name: object, path: Path) -> str:
    """A word without spaces, made from a name in a file or from the file's own name."""
    word = _seen(name).strip() if isinstance(name, str) else ""
    if word.lower() in _SAY_NOTHING:
        stem = path.stem if path.stem.lower() not in _SAY_NOTHING else path.parent.name
        word = _seen(stem) or word
    return "-".join(word.split()) or "S*"


def file_name(token: str) -> str:
    """A word as a file name without an extension, which is its name in other tools."""
    kept = "".join(c if c.isalnum() or c in "-_" else "-" for c in token).strip("-")
    return kept.encode()[:_MAX_STEM].decode(errors="ignore") or "word"


def _seen(text: str) -> str:
    """The text without control characters, which nobody could type."""
    return "".join(char for char in text if char.isspace() or not is_control(char))
