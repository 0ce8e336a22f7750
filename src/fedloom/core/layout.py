"""How a model is packed into one flat vector: names, shapes, kinds, bounds, in order.

A layout is a value that rides on every message as its digest. Leaves lie in named blocks: "model" first, further
blocks behind it (SCAFFOLD's control variate, the summed weight), so that whatever protects the vector protects them.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cached_property
from hashlib import sha256
from typing import Any, Literal

import numpy as np

from .errors import ConfigError, LayoutMismatch

Array = Any  # NumPy at the seam, the model's own array type inside an engine
Vector = Array  # one-dimensional
Kind = Literal["parameter", "buffer", "count"]

MODEL, WEIGHT = "model", "weight"
EXACT = 53  # bits of a sum that float64 holds exactly
RING = 30  # bits of a sum in whole numbers of 32 bits: one is the sign, and one keeps the far end out of reach
COARSEST = 15  # bits that one client has at least, and a sign


@dataclass(frozen=True, slots=True)
class Leaf:
    """One named array of a layout.

    Args:
        name: unique within its block.
        shape: of the unpacked array; `()` for a single number.
        dtype: of the array in the model; one float64 leaf, or a count, makes the packed vector float64, else float32.
        kind: "parameter" moves by the server's optimizer; "buffer" is averaged by weight and bypasses it;
            "count" is a whole number that is only summed.
        bound: largest |w·δ| that one client may contribute to any element; a power of two is best.
        block: the block it lies in.

    >>> Leaf("bias", (3,)).size
    3
    """

    name: str
    shape: tuple[int, ...] = ()
    dtype: str = "float32"
    kind: Kind = "parameter"
    bound: float = 16.0
    block: str = MODEL

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    def step(self, cohort: int, bits: int = EXACT) -> float:
        """Return the grid that sums of this leaf live on: the finest power of two that keeps them exact.

        bound · cohort / step <= 2^bits; with 53, every sum of up to `cohort` clients is a float64 with nothing rounded
        off.

        >>> Leaf("w").step(100) == 2.0**-42
        True
        >>> Leaf("n", kind="count", bound=2**20).step(100)
        1.0
        """
        if self.kind == "count":
            return 1.0
        top, below = self.bound.as_integer_ratio()  # a power of two is below: log2 without rounding
        return 2.0 ** ((top * cohort - 1).bit_length() - below.bit_length() + 1 - bits)


@dataclass(frozen=True)
class Layout:
    """An ordered tuple of leaves, the largest number of clients that one sum may hold, and how many bits it may take.

    Within a block, parameters come before buffers, so that "the parameters of the model" is one slice.

    >>> import numpy as np
    >>> layout = Layout((Leaf("w", (2, 2)), Leaf("b", (2,))))
    >>> vector = layout.pack({"w": np.ones((2, 2)), "b": np.zeros(2)})
    >>> vector
    array([1., 1., 1., 1., 0., 0.], dtype=float32)
    >>> layout.unpack(vector)["w"].base is vector
    True
    """

    leaves: tuple[Leaf, ...]
    cohort: int = 1
    bits: int = EXACT

    def __post_init__(self) -> None:
        names = [(leaf.block, leaf.name) for leaf in self.leaves]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ConfigError(f"layout: leaf {twice[1]!r} appears twice in block {twice[0]!r}; give each its own name.")
        order = [leaf.block for leaf in self.leaves]
        if any(order[i] != order[i - 1] and order[i] in order[:i] for i in range(1, len(order))):
            raise ConfigError(f"layout: the leaves of a block must lie side by side, got blocks in the order {order}.")
        if self.cohort < 1:
            raise ConfigError(f"layout: cohort must be at least 1, got {self.cohort}.")
        for leaf in self.leaves:
            if not 2.0**-64 <= leaf.bound <= 2.0**96:
                raise ConfigError(
                    f"layout: the bound of leaf {leaf.name!r} must be between 2^-64 and 2^96, got {leaf.bound}."
                )
        if any(leaf.bound * self.cohort > 2.0**self.bits for leaf in self.leaves if leaf.kind == "count"):
            raise ConfigError(
                f"layout: a count's bound times the cohort of {self.cohort} is beyond 2^{self.bits}; lower either."
            )
        if not COARSEST < self.bits <= EXACT or self.cohort > 2 ** (self.bits - COARSEST):
            raise ConfigError(
                f"layout: sums of {self.bits} bits have no room for {self.cohort} clients of {COARSEST} bits and a "
                f"sign each; ask at most {2 ** max(0, self.bits - COARSEST)}, and keep to {COARSEST + 1} to {EXACT}."
            )

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """Where each leaf begins, and the end."""
        return (0, *np.cumsum([leaf.size for leaf in self.leaves], dtype=np.int64).tolist())

    @property
    def size(self) -> int:
        """Number of elements of the packed vector."""
        return self.offsets[-1]

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """Of one client's packed vector: counts need float64 to be exact."""
        wide = any(leaf.dtype == "float64" or leaf.kind == "count" for leaf in self.leaves)
        return np.dtype("float64" if wide else "float32")

    @cached_property
    def digest(self) -> str:
        """SHA-256 over all of it, hexadecimal: two layouts with one digest pack alike.

        >>> Layout((Leaf("w", (2,)),)).digest == Layout((Leaf("w", (3,)),)).digest
        False
        """
        rows = [[leaf.name, leaf.shape, leaf.dtype, leaf.kind, leaf.bound, leaf.block] for leaf in self.leaves]
        bits = [] if self.bits == EXACT else [self.bits]
        return sha256(json.dumps([rows, self.cohort, *bits]).encode()).hexdigest()

    def pack(self, tree: Mapping[str, Array], out: Vector | None = None) -> Vector:
        """Return `tree` (leaf name to array) as one vector; blocks beyond the model's are "block/leaf".

        Raises `LayoutMismatch` for a missing, surplus or misshapen leaf.
        """
        self._same_names(tree)
        out = np.empty(self.size, self.dtype) if out is None else out
        for (key, leaf), begin in zip(self.named(), self.offsets, strict=False):
            array = np.asarray(tree[key])
            if array.shape != leaf.shape:
                raise LayoutMismatch(f"leaf {key!r} must have shape {leaf.shape}, got {array.shape}.")
            out[begin : begin + leaf.size] = array.reshape(-1)
        return out

    def unpack(self, vector: Vector) -> dict[str, Array]:
        """Return views into `vector`, by leaf name: no copy, so writing to one writes to the vector."""
        if tuple(vector.shape) != (self.size,):
            raise LayoutMismatch(f"a vector of this layout has {self.size} elements, got shape {tuple(vector.shape)}.")
        pairs = zip(self.named(), self.offsets, strict=False)
        return {key: vector[begin : begin + leaf.size].reshape(leaf.shape) for (key, leaf), begin in pairs}

    def named(self) -> Iterator[tuple[str, Leaf]]:
        """Yield (key, leaf) in order: the leaf's name, with its block before it unless that is the model."""
        for leaf in self.leaves:
            yield (leaf.name if leaf.block == MODEL else f"{leaf.block}/{leaf.name}"), leaf

    def take(self, keep: Callable[[Leaf], bool]) -> "Layout":
        """Return the layout of the leaves that `keep` accepts; the rest stays home."""
        return replace(self, leaves=tuple(leaf for leaf in self.leaves if keep(leaf)))

    def matching(self, patterns: tuple[str, ...]) -> "Layout":
        """Return the layout of the leaves whose name matches a shell pattern; each pattern must match something.

        >>> Layout((Leaf("bn.weight"), Leaf("head.weight"))).matching(("bn.*",)).leaves[0].name
        'bn.weight'
        """
        for pattern in patterns:
            if not any(fnmatchcase(leaf.name, pattern) for leaf in self.leaves):
                names = ", ".join(leaf.name for leaf in self.leaves[:20])
                raise ConfigError(f"no leaf is called {pattern!r}; the layout has {names}.")
        return self.take(lambda leaf: any(fnmatchcase(leaf.name, pattern) for pattern in patterns))

    def plus(self, block: str, like: "Layout", **changes: Any) -> "Layout":
        """Return this layout with one more block, whose leaves are `like`'s; `changes` alter each leaf.

        >>> layout = Layout((Leaf("w", (2,)),))
        >>> layout.plus("control", layout, bound=1024.0).block("control")
        slice(2, 4, None)
        """
        if block in self.blocks:
            raise ConfigError(f"layout: there is a block {block!r} already.")
        return replace(self, leaves=self.leaves + tuple(replace(leaf, block=block, **changes) for leaf in like.leaves))

    @cached_property
    def blocks(self) -> tuple[str, ...]:
        """The names of the blocks, in order."""
        return tuple(dict.fromkeys(leaf.block for leaf in self.leaves))

    def block(self, name: str, *kinds: Kind) -> slice:
        """Return where block `name` lies in the vector, or only its leaves of those kinds."""
        chosen = [i for i, leaf in enumerate(self.leaves) if leaf.block == name and (not kinds or leaf.kind in kinds)]
        if not chosen:
            begin = next((self.offsets[i] for i, leaf in enumerate(self.leaves) if leaf.block == name), None)
            if begin is None:
                raise LayoutMismatch(f"there is no block {name!r}; the layout has {', '.join(self.blocks)}.")
            return slice(begin, begin)
        if chosen[-1] - chosen[0] + 1 != len(chosen):
            raise ConfigError(f"layout: the leaves of kind {kinds} in block {name!r} do not lie side by side.")
        return slice(self.offsets[chosen[0]], self.offsets[chosen[-1] + 1])

    def only(self, name: str) -> "Layout":
        """Return the layout of one block, as if it were the model's."""
        chosen = self.take(lambda leaf: leaf.block == name)
        return replace(chosen, leaves=tuple(replace(leaf, block=MODEL) for leaf in chosen.leaves))

    def alike(self, other: "Layout") -> bool:
        """Do both hold the same arrays in the same order? Bounds may differ: a stage may narrow them for the road.

        >>> Layout((Leaf("w", bound=1.0),)).alike(Layout((Leaf("w"),)))
        True
        """
        mine, theirs = ([(x.name, x.shape, x.dtype, x.kind) for x in layout.leaves] for layout in (self, other))
        return mine == theirs

    def weighted(self, cohort: int | None = None) -> "Layout":
        """Return the layout of a sum: this one, and the summed weight in a reserved last block."""
        weight = Leaf(WEIGHT, bound=1.0, block=WEIGHT)
        return replace(self, leaves=(*self.leaves, weight), cohort=self.cohort if cohort is None else cohort)

    @cached_property
    def runs(self) -> tuple[tuple[slice, float, float], ...]:
        """Stretches of the vector that share a step and a bound: (where, step, bound rounded down to the step)."""
        found: list[tuple[slice, float, float]] = []
        for leaf, begin in zip(self.leaves, self.offsets, strict=False):
            step, end = leaf.step(self.cohort, self.bits), begin + leaf.size
            bound = leaf.bound // step * step
            if found and found[-1][1:] == (step, bound):
                found[-1] = (slice(found[-1][0].start, end), step, bound)
            else:
                found.append((slice(begin, end), step, bound))
        return tuple(found)

    def leaf_at(self, index: int) -> str:
        """Return the key of the leaf that element `index` of the vector belongs to."""
        position = int(np.searchsorted(self.offsets, index, side="right")) - 1
        return list(self.named())[position][0]

    def _same_names(self, tree: Mapping[str, Array]) -> None:
        names = [key for key, _ in self.named()]
        missing, surplus = sorted(set(names) - set(tree)), sorted(set(tree) - set(names))
        if missing or surplus:
            raise LayoutMismatch(f"the layout's leaves are {names}; missing {missing}, not known {surplus}.")
