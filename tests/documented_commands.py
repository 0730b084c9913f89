"""The commands that the documents tell, and where each of them is run."""

import re

from tests.conftest import ROOT

# In the order of the documents. A pattern of a command's beginning -> the test that runs it as it stands
# there, or in its own words; or why nothing here can.
NOT_HERE = "not here: "
RUN_BY = {
    r"make demo": "tests/cluster/test_told.py",
    r"make test": ".ci/run",
    r"python ray_jobs/": "tests/cluster/test_told.py",
    r"serve run serve\.app:build ": "tests/cluster/test_told.py",
    r"curl ": "tests/cluster/test_told.py",
    r"stbir search ": "tests/cluster/test_told.py",
    r"pip install \./stbir_client": "tests/client/test_package.py",
    r"ray get-auth-token ": "tests/cluster/test_told.py",
    r"ray start ": "tests/cluster/head.py",
    r"ray job submit (--address \S+ )?--working-dir \. -- python ray_jobs/train\.py (…|--recipe)": (
        "tests/cluster/test_submit.py"
    ),
    r"serve deploy serve/deploy\.yaml": "tests/cluster/test_serving.py",
    r"(aws|ray up|ray down|ray dashboard) ": f"{NOT_HERE}an account at AWS",
    r"ray job submit .* --gpu yes ": f"{NOT_HERE}GPUs",
    r"(export|\.) ": f"{NOT_HERE}no program, a word of the shell",
}


def commands(markdown: str) -> list[str]:
    """Each command of the fenced sh blocks, without comments, brackets and variables before it."""
    blocks = re.findall(r"^```sh\n(.*?)^```", markdown, re.MULTILINE | re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    found = [re.sub(r"(^|\s)#.*$", "", line).strip() for line in lines]
    inner = [re.sub(r"^\(?(umask \d+ && )?(.*?)(>\S+)?\)?$", r"\2", line).strip() for line in found]
    parts = [part.strip() for line in inner for part in re.split(r"&&|\|", line)]
    bare = [re.sub(r"^([A-Z_]+=\S+ )+", "", part) for part in parts if part]
    return [" ".join(part.split()) for part in bare]


def told_in(document: str) -> list[str]:
    return commands((ROOT / document).read_text())


def where_run(command: str) -> list[str]:
    """The places of `RUN_BY` that a command belongs to: one, or the table is wrong."""
    return [place for pattern, place in RUN_BY.items() if re.match(pattern, f"{command} ")]
