"""Two words learned together, with pictures of one pasted into the other's, in one picture.

python examples/compose.py --folder example-compose
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
    num_images: int = 8,
    folder: Path = Path("example-compose"),
) -> None:
    """Learn together, draw.

    Args:
        model: An embedded model.
        max_train_steps: Of both words; unset: the preset's.
        num_images: Pictures of each prompt.
        folder: For the pictures.
    """
    backbone = oneword.load_backbone(oneword.ModelConfig(model=model))
    jobs = []
    for token, name in (("<bird>", "parrot"), ("<teapot>", "midnight-teapot")):
        held_out = concepts.get(name)
        config = oneword.InversionConfig(
            placeholder_token=token,
            initializer_token=held_out.noun,
            max_train_steps=max_train_steps,
        )
        pictures = from_uint8(concept_pictures(held_out, size=backbone.resolution))
        jobs.append(oneword.Job(name=token, pictures=pictures, config=config))
    results = oneword.invert_together(backbone, jobs, paste=0.1)
    prompts = ["a photo of a <bird> next to a <teapot>", "a photo of a <bird> on top of a <teapot>"]
    words = [result.concept for result in results]
    drawing = oneword.generate(backbone, prompts, range(num_images), concepts=words)
    oneword.save_drawing(drawing, folder)


if __name__ == "__main__":
    tyro.cli(main)
