"""Rows are predicted as in the clear; the wrong key, form, model or file is refused in a sentence."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedloom import Column, Csv, Npz, Schema
from fedloom.adapters import numpy as linear_models
from fedloom.adapters import torch
from fedloom.adapters.torch_nets import mlp
from fedloom.blind import Answer, Form, Key, Query, answer, ask, decrypt, linear
from fedloom.blind.files import read
from fedloom.core.errors import AccessDenied, ConfigError, DataError, DigestMismatch

LOSSES = {0: "mse", 2: "binary_cross_entropy", 3: "cross_entropy"}


def form_of(inputs, classes):
    return Form("a", LOSSES[classes], {}, npz=Npz(None, shape=(inputs,), classes=classes, scale=1.0))


def model_of(inputs, classes):
    return linear_models.logistic(inputs, classes) if classes else linear_models.linear(inputs)


FORM, MODEL, WEIGHTS = form_of(2, 2), model_of(2, 2), np.float32([1.0, -2.0, 0.5])
ROWS = np.float32([[1, 2], [3, 4], [0, 0]])
QUERY, KEY = ask(FORM, ROWS)
ANSWER = answer(QUERY, FORM, MODEL, WEIGHTS)


@settings(max_examples=5)
@given(st.integers(1, 4), st.integers(1, 4), st.sampled_from([0, 2, 3]), st.integers(0, 2**32))
def test_it_predicts_what_the_model_predicts(rows, inputs, classes, seed):
    rng, model, form = np.random.default_rng(seed), model_of(inputs, classes), form_of(inputs, classes)
    x = rng.normal(0, 3, (rows, inputs)).astype(np.float32)
    vector = rng.normal(0, 2, model.layout.size).astype(np.float32)
    query, key = ask(form, x)
    found = decrypt(answer(query, form, model, vector), key, form)
    expected = model.predict(model.load(vector), x)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < 1e-4


def test_files_come_back_and_the_key_is_its_owners_alone(tmp_path):
    for name, value in {"q": QUERY, "k": KEY, "a": ANSWER}.items():
        value.write(tmp_path / name)
        assert type(value).read(tmp_path / name).digest == value.digest
    assert (tmp_path / "k").stat().st_mode & 0o077 == 0
    key = Key.read(tmp_path / "k").secret.tobytes()
    assert key[-1000:] not in (tmp_path / "q").read_bytes() + (tmp_path / "a").read_bytes()
    found = decrypt(Answer.read(tmp_path / "a"), Key.read(tmp_path / "k"), FORM)
    assert np.allclose(found, MODEL.predict(WEIGHTS, ROWS), atol=1e-4)


def test_a_key_among_the_models_files_is_refused(tmp_path):
    KEY.write(tmp_path / "k")
    for other in (Query, Answer):
        with pytest.raises(AccessDenied, match="is a secret key, which stays with whoever holds the rows"):
            other.read(tmp_path / "k")


def test_the_key_is_not_shown():
    assert len(repr(KEY)) < 100


@pytest.mark.parametrize("at", [0, 9, 200, 1000, -1000, -1])
def test_a_damaged_file_is_refused(tmp_path, at):
    path = tmp_path / "q"
    QUERY.write(path)
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="holds no encrypted rows, or is damaged"):
        Query.read(path)
    path.write_bytes(content[:-100])
    with pytest.raises(DataError, match="or is damaged"):
        Query.read(path)


def test_files_of_other_things_are_refused(tmp_path):
    path = tmp_path / "a"
    ANSWER.write(path)
    with pytest.raises(DataError, match="holds no encrypted rows"):
        Query.read(path)
    replace(QUERY, content=QUERY.content.astype(np.float32)).write(path)
    with pytest.raises(DataError, match="holds no encrypted rows"):
        Query.read(path)
    with pytest.raises(DataError, match="cannot be read"):
        Query.read(tmp_path / "none")
    with pytest.raises(DataError, match="longer than 5 bytes"):
        read(path, 5)


def test_the_key_of_other_rows_opens_nothing():
    _, other = ask(FORM, ROWS)
    with pytest.raises(DigestMismatch, match="answers other rows"):
        decrypt(ANSWER, other, FORM)
    with pytest.raises(DigestMismatch, match="prepared by another form"):
        decrypt(ANSWER, KEY, replace(FORM, name="b"))


def test_rows_by_the_form_of_another_run_are_refused():
    with pytest.raises(DigestMismatch, match="form of another run"):
        answer(QUERY, replace(FORM, statistics={"a": {"mean": 0.0}}), MODEL, WEIGHTS)
    with pytest.raises(DigestMismatch, match="form of another run"):
        answer(replace(QUERY, columns=3), FORM, MODEL, WEIGHTS)


def test_a_model_that_is_not_linear_is_refused():
    with pytest.raises(ConfigError, match=r"only linear and logistic models answer encrypted rows.*TorchModel"):
        linear(torch.torch_model(mlp((2,), 2, (3,)), "cross_entropy"))


def test_too_much_is_refused():
    with pytest.raises(ConfigError, match="at most 1,024 inputs, got 1,025"):
        linear(model_of(1025, 2))
    with pytest.raises(ConfigError, match="at most 1,024 inputs, got 1,025"):
        ask(form_of(1025, 2), np.zeros((1, 1025)))
    with pytest.raises(DataError, match=r"20,000 rows of 1,000 inputs do not go into one file.*fewer rows"):
        ask(form_of(1000, 2), np.zeros((20_000, 1000), np.float32))
    with pytest.raises(DataError, match="form has 2 inputs, and these rows 3"):
        ask(FORM, np.zeros((1, 3)))
    with pytest.raises(DataError, match="a key of 0 rows"):
        replace(KEY, rows=0)


@pytest.mark.parametrize("value", [1024.0, -2000.0, np.nan, np.inf])
def test_a_number_that_does_not_fit_is_named(value):
    schema = Schema((Column("age"), Column("bmi")), "sick", classes=("no", "yes"))
    form = Form("a", "binary_cross_entropy", {}, csv=Csv(None, schema))
    with pytest.raises(DataError, match=r"row 2, input 'bmi': once prepared it is .*unit"):
        ask(form, np.array([[1.0, 2.0], [3.0, value]]))
