"""Sources of arrays."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedloom.core.errors import ConfigError, DataError
from fedloom.data.arrays import Arrays, Npz
from fedloom.data.sources import Source

IMAGES = np.arange(12, dtype=np.uint8).reshape(3, 2, 2)


def saved(tmp_path: Path, **arrays: Any) -> Path:
    np.savez(tmp_path / "my.npz", **arrays)
    return tmp_path / "my.npz"


def test_an_npz_source_reads_both_parts_and_reshapes(tmp_path: Path) -> None:
    labels = np.array([[0], [1], [1]], np.uint8)
    path = saved(tmp_path, train_images=IMAGES, train_labels=labels, test_images=IMAGES[:1], test_labels=labels[:1])
    source = Npz(path, shape=(1, 2, 2), classes=2, names=("normal", "sick"))
    described: Source = source
    assert (described.schema, described.task, described.input_shape) == (None, "binary", (1, 2, 2))
    assert described.class_names == ("normal", "sick")
    rows, test = source.read(), source.test()
    assert rows.inputs.dtype == np.uint8
    assert rows.labels().tolist() == [0, 1, 1]
    assert rows.labels().dtype == np.int64
    assert rows.examples({}).inputs.shape == (3, 1, 2, 2)
    assert test is not None
    assert test.size == 1


def test_no_official_test_part(tmp_path: Path) -> None:
    path = saved(tmp_path, x=IMAGES, y=np.arange(3))
    source = Npz(path, "x", "y", None, None, shape=(4,), classes=3)
    assert source.test() is None
    assert Npz(None, "x", "y", None, None, shape=(4,), classes=3).read(path).size == 3


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"train_images": IMAGES}, r"no array 'train_labels'; did you mean 'train_images'"),
        ({"train_images": IMAGES, "train_label": np.zeros(3)}, "did you mean 'train_label'"),
        ({"train_images": IMAGES, "train_labels": np.zeros(2)}, "n inputs need n targets"),
        ({"train_images": IMAGES[:0], "train_labels": np.zeros(0)}, "n inputs need n targets"),
        ({"train_images": IMAGES, "train_labels": np.eye(3)}, "n inputs need n targets"),
        ({"train_images": np.float32(1), "train_labels": np.float32(1)}, "n inputs need n targets"),
        ({"train_images": IMAGES[:, 0], "train_labels": np.zeros(3)}, r"must have shape \(2, 2\), got \(2,\)"),
        ({"train_images": IMAGES, "train_labels": np.array([0, 1, 2])}, "from 0 to 1, got 2"),
        ({"train_images": IMAGES, "train_labels": np.array([0, 1, 0.5])}, "from 0 to 1, got 0.5"),
        ({"train_images": IMAGES, "train_labels": np.array(["a", "b", "a"])}, "expected arrays of numbers"),
        ({"train_images": IMAGES * np.nan, "train_labels": np.zeros(3)}, "NaN or infinite"),
        ({"train_images": np.array([{}] * 3), "train_labels": np.zeros(3)}, "not an .npz file of plain arrays"),
    ],
)
def test_bad_arrays_are_refused(tmp_path: Path, arrays: dict[str, Any], sentence: str) -> None:
    with pytest.raises(DataError, match=sentence) as caught:
        Npz(saved(tmp_path, **arrays), shape=(2, 2), classes=2).read()
    assert "my.npz" in str(caught.value)


def test_what_is_no_npz_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "my.npz"
    with pytest.raises(DataError, match="no such file"):
        Npz(path).read()
    for content in (b"", b"age,sick\n", b"PK\x03\x04 torn"):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"not an \.npz file"):
            Npz(path).read()
    np.save(tmp_path / "one.npy", IMAGES)
    with pytest.raises(DataError, match="a single array"):
        Npz(tmp_path / "one.npy").read()


def test_arrays_in_memory() -> None:
    source = Arrays(np.eye(4), np.array([0.1, 0.2, 0.3, 0.4]), 0, test_part=(np.eye(4)[:1], np.array([0.1])))
    assert (source.task, source.class_names, source.input_shape) == ("regression", (), (4,))
    test = source.test()
    assert test is not None
    assert test.labels().tolist() == [0.1]
    assert Arrays(np.eye(4), np.zeros(4), 3).class_names == ("0", "1", "2")
    with pytest.raises(DataError, match="arrays in memory"):
        source.read(Path("my.csv"))


@pytest.mark.parametrize(("classes", "names"), [(1, ()), (-1, ()), (2, ("a",)), (0, ("a",))])
def test_nonsense_classes_are_refused(classes: int, names: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="classes"):
        Npz("my.npz", classes=classes, names=names)


def test_half_a_test_part_is_refused() -> None:
    with pytest.raises(ConfigError, match="both test_inputs and test_targets"):
        Npz("my.npz", test_inputs=None)
