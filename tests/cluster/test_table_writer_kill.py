"""A table writer on S3, killed with SIGKILL at random times: a re-run ends with the same table."""

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stbir.gallery.gallery import open_table
from stbir.gallery.table_writer import latest_version
from stbir.storage.folder import Folder
from tests.cluster.append_rows import PHOTOS, main
from tests.conftest import ROOT, wait_until

KILLS = 3


def count_rows(uri: str) -> int:
    latest = latest_version(Folder(uri))
    return latest.count_rows() if latest is not None else 0


@pytest.mark.endurance
@pytest.mark.slow(reason="four processes, of which three are killed")
def test_killed_writer_resumes_to_the_same_table(s3: str, tmp_path: Path) -> None:
    interrupted, uninterrupted = f"{s3}/killed/writer", str(tmp_path)
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    rng = random.Random(seed)
    for _ in range(KILLS):
        before = count_rows(interrupted)
        process = subprocess.Popen([sys.executable, "-m", "tests.cluster.append_rows", interrupted], cwd=ROOT)
        wait_until(lambda: count_rows(interrupted) > before or process.poll() is not None, "new rows", 60)  # noqa: B023
        time.sleep(rng.uniform(0, 0.5))
        process.kill()
        process.wait()
        assert before < count_rows(interrupted)
    for uri in (interrupted, uninterrupted):
        main(uri, pause_s=0)
    table = open_table(Folder(interrupted)).to_table()
    assert table.equals(open_table(Folder(uninterrupted)).to_table())
    assert table["photo_id"].to_pylist() == list(PHOTOS)
