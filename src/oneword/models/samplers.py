"""Solvers by name: the names of diffusers, A1111 and ComfyUI.

A1111's "DPM++ 2M Karras" is one of diffusers' solvers with a setting, by a table in diffusers'
documentation (api/schedulers/overview, "A1111/k-diffusion"). A sampler is refused if the model
would be drawn wrongly: with a solver for another prediction, one whose latents the family's
pipeline does not scale, or one that uses one seed's noise for all pictures.
"""

from __future__ import annotations

import difflib
import inspect
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import diffusers
from diffusers.schedulers import KarrasDiffusionSchedulers

from oneword.config.presets import SAMPLERS
from oneword.errors import ConfigError, ModelError
from oneword.models.noise import Diffusion, Flow


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampler:
    """A solver of diffusers, by the name stored in pictures."""

    name: str
    """A name such as "DPM++ 2M Karras", which finds the same sampler again."""
    kind: str
    """Class in diffusers."""
    changes: dict[str, Any] = field(default_factory=dict)
    """Settings that differ from the model's own."""
    flow: str = ""
    """The corresponding class for models that predict a flow."""
    a1111: str = ""
    """A1111's name, without the schedule; empty if it has none."""
    comfyui: str = ""
    """ComfyUI's name; empty if it has none."""
    schedule: str = ""
    """Its schedule, by A1111's name; empty: the model's own."""


def _of(name: str, kind: str, comfyui: str = "", *, a1111: str | None = None, flow: str = "",
        **changes: Any) -> Sampler:  # fmt: skip
    return Sampler(
        name=name,
        kind=kind,
        changes=changes,
        flow=flow,
        a1111=name if a1111 is None else a1111,
        comfyui=comfyui,
    )


_KNOWN = (
    _of("DDIM", "DDIMScheduler", "ddim"),
    _of("DDPM", "DDPMScheduler", "ddpm", a1111=""),
    _of("PLMS", "PNDMScheduler", skip_prk_steps=True),
    _of("Euler", "EulerDiscreteScheduler", "euler", flow="FlowMatchEulerDiscreteScheduler"),
    _of("Euler a", "EulerAncestralDiscreteScheduler", "euler_ancestral"),
    _of("Heun", "HeunDiscreteScheduler", "heun"),
    _of("LMS", "LMSDiscreteScheduler", "lms"),
    _of("DPM2", "KDPM2DiscreteScheduler", "dpm_2"),
    _of("DPM2 a", "KDPM2AncestralDiscreteScheduler", "dpm_2_ancestral"),
    _of("DPM++ 2M", "DPMSolverMultistepScheduler", "dpmpp_2m", algorithm_type="dpmsolver++"),
    _of("DPM++ 2M SDE", "DPMSolverMultistepScheduler", "dpmpp_2m_sde",
        algorithm_type="sde-dpmsolver++"),
    _of("DPM++ 2S", "DPMSolverSinglestepScheduler", a1111=""),
    _of("UniPC", "UniPCMultistepScheduler", "uni_pc"),
    _of("DEIS", "DEISMultistepScheduler", "deis", a1111=""),
    _of("LCM", "LCMScheduler", "lcm", flow="FlowMatchLCMScheduler"),
    _of("TCD", "TCDScheduler", a1111=""),
    _of("SA Solver", "SASolverScheduler", "sa_solver", a1111=""),
)  # fmt: skip

_SCHEDULES: dict[str, dict[str, Any]] = {
    "Karras": {"use_karras_sigmas": True},
    "Exponential": {"timestep_spacing": "linspace", "use_exponential_sigmas": True},
    "Beta": {"timestep_spacing": "linspace", "use_beta_sigmas": True},
    "SGM Uniform": {"timestep_spacing": "trailing"},
}
"""Diffusers' settings of each schedule, by A1111's name."""

COMFYUI_SCHEDULES = {
    "": "normal",
    "Karras": "karras",
    "Exponential": "exponential",
    "Beta": "beta",
    "SGM Uniform": "sgm_uniform",
}
"""ComfyUI's names of the schedules."""


def _plain(text: str) -> str:
    """A name in a normal form, without differences in spelling."""
    return re.sub(r"[^a-z0-9]", "", text.lower().replace("++", "pp"))


def _names() -> dict[str, Sampler]:
    """Samplers by all of their names, in normal form."""
    found: dict[str, Sampler] = {}
    for sampler in _KNOWN:
        for name in (sampler.name, sampler.comfyui, sampler.kind, sampler.flow):
            for spelling in (name, name.removesuffix("Scheduler")):
                if spelling:
                    found.setdefault(_plain(spelling), sampler)
    return found


_BY_NAME = _names()


def names() -> list[str]:
    """Names of all samplers, without the schedules."""
    return [*SAMPLERS, *(sampler.name for sampler in _KNOWN)]


