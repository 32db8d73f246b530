"""What is asked for where models describe pictures that a word will be learned from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from oneword.config.checks import check_placeholder
from oneword.errors import require


@dataclass(frozen=True, kw_only=True, slots=True)
class AnnotateConfig:
    """Caption pictures and mark the thing in them, with models that are named."""

    folder: Path
    """Folder with the pictures."""
    caption_with: str | None = None
    """Model that captions: hub id or folder of an image-text-to-text model of transformers, such as Salesforce/blip-image-captioning-base."""
    mask_with: str | None = None
    """Model that marks: hub id or folder of an image segmentation model of transformers, such as facebook/mask2former-swin-base-coco-panoptic (pip install 'oneword[masks]')."""
    placeholder_token: str = "S*"
    """The new word, which stands in every caption."""
    initializer_token: str | None = None
    """Noun whose place in captions the word takes, where they name it; elsewhere the word stands in front. It is what is marked, too, unless mask_labels are given."""
    caption_prompt: str | None = None
    """What a model that chats is asked; unset: for one plain sentence."""
    mask_labels: tuple[str, ...] = ()
    """The marking model's own labels of what is marked; none: the initializer_token, or the one label that is no background."""
    output_dir: Path | None = None
    """Folder for captions and masks, for oneword train --caption-dir and --mask-dir; unset: beside the pictures."""
    overwrite: bool = False
    """Write captions and masks anew where there are some; otherwise those stay."""
    device: str = "auto"
    """"auto" (CUDA, then MPS, then CPU) or a torch device such as "cuda:1"."""

    def __post_init__(self) -> None:
        require(
            self.caption_with is not None or self.mask_with is not None,
            "A model must be named, by --caption-with or --mask-with, got none; `oneword train "
            "--preview-pictures` shows the pictures as they are.",
        )
        check_placeholder(self.placeholder_token)
        require(
            self.caption_prompt is None or self.caption_with is not None,
            "caption_prompt goes with caption_with, got it alone.",
        )
        require(
            not self.mask_labels or self.mask_with is not None,
            "mask_labels go with mask_with, got them alone.",
        )
