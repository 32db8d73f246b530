"""To be imported first: annotations are checked while the tests run.

Shapes are checked by jaxtyping, where there are any. It takes three times as long as beartype, also
where no shape stands in the annotations. Functions without shapes go through beartype alone.
"""

from __future__ import annotations

import re
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import FunctionType
from typing import Any, get_args, get_type_hints

import jaxtyping
from beartype import BeartypeConf, beartype
from beartype.claw import beartype_package
from jaxtyping import AbstractArray, install_import_hook


# an int is a float, as PEP 484 has it
CONF = BeartypeConf(is_pep484_tower=True, claw_is_pep526=False)
check = beartype(conf=CONF)
# to jaxtyping it is no error that a name is imported for the type checker alone, or stands in the
# annotations of a dataclass of another module, as those of the commands' settings do
_BY_JAXTYPING = re.compile(r"oneword\._typing|jaxtyping|TYPE_CHECKING|import ray")


def _by_need(fn: Any = None, *, typechecker: Any) -> Any:
    """jaxtyping's decorator, but for functions without shapes."""
    if fn is None:
        return partial(_by_need, typechecker=typechecker)
    if isinstance(fn, FunctionType):
        hints = {name: _hint(hint, fn) for name, hint in fn.__annotations__.items()}
        if not any(map(_has_shapes, hints.values())):
            fn.__annotations__ = hints
            return check(fn)
    return _jaxtyped(fn, typechecker=typechecker)


def _hint(hint: Any, fn: FunctionType) -> Any:
    """What an annotation says; anything where a name in it is not there, as jaxtyping has it."""

    def of(value: Any) -> None:
        pass

    of.__annotations__ = {"value": hint}
    try:
        return get_type_hints(of, fn.__globals__, include_extras=True)["value"]
    except Exception:
        return Any


def _has_shapes(hint: Any) -> bool:
    if isinstance(hint, type) and issubclass(hint, AbstractArray):
        return True
    inner = hint if isinstance(hint, list | tuple) else get_args(hint)
    return any(map(_has_shapes, inner))


_jaxtyped = jaxtyping.jaxtyped
jaxtyping.jaxtyped = _by_need
_spec = find_spec("oneword")
assert _spec is not None
assert _spec.origin is not None
_root = Path(_spec.origin).parent
install_import_hook(
    [
        ".".join(path.relative_to(_root.parent).with_suffix("").parts)
        for path in _root.rglob("*.py")
        if path.parent.name == "cli" or _BY_JAXTYPING.search(path.read_text(encoding="utf-8"))
    ],
    "typecheck.check",
)
beartype_package("oneword", conf=CONF)
