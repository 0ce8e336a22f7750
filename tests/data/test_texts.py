"""CSV files as people really send them."""

import gzip
from pathlib import Path

import pytest

from fedloom.core.errors import DataError
from fedloom.data.texts import read_texts


def written(tmp_path: Path, content: str | bytes, name: str = "my.csv") -> Path:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize(
    "content",
    [
        "a,b\n1,2\n3,4\n",
        "\ufeffa,b\n1,2\n3,4\n",
        "a,b\r\n1,2\r\n3,4",
        " a , b \n\n1,2\n\n3,4\n\n",
        '"a","b"\n"1","2"\n"3","4"\n',
    ],
    ids=["plain", "byte order mark", "CR LF, no last newline", "blanks and blank lines", "quotes"],
)
def test_sound_files_give_the_same_columns(tmp_path: Path, content: str) -> None:
    for name, raw in (("my.csv", content.encode()), ("my.csv.gz", gzip.compress(content.encode(), mtime=0))):
        assert dict(read_texts(written(tmp_path, raw, name)).columns) == {"a": ("1", "3"), "b": ("2", "4")}


def test_a_cell_may_span_lines_and_rows_keep_the_number_of_their_line(tmp_path: Path) -> None:
    texts = read_texts(written(tmp_path, 'a,b\n"x\ny",2\n\n3,4\n'))
    assert texts.columns["a"] == ("x\ny", "3")
    assert list(texts.lines) == [3, 5]


def test_another_delimiter(tmp_path: Path) -> None:
    path = written(tmp_path, "age;sick\n60;1\n")
    assert read_texts(path, ";").column("age") == ("60",)
    with pytest.raises(DataError, match=r"no column 'age'.*is the delimiter ';'\?"):
        read_texts(path).column("age")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "the file is empty"),
        ("\n\n", "the file is empty"),
        ("a,b\n", "no rows below the header"),
        ("a,b\n1,2\n3\n", r"line 3: the header names 2 columns, and this row has 1 cells"),
        ("a,b\n1,2,3\n", r"line 2: the header names 2 columns, and this row has 3 cells"),
        ("a,b,a\n1,2,3\n", "names column 'a' twice"),
        ("a,b\n1,M\u00fcller\n".encode("latin-1"), r"line 2: byte 0xfc is not UTF-8"),
        ("a,b\n1,2\n".encode("utf-16"), "not UTF-8"),
        (b"a,b\n1,\x002\n", "NUL bytes"),
        (b"PK\x03\x04\x00\x00", "NUL bytes"),
        ('a,b\n1,"2\n', "not a CSV file"),
        (b"\x1f\x8bbroken", "cannot be read"),
        (gzip.compress(b"a,b\n1,2\n", mtime=0)[:-9], "cannot be read"),
        ("a,b\n1," + "x" * 200_000, "not a CSV file"),
    ],
)
def test_files_that_are_refused_say_where_and_why(tmp_path: Path, content: str | bytes, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence) as caught:
        read_texts(written(tmp_path, content))
    assert "my.csv" in str(caught.value)


def test_a_missing_file_names_the_nearest_one(tmp_path: Path) -> None:
    written(tmp_path, "a\n1\n", "patients.csv")
    with pytest.raises(DataError, match=r"no such file; did you mean 'patients.csv'\?"):
        read_texts(tmp_path / "patient.csv")
    with pytest.raises(DataError, match="its folder is missing too"):
        read_texts(tmp_path / "nowhere" / "patient.csv")
    with pytest.raises(DataError, match="cannot be read"):
        read_texts(tmp_path)


def test_an_unknown_column_names_the_nearest_one(tmp_path: Path) -> None:
    texts = read_texts(written(tmp_path, "age,sick\n60,1\n"))
    with pytest.raises(DataError, match=r"there is no column 'agee'; did you mean 'age'\?"):
        texts.column("agee")
    with pytest.raises(DataError, match=r"there are age, sick\."):
        texts.column("xyz")
