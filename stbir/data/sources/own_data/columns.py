"""The columns of a table and their roles: mapped by the user, or guessed from their names."""

from collections.abc import Sequence

from stbir.errors import InputError

# Role → names of columns that are taken for it, the likeliest first.
ROLES: dict[str, tuple[str, ...]] = {
    "file": (
        "file",
        "filename",
        "file_name",
        "photo",
        "image",
        "path",
        "filepath",
        "image_path",
        "uri",
        "url",
    ),
    "caption": ("caption", "text", "description", "title"),
    "sketch": ("sketch", "sketches", "sketch_file", "drawing"),
    "id": ("id", "photo_id", "image_id"),
    "category": ("category",),
    "class": ("class",),
    "split": ("split",),
}


def parse_columns(spec: str) -> dict[str, str]:
    """`ROLE=COLUMN,…` → role → column. Raises InputError for an unknown role, and for one given twice."""
    roles: dict[str, str] = {}
    for pair in spec.split(",") if spec else []:
        role, _, column = (part.strip() for part in pair.partition("="))
        if role not in ROLES or not column:
            raise InputError(f"--columns {pair}: write it as ROLE=COLUMN with ROLE one of {', '.join(ROLES)}")
        if role in roles:
            raise InputError(f"--columns {pair}: {role} is given twice; keep one")
        roles[role] = column
    return roles


def choose_columns(names: Sequence[str], given: dict[str, str], location: str) -> dict[str, str]:
    """Role → column: those given, and for each other role the first column with one of its names.

    Upper and lower case are equal in a guess. Raises InputError, naming `location`, for a given column that
    does not exist, and if no column has the files.
    """
    for role, column in given.items():
        if column not in names:
            raise InputError(
                f"--columns {role}={column}: {location} has {', '.join(names)}; name one of them"
            )
    chosen = dict(given)
    for role, candidates in ROLES.items():
        free = {name.lower(): name for name in names if name not in chosen.values()}
        guess = next((free[name] for name in candidates if name in free), None)
        if role not in chosen and guess is not None:
            chosen[role] = guess
    if "file" not in chosen:
        raise InputError(
            f"{location}: no column names the photos; give --columns file=, one of {', '.join(names)}"
        )
    return chosen


def describe_columns(names: Sequence[str], chosen: dict[str, str], given: dict[str, str]) -> str:
    """What each column is taken for, as one line for the user."""
    pairs = [f"{role}={column}{'' if role in given else ' (guessed)'}" for role, column in chosen.items()]
    ignored = [name for name in names if name not in chosen.values()]
    rest = f"; not used: {', '.join(ignored)}" if ignored else ""
    return f"columns: {', '.join(pairs)}{rest}; to change this, give --columns ROLE=COLUMN"
