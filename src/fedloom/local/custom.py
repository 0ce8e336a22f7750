"""A user's own training function as local work."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..core.errors import LayoutMismatch
from ..core.examples import Examples
from ..core.layout import Array, Vector
from ..core.metrics import Metrics
from ..core.model import Model
from ..core.parts import Work
from ..core.rng import Streams
from .memoryless import Memoryless
from .solo import Solo

Train = Callable[[dict[str, Array], Examples, Mapping[str, Any]], dict[str, Array]]


@dataclass(frozen=True, kw_only=True)
class Custom(Memoryless, Solo):
    """Call `function(params, data, config) -> params`: for code that cannot give a gradient.

    Args:
        function: gets a copy of the parameters by name (NumPy), the client's `Examples`, and `config` with "round" and
            "seed" (an integer of this task alone: seed your library with it, to get the same bits again) added. It
            returns parameters under the same names and in the same shapes.
        config: passed on as it is.

    >>> def step_towards_mean(params, data, config):
    ...     return {"w": params["w"] + config["lr"] * (data.inputs.mean(axis=0) - params["w"])}
    >>> local = Custom(function=step_towards_mean, config={"lr": 0.5})
    """

    function: Train
    config: Mapping[str, Any] = field(default_factory=dict)

    def train(self, model: Model, start: Vector, data: Examples, memory: None, *, round: int, streams: Streams) -> Work:
        """Call the function; raises `LayoutMismatch` if it does not return what it was given."""
        given = model.layout.unpack(start.copy())
        returned = self.function(given, data, {**self.config, "round": round, "seed": streams.integer("custom")})
        if not isinstance(returned, dict):
            raise LayoutMismatch(
                f"the training function must return a dict of parameters by name, got {type(returned).__name__}."
            )
        delta = model.layout.pack(returned) - start
        return Work(np.asarray(delta, model.layout.dtype), data.size, Metrics({"examples": 0}))
