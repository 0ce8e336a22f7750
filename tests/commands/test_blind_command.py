"""Four steps between two folders that share nothing but files."""

import csv
import os
from pathlib import Path

import pytest
from sklearn.datasets import load_iris

from apps import written

APP = 'data = "iris"\nmodel = "logistic"\nclients = 3\nrounds = 3\n'


@pytest.fixture
def parties(command, tmp_path):
    """Return the command line, where a run has ended in `model/` and rows lie in `rows/`."""
    (tmp_path / "model").mkdir()
    (tmp_path / "rows").mkdir()
    os.chdir("model")
    assert command("run", written(Path(), APP), "--json").code == 0
    bunch = load_iris()
    with Path("../rows/mine.csv").open("w") as file:
        csv.writer(file).writerows(
            [["who", *bunch.feature_names], *([f"p{i}", *bunch.data[i]] for i in range(0, 150, 30))]
        )
    return command


def test_what_comes_back_is_what_predict_says(parties):
    told = parties("blind", "--describe", "last", "--output", "../rows/form.json")
    assert told.code == 0
    assert "4 inputs, 15 weights that it does not hold" in told.err
    os.chdir("../rows")
    told = parties("blind", "--encrypt", "mine.csv", "--form", "form.json", "--key", "my.key", "--output", "query")
    assert "who learns that it is 5 rows of 4 inputs" in told.err
    os.chdir("../model")
    told = parties("blind", "--answer", "../rows/query", "--run", "last", "--output", "../rows/answer")
    assert "15 outputs, before sigmoid or softmax" in told.err
    assert "Nothing hides the model from them: outputs of this many tell all its weights." in told.err
    clear = parties("predict", "last", "--data", "../rows/mine.csv").out
    os.chdir("../rows")
    words = ("blind", "--decrypt", "answer", "--form", "form.json", "--key", "my.key")
    told = parties(*words, "--data", "mine.csv")
    assert "sent back as they are, tell the key" in told.err
    for one, other in zip(csv.DictReader(told.out.splitlines()), csv.DictReader(clear.splitlines()), strict=True):
        assert {name: one[name] for name in ("who", "prediction")} == {n: other[n] for n in ("who", "prediction")}
        assert float(one["P(setosa)"]) == pytest.approx(float(other["P(setosa)"]), abs=1e-4)
    assert "5 predictions in all.csv" in parties(*words, "--output", "all.csv").err
    Path("few.csv").write_text("\n".join(Path("mine.csv").read_text().splitlines()[:3]))
    assert "few.csv has 2 rows, and the answer is for 5" in parties(*words, "--data", "few.csv").err
    told = parties("blind", "--encrypt", "mine.csv", "--form", "form.json", "--key", "my.key", "--output", "query")
    assert (told.code, "a key is for one query" in told.err) == (2, True)


def test_words_that_are_missing_are_named(command):
    assert "give one of --describe RUN" in command("blind").err
    assert "give one of --describe RUN" in command("blind", "--encrypt", "a", "--answer", "b").err
    assert "this step needs --form too" in command("blind", "--encrypt", "a").err
    words = ("blind", "--encrypt", "a", "--form", "b", "--key", "k", "--output", "./k")
    assert "named for both the key, which stays, and the query" in command(*words).err
    assert "this step needs --output too" in command("blind", "--describe", "last").err


def test_a_network_is_refused(command, tmp_path):
    command("run", written(tmp_path, APP.replace("logistic", "mlp")), "--json", "--set", "rounds=1")
    told = command("blind", "--describe", "last", "--output", "form.json")
    assert told.code == 2
    assert "only linear and logistic models answer encrypted rows" in told.err