def find(name: str) -> Sampler:
    """The sampler of a name: A1111's, ComfyUI's or that of diffusers' class, with its schedule.

    Raises:
        ConfigError: there is no such sampler; the message suggests the nearest names.
    """
    plain = _plain(name)
    if plain in _BY_NAME:
        return _BY_NAME[plain]
    for schedule, changes in _SCHEDULES.items():
        base = _BY_NAME.get(plain.removesuffix(_plain(schedule)))
        if base is not None and plain.endswith(_plain(schedule)):
            if not changes.keys() <= _taken(base):
                raise ConfigError(
                    f"sampler must be one that can space its timesteps as {schedule}, got "
                    f"{name!r}; only {base.name} can be used without it."
                )
            return Sampler(
                name=f"{base.name} {schedule}",
                kind=base.kind,
                changes=base.changes | changes,
                flow=base.flow,
                a1111=base.a1111,
                comfyui=base.comfyui,
                schedule=schedule,
            )
    raise ConfigError(
        f"sampler must be one of {', '.join(SAMPLERS)} or a solver such as {_nearest(name)}, got "
        f"{name!r}."
    )


def _taken(sampler: Sampler) -> set[str]:
    return {*inspect.signature(getattr(diffusers, sampler.kind).__init__).parameters}


def _nearest(name: str) -> str:
    """Names like one, or else a few."""
    every = {
        _plain(full): full
        for sampler in _KNOWN
        for full in (
            sampler.name,
            *(
                f"{sampler.name} {s}"
                for s, own in _SCHEDULES.items()
                if own.keys() <= _taken(sampler)
            ),
        )
    }
    near = difflib.get_close_matches(_plain(name), every, 3, 0.5)
    return ", ".join(repr(every[n]) for n in near) or ", ".join(s.name for s in _KNOWN)


def check_names(name: str | None) -> None:
    """Refuse an unknown sampler before a model is loaded.

    Raises:
        ConfigError: there is no such sampler.
    """
    if name is not None and name not in SAMPLERS:
        find(name)


def fitting(
    sampler: Sampler, scheduler: Any, noise: Any, *, own: type[Any], scales: bool, model: str
) -> Any:
    """A sampler's solver with the settings of a model's own.

    Args:
        sampler: The requested sampler.
        scheduler: The model's scheduler, which gives the settings.
        own: Class of the model's own solver.
        noise: The model's noise process.
        scales: Whether the family's pipeline scales latents for solvers in units of sigma.
        model: Name of the model in messages.

    Raises:
        ModelError: it does not draw the model.
    """
    if isinstance(noise, Flow):
        name, drawn = sampler.flow, own.__name__ == _FLOW
        fits = drawn and name != "" and sampler.schedule == ""
        others = [s.name for s in _KNOWN if s.flow and drawn]
    else:
        name, drawn = sampler.kind, isinstance(noise, Diffusion) and own.__name__ in _STANDARD
        fits = drawn and name in (_STANDARD - _NOT_BY_SEED) | _BESIDE
        others = [s.name for s in _KNOWN if drawn]
    predicts = getattr(noise, "prediction_type", "something else")
    if not fits:
        raise ModelError(
            f"sampler must be one that can draw with {model}, which predicts {predicts} "
            f"({', '.join(['model', *others])}), got {sampler.name!r}; leave it out."
        )
    kind: Any = getattr(diffusers, name)
    solver = kind.from_config(scheduler.config, **sampler.changes)
    if not scales:
        solver.set_timesteps(2)
        if float(solver.init_noise_sigma) != 1.0:
            raise ModelError(
                f"sampler must be one that does not scale the latents on {model}, whose pipeline "
                f"does not scale them (DDIM, DDPM, DPM++ 2M, UniPC, DEIS), got {sampler.name!r}."
            )
    return solver


_STANDARD = {kind.name for kind in KarrasDiffusionSchedulers}
_FLOW = "FlowMatchEulerDiscreteScheduler"
_NOT_BY_SEED = {
    "DPMSolverSDEScheduler",  # the noise of all pictures is of one seed
    "EDMEulerScheduler",  # for models of another parametrisation
}
_BESIDE = {"LCMScheduler", "TCDScheduler", "SASolverScheduler"}
"""Solvers that are compatible without declaring it."""


@contextmanager
def without_notices() -> Iterator[None]:
    """Hold back what numpy says of tensors that some solvers hand to it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "__array_wrap__", DeprecationWarning)
        yield


def told(name: str, scheduler: Any) -> Sampler:
    """The sampler that draws, for readers in other tools.

    Args:
        name: As the settings have it.
        scheduler: What it comes to on a model.
    """
    if name not in SAMPLERS:
        return find(name)
    kind = type(scheduler).__name__
    return next(
        (s for s in _KNOWN if kind in (s.kind, s.flow)),
        Sampler(name=kind.removesuffix("Scheduler"), kind=kind),
    )
