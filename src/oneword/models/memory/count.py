"""Bytes that a way of loading and training needs, counted beforehand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException

from oneword.config.model import ModelConfig
from oneword.models.memory.shapes import mode
from oneword.models.memory.ways import layers_of, units_of


_MARGIN = 1.1


_BYTES = {"8bit": 1.0, "4bit": 0.5 + 4 / 64}  # per entry; nf4 keeps a float32 scale for 64 of them


_PROMPT = "a photo of a cat"


@dataclass(frozen=True, slots=True)
class Work:
    """What a model will be used for."""

    samples: int = 4
    """Samples per step in this process, or pictures drawn at once."""
    batch: int | None = None
    """Those of one word in all processes; ``None``: there is one word in one process."""
    resolution: int | None = None
    """Side of the pictures, in px; ``None``: the model's own."""
    trains: bool = True
    """Whether gradients are needed."""
    through_encoders: bool = True
    """Whether gradients go through the text encoders."""

    def passes(self) -> list[int]:
        """Possible numbers of samples that pass through the model at once, the largest first."""
        if not self.trains:
            return [self.samples]
        own = self.batch or self.samples
        most = min(own, self.samples)
        return [*dict.fromkeys((self.samples, *(n for n in range(most, 0, -1) if own % n == 0)))]


@dataclass(slots=True)
class _Kept:
    """What autograd keeps of one module's forward pass, in bytes."""

    outside: int = 0
    inputs: int = 0
    """Of all units: what checkpointing keeps."""
    units: dict[int, int] = field(default_factory=dict)

    def peak(self, *, checkpointed: bool, trains: bool) -> int:
        largest = max(self.units.values(), default=0)
        if not trains:  # nothing is kept; what one unit would keep bounds what it needs
            return largest
        if checkpointed:
            return self.outside + self.inputs + largest
        return self.outside + sum(self.units.values())


@dataclass(slots=True)
class _Costs:
    """A model's sizes, from which any way's peak follows."""

    work: Work
    denoiser: nn.Module
    vae: nn.Module | None
    encoders: list[nn.Module]
    kept_by_denoiser: _Kept
    kept_by_encoders: _Kept
    picture: int
    """Bytes that the VAE needs besides its weights for one picture."""
    counted: bool
    """Whether the step could be run on shapes alone; some models look at numbers in it."""

    @classmethod
    def of(cls, shapes: Any, work: Work) -> _Costs:
        vae = shapes.autoencoder.vae
        encoders = [v.text_encoder for v in shapes.vocabularies.values()]
        side = work.resolution or shapes.resolution
        counted = True
        try:
            with mode():
                by_denoiser, by_encoders = _count(shapes, encoders, work.samples, side)
        except (DataDependentOutputException, DynamicOutputShapeException):
            by_denoiser, by_encoders, counted = _Kept(), _Kept(), False
        return cls(
            work, shapes.denoiser, vae, encoders, by_denoiser, by_encoders,
            _of_pixel(vae) * side**2, counted,
        )  # fmt: skip

    def peak(self, way: ModelConfig) -> int:
        """Bytes at the peak of a way."""
        work, checkpointed = self.work, bool(way.gradient_checkpointing)
        packed = way.weights or "full"
        visiting = {"text": self.encoders, "all": [*self.encoders, self.denoiser]}
        resident, guests = 0, 0
        for module in (self.denoiser, *self.encoders):
            at_home, largest = _sizes(
                module, packed, visits=module in visiting.get(way.offload or "none", [])
            )
            resident, guests = resident + at_home, max(guests, largest)
        denoises = self.kept_by_denoiser.peak(checkpointed=checkpointed, trains=work.trains)
        encodes = self.kept_by_encoders.peak(
            checkpointed=checkpointed, trains=work.trains and work.through_encoders
        )
        vae = 0 if self.vae is None else _sizes(self.vae, "full", visits=False)[0]
        pictures = 1 if checkpointed else min(work.samples, 8)
        through_vae = vae + pictures * self.picture
        if way.offload == "none":
            resident, through_vae = resident + vae, through_vae - vae
        return int(_MARGIN * (resident + max(denoises + encodes + guests, through_vae)))


