"""A stranger's CSV file becomes an app that runs as it is written."""

import csv
import tomllib
from pathlib import Path

import numpy as np
import pytest

from fedloom.core.errors import ConfigError, DataError
from fedloom.new import write_app
from fedloom.spec import load

ROWS = 60
NAMES = {
    "dots": "blood.pressure",
    "spaces": "age in years",
    "quotes": 'the "best" guess',
    "single quotes": "patient's age",
    "backslashes": "C:\\new\\table",
    "unicode": "größe 身長",
    "brackets": "[data.columns]",
    "a line break": "two\nlines",
    "a hash": "# of visits",
    "an equals sign": "a = 3",
    "DEL": "x\x7fy",
    "braces": "{0} {name}",
}


def table(path, label, **columns):
    """Write a CSV with these columns, and a label made from a number for each row."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=ROWS)
    names = [*columns, "other", "label"]
    with Path(path).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        for i in range(ROWS):
            writer.writerow([*(column(i, x[i]) for column in columns.values()), f"{rng.normal():.3f}", label(x[i])])
    return str(path)


def value(i, x):
    return f"{x:.4f}"


def yes_no(x):
    return "yes" if x > 0 else "no"


def ran(command, path, *words):
    """Write an app for a CSV and run it as it is; return its last event."""
    written = command("new", path, *words)
    assert written.code == 0, written.err
    app = Path(path).with_suffix(".toml")
    assert written.err == f"wrote {app}; read it, correct it, then `fedloom run {app}`\n"
    told = command("run", app, "--json", "--set", "rounds=2")
    assert told.code == 0, told.err
    return told.events[-1]


@pytest.mark.parametrize("kind", NAMES)
def test_column_names_are_as_they_are(command, kind):
    end = ran(command, table("rows.csv", yes_no, **{NAMES[kind]: value}))
    assert end["metrics"]["accuracy"] > 0.7
    columns = load(Path("rows.toml")).data.source.schema.features
    assert [column.name for column in columns] == [NAMES[kind], "other"]


@pytest.mark.parametrize("label", ['a "quoted" class', "naïve; 中文", "back\\slash", "1.50", "x, y"])
def test_classes_are_as_they_are(command, label):
    end = ran(command, table("rows.csv", lambda x: label if x > 0 else "other", x=value))
    assert end["metrics"]["accuracy"] > 0.7


def test_several_classes(command):
    end = ran(command, table("rows.csv", lambda x: "low" if x < -0.5 else "high" if x > 0.5 else "mid", x=value))
    assert end["metrics"]["accuracy"] > 0.4
    assert "auc" not in end["metrics"]


def test_regression(command):
    end = ran(command, table("rows.csv", lambda x: f"{3 * x + 1:.4f}", x=value))
    assert end["metrics"]["rmse"] < 3
    assert 'name = "linear"' in Path("rows.toml").read_text()


def test_missing_cells(command):
    def gaps(i, x):
        return ("", "NA", f"{x:.3f}")[min(i % 10, 2)]

    def words(i, x):
        return ("?", "a", "b")[i % 3]

    end = ran(command, table("rows.csv", lambda x: "" if x > 1.5 else yes_no(x), gaps=gaps, words=words))
    assert end["status"] == "completed"
    schema = load(Path("rows.toml")).data.source.schema
    assert [column.missing for column in schema.features] == ["mean", "other", "error"]
    assert schema.missing == "drop"


def test_the_text_says_why(command):
    ran(command, table("rows.csv", yes_no, row_id=lambda i, x: f"p{i}", x=value))
    text = Path("rows.toml").read_text()
    assert "# row_id: left out: different in every row, an identifier" in text
    assert "[data.label]        # the label, by its name; 2 classes, of which 'yes' is positive" in text
    assert tomllib.loads(text)["data"]["label"] == {
        "column": "label",
        "task": "binary",
        "classes": ["no", "yes"],
        "positive": "yes",
    }


def test_what_is_commented_out_is_right_too(command):
    ran(command, table("rows.csv", yes_no, x=value))
    text = Path("rows.toml").read_text()
    more = [
        line.removeprefix("# ") for line in text.splitlines() if line.startswith(("# stages", "# [target]", "# acc"))
    ]
    assert len(more) == 3
    Path("more.toml").write_text(
        text.replace("# stages", "stages").replace("# [target]", "[target]").replace("# acc", "acc")
    )
    told = command("run", "more.toml", "--json", "--set", "rounds=2")
    assert told.code == 0, told.err


def test_the_label_can_be_named(command):
    path = table("rows.csv", yes_no, sick=lambda i, x: "ill" if x > 0.1 else "well", x=value)
    ran(command, path, "--label", "sick")
    assert load(Path("rows.toml")).data.source.schema.label == "sick"


def test_in_another_folder(command, tmp_path):
    path = table(tmp_path / "rows.csv", yes_no, x=value)
    (tmp_path / "apps").mkdir()
    assert command("new", path, "--output", "apps/mine.toml").code == 0
    assert command("run", "apps/mine.toml", "--json", "--set", "rounds=1").code == 0
    assert load(Path("apps/mine.toml")).name == "mine"


@pytest.mark.parametrize("mark", [";", "\t"])
def test_other_delimiters_are_found(command, mark):
    path = Path(table("rows.csv", yes_no, x=value))
    path.write_text(path.read_text().replace(",", mark))
    assert ran(command, str(path))["metrics"]["accuracy"] > 0.7
    assert load(Path("rows.toml")).data.source.delimiter == mark


@pytest.mark.parametrize("size", [0.01, 5.0, 3e5])
def test_regression_of_labels_of_any_size(command, size):
    end = ran(command, table("rows.csv", lambda x: f"{size * (10 + x):.6f}", x=value))
    assert end["status"] == "completed"
    app = load(Path("rows.toml"))
    assert app.model.bound >= size * 14
    assert app.data.source.task == "regression"


def test_few_rows_have_few_clients(command):
    Path("rows.csv").write_text("a,b,y\n1,2,0\n2,3,1\n3,1,0\n")
    command("new", "rows.csv")
    assert load(Path("rows.toml")).data.partition.clients == 1


def test_a_column_that_names_sites_is_proposed(command):
    path = table("rows.csv", yes_no, Hospital=lambda i, x: "NS"[i % 2], x=value)
    command("new", path)
    assert '# partition = { kind = "by_column", column = "Hospital" }' in Path("rows.toml").read_text()


def refused(command, *words):
    told = command("new", *words)
    assert (told.code, told.out, told.err.count("\n")) == (2, "", 1)
    return told.err


def test_refused_in_one_sentence(command):
    path = table("rows.csv", yes_no, x=value)
    assert "there is no such file; did you mean 'rows.csv'?" in refused(command, "rosw.csv")
    assert "there is no column 'labell'; did you mean 'label'?" in refused(command, path, "--label", "labell")
    assert "there is no folder none for x.toml; choose another --output." in refused(
        command, path, "--output", "none/x.toml"
    )
    command("new", path)
    assert "rows.toml exists already" in refused(command, path)
    assert command("new", path, "--force").code == 0
    Path("commas.csv").write_text("a;b;label\n1,5;2;yes\n2,5;3;no\n")
    assert "the column 'a' writes numbers with a decimal comma, such as 1,5" in refused(command, "commas.csv")
    Path("empty.csv").write_text("")
    assert "the file is empty; its first line must name the columns" in refused(command, "empty.csv")
    Path("bytes.csv").write_bytes(b"a,b\n\xff\xfe,1\n")
    assert "is not UTF-8" in refused(command, "bytes.csv")
    Path("ragged.csv").write_text("a,b\n1,2\n1\n")
    assert "line 3: the header names 2 columns, and this row has 1 cells" in refused(command, "ragged.csv")


def test_in_python(tmp_path):
    path = Path(table(tmp_path / "rows.csv", yes_no, x=value))
    assert write_app(path, None, tmp_path / "a.toml", False) == tmp_path / "a.toml"
    with pytest.raises(ConfigError, match="or overwrite it with --force"):
        write_app(path, None, tmp_path / "a.toml", False)
    with pytest.raises(DataError):
        write_app(path, "none", tmp_path / "b.toml", False)
    assert not (tmp_path / "b.toml").exists()
