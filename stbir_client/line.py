"""What a service says, as one line that a terminal shows and does not obey."""

MOST_CHARACTERS = 500


def one_line(text: str) -> str:
    """The text without line breaks, control and formatting characters, cut where it is very long."""
    shown = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(shown.split())[:MOST_CHARACTERS]
