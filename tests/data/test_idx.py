"""IDX files: read, memory-mapped, compressed; what is not one is refused."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from fedloom.core.errors import ConfigError, DataError
from fedloom.data.idx import Idx, read_idx


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}i", 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    images, labels = np.arange(24).reshape(6, 2, 2), np.array([0, 1, 2, 0, 1, 2])
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(images))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(labels))
    (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images[:2]), mtime=0))
    (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels[:2]), mtime=0))
    return tmp_path


def test_plain_and_compressed_files_are_read(folder: Path) -> None:
    source = Idx(folder, shape=(2, 2), classes=3)
    examples = source.read().examples({})
    assert examples.inputs.shape == (6, 2, 2)
    np.testing.assert_allclose(examples.inputs[1].ravel(), np.float32([4, 5, 6, 7]) / 255, rtol=1e-6)
    assert examples.targets.tolist() == [0, 1, 2, 0, 1, 2]
    assert source.test().size == 2


def test_a_plain_file_is_mapped_not_read(folder: Path) -> None:
    assert type(read_idx(folder / "train-images-idx3-ubyte").base).__name__ != "NoneType"
    assert not read_idx(folder / "train-images-idx3-ubyte").flags.writeable


@pytest.mark.parametrize("content", [b"", b"\x00", b"hello world, I am text", idx(np.zeros((3, 2, 2)))[:-1]])
def test_what_is_not_idx_is_refused(folder: Path, content: bytes) -> None:
    (folder / "train-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(DataError, match="cannot be read as IDX"):
        Idx(folder, shape=(2, 2), classes=3).read()


def test_a_missing_file_and_nonsense_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no train-images-idx3-ubyte"):
        Idx(tmp_path).read()
    with pytest.raises(ConfigError, match="classes must be at least 2"):
        Idx(tmp_path, classes=1)
