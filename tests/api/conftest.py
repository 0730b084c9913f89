"""An untrained model and a folder of photos."""

from pathlib import Path

import pytest

from stbir.api.model import Model, load
from tests.data.image_files import drawing, png, write_files
from tests.ray_jobs.test_embed_gallery import save_smoke_checkpoint


@pytest.fixture(scope="session")
def checkpoint_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_smoke_checkpoint(str(tmp_path_factory.mktemp("model") / "checkpoint"))


@pytest.fixture(scope="session")
def model(checkpoint_uri: str) -> Model:
    return load(checkpoint_uri)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Eight photos in two folders, of which the names are the categories."""
    files = {f"{'ab'[n % 2]}/{n}.png": png((30 * n, 99, 255 - 30 * n), (40, 30)) for n in range(8)}
    return write_files(tmp_path / "photos", {**files})


@pytest.fixture
def sketch_file(tmp_path: Path) -> Path:
    path = tmp_path / "chair.png"
    drawing().save(path)
    return path
