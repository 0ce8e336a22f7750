"""The three steps: rows are encrypted, answered, and decrypted where they came from."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..adapters.losses import LOSSES
from ..adapters.numpy import LinearModel
from ..core.errors import ConfigError, DataError, DigestMismatch, MissingExtra
from ..core.layout import Vector
from ..core.model import Model
from .files import SLOTS, Answer, Key, Query
from .form import Form

try:
    from . import ckks
except ModuleNotFoundError as missing:
    if missing.name is None or not missing.name.startswith("tenseal"):
        raise
    raise MissingExtra("encrypted rows need the package tenseal: pip install 'fedloom[he]'.") from missing


def linear(model: Model) -> LinearModel:
    """Return the model itself; raises `ConfigError` for one that encryption cannot carry."""
    if not isinstance(model, LinearModel):
        raise ConfigError(
            f"only linear and logistic models answer encrypted rows, and this is a {type(model).__name__}: more than "
            "one layer multiplies ciphertexts with each other. Take model 'logistic' or 'linear'."
        )
    _few(model.inputs)
    return model


def _few(inputs: int) -> None:
    if inputs > ckks.COLUMNS:
        raise ConfigError(
            f"encrypted rows have at most {ckks.COLUMNS:,} inputs, got {inputs:,}: each is 103 KB for up to "
            f"{SLOTS:,} rows. Take fewer columns."
        )


def ask(form: Form, inputs: NDArray[Any]) -> tuple[Query, Key]:
    """Return encrypted rows, and the new key that opens the answer.

    Args:
        form: of the model.
        inputs: prepared rows `(n, …)`, each number below 2^10.
    """
    rows = np.asarray(inputs, np.float64).reshape(len(inputs), -1)
    if rows.shape[1] != form.inputs:
        raise DataError(f"the form has {form.inputs:,} inputs, and these rows {rows.shape[1]:,}; take the form's own.")
    _few(form.inputs)
    Query(form.digest, len(rows), form.inputs, np.zeros(0, np.uint8))  # refuses too many before they are encrypted
    if not np.all(np.abs(rows) < ckks.LARGEST):
        row, column = np.argwhere(~(np.abs(rows) < ckks.LARGEST))[0]
        names = form.source.schema.names if form.source.schema else range(form.inputs)
        raise DataError(
            f"row {row + 1}, input {names[column]!r}: once prepared it is {rows[row, column]:g}, and {ckks.LARGEST:g} "
            "is the most that can be encrypted; look whether its unit is the form's."
        )
    key = ckks.fresh()
    query = Query(form.digest, len(rows), form.inputs, ckks.sealed(ckks.secret(key), rows))
    return query, Key(form.digest, query.digest, len(rows), np.frombuffer(key, np.uint8))


def answer(query: Query, form: Form, model: Model, vector: Vector) -> Answer:
    """Return encrypted outputs; raises `DigestMismatch` for rows that were prepared by another form.

    Args:
        query: encrypted rows.
        form: of the model, as `Form.of` makes it from the run.
        model: a linear one.
        vector: its weights, in its layout.
    """
    arrays = linear(model).export(vector)
    if query.form != form.digest or query.columns != form.inputs:
        raise DigestMismatch(
            "these rows were prepared by the form of another run; give this run's (`fedloom blind --describe`), and "
            "have them encrypted anew."
        )
    return Answer(query.digest, ckks.applied(query.content, query.rows, arrays["weight"], arrays["bias"]))


def decrypt(found: Answer, key: Key, form: Form) -> NDArray[np.float64]:
    """Return probabilities `(n, classes)`, or values `(n,)`, as the model's `predict` does on rows in the clear.

    Raises `DigestMismatch` for an answer to other rows, or a form of another model. What is decrypted, and anything
    exact that is computed from it, must not reach whoever answered: it tells the key (Li and Micciancio, eprint
    2020/1533).
    """
    if found.query != key.query:
        raise DigestMismatch("this answers other rows than those of the key; take the key that was made with them.")
    if form.digest != key.form:
        raise DigestMismatch("the rows were prepared by another form; give the one that they were encrypted with.")
    context = ckks.secret(key.secret.tobytes())
    logits = ckks.opened(context, found.content, key.rows, form.outputs)
    return np.asarray(LOSSES[form.loss].predict(logits), np.float64)
