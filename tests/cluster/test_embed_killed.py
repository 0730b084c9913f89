"""A writer killed with SIGKILL at random moments, on S3: whoever goes on ends with the same table."""

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stbir.gallery.gallery import open_table
from stbir.gallery.table_writer import newest_version
from stbir.storage.folder import Folder
from tests.cluster.growing import PHOTOS, main
from tests.conftest import ROOT, wait_until

KILLS = 3


def count(uri: str) -> int:
    newest = newest_version(Folder(uri))
    return newest.count_rows() if newest is not None else 0


@pytest.mark.endurance
@pytest.mark.slow(reason="four processes, three of which are killed on the way")
def test_killed_at_any_moment_it_goes_on_to_the_same_table(s3: str, tmp_path: Path) -> None:
    cut, whole = f"{s3}/killed/writer", str(tmp_path)
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    chance = random.Random(seed)
    for _ in range(KILLS):
        before = count(cut)
        process = subprocess.Popen([sys.executable, "-m", "tests.cluster.growing", cut], cwd=ROOT)
        wait_until(lambda: count(cut) > before or process.poll() is not None, "the next rows", 60)  # noqa: B023
        time.sleep(chance.uniform(0, 0.5))
        process.kill()
        process.wait()
        assert before < count(cut)
    for uri in (cut, whole):
        main(uri, pause=0)
    table = open_table(Folder(cut)).to_table()
    assert table.equals(open_table(Folder(whole)).to_table())
    assert table["photo_id"].to_pylist() == PHOTOS
