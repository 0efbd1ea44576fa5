"""The one exception that means the user's input or machine is at fault, not bitfab; and checks that raise it."""

from __future__ import annotations

import enum
from numbers import Integral
from typing import Any, TypeVar

_Choice = TypeVar("_Choice", bound=enum.StrEnum)


class BitfabError(Exception):
    """A one-line message that names the thing, the reason and the remedy; the command line exits with code 2 on it."""


def require(condition: bool, message: str) -> None:
    """Raise BitfabError with the message unless the condition holds."""
    if not condition:
        raise BitfabError(message)


def choice(kind: type[_Choice], value: Any, subject: str) -> _Choice:
    """The member of that value; BitfabError, which begins with the subject, lists all."""
    try:
        return kind(value)
    except ValueError:
        raise BitfabError(f"{subject}: choose one of {', '.join(kind)}") from None


def whole(value: object, subject: str, least: int = 1) -> int:
    """The whole number, of any integer type; BitfabError, which begins with the subject, for a lesser or other one."""
    if not isinstance(value, Integral) or value < least:
        raise BitfabError(f"{subject}: give a whole number, {least} or more")
    return int(value)
