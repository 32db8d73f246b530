"""What devices can do."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import Tensor

from oneword.errors import ModelError


def computes(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether a device has instructions for matrix products in a type, or emulates them."""
    if device.type != "cpu" or dtype == torch.float32:
        return True
    if dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return bool(torch.ops.mkldnn._is_mkldnn_fp16_supported())


def is_fast_in_bf16(device: torch.device) -> bool:
    """Whether large products in bf16 take well under the time of fp32."""
    if device.type == "cpu":
        return torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    return device.type == "cuda"


_LARGE = 1e9  # bytes


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor on its way from the CPU to a device.

    To a GPU it goes through pinned memory, so that the CPU does not wait for the work queued there.
    """
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def _is_large(source: str) -> bool:
    """Whether a model's files hold a gigabyte or more, as those on the hub do."""
    path = Path(source)
    if not path.exists():
        return bool(source)
    files = [path] if path.is_file() else path.rglob("*")
    return sum(one.stat().st_size for one in files if one.is_file()) >= _LARGE


def device_of(name: str) -> torch.device:
    """The torch device of a name, available or not; "auto" takes CUDA, then MPS, then the CPU.

    Raises:
        ModelError: the name is not one of a device.
    """
    if name == "auto":
        name = (
            "cuda"
            if torch.cuda.is_available()
            else "mps"
            if torch.backends.mps.is_available()
            else "cpu"
        )
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise _missing(name) from error


def pick_device(name: str) -> torch.device:
    """The torch device of a name, as :func:`device_of` gives it, after a tensor was put on it.

    Raises:
        ModelError: this machine has no such device.
    """
    device = device_of(name)
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise _missing(str(device)) from error
    return device


def _missing(name: str) -> ModelError:
    return ModelError(f"The device must exist on this machine, got {name!r}; pass --device auto.")


def pick_dtype(name: str, device: torch.device, source: str = "") -> torch.dtype:
    """The compute type of a name; "auto" is bf16 if that is fast on the device, otherwise fp32.

    On a CPU small models stay in fp32: they would gain little, and fp32 is the same on every
    processor.

    Args:
        name: "auto", "fp32", "bf16" or "fp16".
        device: The device that it will run on.
        source: Hub id, folder or file of the model.
    """
    if name == "auto":
        narrow = is_fast_in_bf16(device) and (device.type != "cpu" or _is_large(source))
        return torch.bfloat16 if narrow else torch.float32
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[name]
    if not computes(dtype, device):
        warnings.warn(
            f"This CPU has no instructions for {name} and emulates them, tens of times slower "
            "than fp32; pass --dtype fp32 unless memory is short.",
            stacklevel=2,
        )
    return dtype
