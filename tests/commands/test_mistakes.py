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


@pytest.mark.parametrize("name", [".", "d.toml", "d.py", "d"])
def test_a_folder_is_no_app_and_none_is_suggested(command, tmp_path, name):
    (tmp_path / name).mkdir(exist_ok=True)
    assert f"'{name}' is a folder; an app is a .py or a .toml file" in refused(command, "run", name)


@pytest.mark.parametrize("text", ["raise SystemExit(3)", "exit()", "import sys\nsys.exit('no GPU here')"])
def test_an_app_that_ends_python_is_named(command, tmp_path, text):
    sentence = refused(command, "run", written(tmp_path, text, "app.py"))
    assert "app.py cannot be run: line " in sentence
    assert "SystemExit: " in sentence


@pytest.mark.parametrize(
    "words",
    [
        ("predict", "last", "--data", "rows.csv", "--output", "rows.csv"),
        ("blind", "--encrypt", "rows.csv", "--form", "form", "--key", "key", "--output", "./rows.csv"),
        (
            "blind",
            "--decrypt",
            "answer",
            "--form",
            "form",
            "--key",
            "key",
            "--data",
            "rows.csv",
            "--output",
            "rows.csv",
        ),
        ("new", "rows.csv", "--output", "rows.csv", "--force"),
    ],
    ids=" ".join,
)
def test_rows_are_not_written_over(command, tmp_path, words):
    (tmp_path / "rows.csv").write_text("age,sick\n1,0\n")
    assert "rows.csv is the file that is read, and would be lost" in refused(command, *words)
    assert (tmp_path / "rows.csv").read_text() == "age,sick\n1,0\n"
