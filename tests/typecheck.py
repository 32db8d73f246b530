"""To be imported first: annotations are checked while the tests run.

Shapes are checked by jaxtyping, where there are any. It takes some 20 microseconds for
a call, also where no shape stands in the annotations: ten times as long as what it wraps where the
world is drawn. Modules without shapes go through beartype alone.
"""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

from beartype import BeartypeConf, beartype
from beartype.claw import beartype_package
from jaxtyping import install_import_hook


# an int is a float, as PEP 484 has it
CONF = BeartypeConf(is_pep484_tower=True, claw_is_pep526=False)
check = beartype(conf=CONF)
# to jaxtyping it is no error that a name is imported for the type checker alone, or stands in the
# annotations of a dataclass of another module, as those of the commands' settings do
_BY_JAXTYPING = re.compile(r"oneword\._typing|jaxtyping|TYPE_CHECKING|import ray")

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
