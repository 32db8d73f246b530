"""The guide: a CLIP pair that guides drawing and never scores the pictures.

Pictures optimised on a CLIP fool that CLIP first, so the guide must not be the judge.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from oneword.config.model import is_embedded
from oneword.errors import UserError
from oneword.models.clip_pairs import (
    ClipPair,
    guide_source,
    is_same,
    judge_source,
    load_pair,
)
from oneword.vocabulary.inject import injected
from oneword.vocabulary.vocabulary import Vocabulary
from oneword.vocabulary.word import PlaceholderError, Word


Pictures = Float[Tensor, "num 3 height width"]
"""RGB, float, in [0, 1], as before CLIP's normalisation."""
Features = Float[Tensor, "num dim"]
"""CLIP embeddings of unit length."""
OWN_TOWER = "clip_guide"
"""Key of the embedded guides' text tower in concept files."""
_TOWERS = {
    (768, "quick_gelu", 224): "clip_l",  # OpenAI's; LAION's are as wide, and another table's
    (1024, "gelu", 224): "clip_h",
    (1280, "gelu", 224): "clip_g",
}
"""Keys of text towers whose tables are those of a drawing model's encoder, by the tower's width and
activation and the size of the pair's pictures, px."""


class GuideError(UserError):
    """The CLIP that guides cannot be used."""


class Guide:
    """A frozen CLIP pair that guides drawing.

    Its attributes: ``name``, for reports; ``source``, the hub id or folder; ``size``, the side of
    its pictures, px; ``dim``, the length of its features; ``tower``, the key of its text tower in
    concept files.
    """

    def __init__(self, pair: ClipPair, *, name: str, source: str, tower: str | None = None) -> None:
        """Take a loaded pair.

        Args:
            pair: The pair.
            name: Its name in reports.
            source: Hub id or folder.
            tower: Key of its text tower in concept files; by default derived from its sizes.
        """
        self.model, self.name, self.source = pair.model, name, source
        config: Any = pair.model.config
        self.size = int(config.vision_config.image_size)
        self.dim = int(config.projection_dim)
        self.device: torch.device = pair.model.device
        self.pool = "eos"  # where the features of a prompt are taken, word or none
        self._mean = torch.tensor(pair.mean, device=self.device)[:, None, None]
        self._std = torch.tensor(pair.std, device=self.device)[:, None, None]
        text = config.text_config
        told = (int(text.hidden_size), text.hidden_act, self.size)
        # other CLIPs are as wide as each other, and each has a table of its own
        self.tower = tower or _TOWERS.get(told, f"clip_b{config.vision_config.patch_size}")
        self._holder = SimpleNamespace(tokenizer=pair.tokenizer)
        vocabulary = Vocabulary(self.tower, self._holder, "tokenizer", pair.model.text_model)
        self.vocabularies = {self.tower: vocabulary}
        """As for a backbone, so that words can be injected and learned."""

    @classmethod
    def load(
        cls,
        source: str | None,
        backbone_name: str | None,
        *,
        device: torch.device,
        judge: str | None = None,
        allow_same_clip: bool = False,
    ) -> Guide:
        """Load a guide that is not the judge.

        Args:
            source: Hub id or folder of a CLIP; ``None``: microworld's own guide on microworld,
                elsewhere ``openai/clip-vit-base-patch16``.
            backbone_name: The guided model, which decides the defaults.
            device: The device.
            judge: The CLIP that will score; ``None``: the default judge.
            allow_same_clip: Allow guide and judge to be the same CLIP; scores then mean little.

        Raises:
            GuideError: there is no complete CLIP with that name, or it is the judge.
        """
        place = guide_source(source, backbone_name)
        scores = judge_source(judge, backbone_name or "")
        if not allow_same_clip and is_same(place, scores):
            raise GuideError(
                f"Cannot use {source or place} as guide because it is also the judge; pass "
                "another --guide or --judge, or --allow-same-clip. With that, the judge's scores "
                "say little."
            )
        own = source is None and is_embedded(backbone_name)
        pair = load_pair(place, device, role="The guide", error=GuideError)
        return cls(
            pair,
            name="microworld's guide" if own else place,
            source=place,
            tower=OWN_TOWER if own else None,
        )

    def sha256(self) -> str:
        """SHA-256 of the pair's weights, which identifies it in the files of what it trained."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.model.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def image_features(self, pictures: Pictures) -> Features:
        """Features of pictures of the guide's own size, unit length; differentiable.

        Args:
            pictures: RGB in [0, 1], (num, 3, size, size).

        Raises:
            ValueError: the pictures have another size.
        """
        if pictures.shape[-2:] != (self.size, self.size):
            raise ValueError(
                f"Pictures must be {self.size} x {self.size} px, got {pictures.shape[-2]} x "
                f"{pictures.shape[-1]}."
            )
        values = (pictures - self._mean) / self._std
        seen = self.model.vision_model(pixel_values=values).pooler_output
        return F.normalize(self.model.visual_projection(seen), dim=-1)

    def text_features(self, prompts: Sequence[str], concepts: Sequence[Word] = ()) -> Features:
        """Features of prompts, unit length; differentiable in the concepts' rows.

        Args:
            prompts: May contain the concepts' placeholders.
            concepts: Words with rows for this guide's text tower.

        Raises:
            PlaceholderError: a word has no rows for the tower, or rows of another width.
        """
        for word in concepts:
            if self.tower not in word.rows:
                raise PlaceholderError(
                    f"The concept {word.placeholder_token!r} must have embeddings for "
                    f"{self.tower}, the text encoder of {self.name}, got some for "
                    f"{', '.join(word.rows)}; use a word that was learned on this CLIP."
                )
        with injected(self, concepts):
            batch = self._holder.tokenizer(
                list(prompts), padding=True, truncation=True, return_tensors="pt"
            ).to(self.device)
            read = self.model.text_model(**batch).pooler_output
        return F.normalize(self.model.text_projection(read), dim=-1)
