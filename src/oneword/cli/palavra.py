"""``oneword palavra``: words of a CLIP, which find pictures and guide their drawing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rich.table import Table
from torch import Tensor

from oneword._escaping import rich
from oneword.cli import options, reports, screen
from oneword.cli.arguments import (
    PalavraFindArguments,
    PalavraTrainArguments,
    PalavraWordArguments,
)
from oneword.cli.screen import Console
from oneword.concepts.concept import Concept, is_of_pair
from oneword.concepts.named import read_concept
from oneword.config.palavra import PalavraFindConfig, PalavraTrainConfig, PalavraWordConfig
from oneword.errors import ConfigError
from oneword.evaluation.retrieval import FEW, Retrieval, retrieval
from oneword.images import from_uint8, read_folder
from oneword.microworld.world import concepts
from oneword.microworld.world.drawn import concept_pictures, noun_pictures
from oneword.runs import palavra as runs
from oneword.training.palavra.maps import Maps, picture_features


_HELD_OUT = 5  # pictures of a held-out concept that are looked for


def run(chosen: Any, words: Sequence[str]) -> int:
    """Run the sub-verb whose arguments these are."""
    _FOLLOW[type(chosen)](chosen, words)
    return 0


def _train(chosen: PalavraTrainArguments, _words: Sequence[str]) -> None:
    config = options.settings(PalavraTrainConfig, chosen)
    with screen.display() as shown:
        read, learned = shown.counting("classes"), shown.counting("epochs")

        def on_epoch(maps: Maps, epochs: int) -> None:
            learned(maps.epochs, epochs)

        found = runs.train_maps(config, on_class=read, on_epoch=on_epoch)
    last = found.maps.history[-1] if found.maps.history else {}
    outcome = {"epochs": found.maps.epochs, "classes": found.num_classes, "path": str(found.path)}
    options.write_json(chosen.json, outcome | {"history": found.maps.history})
    options.tell(
        f"{found.maps.epochs} epochs on {found.num_classes} classes, {found.clip}: "
        f"{last.get('accuracy', 0.0):.0%} of the embeddings from held-back pictures are read as "
        "their own class."
    )
    options.tell(f"The maps are in {found.path}. To learn a word with them:")
    again = ("--train-data-dir", "PICTURES", "--maps", chosen.output_dir)
    options.tell(f"  {reports.command('palavra word', *again, '--initializer-token', 'NOUN')}")


def _word(chosen: PalavraWordArguments, _words: Sequence[str]) -> None:
    config = options.settings(PalavraWordConfig, chosen)
    with screen.counting("steps") as counted:
        found = runs.learn_word(config, on_step=counted)
    rows = next(iter(found.concept.rows))
    losses = [round(loss, 6) for loss in found.losses]
    outcome = {"steps": len(losses), "losses": losses, "concept_file": str(found.path)}
    options.write_json(chosen.json, outcome | {"pictures": found.num_pictures, "encoder": rows})
    course = f", loss {losses[0]:.4f} to {losses[-1]:.4f}" if losses else ""
    options.tell(
        f"The word {config.placeholder_token} was learned from {found.num_pictures} pictures in "
        f"{len(losses)} steps{course}. It is in {found.path}."
    )
    if is_of_pair(rows):
        options.tell(
            f"Its embedding is for the CLIP {rows}, which cannot draw. To find pictures with it:"
        )
        folders = ("--pictures", "PICTURES", "--among", "OTHERS")
        options.tell(f"  {reports.command('palavra find', chosen.output_dir, *folders)}")
    else:
        options.tell(f"Its embedding is for {rows}, the text encoder of a model that draws:")
        options.tell(
            f"  {reports.drawing('MODEL', chosen.output_dir, f'a photo of a {_said(found.concept)}')}"
        )


def _said(concept: Concept) -> str:
    """The word behind its noun, as it is meant to stand."""
    noun = concept.provenance.get("initializer_token")
    return " ".join(filter(None, [noun, concept.placeholder_token]))


def _find(chosen: PalavraFindArguments, _words: Sequence[str]) -> None:
    config = options.settings(PalavraFindConfig, chosen)
    concept = read_concept(config.concept)
    noun = config.initializer_token or concept.provenance.get("initializer_token")
    clip = config.clip or concept.provenance.get("clip")
    if not isinstance(clip, str):
        raise ConfigError(
            f"The file of the word must name its CLIP, but {config.concept} names none; pass "
            "--clip."
        )
    guide = runs.load_clip(clip, device=config.device, allow_same_clip=True)
    runs.check_clip(concept, guide)
    if config.held_out is None:
        assert config.pictures is not None
        assert config.among is not None
        pixels, others = (
            read_folder(
                folder, resolution=guide.size, fit="crop", interpolation="bicubic", masks=False
            ).pixels
            for folder in (config.pictures, config.among)
        )
    else:
        pixels, others = _drawn(config.held_out, config.num_others, config.seed, guide.size)
    found = retrieval(
        guide,
        concept,
        picture_features(guide, pixels),
        picture_features(guide, others),
        noun=noun,
        prompt=config.prompt,
    )
    options.write_json(chosen.json, found.plain() | {"clip": clip})
    Console().print(_table(found))
    gain = found.gain()
    if gain is not None:
        interval = f" ± {gain.half_width:.3f}" if gain.num > 1 else ""
        options.tell(f"Gain of the word over the noun alone: {gain.value:+.3f}{interval}.")


def _drawn(name: str, num: int, seed: int, size: int) -> list[Tensor]:
    """Pictures of a held-out concept, and of other things of its noun, as ``Pixels``."""
    concept = concepts.get(name)
    if concept.thing is None:
        raise ConfigError(
            f"Cannot use the held-out style {name!r} because it has no noun; pass a thing."
        )
    own = concept_pictures(concept, _HELD_OUT, seed, size)
    return [from_uint8(drawn) for drawn in (own, noun_pictures(concept.noun, num, seed, size))]


def _table(found: Retrieval) -> Table:
    """What was found, by what the sentence held."""
    plain = found.plain()
    count = len(next(iter(found.ranks.values())))
    table = Table(title=f"{count} pictures, each ranked among {found.num_others} others")
    for head in ("sentence", "MRR", "mean rank", "first", f"first {FEW}"):
        table.add_column(head, justify="left" if head == "sentence" else "right")
    for name in found.ranks:
        own = plain[name]
        table.add_row(
            rich(own["prompt"]),
            f"{own['mrr']:.3f}",
            f"{own['mean_rank']:.1f}",
            f"{own['first']:.0%}",
            f"{own[f'first_{FEW}']:.0%}",
        )
    return table


_FOLLOW: dict[type[Any], Callable[[Any, Sequence[str]], None]] = {
    PalavraTrainArguments: _train,
    PalavraWordArguments: _word,
    PalavraFindArguments: _find,
}
