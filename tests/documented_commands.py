"""The shell commands of the documentation, and the test that runs each of them."""

import re

from tests.conftest import ROOT

# Regular expression for the start of a command → the test that runs it, or why no test can.
NOT_RUN = "not run: "
RUNNERS = {
    r"make demo": "tests/cluster/test_documented_commands.py",
    r"make (setup|test)": ".ci/run",
    r"python ray_jobs/": "tests/cluster/test_documented_commands.py",
    r"serve run serve\.app:build ": "tests/cluster/test_documented_commands.py",
    r"curl ": "tests/cluster/test_documented_commands.py",
    r"stbir search ": "tests/cluster/test_documented_commands.py",
    r"pip install \./stbir_client": "tests/client/test_package.py",
    r"ray get-auth-token ": "tests/cluster/test_documented_commands.py",
    r"ray start ": "tests/cluster/head.py",
    r"ray job submit (--address \S+ )?--working-dir \. -- python ray_jobs/train\.py (…|--recipe)": (
        "tests/cluster/test_submit.py"
    ),
    r"serve deploy serve/deploy\.yaml": "tests/cluster/test_serving.py",
    r"docker ": f"{NOT_RUN}needs a Docker daemon",
    r"(aws|gcloud|ray up|ray down|ray dashboard) ": f"{NOT_RUN}needs a cloud account",
    r"kubectl ": f"{NOT_RUN}needs a Kubernetes cluster",
    r"ray job submit .* --gpu yes ": f"{NOT_RUN}needs GPUs",
    r"(export|\.) ": f"{NOT_RUN}a shell builtin",
}


def commands(markdown: str) -> list[str]:
    """The commands of the fenced sh blocks, without comments, parentheses and leading variables."""
    blocks = re.findall(r"^```sh\n(.*?)^```", markdown, re.MULTILINE | re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    code = [re.sub(r"(^|\s)#.*$", "", line).strip() for line in lines]
    inner = [re.sub(r"^\(?(umask \d+ && )?(.*?)(>\S+)?\)?$", r"\2", line).strip() for line in code]
    parts = [part.strip() for line in inner for part in re.split(r"&&|\|", line)]
    commands = [re.sub(r"^([A-Z_]+=\S+ )+", "", part) for part in parts if part]
    return [" ".join(part.split()) for part in commands]


def document_commands(document: str) -> list[str]:
    return commands((ROOT / document).read_text())


def runners(command: str) -> list[str]:
    """The values of `RUNNERS` whose pattern matches; exactly one for a valid table."""
    return [runner for pattern, runner in RUNNERS.items() if re.match(pattern, f"{command} ")]
