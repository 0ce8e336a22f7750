import os

import numpy as np
import pytest

from fedloom.core.errors import RunError, StorageError
from fedloom.store.files import append, dump, restore, write_whole
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


@pytest.mark.parametrize("left", ["", "half", "half a line " * 1000])
def test_lines_are_written_behind_whole_lines(tmp_path, left):
    path = tmp_path / "lines"
    assert append(path, "one\ntwo\n") == 0
    with path.open("a") as file:
        file.write(left)
    assert append(path, "three\n") == 8
    assert path.read_text() == "one\ntwo\nthree\n"


def test_a_file_without_a_whole_line_begins_anew(tmp_path):
    path = tmp_path / "lines"
    path.write_text("half a line")
    assert append(path, "one\n") == 0
    assert path.read_text() == "one\n"


def test_a_disk_that_takes_half_a_line_keeps_none_of_it(tmp_path, monkeypatch):
    path, write = tmp_path / "lines", os.pwrite
    append(path, "one\n")

    def full(file, content, at):
        if len(content) < 3:
            raise OSError(28, "No space left on device")
        return write(file, content[:3], at)

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(StorageError, match="lines cannot be written: No space left on device"):
        append(path, "seventh\n")
    monkeypatch.undo()
    assert path.read_text() == "one\n"
    append(path, "two\n")
    assert path.read_text() == "one\ntwo\n"


def test_a_disk_that_is_read_only_is_named_with_the_file(tmp_path, read_only):
    write_whole(tmp_path / "model", b"old")
    read_only()
    with pytest.raises(StorageError, match=r"model cannot be written: Read-only file system\."):
        write_whole(tmp_path / "model", b"new")
    assert (tmp_path / "model").read_bytes() == b"old"
