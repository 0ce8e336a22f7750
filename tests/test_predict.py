"""Predictions for new rows are those that the model file gives in anybody's hands."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from safetensors.torch import load_file as load_torch

import fedloom
from apps import TOML, written
from fedloom import App, BuiltIn, Column, Data, Iid, Schema
from fedloom.core.errors import DataError
from fedloom.predict import Predictions, predict, preview, statistics_of
from fedloom.running import begin

APP = """\
rounds = 3
[data]
source = "csv"
path = "rows.csv"
partition = { kind = "iid", clients = 3 }
[data.label]
column = "sick"
classes = ["no", "yes"]
[data.columns]
age = { missing = "mean" }
dose = {}
cp = { kind = "categorical", categories = ["a", "b"], missing = "other" }
"""
NEW = "name,dose,age,cp\nAnna,1.5,60,a\nBjörn,-0.5,,b\nCeline,0,40,\n"


@pytest.fixture
def rows(command):
    """Write the training rows, where `command` runs."""
    rng = np.random.default_rng(1)
    with Path("rows.csv").open("w") as file:
        file.write("age,dose,cp,sick\n")
        for _ in range(80):
            age, dose = rng.integers(20, 90), rng.normal()
            file.write(f"{age},{dose:.3f},{rng.choice(['a', 'b'])},{'yes' if dose + age / 50 > 1 else 'no'}\n")
    Path("new.csv").write_text(NEW, encoding="utf-8")
    return command


def by_hand(folder):
    """Return the inputs of NEW as anybody would write them from preparation.json."""
    found = json.loads((folder / "preparation.json").read_text())["statistics"]

    def scaled(name, value):
        return (value - found[name]["mean"]) / found[name]["scale"]

    return np.array(
        [
            [scaled("age", 60), scaled("dose", 1.5), 1, 0],
            [0, scaled("dose", -0.5), 0, 1],
            [scaled("age", 40), scaled("dose", 0), 0, 0],
        ],
        np.float32,
    )


def predictions(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_the_same_as_numpy_by_hand(rows, tmp_path):
    end = rows("run", written(tmp_path, APP), "--json").events[-1]
    told = rows("predict", "last", "--data", "new.csv")
    assert told.code == 0
    found = predictions(told.out)
    assert [row["name"] for row in found] == ["Anna", "Björn", "Celine"]
    arrays = load_file(end["model"])
    z = by_hand(Path(end["model"]).parent) @ arrays["weight"].T + arrays["bias"]
    expected = 1 / (1 + np.exp(-z[:, 0]))
    assert [float(row["P(yes)"]) for row in found] == pytest.approx(expected.tolist(), abs=2e-6)
    assert [row["prediction"] for row in found] == ["yes" if p > 0.5 else "no" for p in expected]


def test_the_same_as_plain_torch(rows, tmp_path):
    end = rows("run", written(tmp_path, APP + '[model]\nname = "mlp"\nhidden = [5]\n'), "--json").events[-1]
    found = predictions(rows("predict", "last", "--data", "new.csv").out)
    module = torch.nn.Sequential()
    for name, layer in (
        ("hidden1", torch.nn.Linear(4, 5)),
        ("relu", torch.nn.ReLU()),
        ("output", torch.nn.Linear(5, 2)),
    ):
        module.add_module(name, layer)
    module.load_state_dict(load_torch(end["model"]), strict=True)
    expected = torch.softmax(module(torch.tensor(by_hand(Path(end["model"]).parent))), 1)[:, 1]
    assert [float(row["P(yes)"]) for row in found] == pytest.approx(expected.tolist(), abs=2e-6)


def test_regression(rows, tmp_path):
    text = APP.replace('column = "sick"\nclasses = ["no", "yes"]', 'column = "dose"\ntask = "regression"')
    end = rows(
        "run", written(tmp_path, text.replace("dose = {}\n", "") + '[model]\nname = "linear"\n'), "--json"
    ).events[-1]
    found = predictions(rows("predict", "last", "--data", "new.csv").out)
    inputs, arrays = np.delete(by_hand_of(Path(end["model"]).parent), 1, axis=1), load_file(end["model"])
    expected = inputs @ arrays["weight"][0] + arrays["bias"][0]
    assert [float(row["prediction"]) for row in found] == pytest.approx(expected.tolist(), rel=1e-4)


def by_hand_of(folder):
    path = folder / "preparation.json"
    found = json.loads(path.read_text())
    found["statistics"].setdefault("dose", {"mean": 0, "scale": 1})
    path.write_text(json.dumps(found))
    return by_hand(folder)


def test_into_a_file(rows, tmp_path):
    rows("run", written(tmp_path, APP), "--json")
    told = rows("predict", "last", "--data", "new.csv", "--output", "found.csv")
    assert (told.code, told.out, told.err) == (0, "", "3 predictions in found.csv\n")
    assert [row["name"] for row in predictions(Path("found.csv").read_text())] == ["Anna", "Björn", "Celine"]
    assert b"\r" not in Path("found.csv").read_bytes()


def test_rows_that_the_schema_drops_are_told(rows, tmp_path):
    rows("run", written(tmp_path, APP.replace('"other"', '"drop"')), "--json")
    told = rows("predict", "last", "--data", "new.csv")
    assert "1 row left out: missing cells, which the schema drops" in told.err
    assert len(predictions(told.out)) == 2


def test_a_personal_model(rows, tmp_path):
    end = rows(
        "run", written(tmp_path, APP + '[strategy]\nname = "fedbn"\nleaves = ["bias"]\n'), "--json", "--set", "rounds=9"
    ).events[-1]
    told = rows("predict", "last", "--data", "new.csv")
    assert (told.code, told.out) == (2, "")
    assert "name the site whose model to use: client-000, client-001, client-002" in told.err
    assert "--site" in rows("predict", "--help").out
    found = {
        site: rows("predict", "last", "--data", "new.csv", "--site", site).out for site in ("client-000", "client-001")
    }
    assert found["client-000"] != found["client-001"]
    assert "there is no site 'oslo'" in rows("predict", "last", "--data", "new.csv", "--site", "oslo").err
    assert json.loads((Path(end["model"]).parent / "preparation.json").read_text())["home"] == ["bias"]


REFUSED = {
    "none.csv": (None, "there is no such file"),
    "short.csv": ("dose,age\n1,2\n", "there is no column 'cp'"),
    "words.csv": ("dose,age,cp\nmuch,2,a\n", "line 2, column 'dose': expected a number, got 'much'"),
    "other.csv": ("dose,age,cp\n1,2,z\n", "'z' is not a declared category"),
    "empty.csv": ("", "the file is empty"),
    "binary.csv": ("dose,age,cp\n\0\n", "NUL"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_wrong_files_are_refused_in_one_sentence(rows, tmp_path, name):
    rows("run", written(tmp_path, APP), "--json", "--set", "rounds=1")
    content, sentence = REFUSED[name]
    if content is not None:
        Path(name).write_text(content)
    told = rows("predict", "last", "--data", name, "--output", "found.csv")
    assert (told.code, told.out, told.err.count("\n")) == (2, "", 1)
    assert sentence in told.err
    assert not Path("found.csv").exists()


def test_a_place_that_cannot_be_written(rows, tmp_path):
    rows("run", written(tmp_path, APP), "--json", "--set", "rounds=1")
    told = rows("predict", "last", "--data", "new.csv", "--output", "none/found.csv")
    assert (told.code, told.err.count("\n")) == (2, 1)
    assert "there is no folder none for found.csv; choose another --output." in told.err


def test_a_run_without_a_model_yet(rows, tmp_path):
    from fedloom.load import load
    from fedloom.running import begin

    loaded = load(written(tmp_path, APP))
    begin(loaded.app, tmp_path / "runs", source=loaded.source, identity=loaded.identity).close()
    told = rows("predict", "last", "--data", "new.csv")
    assert told.code == 2
    assert "holds no model yet; resume the run to its end first" in told.err


def test_scikit_learns_sets_take_a_csv_too(command, tmp_path):
    command("run", written(tmp_path, TOML.replace("breast_cancer", "iris")), "--json")
    Path("new.csv").write_text("sepal length (cm),sepal width (cm),petal length (cm),petal width (cm)\n5,3.5,1.4,0.2\n")
    (row,) = predictions(command("predict", "last", "--data", "new.csv").out)
    assert row["prediction"] == "setosa"


def test_arrays(command, tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 255, (40, 2, 2), dtype=np.uint8), np.arange(40) % 2
    np.savez("rows.npz", x=x, y=y, test_images=x, test_labels=y)
    arrays = 'arrays = { inputs = "x", targets = "y", shape = [2, 2], classes = 2 }'
    text = f'clients = 2\nrounds = 1\ndata = {{ source = "npz", path = "rows.npz", {arrays} }}'
    told = command("run", written(tmp_path, text), "--json")
    assert told.events[-1]["measured_on"] == "test"
    arrays = load_file(told.events[-1]["model"])
    found = predictions(command("predict", "last", "--data", "rows.npz").out)
    z = (x.reshape(40, 4) / 255) @ arrays["weight"][0] + arrays["bias"][0]
    assert [float(row["P(1)"]) for row in found] == pytest.approx((1 / (1 + np.exp(-z))).tolist(), abs=2e-6)
    for name, sentence in (("app.toml", "cannot be read as .npz"), ("wrong.npz", "there is no array 'x'")):
        np.savez("wrong.npz", z=x)
        refused = command("predict", "last", "--data", name)
        assert (refused.code, refused.err.count("\n")) == (2, 1)
        assert sentence in refused.err
    np.savez("shape.npz", x=x.reshape(40, 4)[:, :3])
    refused = command("predict", "last", "--data", "shape.npz")
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "shape" in refused.err


def test_a_preview_shows_few_columns_and_rows():
    columns = {f"c{i}": [str(i)] * 20 for i in range(9)}
    lines = preview(Predictions(columns, ("no", "yes"), np.full((20, 2), 0.5)), most=3)
    assert lines[0] == ["c0", "c1", "c2", "prediction", "P(no)", "P(yes)"]
    assert lines[1] == ["0", "1", "2", "no", "0.50", "0.50"]
    assert len(lines) == 4


def test_statistics_of_a_damaged_file(tmp_path):
    (tmp_path / "preparation.json").write_text("{")
    with pytest.raises(DataError, match="holds no model yet"):
        statistics_of(tmp_path)


def test_a_parquet_app_predicts_on_parquet(tmp_path):
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    rows = {"age": [30.0, 50.0, 70.0, 40.0] * 5, "sick": ["no", "yes", "yes", "no"] * 5}
    parquet.write_table(arrow.table(rows), tmp_path / "all.parquet")
    parquet.write_table(arrow.table({"age": [20.0, 80.0]}), tmp_path / "new.parquet")
    source = fedloom.Parquet(tmp_path / "all.parquet", Schema((Column("age"),), "sick", classes=("no", "yes")))
    app = App(model=BuiltIn(name="logistic"), data=Data(source=source, partition=Iid(2)), rounds=20)
    recording = begin(app)
    *_, state = recording.rounds()
    shared = recording.simulation.shared(state.vector)
    found = predict(app.built, shared, source, dict(recording.simulation.statistics), tmp_path / "new.parquet")
    assert [row[1] for row in found.rows()] == ["prediction", "no", "yes"]
