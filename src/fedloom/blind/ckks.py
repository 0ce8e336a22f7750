"""X·Wᵀ + b under encryption: CKKS (Cheon, Kim, Kim and Song, eprint 2016/421) with one set of parameters.

N = 4096, ciphertexts modulo primes of 60 and 29 bits (and one of 20 beside them, 109 together: 128 bits of security by
the Homomorphic Encryption Standard of 2018, table 1), numbers times 2^33. All is Microsoft SEAL's, by TenSEAL. A
ciphertext holds one column of up to 2048 rows, so an output is a sum of columns times plain numbers: depth one, no
rotation, no multiplication of ciphertexts, and no key for either. Rows are encrypted with the secret key itself.

A last column of ones carries the bias: two scales meet in a sum otherwise, and TenSEAL refuses that. A weight below
2^-33 is left out: TenSEAL's product with what rounds to zero decrypts to noise.

Error: of an input 2^-25 (encryption, one standard deviation of a slot), of a weight 2^-34 (rounding), so an output's
is about 3e-8·‖w‖ + 6e-11·Σ|x|. Outputs below 2^22 fit; inputs below 2^10 and Σ|w| + |b| below 2^12 keep them there.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tenseal
from numpy.typing import NDArray

from ..core.errors import ConfigError, DataError
from .files import SLOTS

DEGREE, MODULI, SCALE = 4096, (60, 29, 20), 2.0**33  # N, of which half are the rows of a ciphertext
COLUMNS, LARGEST, HEAVIEST = 1024, 2.0**10, 2.0**12  # inputs; the largest of them; Σ|w| + |b| of an output
CIPHERTEXT = 1 << 17  # bytes of one, at most; ours have 103,000
_NOTHING = {"save_public_key": False, "save_secret_key": False, "save_galois_keys": False, "save_relin_keys": False}
Numbers = NDArray[np.float64]
Content = NDArray[np.uint8]


def fresh() -> bytes:
    """Return a new secret key."""
    context = _context(tenseal.ENCRYPTION_TYPE.SYMMETRIC)
    return bytes(context.serialize(**(_NOTHING | {"save_secret_key": True})))


def secret(key: bytes) -> Any:
    """Return what encrypts and decrypts; raises `ConfigError` for what is not a key of these parameters."""
    try:
        context = tenseal.Context.load(key)
        ours = _context(tenseal.ENCRYPTION_TYPE.SYMMETRIC).serialize(**_NOTHING)
        fits = context.is_private() and context.serialize(**_NOTHING) == ours
    except (ValueError, RuntimeError) as error:
        raise ConfigError("this is no key of encrypted rows; `fedloom blind --encrypt` makes one.") from error
    if not fits:
        raise ConfigError(f"the key is of other parameters than N = {DEGREE}, {MODULI} bits; encrypt the rows anew.")
    return _plain(context)


def public() -> Any:
    """Return what the model's holder computes with: the parameters, and no key of the rows' holder."""
    context = _context(tenseal.ENCRYPTION_TYPE.ASYMMETRIC)
    context.make_context_public()
    return context


def _context(kind: Any) -> Any:
    context = tenseal.context(
        tenseal.SCHEME_TYPE.CKKS,
        poly_modulus_degree=DEGREE,
        coeff_mod_bit_sizes=list(MODULI),
        encryption_type=kind,
    )
    context.global_scale = SCALE
    return _plain(context)


def _plain(context: Any) -> Any:
    """Switch off what TenSEAL does unasked: sums are of one scale and one modulus as they are."""
    context.auto_rescale = context.auto_mod_switch = context.auto_relin = False
    return context


def blocks(rows: int) -> list[int]:
    """Return how many rows each ciphertext of a column has.

    >>> blocks(5000)
    [2048, 2048, 904]
    """
    return [min(SLOTS, rows - at) for at in range(0, rows, SLOTS)]


def sealed(context: Any, inputs: NDArray[Any]) -> Content:
    """Return inputs `(n, d)`, each below 2^10, as ciphertexts: by 2048 rows, d columns and one of ones."""
    ones = np.ones((len(inputs), 1))
    parts = []
    for at in range(0, len(inputs), SLOTS):
        block = np.concatenate([inputs[at : at + SLOTS], ones[at : at + SLOTS]], axis=1, dtype=np.float64)
        parts += [tenseal.ckks_vector(context, column.tolist()).serialize() for column in block.T]
    return _packed(parts)


def applied(content: Content, rows: int, weight: NDArray[Any], bias: NDArray[Any]) -> Content:
    """Return Enc(X·Wᵀ + b) from `sealed` inputs `(rows, d)`: by 2048 rows, a ciphertext for each output.

    Raises `ConfigError` for weights that would not fit, `DataError` for bytes that are no such ciphertexts.

    Args:
        content: what `sealed` returned.
        rows: how many it holds.
        weight: shape `(outputs, d)`.
        bias: shape `(outputs,)`.

    >>> key = secret(fresh())
    >>> found = applied(sealed(key, np.array([[1.0, 2.0]])), 1, np.array([[3.0, 0.0]]), np.array([0.5]))
    >>> round(float(opened(key, found, 1, 1)[0, 0]), 4)
    3.5
    """
    table = _weights(weight, bias)
    read, parts = _read(public(), content), []
    for size in blocks(rows):
        totals: list[Any] = [None] * len(table)
        for factors in table.T:
            column = _sized(next(read, None), size)
            for at in np.flatnonzero(factors):
                term = column * float(factors[at])
                totals[at] = term if totals[at] is None else _added(totals[at], term)
        parts += [total.serialize() for total in totals]
    _ended(read)
    return _packed(parts)


def opened(context: Any, content: Content, rows: int, outputs: int) -> Numbers:
    """Return the outputs `(rows, outputs)`; raises `DataError` for what is none, or was not for this key."""
    read = _read(context, content)
    found = [
        np.stack([_sized(next(read, None), size).decrypt() for _ in range(outputs)], axis=1) for size in blocks(rows)
    ]
    _ended(read)
    whole = np.concatenate(found)
    if not np.all(np.abs(whole) <= LARGEST * HEAVIEST):
        raise DataError("the answer decrypts to no outputs of a model: it was made for another key, or is damaged.")
    return whole


def _weights(weight: NDArray[Any], bias: NDArray[Any]) -> Numbers:
    table = np.concatenate([weight, bias[:, None]], axis=1, dtype=np.float64)
    heaviest = np.abs(table).sum(axis=1).max()
    if not heaviest < HEAVIEST:
        raise ConfigError(
            f"an output's weights sum to {heaviest:g} without their signs, and {HEAVIEST:g} is the most that fits; "
            "train with a penalty l2, or predict on rows in the clear."
        )
    table[np.abs(table) < 1 / SCALE] = 0
    table[table[:, -1] == 0, -1] = 1 / SCALE  # so that each output is of some ciphertext
    return table


def _added(total: Any, term: Any) -> Any:
    try:
        return total.add_(term)
    except ValueError as error:
        raise DataError("a ciphertext is of another scale; encrypt the rows with `fedloom blind --encrypt`.") from error


def _sized(vector: Any, size: int) -> Any:
    if vector is None or vector.size() != size:
        raise DataError("there are fewer ciphertexts, or shorter ones, than the rows and columns need.")
    return vector


def _ended(read: Iterator[Any]) -> None:
    if next(read, None) is not None:
        raise DataError("there are more ciphertexts than the rows and columns need.")


def _packed(parts: Sequence[bytes]) -> Content:
    return np.frombuffer(b"".join(len(part).to_bytes(4, "little") + part for part in parts), np.uint8)


def _read(context: Any, content: Content) -> Iterator[Any]:
    at = 0
    while at < len(content):
        length = int.from_bytes(content[at : at + 4].tobytes(), "little")
        part, at = content[at + 4 : at + 4 + length].tobytes(), at + 4 + length
        if not 0 < length <= CIPHERTEXT or len(part) < length:
            raise DataError("the ciphertexts are cut off, or of other parameters.")
        try:
            yield tenseal.ckks_vector_from(context, part)
        except (ValueError, RuntimeError, IndexError) as error:
            raise DataError("a ciphertext cannot be read, or is of other parameters.") from error
