"""A family's class decides by hooks: the contract's methods are the base's, once for all."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

import pytest

from oneword.models import families
from oneword.models.contract import Backbone
from oneword.models.drawing import FamilyPipeline


CLASSES = {
    found.__name__: found
    for module in pkgutil.iter_modules(families.__path__)
    for _, found in inspect.getmembers(
        importlib.import_module(f"{families.__name__}.{module.name}"), inspect.isclass
    )
    if issubclass(found, FamilyPipeline) and found.__module__.startswith(families.__name__)
}


def overridden(kind: type) -> list[str]:
    """Public methods and properties of the contract or its base that a class defines itself."""
    public = {n for base in (Backbone, FamilyPipeline) for n in dir(base) if not n.startswith("_")}
    return sorted(
        name
        for name, value in vars(kind).items()
        if name in public and (callable(value) or isinstance(value, property))
    )


def test_every_family_is_looked_at():
    assert len(CLASSES) >= len(list(pkgutil.iter_modules(families.__path__)))


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_a_family_overrides_nothing_of_the_contract(name):
    assert overridden(CLASSES[name]) == []


def test_an_override_is_seen():
    class Strays(FamilyPipeline):
        def predict(self, x_t, t, cond, crops=None): ...

        @property
        def dtype(self): ...

        def _read(self, prompts): ...

    assert overridden(Strays) == ["dtype", "predict"]
