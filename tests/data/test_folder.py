"""Where data sets lie."""

from pathlib import Path

import pytest

from fedloom.core.errors import DataError
from fedloom.data.folder import data_folder, locate


def test_the_environment_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDLOOM_DATA", str(tmp_path))
    assert data_folder() == tmp_path
    assert locate("$FEDLOOM_DATA/mnist/mnist.npz") == tmp_path / "mnist" / "mnist.npz"
    assert locate("mnist.npz") == Path("mnist.npz")


def test_then_the_nearest_shared_folder_above(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FEDLOOM_DATA", raising=False)
    (tmp_path / "shared" / "data").mkdir(parents=True)
    (tmp_path / "repo" / "deep").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "repo" / "deep")
    assert data_folder() == tmp_path / "shared" / "data"


def test_a_missing_folder_names_the_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDLOOM_DATA", str(tmp_path / "gone"))
    with pytest.raises(DataError, match=r"FEDLOOM_DATA names '.*gone'.* set the environment variable FEDLOOM_DATA"):
        data_folder()
    monkeypatch.delenv("FEDLOOM_DATA")
    monkeypatch.chdir(tmp_path.anchor)  # nothing lies above it
    with pytest.raises(DataError, match="set the environment variable FEDLOOM_DATA"):
        locate("$FEDLOOM_DATA/x.csv")
