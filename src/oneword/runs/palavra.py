"""PALAVRA on disk: the maps of a CLIP in one folder, and each of its words in another.

Each folder has one file for resuming: ``palavra.safetensors``, or ``state.safetensors`` next to the
word's own ``learned_embeds.safetensors``.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from oneword._devices import pick_device
from oneword._files import (
    FormError,
    check,
    hold,
    open_regular,
    parsed,
    write_atomic,
    write_together,
)
from oneword._typing import Pixels
from oneword._version import __version__
from oneword.concepts import formats
from oneword.concepts.concept import Concept
from oneword.config.model import is_embedded
from oneword.config.palavra import PalavraTrainConfig, PalavraWordConfig, ResolvedPalavra
from oneword.images import read_folder
from oneword.microworld import weights
from oneword.models.guide import Guide
from oneword.training.palavra import classes as gathering
from oneword.training.palavra.classes import OnClass
from oneword.training.palavra.maps import (
    Maps,
    PalavraError,
    Reader,
    picture_features,
    reading,
)
from oneword.training.palavra.pretrain import pretrain
from oneword.training.palavra.word import Learning, begun, learn
from oneword.vocabulary.inject import injected


MAPS = "palavra.safetensors"
STATE = "state.safetensors"
_KEY = "oneword_palavra"  # of the metadata
_SAVE_S = 60.0  # between two savings of the maps
_MAX = 2**40  # bytes
_SETTINGS = {
    field.name: {"int": int, "float": float}[str(field.type)]
    for field in dataclasses.fields(ResolvedPalavra)
    if field.name != "epochs"
}
_OF_MAPS = {
    "settings": _SETTINGS,
    "epochs": int,
    "clip": str,
    "clip_sha256": str,
    "data_sha256": str,
    "world?": (int, type(None)),
    "history": [{str: float}],
}
_OF_WORD = {
    "settings": {str: object},
    "step": int,
    "losses": [float],
    "clip_sha256": str,
    "maps_sha256": str,
    "pictures_sha256": str,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedMaps:
    """The outcome of stage A."""

    path: Path
    maps: Maps
    clip: str
    """Name of the CLIP."""
    num_classes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnedWord:
    """The outcome of stage B."""

    path: Path
    concept: Concept
    losses: tuple[float, ...]
    """Before each step."""
    num_pictures: int


def load_clip(
    clip: str, *, device: str, judge: str | None = None, allow_same_clip: bool = False
) -> Guide:
    """The CLIP whose words are learned.

    Args:
        clip: Hub id, folder, or an embedded model for its guide.
        device: As for ``ModelConfig``.
        judge: As for ``Guide.load``.
        allow_same_clip: As for ``Guide.load``.

    Raises:
        GuideError: as for ``Guide.load``.
    """
    own = is_embedded(clip)
    return Guide.load(
        None if own else clip,
        clip if own else None,
        device=pick_device(device),
        judge=judge,
        allow_same_clip=allow_same_clip,
    )


def train_maps(
    config: PalavraTrainConfig,
    *,
    on_class: OnClass | None = None,
    on_epoch: Callable[[Maps, int], None] | None = None,
) -> TrainedMaps:
    """Learn both maps of a CLIP, or resume their training.

    Args:
        config: The settings.
        on_class: Called with the progress of reading pictures.
        on_epoch: ``on_epoch(maps, epochs)`` after each epoch.

    Raises:
        UserError: the CLIP or the pictures cannot be used, or the folder's maps were begun on
            another CLIP, with other pictures or other settings.
    """
    settings = config.resolved()
    path = config.output_dir / MAPS
    with hold(config.output_dir):
        guide = load_clip(
            config.clip,
            device=config.device,
            judge=config.judge,
            allow_same_clip=config.allow_same_clip,
        )
        clip = guide.sha256()
        width = guide.vocabularies[guide.tower].dim
        with reading(guide) as reader:
            classes = _classes(reader, config, on_class)
            facts = {
                "settings": settings.plain(),
                "clip": config.clip,
                "clip_sha256": clip,
                "data_sha256": classes.sha256,
                "world": weights.world(config.clip) if config.train_data_dir is None else None,
            }
            maps = Maps(settings, guide.dim, width)
            if path.exists():
                tensors, told = _opened(path, _OF_MAPS, "the maps of oneword palavra train")
                _check_same(path, told, facts, ("clip_sha256", "data_sha256", "settings"))
                maps.put(tensors, guide.device)
                maps.epochs, maps.history = told["epochs"], told["history"]
            else:
                maps.drawn(guide.device)
            saved = [time.monotonic()]

            def after(done: Maps) -> None:
                if on_epoch is not None:
                    on_epoch(done, settings.epochs)
                if time.monotonic() - saved[0] > _SAVE_S:
                    _save_maps(path, done, facts)
                    saved[0] = time.monotonic()

            before = maps.epochs
            pretrain(reader, classes, maps, settings.epochs, on_epoch=after)
        if maps.epochs > before or not path.exists():
            _save_maps(path, maps, facts)
    return TrainedMaps(path=path, maps=maps, clip=guide.name, num_classes=len(classes.members))


def _classes(
    reader: Reader, config: PalavraTrainConfig, on_class: OnClass | None
) -> gathering.Classes:
    if config.train_data_dir is None:
        return gathering.of_world(
            reader,
            num_pictures=config.num_pictures,
            seed=config.seed,
            world=weights.world(config.clip),
            on_class=on_class,
        )
    return gathering.of_folder(
        reader,
        config.train_data_dir,
        num_pictures=config.num_pictures,
        words_file=config.words_file,
        on_class=on_class,
    )


def _save_maps(path: Path, maps: Maps, facts: Mapping[str, Any]) -> None:
    more = {"epochs": maps.epochs, "history": maps.history}
    write_atomic(path, _packed(maps.tensors(), {**facts, **more}))


def load_maps(path: Path, guide: Guide, clip: str | None = None) -> Maps:
    """The maps of a folder or file.

    Args:
        path: Output of ``train_maps``.
        guide: The CLIP that they must be for.
        clip: Its name as for ``load_clip``; an embedded model's has a world.

    Raises:
        PalavraError: there are no maps, or they are for another CLIP or world.
    """
    tensors, told = _opened(_maps_file(path), _OF_MAPS, "the maps of oneword palavra train")
    if told["clip_sha256"] != guide.sha256():
        raise PalavraError(
            f"Cannot use the maps {path} with {guide.name} because they are for {told['clip']}; "
            f"pass that one with --clip, or run oneword palavra train on {guide.name}."
        )
    theirs = told.get("world")
    if theirs is not None and is_embedded(clip) and theirs != weights.world(clip):
        raise PalavraError(
            f"The maps {path} must be of the model's world, version {weights.world(clip)}, got "
            f"maps of version {theirs}; run oneword palavra train --clip {clip}."
        )
    settings = ResolvedPalavra(**_own(told["settings"]), epochs=told["epochs"])
    maps = Maps(settings, guide.dim, guide.vocabularies[guide.tower].dim)
    maps.put(tensors, guide.device)
    maps.epochs, maps.history = told["epochs"], told["history"]
    return maps


def learn_word(
    config: PalavraWordConfig, *, on_step: Callable[[int, int], None] | None = None
) -> LearnedWord:
    """Learn a word of a CLIP from a folder of pictures, or resume its training.

    Args:
        config: The settings.
        on_step: ``on_step(done, total)``.

    Raises:
        UserError: CLIP, maps or pictures cannot be used or do not fit each other, or the folder's
            word was begun with others.
    """
    place = _maps_file(config.maps)
    _, told = _opened(place, _OF_MAPS, "the maps of oneword palavra train", tensors=False)
    name = config.clip or told["clip"]
    coarse = config.apart_from(name)
    with hold(config.output_dir):
        guide = load_clip(
            name, device=config.device, judge=config.judge, allow_same_clip=config.allow_same_clip
        )
        maps = load_maps(place, guide, name)
        width = guide.vocabularies[guide.tower].dim
        free = Concept(
            placeholder_token=config.placeholder_token, rows={guide.tower: torch.zeros(1, width)}
        )
        with injected(guide, [free]):  # refuses a word that the CLIP has
            pass
        pictures = [_pictures(guide, p) for p in (config.train_data_dir, *config.beside)]
        digest = hashlib.sha256()
        for pixels in pictures:
            digest.update(pixels.contiguous().numpy().tobytes())
        names = ("mode", "learning_rate", "temperature")
        facts = {
            "settings": {n: getattr(config, n) for n in names} | {"coarse": coarse},
            "clip_sha256": told["clip_sha256"],
            "maps_sha256": _hash_of(maps),
            "pictures_sha256": digest.hexdigest(),
        }
        sets = [picture_features(guide, pixels) for pixels in pictures]
        words = begun(maps, sets, guide.device)
        state = config.output_dir / STATE
        if state.exists():
            tensors, before = _opened(state, _OF_WORD, "the state of oneword palavra word")
            _check_same(state, before, facts, tuple(facts))
            words = _taken_up(tensors, before, words, state)
        with reading(guide) as reader:
            learn(
                reader,
                maps,
                sets,
                words,
                max_train_steps=config.max_train_steps,
                on_step=on_step,
                **facts["settings"],
            )
        concept = Concept(
            placeholder_token=config.placeholder_token,
            rows={guide.tower: words.rows[:1].detach().cpu()},
            provenance={
                "method": "palavra",
                "clip": name,
                "initializer_token": config.initializer_token,
                "config": facts["settings"] | {"max_train_steps": config.max_train_steps},
                "steps": words.step,
                "loss": words.losses[-1] if words.losses else None,
                "created_by": f"oneword {__version__}",
            }
            | {n: facts[n] for n in ("clip_sha256", "maps_sha256", "pictures_sha256")},
        ).detached()
        path = config.output_dir / formats.LEARNED
        moments = {f"adam.{n}": t.contiguous() for n, t in words.moments.items()}
        kept = {"rows": words.rows.detach().cpu().contiguous()} | moments
        more = {"step": words.step, "losses": words.losses}
        write_together({state: _packed(kept, {**facts, **more})} | formats.files_of(concept, path))
    return LearnedWord(
        path=path,
        concept=concept,
        losses=tuple(words.losses),
        num_pictures=len(pictures[0]),
    )


def _taken_up(
    tensors: Mapping[str, Tensor], told: Mapping[str, Any], first: Learning, path: Path
) -> Learning:
    moments = {n.removeprefix("adam."): t for n, t in tensors.items() if n.startswith("adam.")}
    shapes = {n: t.shape for n, t in tensors.items() if n != "adam.step"}
    fits = {"rows", *(["adam.exp_avg", "adam.exp_avg_sq"] if moments else [])} == {*shapes}
    if not fits or {*shapes.values()} != {first.rows.shape}:
        raise PalavraError(
            f"{path} must be the state of oneword palavra word, got other tensors; delete it to "
            "start the word again."
        )
    return Learning(
        rows=tensors["rows"], step=told["step"], moments=moments, losses=list(told["losses"])
    )


def _pictures(guide: Guide, folder: Path) -> Pixels:
    return read_folder(
        folder, resolution=guide.size, fit="crop", interpolation="bicubic", masks=False
    ).pixels


def _maps_file(path: Path) -> Path:
    return path / MAPS if path.is_dir() else path


def _hash_of(maps: Maps) -> str:
    """Of the weights, which are all that a word depends on."""
    digest = hashlib.sha256()
    for name, tensor in sorted(maps.tensors().items()):
        if not name.startswith("adam."):
            digest.update(name.encode())
            digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def check_clip(concept: Concept, guide: Guide) -> None:
    """Refuse a word of another CLIP than the one that will read it.

    Raises:
        PalavraError: the word's file says so.
    """
    own = concept.provenance.get("clip_sha256")
    if own is not None and own != guide.sha256():
        raise PalavraError(
            f"Cannot read the word {concept.placeholder_token!r} with {guide.name} because it was "
            f"learned on {concept.provenance.get('clip')}, with other weights; pass that one with "
            "--clip."
        )


# --- files


def _packed(tensors: Mapping[str, Tensor], info: Mapping[str, Any]) -> bytes:
    return safetensors.torch.save(dict(tensors), {_KEY: json.dumps(info)})


def _opened(
    path: Path, form: Mapping[str, Any], what: str, *, tensors: bool = True
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    must = f"The file must be {what}"
    open_regular(path, most=_MAX, must=must, error=PalavraError).close()
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            info = check(parsed((file.metadata() or {}).get(_KEY, "null")), dict(form))
            names = file.keys() if tensors else ()
            found = {name: file.get_tensor(name) for name in names}
    except (OSError, FormError, safetensors.SafetensorError) as error:
        raise PalavraError(f"{must}, got {path} ({error}).") from error
    if not all(bool(torch.isfinite(t).all()) for t in found.values()):
        raise PalavraError(f"{must}, got {path} with NaN or infinity; it is damaged.")
    return found, info


def _own(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that there are, whatever else a file says."""
    return {name: settings[name] for name in _SETTINGS}


def _check_same(
    path: Path, told: Mapping[str, Any], asked: Mapping[str, Any], names: tuple[str, ...]
) -> None:
    """Refuse to resume with other settings or pictures.

    Raises:
        PalavraError: it is so.
    """
    words = {
        "clip_sha256": "another CLIP",
        "data_sha256": "other pictures or captions",
        "maps_sha256": "other maps",
        "pictures_sha256": "other pictures",
    }
    for name in names:
        if told[name] == asked[name]:
            continue
        got = words.get(name) or ", ".join(
            f"{n} {asked[name][n]} instead of {told[name].get(n)}"
            for n in asked[name]
            if told[name].get(n) != asked[name][n]
        )
        raise PalavraError(
            f"Cannot resume {path} because its settings differ: {got}; pass another --output-dir, "
            "or delete it to start again."
        )
