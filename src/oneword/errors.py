"""What goes wrong for a reason that a person can mend, and how it is said."""

from __future__ import annotations


class UserError(ValueError):
    """A mistake of the user's: the text says what must hold, what was given, and what to do."""


class ConfigError(UserError):
    """A setting is out of its range, or contradicts another."""


def require(condition: bool, message: str) -> None:
    """Raise a ``ConfigError`` with a message unless a condition holds."""
    if not condition:
        raise ConfigError(message)


class ModelError(UserError):
    """The base model cannot be loaded, or is not of a supported family."""


def reason_of(error: Exception) -> str:
    """Why a library could not load something: its loaders raise a dozen kinds of error."""
    text = str(error).strip()
    return text.splitlines()[0][:300] if text else repr(error)


def why(error: Exception) -> str:
    """What to tell of an error: a mistake's own words, or what kind of fault it was."""
    return str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
