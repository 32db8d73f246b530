"""Learn a word, write its card, and upload both where a repository is named.

python examples/share.py --folder example-share --repository OWNER/NAME
"""

from __future__ import annotations

from pathlib import Path

import tyro

import oneword
from oneword.images import from_uint8
from oneword.microworld.world import concepts
from oneword.microworld.world.drawn import concept_pictures


def main(
    model: str = "microworld",
    max_train_steps: int | None = None,
    repository: str | None = None,
    folder: Path = Path("example-share"),
) -> None:
    """Learn, describe, upload, load back.

    Args:
        model: An embedded model.
        max_train_steps: Of the word; unset: the preset's.
        repository: OWNER/NAME on the Hub; unset: nothing is uploaded.
        folder: For the word's file, its card and its preview.
    """
    backbone = oneword.load_backbone(oneword.ModelConfig(model=model))
    pictures = from_uint8(concept_pictures(concepts.get("gold-mug"), size=backbone.resolution))
    config = oneword.InversionConfig(
        placeholder_token="<mug>", initializer_token="mug", max_train_steps=max_train_steps
    )
    result = oneword.invert(backbone, oneword.Job(name="mug", pictures=pictures, config=config))
    file = folder / "learned_embeds.safetensors"
    oneword.save_concept(result.concept, file)
    prompts = ["a photo of a <mug>", "a photo of a <mug> on the moon"]
    preview = oneword.generate(backbone, prompts, range(3), concepts=[result.concept]).pixels
    oneword.write_card(file, license="cc0-1.0", preview=preview, prompts=prompts)
    if repository is not None:
        print(oneword.push_concept(file, repository))
        assert oneword.load_concept(repository).sha256() == result.concept.sha256()


if __name__ == "__main__":
    tyro.cli(main)
