"""Errors that a user can fix, and their wording."""

from __future__ import annotations


class UserError(ValueError):
    """A user's mistake: the text says what must hold, what was given, and what to do."""


class ConfigError(UserError):
    """A setting is out of its range, or contradicts another."""


def require(condition: bool, message: str) -> None:
    """Raise a ``ConfigError`` with a message unless a condition holds."""
    if not condition:
        raise ConfigError(message)


class ModelError(UserError):
    """The base model cannot be loaded, or is not of a supported family."""


def reason_of(error: Exception) -> str:
    """Why a library could not load something; its loaders raise a dozen kinds of errors."""
    text = str(error).strip()
    return text.splitlines()[0][:300] if text else repr(error)


def why(error: Exception) -> str:
    """What to print for an error: a user's mistake's text, for others the kind of error, too."""
    return str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
