"""Different prompts for each cross-attention layer of a UNet.

The layers' hidden states are concatenated on the token axis and passed through the UNet's own
signature (and so through gradient checkpointing and stock pipelines); a hook on each layer takes
its part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from oneword.models.contract import Conditioning
from oneword.vocabulary.splice import Splice


def cross_attentions(denoiser: nn.Module) -> list[nn.Module]:
    """The UNet's cross-attention modules in running order; empty for other networks."""
    blocks = [getattr(denoiser, name, None) for name in ("down_blocks", "mid_block", "up_blocks")]
    return [
        module
        for block in blocks
        if block is not None
        for name, module in block.named_modules()
        if name.endswith("attn2")
    ]


@contextmanager
def reading_by_layer(layers: Sequence[nn.Module], longest: int) -> Iterator[None]:
    """Let each layer read its own part of states that are longer than any single prompt.

    Args:
        layers: As listed by ``cross_attentions``.
        longest: Tokens of the longest prompt.
    """

    def reader(place: int) -> Callable[..., Any]:
        def before(_module: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
            states = kwargs.get("encoder_hidden_states")
            if states is None or states.shape[1] <= longest:
                return None
            return args, kwargs | {"encoder_hidden_states": states.chunk(len(layers), dim=1)[place]}

        return before

    with ExitStack() as undo:
        for place, layer in enumerate(layers):
            hook = layer.register_forward_pre_hook(reader(place), with_kwargs=True)
            undo.callback(hook.remove)
        yield


def read_by_layer(
    read: Callable[[Sequence[str]], Conditioning],
    prompts: Sequence[str],
    splices: Sequence[Splice],
    num_layers: int,
    time: Float[Tensor, " batch"],
) -> Conditioning:
    """Conditioning of prompts with different states for each cross-attention layer.

    Args:
        read: The family's encoding of prompts.
        prompts: Prompts with words that differ by layer.
        splices: The hooks for those words.
        num_layers: Cross-attention layers of the denoiser.
        time: The time of each prompt as a share of the schedule, in [0, 1).
    """
    layer = torch.arange(num_layers, device=time.device).repeat_interleave(len(prompts))
    for splice in splices:
        splice.place = layer, time.repeat(num_layers)
    try:
        found = read([*prompts] * num_layers)
    finally:
        for splice in splices:
            splice.place = None
    states = found.encoder_hidden_states
    assert isinstance(states, Tensor)
    pooled = None if found.pooled is None else found.pooled[: len(prompts)]
    return Conditioning(states.split(len(prompts)), pooled)


@contextmanager
def following(
    denoiser: nn.Module, encode: Callable[[Tensor], Tensor], *, timed: bool
) -> Iterator[None]:
    """While a stock pipeline draws, give its UNet the prompts' states for each layer and timestep.

    Args:
        denoiser: The UNet that the pipeline runs.
        encode: States of the prompts at a timestep, for all layers side by side.
        timed: Whether they depend on the timestep; otherwise they are encoded once.
    """
    kept: list[Tensor] = []

    def told(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        given = kwargs["encoder_hidden_states"]
        if timed or not kept:
            kept[:] = [encode(args[1])]
        own = kept[0].to(given)
        # with guidance the first half is the negative prompt, the same for every layer
        others = given[: len(given) - len(own)]
        others = others.repeat(1, own.shape[1] // given.shape[1], 1)
        return {"encoder_hidden_states": torch.cat([others, own])}

    with telling(denoiser, told):
        yield


@contextmanager
def telling(
    denoiser: nn.Module, told: Callable[[tuple[Any, ...], dict[str, Any]], dict[str, Any]]
) -> Iterator[None]:
    """Change the arguments of a denoiser at each call.

    Args:
        denoiser: The denoiser, for all callers.
        told: ``told(args, kwargs)``: new values of arguments, by name.
    """

    def before(_module: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
        return args, kwargs | told(args, kwargs)

    hook = denoiser.register_forward_pre_hook(before, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()