def _of_pixel(vae: Any) -> int:
    """Bytes for each pixel of the VAE's maps at full size, two of which are alive at once."""
    if vae is None:  # the picture itself, in float32
        return 2 * 3 * (2 * 4 + 4)
    names = ("block_out_channels", "encoder_block_out_channels")
    channels = next((vae.config[n][0] for n in names if n in vae.config), None)
    width = 2 * (vae.config.base_dim if channels is None else channels)
    return width * (2 * vae.dtype.itemsize + 4)


def _sizes(module: nn.Module, packed: str, *, visits: bool) -> tuple[int, int]:
    """Bytes that a module's weights take all the time, and of the largest unit that visits."""
    movable = {id(layer.weight): layer for layer in layers_of(module)}
    packable = {id(layer.weight) for layer in layers_of(module, linear=True)}
    resident, seen = 0, set()
    for tensor in (*module.parameters(), *module.buffers()):
        if id(tensor) in seen or (visits and id(tensor) in movable):
            continue
        seen.add(id(tensor))
        each = _BYTES[packed] if packed in _BYTES and id(tensor) in packable else tensor.itemsize
        resident += int(tensor.numel() * each)
    largest = 0
    if visits:
        units = units_of(module) or [module]
        largest = max(
            sum(p.nbytes for p in unit.parameters() if id(p) in movable) for unit in units
        )
    return resident, largest


def _count(
    shapes: Any, encoders: Sequence[nn.Module], samples: int, side: int
) -> tuple[_Kept, _Kept]:
    """What the denoiser and the text encoders keep of a step of so many samples."""
    h = w = side // shapes.autoencoder.factor
    known = {
        tensor.untyped_storage()._cdata
        for module in (shapes.denoiser, *encoders)
        for tensor in (*module.parameters(), *module.buffers())
    }
    layers = [unit for encoder in encoders for unit in units_of(encoder, innermost=False)]
    with _booked(layers, known) as by_encoders:
        # the words' rows make everything after the lookup part of the graph
        handles = [
            table.register_forward_hook(lambda _, __, output: output.requires_grad_())
            for vocabulary in shapes.vocabularies.values()
            for table in vocabulary.tables()
        ]
        conditioning = shapes.encode_prompt([_PROMPT] * samples)
        for handle in handles:
            handle.remove()
    x_t = torch.zeros(samples, shapes.autoencoder.channels, h, w)
    t = shapes.sample_t(torch.full((samples,), 0.5), (h, w))
    with _booked(units_of(shapes.denoiser), known) as by_denoiser:
        shapes.predict(x_t, t, conditioning)
    return by_denoiser, by_encoders


@contextmanager
def _booked(units: Sequence[nn.Module], known: Set[int]) -> Iterator[_Kept]:
    """Count what is saved for the backward pass, by the unit that saves it."""
    book = _Kept()
    running: list[int] = []
    seen = set(known)  # weights are counted elsewhere
    alive: list[Tensor] = []

    def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        running.append(id(module))
        given = [x for x in (*args, *kwargs.values()) if isinstance(x, Tensor)]
        book.inputs += given[0].nbytes if given else 0

    def leave(*_: Any) -> None:
        running.pop()

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata in seen:
            return tensor
        seen.add(storage._cdata)
        alive.append(tensor)
        if running:
            book.units[running[-1]] = book.units.get(running[-1], 0) + storage.nbytes()
        else:
            book.outside += storage.nbytes()
        return tensor

    handles = [unit.register_forward_pre_hook(enter, with_kwargs=True) for unit in units]
    handles += [unit.register_forward_hook(leave) for unit in units]
    try:
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            yield book
    finally:
        for handle in handles:
            handle.remove()
