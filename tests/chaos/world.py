"""What all steps share: a Ray cluster, an S3 server behind a proxy that injects faults, and a folder."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import s3fs

from serve.environment import set_defaults
from tests.chaos.faults import find_processes
from tests.cluster.fault_injection import FaultyServer, faulty_server
from tests.cluster.head import Head, running_head
from tests.conftest import BUCKET, ROOT, s3_server


@dataclass(frozen=True)
class World:
    """The shared parts of a run."""

    folder: Path
    storage: FaultyServer
    head: Head

    def uri(self, name: str, fault_kind: str = "") -> str:
        """A URI for an artifact: in the bucket if the storage has the fault, else on the disk."""
        return f"s3://{BUCKET}/{name}" if fault_kind == "storage_storm" else str(self.folder / name)

    def processes(self, title: str) -> list[psutil.Process]:
        """The Ray processes with that word in their title."""
        return list(find_processes(title, self.head.variables["RAY_AUTH_TOKEN_PATH"]))

    def start(self, *command: str, **variables: str) -> subprocess.Popen[str]:
        """Start Python with a command line from the root of the repository, with the cluster's address."""
        return subprocess.Popen(
            [sys.executable, *command],
            cwd=ROOT,
            env={
                **self.head.variables,
                "RAY_ADDRESS": self.head.address,
                "PYTHONPATH": str(ROOT),
                **variables,
            },
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )


@contextmanager
def running_world() -> Iterator[World]:
    """Start everything; all S3 requests, those of the cluster too, pass through the proxy."""
    with (
        tempfile.TemporaryDirectory(prefix="stbir-chaos-") as folder,
        s3_server(),
        faulty_server(os.environ["AWS_ENDPOINT_URL"], share=0.0) as storage,
    ):
        os.environ["AWS_ENDPOINT_URL"] = storage.url
        set_defaults(os.environ)
        s3fs.S3FileSystem().mkdir(BUCKET)
        with running_head() as head:
            yield World(Path(folder), storage, head)
