from pathlib import Path

import pytest

from fedloom.core.errors import ConfigError
from fedloom.store.folders import filled, made, writable


def test_a_folder_is_made_where_there_is_none(tmp_path):
    assert made(tmp_path / "a" / "b", "choose another").is_dir()
    assert made(tmp_path / "a" / "b", "choose another").is_dir()


@pytest.mark.parametrize("name", ["file", "file/below"])
def test_a_file_is_no_folder(tmp_path, name):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=rf"cannot make the folder .*{name}: .*; choose another"):
        made(tmp_path / name, "choose another")


def test_what_fails_leaves_no_new_empty_folder(tmp_path):
    with pytest.raises(KeyError), filled(tmp_path / "new", "choose another"):
        raise KeyError
    assert not (tmp_path / "new").exists()


def test_what_fails_leaves_a_folder_that_was_there(tmp_path):
    with pytest.raises(KeyError), filled(tmp_path, "choose another"):
        raise KeyError
    assert tmp_path.is_dir()


def test_what_fails_leaves_what_was_written(tmp_path):
    def half(folder):
        (folder / "file").touch()
        raise KeyError

    with pytest.raises(KeyError), filled(tmp_path / "new", "choose another") as folder:
        half(folder)
    assert (tmp_path / "new" / "file").is_file()


def test_a_file_that_is_read_is_not_written_over(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x").mkdir()
    writable(Path("b.csv"), Path("a.csv"), None)
    for other in (Path("a.csv"), tmp_path / "a.csv", Path("x/../a.csv")):
        with pytest.raises(ConfigError, match=r"--output .*a.csv is the file that is read, and would be lost"):
            writable(other, Path("b.csv"), Path("a.csv"))


@pytest.mark.parametrize(
    ("name", "said"), [("none/a", "no folder .*none for a"), ("file/a", "no folder .*file for a"), ("", "is a folder")]
)
def test_a_file_lies_in_a_folder_and_is_none(tmp_path, name, said):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=rf"{said}.*--key"):
        writable(tmp_path / name, option="--key")
