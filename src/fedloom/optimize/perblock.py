"""A different optimizer for each block of the vector."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..core.layout import Array, Layout
from ..core.parts import Optimizer
from ..core.tree import Tree


@dataclass(frozen=True)
class PerBlock:
    """`blocks[name]` moves the block of that name, `default` every other block.

    >>> import numpy as np
    >>> from fedloom.core.layout import Layout, Leaf
    >>> from fedloom.optimize import Step
    >>> model = Layout((Leaf("w"),))
    >>> both = PerBlock(Step(1.0), {"control": Step(0.5)})
    >>> x, layout = np.zeros(2), model.plus("control", model)
    >>> both.step(x, np.ones(2), both.init(x, layout))[0]
    array([-1. , -0.5])
    """

    default: Optimizer[Tree]
    blocks: Mapping[str, Optimizer[Tree]] = field(default_factory=dict)

    def init(self, params: Array, layout: Layout) -> list[Tree]:
        """Return [begin, end, name, inner state] for each block of `layout`; a name that it lacks is an error."""
        for name in self.blocks:
            layout.block(name)
        places = [(name, layout.block(name)) for name in layout.blocks]
        return [[p.start, p.stop, name, self._of(name).init(params[..., p], layout.only(name))] for name, p in places]

    def step(
        self, params: Array, gradient: Array, state: list[Tree], *, scale: float = 1.0
    ) -> tuple[Array, list[Tree]]:
        """Move each block in place by its own optimizer."""
        for row in state:
            begin, end, name, inner = row
            moved, row[3] = self._of(name).step(params[..., begin:end], gradient[..., begin:end], inner, scale=scale)
            params[..., begin:end] = moved
        return params, state

    def _of(self, name: str) -> Optimizer[Tree]:
        return self.blocks.get(name, self.default)
