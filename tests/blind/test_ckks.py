"""Encrypted sums of columns are X·Wᵀ + b, whoever computes them has no key, and nothing else is read."""

import numpy as np
import pytest
import tenseal
from hypothesis import given, settings
from hypothesis import strategies as st

from fedloom.blind import ckks
from fedloom.core.errors import ConfigError, DataError

KEY = ckks.secret(ckks.fresh())
ROWS = np.array([[1.0, 2.0], [3.0, -4.0]])
SEALED = ckks.sealed(KEY, ROWS)
WEIGHT, BIAS = np.array([[0.5, 2.0]]), np.array([1.0])


@settings(max_examples=10)
@given(st.integers(1, 5), st.integers(1, 8), st.integers(1, 3), st.integers(0, 2**32))
def test_outputs_are_those_in_the_clear(rows, columns, outputs, seed):
    rng = np.random.default_rng(seed)
    x, w, b = rng.normal(0, 30, (rows, columns)), rng.normal(0, 30, (outputs, columns)), rng.normal(0, 9, outputs)
    w[rng.random(w.shape) < 0.2] = 0
    found = ckks.opened(KEY, ckks.applied(ckks.sealed(KEY, x), rows, w, b), rows, outputs)
    assert found.shape == (rows, outputs)
    assert np.abs(found - (x @ w.T + b)).max() < 1e-4


def test_rows_of_two_ciphertexts_and_the_largest_numbers():
    x = np.linspace(-1, 1, 2050)[:, None] * 1023.9
    found = ckks.opened(KEY, ckks.applied(ckks.sealed(KEY, x), 2050, np.array([[4094.0]]), np.array([-1.0])), 2050, 1)
    assert np.abs(found - (x * 4094 - 1)).max() < 1e-2  # of four million
    assert ckks.blocks(2050) == [2048, 2]


@pytest.mark.parametrize("tiny", [0.0, -0.0, 2.0**-40, -(2.0**-34)])
def test_weights_of_nothing_are_nothing(tiny):
    """TenSEAL's own product with zero decrypts to noise, so there must be none."""
    zero = ckks.applied(SEALED, 2, np.full((1, 2), tiny), np.array([tiny]))
    assert np.abs(ckks.opened(KEY, zero, 2, 1)).max() < 1e-6
    one = ckks.applied(SEALED, 2, np.array([[tiny, 1.0]]), np.array([tiny]))
    assert np.allclose(ckks.opened(KEY, one, 2, 1)[:, 0], [2, -4], atol=1e-6)


def test_who_answers_has_no_key():
    context = ckks.public()
    assert not context.is_private()
    assert not context.has_galois_keys()
    assert not context.has_secret_key()
    with pytest.raises(ValueError, match="doesn't hold a secret_key"):
        tenseal.ckks_vector_from(
            context, SEALED[4 : 4 + int.from_bytes(SEALED[:4].tobytes(), "little")].tobytes()
        ).decrypt()


def test_no_two_encryptions_are_alike():
    assert ckks.sealed(KEY, ROWS).tobytes() != SEALED.tobytes()


def test_another_key_opens_nothing():
    x = np.zeros((64, 1))  # noise is small by chance in one row of twenty
    answer = ckks.applied(ckks.sealed(KEY, x), 64, np.ones((1, 1)), BIAS)
    with pytest.raises(DataError, match="made for another key"):
        ckks.opened(ckks.secret(ckks.fresh()), answer, 64, 1)


def foreign(degree, moduli, scale):
    context = tenseal.context(
        tenseal.SCHEME_TYPE.CKKS, degree, coeff_mod_bit_sizes=moduli, encryption_type=tenseal.ENCRYPTION_TYPE.SYMMETRIC
    )
    context.global_scale = scale
    return context


@pytest.mark.parametrize(("degree", "moduli"), [(8192, [60, 40, 60]), (4096, [40, 20, 40])])
def test_other_parameters_are_refused(degree, moduli):
    other = foreign(degree, moduli, 2.0**20)
    with pytest.raises(DataError, match="of other parameters"):
        ckks.applied(ckks.sealed(other, ROWS), 2, WEIGHT, BIAS)
    with pytest.raises(ConfigError, match=r"other parameters than N = 4096, \(60, 29, 20\) bits"):
        ckks.secret(other.serialize(save_secret_key=True, save_public_key=False))


def test_another_scale_is_refused():
    one, other = ckks.sealed(KEY, ROWS[:, :1]), foreign(4096, [60, 29, 20], 2.0**30)
    length = int.from_bytes(one[:4].tobytes(), "little") + 4
    with pytest.raises(DataError, match="of another scale"):
        ckks.applied(np.concatenate([one[:length], ckks.sealed(other, ROWS[:, :1])[: 4 + length * 2]]), 2, WEIGHT, BIAS)


def test_a_context_without_a_secret_key_is_no_key():
    with pytest.raises(ConfigError, match="other parameters"):
        ckks.secret(ckks.public().serialize())
    with pytest.raises(ConfigError, match="no key of encrypted rows"):
        ckks.secret(b"nothing")


@pytest.mark.parametrize(
    ("content", "rows", "why"),
    [
        (SEALED[:-1], 2, "cut off"),
        (SEALED[:3], 2, "cut off"),
        (np.zeros(8, np.uint8), 2, "cut off, or of other parameters"),
        (SEALED[:0], 2, "fewer ciphertexts"),
        (SEALED, 3, "fewer ciphertexts, or shorter"),
        (np.concatenate([SEALED, SEALED]), 2, "more ciphertexts"),
        (np.array([3, 0, 0, 0, 1, 2, 3], np.uint8), 2, "cannot be read"),
        (np.array([255, 255, 255, 255, 1], np.uint8), 2, "cut off"),
    ],
)
def test_bytes_that_are_no_rows_are_refused(content, rows, why):
    with pytest.raises(DataError, match=why):
        ckks.applied(content, rows, WEIGHT, BIAS)


def test_weights_that_do_not_fit_are_refused():
    for heavy in (5000.0, np.nan, np.inf):
        with pytest.raises(ConfigError, match="4096 is the most that fits"):
            ckks.applied(SEALED, 2, np.array([[heavy, 0.0]]), BIAS)
