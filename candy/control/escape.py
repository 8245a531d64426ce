"""Texts that strangers chose, as they may be shown: a terminal, or a reader of the log, must not act on them.

    "büro\\x1b[2J" ─▶ shown() ─▶ büro\\\\x1b[2J

This module does not know where a text is shown.
"""


def shown(text: str, *, spaces: bool = True) -> str:
    """The text with all that can't be printed, and backslashes, escaped as in Python.

    Args:
        spaces: a space stays one; without that it is escaped too, so that the text is one word.
    """
    return "".join(_escaped(c) if c == "\\" or not c.isprintable() or (c == " " and not spaces) else c for c in text)


def _escaped(character: str) -> str:
    return "\\x20" if character == " " else character.encode("unicode_escape").decode("ascii")
