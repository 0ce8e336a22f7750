"""Guesses at a schema, which must at least read the file that they were made from."""

from pathlib import Path

import pytest

from fedloom.core.errors import DataError
from fedloom.data.infer import Inferred, infer
from fedloom.data.schema import Column
from fedloom.data.sources import Csv

HEADER = "patient_id,age,sex,bmi,ward,note,country,grade,sick"


def clinic(tmp_path: Path, rows: int = 24) -> Path:
    lines = [HEADER]
    for at in range(rows):
        bmi = "NA" if at % 7 == 0 else f"{20 + at * 0.37:.2f}"
        sick = "yes" if at % 3 == 0 else "no"
        lines.append(
            f"{1000 + at},{40 + at % 13},{'fm'[at % 2]},{bmi},{at % 3},note {at},NL,{'x' if at % 3 else 'y'},{sick}"
        )
    (tmp_path / "clinic.csv").write_text("\n".join(lines))
    return tmp_path / "clinic.csv"


def guess(tmp_path: Path, text: str, label: str | None = None) -> Inferred:
    (tmp_path / "my.csv").write_text(text)
    return infer(tmp_path / "my.csv", label)


def test_kinds_of_columns_are_told_apart(tmp_path: Path) -> None:
    found = infer(clinic(tmp_path))
    assert found.schema.features == (
        Column("age"),
        Column("sex", "categorical", ("f", "m")),
        Column("bmi", missing="mean", missing_values=("", "NA")),
        Column("ward", "categorical", ("0", "1", "2")),
        Column("grade", "categorical", ("x", "y")),
    )
    assert (found.schema.label, found.schema.task, found.schema.positive) == ("sick", "binary", "yes")
    assert found.left_out == ("patient_id", "note", "country")
    assert list(found.notes) == HEADER.split(",")
    assert "identifier" in found.notes["patient_id"]
    assert "the same in every row" in found.notes["country"]
    assert "4 of 24 cells are missing" in found.notes["bmi"]
    assert "give the label away" in found.notes["grade"]
    assert "give the label away" not in found.notes["sex"]
    assert "last column" in found.notes["sick"]


def test_the_guess_reads_its_file(tmp_path: Path) -> None:
    path = clinic(tmp_path)
    rows = Csv(path, infer(path).schema).read()
    assert rows.size == 24
    assert rows.labels().sum() == 8


def test_a_usual_name_is_taken_for_the_label(tmp_path: Path) -> None:
    found = guess(tmp_path, "target,x\n" + "".join(f"{at % 2},{at}.5\n" for at in range(9)))
    assert (found.schema.label, found.schema.outputs) == ("target", ("0", "1"))
    assert "by its name" in found.notes["target"]


def test_many_numbers_are_a_regression_and_few_words_are_classes(tmp_path: Path) -> None:
    text = "x,kind,cost\n" + "".join(f"{at * 1.5},{'abc'[at % 3]},{at * at / 7}\n" for at in range(12))
    assert guess(tmp_path, text).schema.task == "regression"
    kinds = guess(tmp_path, text, label="kind").schema
    assert (kinds.task, kinds.outputs) == ("multiclass", ("a", "b", "c"))


def test_rows_without_a_label_are_dropped(tmp_path: Path) -> None:
    found = guess(tmp_path, "x,y\n" + "1.5,a\n2.5,b\n3.5,\n4.5,?\n" * 3)
    assert (found.schema.missing, found.schema.missing_values) == ("drop", ("", "?"))
    assert Csv(tmp_path / "my.csv", found.schema).read().size == 6


@pytest.mark.parametrize(
    ("text", "label", "sentence"),
    [
        ("x,y\n1,2\n", "z", "there is no column 'z'"),
        ("x,y\n1,2\n2,2\n", None, "the label 'y' has 1 different values"),
        ("x,y\n5,1\n5,2\n", None, "no column besides the label 'y'"),
        ("x,y\n" + "".join(f"1.{at},w{at}\n" for at in range(40)), None, "has 40 different words"),
        ("x,y\n", None, "no rows"),
    ],
)
def test_files_without_a_sensible_guess_are_refused(
    tmp_path: Path, text: str, label: str | None, sentence: str
) -> None:
    with pytest.raises(DataError, match=sentence):
        guess(tmp_path, text, label)
