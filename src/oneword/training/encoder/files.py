"""A finished encoder and its file, which records what it is for; other uses are refused."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor

from oneword._files import FormError, check, open_regular, parsed
from oneword._version import __version__
from oneword.config.encoder import LATENTS
from oneword.config.model import is_embedded
from oneword.errors import UserError
from oneword.microworld import weights
from oneword.models.contract import Backbone
from oneword.training.encoder.network import SetEncoder, Shape
from oneword.training.encoder.towers import Tower, probe, tower_of


FILE = "encoder.safetensors"
"""Name of the file in an encoder's folder."""
_KEY = "oneword-encoder"  # of the file's metadata
_MOST = 2**32  # bytes
_NETWORK, _TABLE, _PROBE = "network/", "table/", "probe"
_TABLE_ROWS, _TABLE_WIDTH = 64, 4  # of a text encoder's table, by which it is recognised
_NEAR = 0.02  # largest relative difference between numbers of one table in two types
_ALIKE = 0.98  # smallest cosine of one picture's features by the same tower
_FORM = {
    "model": str,
    "family": str,
    "version": str,
    "guide": (str, type(None)),
    "allow_same_clip": bool,
    "features": int,
    "width": int,
    "num_vectors": int,
    "encoders": {str: int},
    "most_pictures": int,
    "learns": [str],
    "trained": {str: object},
    "created_by": str,
}


class EncoderError(UserError):
    """An encoder cannot be trained, read or used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What an encoder is for, and how it was made."""

    model: str
    """Name of the model whose words it makes."""
    family: str
    version: str
    """For an embedded model, a short checksum of its weights; otherwise empty."""
    guide: str | None
    """As ``EncoderConfig.guide``."""
    allow_same_clip: bool
    most_pictures: int
    """Most pictures of a set in training."""
    learns: tuple[str, ...]
    """What its words can be: "object", "style"."""
    trained: Mapping[str, Any]
    """Steps, samples, things, seed and losses."""


class Encoder:
    """A trained encoder: pictures of a thing in, the rows of its word out.

    Args:
        network: The network; it is moved to the CPU and frozen.
        about: What it is for.
        table: Some numbers of each text encoder's table, by which the model is recognised.
        probe: Features of ``towers.probe``, by which the tower is recognised.
    """

    def __init__(
        self, network: SetEncoder, about: About, table: Mapping[str, Tensor], probe: Tensor
    ) -> None:
        self.network = network.cpu().eval().requires_grad_(False)
        self.about, self.table, self.probe = about, dict(table), probe

    @classmethod
    def of(cls, network: SetEncoder, about: About, backbone: Backbone, tower: Tower) -> Encoder:
        """Make an encoder from a network that was trained for a model."""
        return cls(network, about, _tables(backbone), tower(probe(backbone))[0])

    @property
    def num_vectors(self) -> int:
        """Number of rows of a word."""
        return self.network.shape.num_vectors

    def tensors(self) -> dict[str, Tensor]:
        """All tensors of the file; the network's weights are in half precision."""
        weights_of = {name for name, _ in self.network.named_parameters()}
        found = {
            f"{_NETWORK}{name}": value.half() if name in weights_of else value
            for name, value in self.network.state_dict().items()
        }
        found |= {f"{_TABLE}{name}": value for name, value in self.table.items()}
        found[_PROBE] = self.probe
        return {name: value.contiguous() for name, value in found.items()}

    def sha256(self) -> str:
        """Hash of its tensors."""
        digest = hashlib.sha256()
        for name, value in sorted(self.tensors().items()):
            digest.update(name.encode())
            digest.update(value.numpy().tobytes())
        return digest.hexdigest()

    def data(self) -> bytes:
        """The contents of its file."""
        shape = self.network.shape
        about = dataclasses.asdict(self.about) | {
            "features": shape.features,
            "width": shape.width,
            "num_vectors": shape.num_vectors,
            "encoders": dict(shape.encoders),
            "created_by": f"oneword {__version__}",
        }
        return safetensors.torch.save(self.tensors(), {_KEY: json.dumps(about)})

    def check(self, backbone: Backbone) -> None:
        """Refuse a model for which it was not trained.

        Raises:
            EncoderError: the model is another one, or another version of it.
        """
        about, own = self.about, self.network.shape.encoders
        dims = {name: vocabulary.dim for name, vocabulary in backbone.vocabularies.items()}
        tables = _tables(backbone)
        same = about.family == backbone.family and own == dims
        same = same and all(_is_near(self.table[name], tables[name]) for name in dims)
        if same and about.version == version_of(backbone):
            return
        if about.model == backbone.name:
            raise EncoderError(
                "Cannot use this encoder because it was trained on another version of "
                f"{backbone.name}; train it again with oneword encoder train."
            )
        raise EncoderError(
            f"Cannot use this encoder with {backbone.name} ({backbone.family}) because it was "
            f"trained on {about.model} ({about.family}); use it with that model, or train one "
            "with oneword encoder train."
        )

    @torch.no_grad()
    def rows(self, backbone: Backbone, pictures: Sequence[Tensor]) -> dict[str, Tensor]:
        """Rows of the word for some pictures of one thing.

        Args:
            backbone: The model, checked by ``check``.
            pictures: RGB in [-1, 1], grouped by size: each (num, 3, height, width).

        Returns:
            By text encoder, each (num_vectors, dim), on the CPU.

        Raises:
            EncoderError: there are no pictures, or the tower is not the one of the encoder's
                training.
        """
        if not sum(map(len, pictures)):
            raise EncoderError("The encoder needs one or more pictures of a thing, got none.")
        tower = tower_of(backbone, self.about.guide, allow_same_clip=self.about.allow_same_clip)
        if not _sees_alike(tower(probe(backbone))[0], self.probe):
            what = "autoencoder" if self.about.guide == LATENTS else "guide"
            raise EncoderError(
                f"Cannot use this encoder because it was trained with another {what}, which sees "
                "the same picture differently; train the encoder again with oneword encoder train."
            )
        features = torch.cat([tower(own) for own in pictures if len(own)])[None]
        found = self.network(features, torch.ones(features.shape[:2], dtype=torch.bool))
        return {name: rows[0] for name, rows in found.items()}


