"""The one exception that means: what was given cannot be used, and here is what to do about it."""


class InputError(ValueError):
    """Bad input. The message is one line that names the field or file and the remedy.

    Commands print it and exit with 2; the endpoint turns it into a 4xx answer.
    """
