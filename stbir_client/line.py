"""Sanitizes remote text for the terminal."""

MAX_LENGTH = 500


def one_line(text: str) -> str:
    """The text on one line, without control or formatting characters, cut at MAX_LENGTH."""
    printable = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(printable.split())[:MAX_LENGTH]
