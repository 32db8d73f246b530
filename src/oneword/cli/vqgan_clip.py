"""``oneword baseline vqgan-clip``: pictures whose codes are moved towards a text."""

from __future__ import annotations

from collections.abc import Sequence

from oneword import prompts as sentences
from oneword._devices import pick_device
from oneword._files import check_writable
from oneword.cli import options, screen
from oneword.cli.arguments import VQGANCLIPArguments
from oneword.cli.baseline import finish
from oneword.concepts.named import flat, read_words
from oneword.config.vqgan_clip import VQGANCLIPConfig
from oneword.generation import vqgan_clip
from oneword.generation.from_config import fitted
from oneword.generation.guide import Guide
from oneword.images import picture_files, read_folder
from oneword.models import quantised


def run(chosen: VQGANCLIPArguments, _words: Sequence[str]) -> int:
    """Draw, and say where the pictures are and how near the guide finds them."""
    config = options.settings(VQGANCLIPConfig, chosen)
    check_writable(config.output_dir)
    concepts = flat(read_words(config.concepts))
    kinds = {c.placeholder_token: c.learnable_property for c in concepts}
    prompts = sentences.expanded(config.prompts, kinds)
    if config.pictures is not None:
        picture_files(config.pictures)  # before anything large is loaded
    device = pick_device(config.device)
    guide = Guide.load(
        config.guide,
        config.model if config.checkpoint is None else None,
        device=device,
        judge=config.judge,
        allow_same_clip=config.allow_same_clip,
    )
    if config.checkpoint is None:
        vq = quantised.embedded(config.model, device)
    else:
        vq = quantised.published(config.checkpoint, config.checkpoint_config, device)
    side, pictures, image = config.constants(vq.resolution).resolution, None, None
    if config.pictures is not None:
        pictures = read_folder(config.pictures, resolution=side, masks=False).pixels
    if config.init_image is not None:
        image = fitted(config.init_image, side, side)
    options.say(f"Drawn by {vq.name}, guided by {guide.name}.")
    with screen.warnings_said(), screen.counting("drawing, in steps") as show:
        drawing = vqgan_clip.draw_all(
            vq,
            guide,
            config,
            prompts,
            concepts=concepts,
            pictures=pictures,
            image=image,
            on_step=show,
        )
    for index, facts in enumerate(drawing.facts):
        asked = f"{drawing.prompts[index]!r}, seed {drawing.seeds[index]}"
        options.tell(f"{asked}: guide loss {facts['guide_loss']}.")
    finish(drawing, "baseline vqgan-clip", chosen)
    return 0
