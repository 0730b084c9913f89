"""Photos that kill or block the worker that decodes them are set aside, and the job goes on."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

from ray_jobs.embedding.isolation import _fault, decode_isolated
from ray_jobs.embedding.pipeline import EncoderPool, embed_catalogue
from ray_jobs.recipes import recipe
from stbir.catalogue.photo import Part, Photo
from stbir.config import Preprocess
from stbir.data.validation import Fault
from stbir.embedding.change_detection import PHOTO_ROW, detect_changes
from stbir.embedding.decode import DecodedPart, decode_part, decode_photos
from stbir.embedding.listing import Listing
from stbir.errors import InputError
from stbir.gallery.existing_rows import ROW
from stbir.gallery.partitioned_records import PartitionedRecords
from tests.conftest import ROOT
from tests.embedding.test_decode import unread
from tests.ray_jobs.dangerous_catalogue import IDS, DangerousCatalogue
from tests.ray_jobs.test_embed_gallery import save_smoke_checkpoint

SMALL = Preprocess(16, (0, 0, 0), (1, 1, 1))


@pytest.mark.slow(reason="workers that die one after the other")
def test_photos_that_kill_or_block_their_worker_are_set_aside(ray_cluster) -> None:
    catalogue = DangerousCatalogue(killer="03", sleeper="05")
    [part, _] = catalogue.parts()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ray_jobs.embedding.isolation.PHOTO_TIMEOUT_S", 5.0)
        decoded, pixels = decode_isolated(ray.put(catalogue), unread(part, {7}), SMALL, None)
    assert decoded.photo_ids == ["00", "01", "02", "04", "06", "08", "09"]
    assert [(fault.photo_id, fault.reason) for fault in decoded.faults] == [
        ("03", "kills its worker"),
        ("05", "timed out"),
        ("07", "duplicate id"),
    ]
    assert decoded.failed == decoded.faults[:2]  # another run tries again, and keeps the rows that exist
    assert pixels.shape == (7, 3, 16, 16)


@pytest.mark.slow(reason="an encoder actor, which imports the model libraries, and workers that die")
def test_job_goes_on_after_a_photo_that_kills_its_worker(ray_cluster, tmp_path: Path) -> None:
    uri, config = save_smoke_checkpoint(str(tmp_path)), recipe("smoke")
    pool = EncoderPool(uri, config.model.photo.preprocess, 1, use_gpu=False)
    catalogue = DangerousCatalogue(killer="03")
    changes = detect_changes(Listing(catalogue), PartitionedRecords(ROW), PartitionedRecords(PHOTO_ROW))
    parts = embed_catalogue(catalogue, changes, pool)
    embedded = [(each.decoded.photo_ids, len(each.encoded.vectors)) for each in parts]
    assert embedded == [([*IDS[:3], *IDS[4:10]], 9), (IDS[10:], 10)]


@pytest.mark.parametrize(
    ("died_after_s", "deaths", "reason", "detail"),
    [
        (59.5, 1, "timed out", "not decoded within 60 s"),  # as the driver measures
        (50.0, 3, "kills its worker", "3 workers crashed or ran out of memory on it"),
    ],
)
def test_the_fault_names_what_ended_the_worker(
    died_after_s: float, deaths: int, reason: str, detail: str
) -> None:
    assert _fault("x", died_after_s, deaths) == Fault("x", reason, detail=detail)
    assert _fault("x", 50.0, 2) is None


SLOW_PART = """
from stbir.config import Preprocess
from stbir.embedding.decode import decode_part
from tests.embedding.test_decode import unread
from tests.ray_jobs.dangerous_catalogue import DangerousCatalogue

catalogue = DangerousCatalogue(sleeper="03")
small = Preprocess(16, (0, 0, 0), (1, 1, 1))
decode_part(catalogue, unread(next(catalogue.parts())), small, photo_timeout_s=0.5)
"""


@pytest.mark.slow(reason="a process of its own")
def test_task_whose_photo_takes_too_long_ends_its_process() -> None:
    ended = subprocess.run([sys.executable, "-c", SLOW_PART], cwd=ROOT, capture_output=True, check=False)
    assert ended.returncode == 1
    assert b"Timeout" in ended.stderr


class CountingCatalogue(DangerousCatalogue):
    """Only reads parts as they are listed, as shards do."""

    def read(self, part: Part) -> Iterator[Photo | Fault]:
        assert part.location == "all"
        return super().read(part)


@pytest.mark.parametrize("start", [0, 4, 9])
@pytest.mark.parametrize("location", [None, IDS[:10], "all"], ids=["none", "refs", "whole"])
def test_photos_decoded_one_by_one_equal_those_of_the_part(start: int, location: Any) -> None:
    catalogue = CountingCatalogue() if location == "all" else DangerousCatalogue()
    part = unread(Part(IDS[:10], location), {5})
    whole, pixels = decode_part(catalogue, part, SMALL)
    started, *results = decode_photos(catalogue, part, SMALL, start, 60)
    assert started is None
    merged = DecodedPart.merge([decoded for decoded, _ in filter(None, results)])
    assert (merged.photo_ids, merged.faults) == (
        [photo_id for photo_id in whole.photo_ids if photo_id >= IDS[start]],
        [fault for fault in whole.faults if fault.photo_id >= IDS[start]],
    )
    assert np.array_equal(
        np.concatenate([each for _, each in filter(None, results)]), pixels[-len(merged.photo_ids) :]
    )


@pytest.mark.parametrize("num_ids", [9, 11])
def test_part_of_another_length_than_its_photos_is_an_error(num_ids: int) -> None:
    class Changed(DangerousCatalogue):
        def read(self, part: Part) -> Iterator[Photo | Fault]:
            return super().read(Part(IDS[:10], None))

    part = unread(Part(IDS[:num_ids], "all"))
    with pytest.raises(InputError, match="the catalogue changed near photo 00"):
        list(decode_photos(Changed(), part, SMALL, 0, 60))
