"""Learn a thing and a style, draw both words, keep the best, and show everything that was drawn.

python examples/generate.py --folder example-generate
"""

from __future__ import annotations

from pathlib import Path

import tyro

import oneword
from oneword.images import from_uint8
from oneword.microworld.world import concepts
from oneword.microworld.world.drawn import concept_pictures
from oneword.prompts import expanded


def main(
    model: str = "microworld",
    max_train_steps: int | None = None,
    num_images: int = 16,
    folder: Path = Path("example-generate"),
) -> None:
    """Learn, draw, choose, save.

    Args:
        model: An embedded model.
        max_train_steps: Of each word; unset: the preset's.
        num_images: Candidates of each prompt.
        folder: For the pictures and the gallery.
    """
    backbone = oneword.load_backbone(oneword.ModelConfig(model=model))
    jobs = []
    for token, name, kind in (("<mug>", "gold-mug", "object"), ("<neon>", "neon", "style")):
        held_out = concepts.get(name)
        config = oneword.InversionConfig(
            placeholder_token=token,
            initializer_token=held_out.noun,
            learnable_property=kind,  # a style has templates of its own
            max_train_steps=max_train_steps,
        )
        pictures = from_uint8(concept_pictures(held_out, size=backbone.resolution))
        jobs.append(oneword.Job(name=token, pictures=pictures, config=config))
    words = [result.concept for result in oneword.invert_many(backbone, jobs, slots=2)]

    # a list of prompts for things, one for styles, and both words in one prompt
    prompts = expanded(
        ["microworld:edits", "a <mug> in the style of <neon>"],
        {word.placeholder_token: word.learnable_property for word in words},
    )
    drawing = oneword.generate(backbone, prompts, range(num_images), concepts=words)
    oneword.save_gallery(drawing, folder)

    choice = oneword.choose(
        drawing,
        oneword.load_judge(None, backbone),
        keep=max(1, num_images // 4),
        references={job.config.placeholder_token: job.pictures for job in jobs},
        diversity=0.2,
    )
    oneword.save_drawing(drawing.only(choice.kept), folder / "kept")


if __name__ == "__main__":
    tyro.cli(main)
