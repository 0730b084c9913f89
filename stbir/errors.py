"""`InputError`, the exception for input that cannot be used."""


class InputError(ValueError):
    """Invalid input. The message is one line that names the field or file and the remedy.

    Commands print it and exit with 2; the endpoint returns a 4xx response.
    """
