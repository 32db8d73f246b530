"""``oneword microworld pictures`` and ``people``: drawn pictures to learn from; no model is needed."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from oneword._files import check_writable
from oneword.cli import options
from oneword.cli.arguments import PeopleArguments, PicturesArguments
from oneword.images import from_uint8, save_png, to_images
from oneword.microworld.world import concepts, scenes
from oneword.microworld.world.drawn import concept_pictures, concept_plain
from oneword.prompts import descriptions
from oneword.prompts.descriptions import Descriptions


def run(chosen: PicturesArguments | PeopleArguments, _words: Sequence[str]) -> int:
    """Draw a held-out concept, or a profession."""
    return _pictures(chosen) if isinstance(chosen, PicturesArguments) else _people(chosen)


def _pictures(arguments: PicturesArguments) -> int:
    concept = concepts.get(arguments.concept)
    draw = concept_plain if arguments.plain else concept_pictures
    check_writable(arguments.output_dir)
    drawn = draw(concept, num=arguments.num_images, seed=arguments.seed)
    for i, image in enumerate(to_images(from_uint8(drawn)), start=1):
        save_png(image, arguments.output_dir / f"{i}.png")
    if not arguments.plain:
        own = Descriptions(short=concept.captions_short, long=concept.captions_long)
        descriptions.write(own, arguments.output_dir)
    options.say(f"{arguments.num_images} pictures of {concept.name} in {arguments.output_dir}.")
    return 0


def _people(arguments: PeopleArguments) -> int:
    from oneword.microworld.world import drawing  # needs the optional extra

    check_writable(arguments.output_dir)
    found = scenes.diverse_people(arguments.profession, arguments.num_images, arguments.seed)
    for i, scene in enumerate(found, start=1):
        image = Image.fromarray(drawing.render(scene))
        save_png(image, arguments.output_dir / f"{i:02d}.png")
    options.say(f"{len(found)} pictures of a {arguments.profession} in {arguments.output_dir}.")
    return 0
