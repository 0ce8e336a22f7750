"""What local work has in common that shares all of the model and remembers nothing."""

from typing import ClassVar

from ..core.event import NOT_PRIVATE, DpEvent
from ..core.layout import Layout, Vector


class Memoryless:
    """The methods of a `Local` whose clients send the whole model, keep nothing, and deploy what is shared."""

    population: ClassVar[tuple[str, ...]] = ()

    def payload(self, layout: Layout) -> Layout:
        """All of the model."""
        return layout

    def init(self, layout: Layout, initial: Vector) -> None:
        """No memory."""

    def personal(self, layout: Layout, start: Vector, memory: None) -> Vector:
        """The shared model."""
        return start

    def event(self) -> DpEvent:
        """Not private."""
        return NOT_PRIVATE
