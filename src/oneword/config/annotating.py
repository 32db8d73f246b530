"""What is asked for where models describe pictures that a word will be learned from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from oneword.config.checks import check_placeholder
from oneword.errors import require


@dataclass(frozen=True, kw_only=True, slots=True)
class AnnotateConfig:
    """Caption pictures and make masks for them, with models that you name."""

    folder: Path
    """Folder with the pictures."""
    caption_with: str | None = None
    """Captioning model: hub id or folder of a transformers image-text-to-text model, such as Salesforce/blip-image-captioning-base."""
    mask_with: str | None = None
    """Mask model: hub id or folder of a transformers image segmentation model, such as facebook/mask2former-swin-base-coco-panoptic."""
    placeholder_token: str = "S*"
    """The new word. Every caption contains it."""
    initializer_token: str | None = None
    """Noun for the thing. In captions that name it, the new word replaces it; in the others, the new word goes in front. It is also what the mask marks, unless mask_labels are given."""
    caption_prompt: str | None = None
    """Instruction for a captioning model that chats (default: asks for one plain sentence)."""
    mask_labels: tuple[str, ...] = ()
    """Labels to mask, as the mask model names them. Without them: the initializer_token, or the only label that is not background."""
    output_dir: Path | None = None
    """Folder for captions and masks, to pass to oneword train as --caption-dir and --mask-dir (default: next to the pictures)."""
    overwrite: bool = False
    """Replace existing captions and masks. Otherwise they stay."""
    device: str = "auto"
    """Device: "auto" (CUDA, then MPS, then CPU) or a torch device such as "cuda:1"."""

    def __post_init__(self) -> None:
        require(
            self.caption_with is not None or self.mask_with is not None,
            "Cannot caption or mask without a model; pass --caption-with or --mask-with. To see "
            "the pictures as they are, run `oneword train --preview-pictures`.",
        )
        check_placeholder(self.placeholder_token)
        require(
            self.caption_prompt is None or self.caption_with is not None,
            "Cannot use caption_prompt without caption_with; pass --caption-with.",
        )
        require(
            not self.mask_labels or self.mask_with is not None,
            "Cannot use mask_labels without mask_with; pass --mask-with.",
        )
