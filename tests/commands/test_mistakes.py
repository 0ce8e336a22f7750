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


def test_a_run_starts_from_a_file(command, tmp_path):
    said = ". cannot be read as a model file: there is no such file; it is one like runs/RUN/model.safetensors."
    assert said in refused(command, "run", written(tmp_path), "--start-from", ".")


def test_a_form_that_is_none_is_named(command, tmp_path):
    (tmp_path / "nan.toml").write_text("rounds = 2\n")
    words = ("blind", "--encrypt", "rows.csv", "--form", "nan.toml", "--key", "key", "--output", "query")
    assert "nan.toml: this is no form of `fedloom blind --describe`" in refused(command, *words)


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("verify", "run", "--keys", "rows.csv"), "like a record's keys.json, or a site's HOME/pki/log.json"),
        (("key", "--home", "north", "--open", "rows.csv"), "the file that `fedloom key --make` has written"),
        (("approve", "--home", "north", "--directory", "rows.csv"), "the list that `fedloom provision --directory`"),
    ],
    ids=["keys", "sealed key", "directory"],
)
def test_a_file_that_is_none_of_these_is_said_to_be_so(command, tmp_path, words, what):
    (tmp_path / "rows.csv").write_text("age,sick\n1,0\n")
    (tmp_path / "run").mkdir()
    sentence = refused(command, *words)
    assert sentence.startswith("error FL100: rows.csv cannot be read: Expecting value")
    assert what in sentence


@pytest.mark.parametrize("name", ["file", "none"])
@pytest.mark.parametrize("words", [("runs", "--out"), ("runs", "--json", "--out"), ("approve", "--list", "--home")])
def test_what_is_no_folder_has_nothing_to_list(command, tmp_path, words, name):
    (tmp_path / "file").touch()
    assert f"there is no folder {name}; {words[-1]} is " in refused(command, *words, name)


@pytest.mark.parametrize(
    "words",
    [
        ("blind", "--describe", "last", "--output", "file/x"),
        ("blind", "--encrypt", "rows.csv", "--form", "form", "--output", "query", "--key", "file/x"),
        ("predict", "last", "--data", "rows.csv", "--output", "file/x"),
        ("provision", "home", "--directory", "file/x"),
        ("new", "rows.csv", "--output", "file/x"),
    ],
    ids=" ".join,
)
def test_a_file_that_lies_in_no_folder_is_refused_before_anything_is_done(command, tmp_path, words):
    (tmp_path / "file").touch()
    said = f"there is no folder file for x; choose another {words[-2]}."
    assert said in refused(command, *words)
