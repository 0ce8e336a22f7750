"""A stage whose limit a hostile client ignores: it sends what the server admits, as long as it likes."""

from dataclasses import dataclass, replace
from typing import Any

from ..core.event import DpEvent
from ..core.layout import Layout
from ..core.parts import Stage
from ..core.rng import Streams
from ..core.update import Update
from .rotate import Rotate


@dataclass(frozen=True)
class Ignored:
    """The same stage for everybody else; on this client δ passes as it came, where the server decodes no single one.

    What a stage appends, and what has to be decoded, is still there: without it the server would refuse the update.
    """

    inner: Stage[Any, Any, Any]

    @property
    def each(self) -> bool:
        """The inner stage's."""
        return self.inner.each

    @property
    def sums(self) -> bool:
        """The inner stage's."""
        return self.inner.sums

    def payload(self, layout: Layout) -> Layout:
        """The inner stage's."""
        return self.inner.payload(layout)

    def init(self, layout: Layout) -> Any:
        """The inner stage's."""
        return self.inner.init(layout)

    def start(self, layout: Layout) -> Any:
        """The inner stage's."""
        return self.inner.start(layout)

    def public(self, server: Any) -> Any:
        """The inner stage's."""
        return self.inner.public(server)

    def encode(self, update: Update, memory: Any, public: Any, streams: Streams) -> tuple[Update, Any]:
        """Encode, and put δ back as it came."""
        encoded, memory = self.inner.encode(update, memory, public, streams)
        if self.inner.each or isinstance(self.inner, Rotate):  # no limits, and the server turns it back
            return encoded, memory
        vector = encoded.vector.copy()
        vector[: len(update.vector)] = update.vector
        return replace(encoded, vector=vector), memory

    def decode(self, update: Update) -> Update:
        """The inner stage's."""
        return self.inner.decode(update)

    def finish(self, update: Update, server: Any, streams: Streams) -> tuple[Update, Any]:
        """The inner stage's."""
        return self.inner.finish(update, server, streams)

    def event(self) -> DpEvent:
        """The inner stage's."""
        return self.inner.event()
