"""What devices can do."""

from __future__ import annotations

import torch


def computes(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether a device has instructions for products of a type, or imitates them."""
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
