"""Draw a learned thing into a picture, draw a picture over, and invert it and change its sentence.

python examples/editing.py --folder example-editing
"""

from __future__ import annotations

from pathlib import Path

import torch
import tyro

import oneword
from oneword.images import contact_sheet, from_uint8, save_png
from oneword.microworld.world import concepts, drawing, inventory
from oneword.microworld.world.drawn import concept_pictures


def main(
    model: str = "microworld",
    max_train_steps: int | None = None,
    num_images: int = 4,
    folder: Path = Path("example-editing"),
) -> None:
    """Learn, edit in three ways, show.

    Args:
        model: An embedded model.
        max_train_steps: Of the word; unset: the preset's.
        num_images: Candidates of each edit.
        folder: For the pictures.
    """
    backbone = oneword.load_backbone(oneword.ModelConfig(model=model))
    size = backbone.resolution
    pictures = from_uint8(concept_pictures(concepts.get("parrot"), size=size))
    config = oneword.InversionConfig(
        placeholder_token="S*", initializer_token="bird", max_train_steps=max_train_steps
    )
    job = oneword.Job(name="parrot", pictures=pictures, config=config)
    word = oneword.invert(backbone, job).concept

    # a dog on the beach, and a box with room for what is to stand there instead
    dog = inventory.Thing(noun="dog", colours=("brown", "white", "black"))
    scene = inventory.Scene(things=(dog,), place="beach", seed=3)
    picture = from_uint8(drawing.render(scene, size=size)[None])
    mask = torch.zeros(1, 1, size, size)
    mask[..., size // 4 : -size // 16, size // 16 : -size // 16] = 1

    prompt, seeds = "a photo of a S* on the beach", range(num_images)
    rows = {
        "mask": oneword.edit(backbone, picture, prompt, seeds, mask=mask, concepts=[word]),
        "strength 0.6": oneword.edit(
            backbone, picture, prompt, seeds, strength=0.6, concepts=[word]
        ),
        "inverted": oneword.edit(
            backbone,
            picture,
            prompt,
            invert="a photo of a brown dog on the beach",
            concepts=[word],
        ),
    }
    for name, edits in rows.items():
        oneword.save_edits(edits, folder / name.split()[0])
    shown = [torch.cat([picture, e.drawing.pixels]) for e in rows.values()]
    blank = torch.ones(1, 3, size, size)
    shown = [torch.cat([s, *[blank] * (1 + num_images - len(s))]) for s in shown]
    sheet = contact_sheet(torch.cat(shown), columns=1 + num_images, row_labels=list(rows))
    save_png(sheet, folder / "editing.png")


if __name__ == "__main__":
    tyro.cli(main)
