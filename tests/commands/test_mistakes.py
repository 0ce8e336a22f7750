"""A mistake on the command line ends in one sentence, before anything is done."""

import pytest

from apps import refused, written


@pytest.mark.parametrize(
    "words",
    [
        ("provision", "file", "--host", "localhost"),
        ("provision", "file/home", "--host", "localhost"),
        ("curve", "app.toml", "--out", "file"),
        ("try", "app.toml", "--home", "file"),
    ],
    ids=" ".join,
)
def test_a_folder_that_cannot_be_made_is_refused_before_anything_is_done(command, tmp_path, words):
    (tmp_path / "file").touch()
    written(tmp_path)
    assert "cannot make the folder file" in refused(command, *words)


def test_join_says_that_its_folder_cannot_be_made(command, tmp_path):
    (tmp_path / "file").touch()
    told = command("join", written(tmp_path), "--server", "localhost:1", "--as", "a", "--home", "file")
    assert (told.code, told.out) == (2, "")
    assert "cannot make the folder file: File exists; choose another --home." in told.err


def test_new_of_a_folder_is_refused(command):
    assert ". is a folder; name a CSV file in it." in refused(command, "new", ".")
