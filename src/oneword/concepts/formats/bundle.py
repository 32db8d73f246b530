"""Embeddings inside files of other weights: LoRA bundles, and files of pivotal tuning.

``bundle_emb.<word>.<...>`` in LoRA files of A1111 and OneTrainer; in cloneofsimo's pivotal-tuning
files ``<s1>`` next to the LoRA's layers, marked ``"<embed>"`` in the metadata.
"""

from __future__ import annotations

from oneword.concepts.concept import Concept
from oneword.concepts.formats.contents import Contents
from oneword.concepts.formats.names import encoder_of_width, keys, token_of


_BUNDLE = "bundle_emb."
_MARK = "<embed>"


def _marked(contents: Contents) -> list[str]:
    return [name for name in contents.shapes if contents.fields.get(name) == _MARK]


def matches(contents: Contents) -> bool:
    """Whether there is an embedding among other tensors."""
    return any(name.startswith(_BUNDLE) for name in contents.shapes) or bool(_marked(contents))


def load(contents: Contents) -> tuple[list[Concept], list[str]]:
    """Read every embedding and say how much else the file holds."""
    rows: dict[str, dict[str, str]] = {}
    notes, ours = [], keys()
    for name in contents.shapes:
        if not name.startswith(_BUNDLE):
            continue
        word, _, place = name.removeprefix(_BUNDLE).partition(".")
        for inner in ("string_to_param.", "emb_params", "emp_params"):
            if place.startswith(inner):
                place = ""
        if place.endswith("_out") or (place and place not in ours):
            notes.append(f"{name!r} {contents.shapes[name]} is not used here.")
            continue
        rows.setdefault(word, {})[place and ours[place]] = name
    rows |= {name: {"": name} for name in _marked(contents)}
    contents.count([key for places in rows.values() for key in places.values()], len(rows))
    found = []
    for word, places in rows.items():
        tensors = {encoder: contents.rows(key) for encoder, key in places.items()}
        named = {e or encoder_of_width(t.shape[1]): t for e, t in tensors.items()}
        found.append(
            Concept(
                placeholder_token=token_of(word, contents.path),
                rows=named,
                provenance={"file": contents.path.name},
            )
        )
    others = len(contents.shapes) - sum(len(places) for places in rows.values())
    if others:
        notes.append(f"{others} other tensors, such as those of a LoRA, are ignored.")
    return found, notes
