"""``oneword microworld things``: what the embedded model's world can draw, as a list or a sheet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from oneword._files import check_writable
from oneword.cli import options
from oneword.cli.arguments import ThingsArguments
from oneword.errors import ConfigError
from oneword.images import contact_sheet, save_png
from oneword.microworld.world import artwork, inventory, unseen
from oneword.microworld.world.wide_scenes import Figure, WideScene


def run(arguments: ThingsArguments, _words: Sequence[str]) -> int:
    """List things, and make a sheet of them where one is asked for."""
    if arguments.num is not None and arguments.num < 1:
        raise ConfigError(f"num must be 1 or more, got {arguments.num}.")
    if arguments.look is not None:
        artwork.artworks(arguments.look)  # refuses an unknown one
    found = (
        artwork.search(arguments.search) if arguments.search else list(artwork.things().values())
    )
    drawn = [
        noun
        for noun in (*inventory.NOUNS, *inventory.PROFESSIONS)
        if not arguments.search or arguments.search.lower() in noun.split()
    ]
    if not found and not drawn:
        raise artwork.unknown(arguments.search or "")
    found = found[: arguments.num]
    if arguments.sheet is not None:
        _save_sheet(found, arguments.sheet, arguments.look)
    halves = unseen.counted()
    if drawn:
        print(f"drawn from parts: {', '.join(drawn)}")
    for thing in found:
        held_out = thing.slug in unseen.held_out()
        note = f"  [held out, {halves.get(thing.slug, 'beside a twin')}]" if held_out else ""
        print(f"{thing.noun}  ({', '.join(thing.keywords[:6])}){note}")
    options.say(
        f"Drawn by artists, in four looks: {len(found)}. The model in the package was trained "
        "before they were added. It knows only things that are drawn from parts."
    )
    return 0


def _save_sheet(found: list[artwork.Drawn], path: Path, look: str | None) -> None:
    from oneword.microworld.world import wide_drawing  # needs the optional extra

    check_writable(path.parent)
    looks = (look,) if look else artwork.LOOKS
    pictures = []
    for thing in found:
        for one in looks:
            if thing.slug in artwork.artworks(one):
                scene = WideScene(things=(Figure(slug=thing.slug, look=one),))
                pictures.append(Image.fromarray(wide_drawing.render(scene, 64)))
    if not pictures:
        raise ConfigError(
            f"Cannot make a sheet because no thing has the look {look!r}; pass another --look."
        )
    columns = len(looks) * max(1, 24 // len(looks)) if len(pictures) > 24 else None
    save_png(contact_sheet(pictures, columns=columns, cell_px=64), path)
    options.say(f"{len(pictures)} drawings in {path}.")
