"""A fairer word for "doctor": learned from a diverse set, compared with the old word.

python examples/debias.py --folder example-debias
"""

from __future__ import annotations

from pathlib import Path

import tyro
from PIL import Image

import oneword
from oneword.evaluation import fairness
from oneword.microworld.world import drawing, scenes


def main(
    model: str = "microworld",
    max_train_steps: int | None = None,
    num_images: int = 64,
    folder: Path = Path("example-debias"),
) -> None:
    """Draw a diverse set, learn, compare.

    Args:
        model: An embedded model.
        max_train_steps: Of the word; unset: the preset's.
        num_images: Pictures of each word.
        folder: For the set, the run and nothing else.
    """
    pictures = folder / "doctors"
    pictures.mkdir(parents=True, exist_ok=True)
    for i, scene in enumerate(scenes.diverse_people("doctor", 12)):
        Image.fromarray(drawing.render(scene)).save(pictures / f"{i:02d}.png")
    config = oneword.DebiasConfig(
        word="doctor",
        images=pictures,
        output_dir=folder,
        model=oneword.ModelConfig(model=model),
        inversion=oneword.InversionConfig(
            placeholder_token="<fair>", max_train_steps=max_train_steps
        ),
        num_images=num_images,
    )
    _, found = oneword.debias(config)
    if found is not None:
        for line in fairness.table(found):
            print(" | ".join(line))


if __name__ == "__main__":
    tyro.cli(main)
