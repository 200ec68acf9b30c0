"""Numbers and text of others in messages and pages."""

from __future__ import annotations


def counted(number: int, noun: str, plural: str = '') -> str:
    """A number with its noun: 1 session, 2 sessions.

    Parameters
    ----------
    plural : of the noun, if it is not made by an s.
    """
    return f'{number} {noun if number == 1 else plural or noun + "s"}'


def uncited(text: str) -> str:
    """Text of others for a methods sentence, in which square brackets are citations."""
    return text.replace('[', '(').replace(']', ')')
