"""Sums of whole numbers under encryption: BFV (Brakerski 2012; Fan and Vercauteren 2012) with one set of parameters.

N = 4096, ciphertexts modulo a prime of 54 bits (and one of 55 beside it, 109 together: 128 bits of security by the
Homomorphic Encryption Standard of 2018, table 1), values modulo the prime t = 67,084,289 = 1 mod 2N of 26 bits. All is
Microsoft SEAL's, by TenSEAL; keys with other parameters are refused.

A fresh ciphertext's error is below 2^5 and Δ = q/t is 2^28: 512 added ones stay 2^13 below Δ/2, so decryption of honest
clients' sums cannot fail. Clients hold one secret key and encrypt with it; there is no public key.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tenseal
from numpy.typing import NDArray

from ...core.errors import ConfigError, UpdateError

DEGREE, PLAIN, MODULI = 4096, 67_084_289, (54, 55)
BITS, MOST = 24, 512  # of a sum, below t/2; clients in it
_LARGEST = 1 << 17  # bytes of one ciphertext; ours have 61,700
_NOTHING = {"save_public_key": False, "save_secret_key": False, "save_galois_keys": False, "save_relin_keys": False}
Whole = NDArray[np.int64]


def fresh() -> bytes:
    """Return a new secret key, as what all clients of a federation share."""
    return bytes(_context().serialize(**(_NOTHING | {"save_secret_key": True})))


def public() -> Any:
    """Return what the coordinator adds with: the parameters, and no key of the clients'."""
    context = _context(tenseal.ENCRYPTION_TYPE.ASYMMETRIC)
    context.make_context_public()
    return context


def secret(key: bytes) -> Any:
    """Return what clients encrypt and decrypt with; raises `ConfigError` for what is not a key of these parameters."""
    try:
        context = tenseal.Context.load(key)
        fits = context.is_private() and context.serialize(**_NOTHING) == _context().serialize(**_NOTHING)
    except (ValueError, RuntimeError) as error:
        raise ConfigError("this is no key that sites share; `fedloom key --make` makes one.") from error
    if not fits:
        raise ConfigError(
            f"the shared key is of other parameters than N = {DEGREE}, t = {PLAIN}; make one with `fedloom key --make`."
        )
    return context


def _context(kind: Any = tenseal.ENCRYPTION_TYPE.SYMMETRIC) -> Any:
    return tenseal.context(
        tenseal.SCHEME_TYPE.BFV,
        poly_modulus_degree=DEGREE,
        plain_modulus=PLAIN,
        coeff_mod_bit_sizes=list(MODULI),
        encryption_type=kind,
    )


def sealed(context: Any, values: Whole) -> NDArray[np.uint8]:
    """Return whole numbers, each within ±t/2, as ciphertexts of 4096 of them each, as bytes."""
    parts = [values[at : at + DEGREE].tolist() for at in range(0, len(values), DEGREE)]
    return _packed([tenseal.bfv_vector(context, part).serialize() for part in parts])


def opened(context: Any, content: NDArray[np.uint8], size: int) -> Whole:
    """Return the whole numbers, from -t/2 to t/2; raises `UpdateError` for bytes that are no ciphertexts of so many."""
    found = np.concatenate([np.array(one.decrypt(), np.int64) for one in _read(context, content, size)])
    found %= PLAIN
    found[found > PLAIN // 2] -= PLAIN
    return found


class Sum:
    """Ciphertexts that are added as they come.

    Args:
        size: how many values each has.

    >>> key, one = secret(fresh()), Sum(2)
    >>> for values in ([1, -5], [2, 3]):
    ...     one.add(sealed(key, np.array(values)))
    >>> opened(key, one.content(), 2).tolist()
    [3, -2]
    """

    def __init__(self, size: int) -> None:
        self._size, self._context = size, public()
        self._total: list[Any] = []

    def add(self, content: NDArray[np.uint8]) -> None:
        """Add one client's ciphertexts; raises `UpdateError`, and then nothing was added."""
        read = list(_read(self._context, content, self._size))
        try:
            self._total = [one + other for one, other in zip(self._total, read, strict=True)] if self._total else read
        except (ValueError, RuntimeError) as error:
            raise UpdateError("a ciphertext of an update cannot be added to the others'.") from error

    def content(self) -> NDArray[np.uint8]:
        """Return the sum, as bytes."""
        return _packed([one.serialize() for one in self._total])


def _packed(parts: Sequence[bytes]) -> NDArray[np.uint8]:
    return np.frombuffer(b"".join(len(part).to_bytes(4, "little") + part for part in parts), np.uint8)


def _read(context: Any, content: NDArray[np.uint8], size: int) -> Iterator[Any]:
    text, at = content.tobytes(), 0
    for start in range(0, size, DEGREE):
        length = int.from_bytes(text[at : at + 4], "little")
        part, at = text[at + 4 : at + 4 + length], at + 4 + length
        if not 0 < length <= _LARGEST or len(part) < length:
            raise UpdateError("the ciphertexts of an update are cut off, or none.")
        try:
            vector = tenseal.bfv_vector_from(context, part)
            right = vector.size() == min(DEGREE, size - start)
        except (ValueError, RuntimeError, IndexError) as error:
            raise UpdateError("a ciphertext of an update cannot be read, or is of other parameters.") from error
        if not right:
            raise UpdateError("a ciphertext holds another number of values than was asked for.")
        yield vector
    if at != len(text):
        raise UpdateError("there is more behind the ciphertexts of an update.")