def load(path: Path) -> Encoder:
    """Read an encoder.

    Args:
        path: Its file, or the folder of ``oneword encoder train``.

    Raises:
        EncoderError: there is no encoder, or the file is of another kind.
    """
    place = path / FILE if path.is_dir() else path
    must = "The encoder must be a file of oneword encoder train, or its folder"
    with open_regular(place, most=_MOST, must=must, error=EncoderError):
        at = place.stat()
    return _read(place, at.st_mtime_ns, at.st_size)


@lru_cache(maxsize=4)  # many words are encoded in a row
def _read(path: Path, _changed: int, _size: int) -> Encoder:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            info = check(parsed((file.metadata() or {})[_KEY]), _FORM)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        shape = Shape(
            features=info["features"],
            width=info["width"],
            num_vectors=info["num_vectors"],
            encoders=info["encoders"],
        )
        network = SetEncoder(shape)
        network.load_state_dict(
            {
                name.removeprefix(_NETWORK): value.float()
                for name, value in tensors.items()
                if name.startswith(_NETWORK)
            }
        )
        table = {name: tensors[f"{_TABLE}{name}"] for name in shape.encoders}
        names = [field.name for field in dataclasses.fields(About)]
        known: dict[str, Any] = {name: info[name] for name in names}
        known["learns"] = tuple(info["learns"])
        about = About(**known)
        return Encoder(network, about, table, tensors[_PROBE])
    except (
        OSError, ValueError, KeyError, TypeError, RuntimeError, FormError,
        safetensors.SafetensorError,
    ) as error:  # fmt: skip
        raise EncoderError(
            f"The encoder must be a file of oneword encoder train, or its folder, got {path} "
            f"({str(error).splitlines()[0][:200] if str(error) else 'unreadable'})."
        ) from error


def version_of(backbone: Backbone) -> str:
    """A short checksum of an embedded model's weights; empty for other models."""
    if not is_embedded(backbone.name):
        return ""
    return weights.version(backbone.name)


def _tables(backbone: Backbone) -> dict[str, Tensor]:
    """Some numbers of each text encoder's table, float32, on the CPU."""
    found = {}
    for name, vocabulary in backbone.vocabularies.items():
        weight = vocabulary.weight.detach()
        rows = torch.linspace(0, len(weight) - 1, _TABLE_ROWS).long().to(weight.device)
        found[name] = weight[rows, :_TABLE_WIDTH].float().cpu()
    return found


def _is_near(one: Tensor, other: Tensor) -> bool:
    """Whether two tables are the same, apart from the type that they were loaded in."""
    if one.shape != other.shape:
        return False
    return float((one - other).norm()) <= _NEAR * float(other.norm())


def _sees_alike(one: Tensor, other: Tensor) -> bool:
    """Whether two features of one picture come from the same tower."""
    return one.shape == other.shape and float(F.cosine_similarity(one, other, 0)) >= _ALIKE
