"""What a model needs of a device's memory, and the ways of needing less.

The expected peak is that of the loop's own tensors: weights by the real parameters' sizes, plus
what autograd keeps for one step. The latter is found by running the denoiser and the text encoders
on shapes alone (fake tensors: no arithmetic, no memory) and adding up what is saved for the
backward pass. A tenth is added for temporaries and fragments; what the driver itself takes is not
counted. Where a model looks at numbers in its step, weights alone are counted and the plan says so.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import diffusers
import psutil
import torch
from diffusers.models.embeddings import HunyuanDiTAttentionPool
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)
from torch.utils.checkpoint import checkpoint

from oneword.config.inversion import ModelConfig
from oneword.models.contract import Backbone, ModelError, pick_device


_MARGIN = 1.1
_USABLE = 0.95  # of the memory that is free
_USABLE_UNCOUNTED = 0.6  # where what a step keeps comes on top
_LEAST = 1024  # entries of a weight that is worth packing or moving
_BYTES = {"8bit": 1.0, "4bit": 0.5 + 4 / 64}  # per entry; nf4 keeps a float32 scale for 64 of them
_PROMPT = "a photo of a cat"
_WAYS: tuple[dict[str, Any], ...] = (
    {"gradient_checkpointing": False, "offload": "vae", "weights": "full"},
    {"gradient_checkpointing": True, "offload": "vae", "weights": "full"},
    {"gradient_checkpointing": True, "offload": "text", "weights": "full"},
    {"gradient_checkpointing": True, "offload": "vae", "weights": "8bit"},
    {"gradient_checkpointing": True, "offload": "vae", "weights": "4bit"},
    {"gradient_checkpointing": True, "offload": "all", "weights": "full"},
)
"""Fastest first."""
_LOW = 2  # the last of them that neither changes the weights nor moves the denoiser's


@dataclass(frozen=True, slots=True)
class Work:
    """What a model will be asked for."""

    samples: int = 4
    """Samples of a step, or pictures drawn at once."""
    resolution: int | None = None
    """Side of the pictures, px; ``None``: the model's own."""
    trains: bool = True
    """Whether gradients are wanted."""
    through_encoders: bool = True
    """Whether they go through the text encoders."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The way that was taken."""

    config: ModelConfig
    """With no field left open."""
    expected: int | None
    """Bytes at the peak; ``None`` where nobody could know before the model was loaded."""
    free: int
    """Bytes that were free."""
    counted: bool = True
    """Whether what autograd keeps of a step could be counted; if not, it is not in ``expected``."""

    def __str__(self) -> str:
        config = self.config
        said = [
            {"full": "", "8bit": "8-bit weights", "4bit": "4-bit weights"}[
                config.weights or "full"
            ],
            "gradient checkpointing" if config.gradient_checkpointing else "",
            {
                "none": "",
                "vae": "the VAE off the device while idle",
                "text": "the VAE and the text encoders' layers off the device while idle",
                "all": "every layer off the device but while it runs",
            }[config.offload or "none"],
        ]
        ways = ", ".join(filter(None, said)) or "nothing is saved"
        if self.expected is None:
            return f"memory: {ways}; the peak is not known for this kind of file"
        least = "" if self.counted else "at least "
        size = f"memory: {ways}; expected peak {least}{_gb(self.expected)} of {_gb(self.free)} free"
        return size + (" (it may not fit)" if self.expected > self.free else "")


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"


def plan(load: Callable[[ModelConfig], Backbone], config: ModelConfig, work: Work) -> Plan | None:
    """Choose how a model is loaded.

    Args:
        load: The family's own.
        config: What was asked for; fields that are set stay.
        work: What the model will be asked for.

    Returns:
        The way, or ``None`` on a CPU of which nothing was asked.

    Raises:
        ModelError: what was asked for cannot be done here.
    """
    device = pick_device(config.device)
    asked = (config.gradient_checkpointing, config.offload, config.weights)
    if device.type == "cpu" and config.memory == "auto" and not any(asked):
        return None
    free = _free(device)
    ways = _possible(config, device)
    shapes = None
    if not Path(config.model).is_file():
        try:
            with shapes_alone():
                shapes = load(config)
        except Exception:  # whatever is wrong with the model is said when it is loaded in earnest
            shapes = None
    if shapes is None:
        order = {"auto": ways, "low": ways[: _LOW + 1][::-1], "lowest": ways[::-1]}
        return Plan(order[config.memory][0], None, free)
    costs = _Costs.of(shapes, work)
    peaks = [costs.peak(way) for way in ways]
    if config.memory == "low":
        exact = [i for i, w in enumerate(ways) if w.weights == "full" and w.offload != "all"]
        chosen = min(exact or range(len(ways)), key=lambda i: peaks[i])
    elif config.memory == "lowest":
        chosen = min(range(len(ways)), key=lambda i: peaks[i])
    else:
        usable = _USABLE if costs.counted else _USABLE_UNCOUNTED
        fitting = [i for i, peak in enumerate(peaks) if peak <= usable * free]
        chosen = fitting[0] if fitting else min(range(len(ways)), key=lambda i: peaks[i])
    return Plan(ways[chosen], peaks[chosen], free, costs.counted)


def _free(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


def _possible(config: ModelConfig, device: torch.device) -> list[ModelConfig]:
    """The ways that this machine and the user's own settings allow, fastest first."""
    can_pack = importlib.util.find_spec("bitsandbytes") is not None and device.type != "mps"
    if config.weights in _BYTES and not can_pack:
        raise ModelError(
            f"Weights of {config.weights} need bitsandbytes on CUDA or a CPU, got "
            f"{'the device ' + device.type if device.type == 'mps' else 'none installed'}; "
            "pip install 'oneword[quant]', or leave --weights out."
        )
    found: list[ModelConfig] = []
    for way in _WAYS:
        if way["weights"] in _BYTES and not can_pack:
            continue
        here = way | {"offload": "none"} if device.type == "cpu" else dict(way)
        asked = {name: getattr(config, name) for name in here}
        own = here | {name: value for name, value in asked.items() if value is not None}
        try:
            candidate = replace(config, **own)
        except ValueError:  # the settings contradict each other
            continue
        if candidate not in found:
            found.append(candidate)
    return found


# --- how much


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
    vae: nn.Module
    encoders: list[nn.Module]
    kept_by_denoiser: _Kept
    kept_by_encoders: _Kept
    picture: int
    """Bytes that the VAE needs besides its weights for one picture."""
    counted: bool
    """Whether the step could be run on shapes alone; some models look at numbers in it."""

    @classmethod
    def of(cls, shapes: Any, work: Work) -> _Costs:
        encoders = [v.text_encoder for v in shapes.vocabularies.values()]
        side = work.resolution or shapes.resolution
        counted = True
        try:
            with _mode():
                by_denoiser, by_encoders = _count(shapes, encoders, work.samples, side)
        except (DataDependentOutputException, DynamicOutputShapeException):
            by_denoiser, by_encoders, counted = _Kept(), _Kept(), False
        return cls(
            work, shapes.denoiser, shapes.vae, encoders, by_denoiser, by_encoders,
            _width(shapes.vae) * side**2 * (2 * shapes.vae.dtype.itemsize + 4), counted,
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
        vae, _ = _sizes(self.vae, "full", visits=False)
        pictures = 1 if checkpointed else min(work.samples, 8)
        through_vae = vae + pictures * self.picture
        if way.offload == "none":
            resident, through_vae = resident + vae, through_vae - vae
        return int(_MARGIN * (resident + max(denoises + encodes + guests, through_vae)))


def _width(vae: nn.Module) -> int:
    """Channels of the VAE's maps at full size, two of which are alive at once."""
    config: Any = vae.config
    for name in ("block_out_channels", "encoder_block_out_channels"):
        if name in config:
            return 2 * config[name][0]
    return 2 * config.base_dim


def _sizes(module: nn.Module, packed: str, *, visits: bool) -> tuple[int, int]:
    """Bytes that a module's weights take all the time, and of the largest unit that visits."""
    movable = {id(layer.weight): layer for layer in _layers(module)}
    packable = {id(layer.weight) for layer in _layers(module, linear=True)}
    resident, seen = 0, set()
    for tensor in (*module.parameters(), *module.buffers()):
        if id(tensor) in seen or (visits and id(tensor) in movable):
            continue
        seen.add(id(tensor))
        each = _BYTES[packed] if packed in _BYTES and id(tensor) in packable else tensor.itemsize
        resident += int(tensor.numel() * each)
    largest = 0
    if visits:
        units = _units(module) or [module]
        largest = max(
            sum(p.nbytes for p in unit.parameters() if id(p) in movable) for unit in units
        )
    return resident, largest


def _units(module: nn.Module, *, innermost: bool = True) -> list[nn.Module]:
    """The modules that checkpointing keeps the inputs of: members of lists of layers."""
    lists = [m for m in module.modules() if isinstance(m, nn.ModuleList)]
    members = [unit for layers in lists for unit in layers]
    if innermost:
        return [
            unit for unit in members
            if not any(isinstance(m, nn.ModuleList) for m in unit.modules())
            and any(True for _ in unit.parameters())
        ]  # fmt: skip
    inner = {id(m) for unit in members for m in unit.modules() if m is not unit}
    return [unit for unit in members if id(unit) not in inner]


def _count(
    shapes: Any, encoders: Sequence[nn.Module], samples: int, side: int
) -> tuple[_Kept, _Kept]:
    """What the denoiser and the text encoders keep of a step of so many samples."""
    h = w = side // shapes.vae_factor
    known = {
        tensor.untyped_storage()._cdata
        for module in (shapes.denoiser, *encoders)
        for tensor in (*module.parameters(), *module.buffers())
    }
    layers = [unit for encoder in encoders for unit in _units(encoder, innermost=False)]
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
    x_t = torch.zeros(samples, shapes.latent_channels, h, w)
    t = shapes.sample_t(torch.full((samples,), 0.5), (h, w))
    with _booked(_units(shapes.denoiser), known) as by_denoiser:
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


# --- shapes alone


_only_shapes: ContextVar[bool] = ContextVar("only_shapes", default=False)


@cache
def _mode() -> FakeTensorMode:
    return FakeTensorMode(allow_non_fake_inputs=True)


@contextmanager
def shapes_alone() -> Iterator[None]:
    """Inside, models are loaded with shapes and no numbers: they take neither memory nor time."""
    before = _only_shapes.set(True)
    try:
        yield
    finally:
        _only_shapes.reset(before)


def has_shapes_alone() -> bool:
    """Whether models that are loaded now have no numbers."""
    return _only_shapes.get()


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def without_weights(
    kind: type[Any], source: str, *, dtype: torch.dtype, revision: str | None, **options: Any
) -> Any:
    """A pipeline whose models are made from their configurations, with shapes alone."""
    entries = kind.load_config(source, revision=revision)
    parts: dict[str, Any] = {}
    for name, entry in entries.items():
        if not isinstance(entry, list) or not all(entry) or name in options:
            continue
        own = getattr(diffusers.pipelines, entry[0], None)
        made = getattr(own or importlib.import_module(entry[0]), entry[1])
        if not issubclass(made, nn.Module):
            continue
        where = {"subfolder": name, "revision": revision}
        with _mode(), _default_dtype(dtype):
            if hasattr(made, "load_config"):
                module = made.from_config(made.load_config(source, **where))
            else:
                settings = made.config_class.from_pretrained(source, **where)
                if made.__name__ == "T5GemmaEncoder":  # a part, stored with the whole's settings
                    settings = settings.encoder
                module = made(settings)
            parts[name] = module.requires_grad_(False)
    return kind.from_pretrained(source, revision=revision, **(parts | options))


# --- ways


def _layers(module: nn.Module, *, linear: bool = False) -> list[Any]:
    """Linear and convolution layers with weights of their own and of some size.

    A model's first parameter stays as it is, since it says where the model lies and of which type
    it is. So does what a model names as too delicate for a narrow type, and a layer that is never
    run, since the module around it takes its weight.
    """
    first = next(module.parameters(), None)
    tables = {id(m.weight) for m in module.modules() if isinstance(m, nn.Embedding)}
    pools = (m for m in module.modules() if isinstance(m, HunyuanDiTAttentionPool))
    unrun = {id(layer) for pool in pools for layer in pool.children()}
    delicate = set(getattr(module, "_keep_in_fp32_modules", None) or ()) if linear else set()
    return [
        layer
        for name, layer in module.named_modules()
        if type(layer) in ((nn.Linear,) if linear else (nn.Linear, nn.Conv2d))
        and layer.weight is not first
        and layer.weight.numel() >= _LEAST
        and id(layer.weight) not in tables
        and id(layer) not in unrun
        and not delicate & set(name.split("."))
    ]


def pack_weights(module: nn.Module, bits: str, dtype: torch.dtype) -> None:
    """Put bitsandbytes' layers in place of linear ones; they pack when they reach their device.

    Source:
        Dettmers et al. 2022, arXiv:2208.07339 (8 bit); 2023, arXiv:2305.14314 (nf4).
    """
    import bitsandbytes as bnb

    chosen = {id(layer) for layer in _layers(module, linear=True)}
    for name, layer in list(module.named_modules()):
        if id(layer) not in chosen:
            continue
        assert isinstance(layer, nn.Linear)
        size, bias = (layer.in_features, layer.out_features), layer.bias is not None
        weight = layer.weight.data
        if bits == "4bit":
            packed = bnb.nn.Linear4bit(*size, bias=False, compute_dtype=dtype, quant_type="nf4")
            packed.weight = bnb.nn.Params4bit(weight, requires_grad=False, quant_type="nf4")
        else:
            packed = bnb.nn.Linear8bitLt(*size, bias=False, has_fp16_weights=False)
            packed.weight = bnb.nn.Int8Params(weight, requires_grad=False, has_fp16_weights=False)
        packed.bias = nn.Parameter(layer.bias.data, requires_grad=False) if bias else None
        module.set_submodule(name, packed)


def let_layers_visit(module: nn.Module, device: torch.device) -> None:
    """Keep the layers' weights on the CPU; each comes to the device for as long as it runs."""
    from accelerate import cpu_offload

    for layer in _layers(module):
        cpu_offload(layer, device)
    module._apply(lambda tensor: tensor if tensor.is_meta else tensor.to(device))


def recompute_layers(encoder: nn.Module) -> None:
    """Let a text encoder keep the inputs of its layers alone for the backward pass.

    As transformers' own checkpointing, which works in training mode only, where dropout would act.
    """
    for layer in _units(encoder, innermost=False):
        layer.forward = partial(_recomputed, layer.forward)


def _recomputed(forward: Any, *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    for name in ("past_key_values", "layer_past"):  # a second run would add to it again
        if kwargs.get(name) is not None:
            kwargs[name] = None
    return checkpoint(forward, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)
