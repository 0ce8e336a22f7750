"""What stages without memory have in common: nothing is kept, nothing is shown, the sum stays as it is."""

from ..core.event import NOT_PRIVATE, DpEvent
from ..core.layout import Layout
from ..core.rng import Streams
from ..core.update import Update


class Stateless:
    """The methods of a `Stage` that neither remembers, nor changes the layout, nor touches the sum."""

    def payload(self, layout: Layout) -> Layout:
        """Unchanged: the layout says what is decoded."""
        return layout

    def fits(self, total: Layout) -> None:
        """Every sum fits."""

    def init(self, layout: Layout) -> None:
        """No client memory."""

    def start(self, layout: Layout) -> None:
        """No server memory."""

    def public(self, server: None) -> None:
        """Nothing to show."""

    def finish(self, update: Update, server: None, streams: Streams) -> tuple[Update, None]:
        """The sum stays as it is."""
        return update, None

    def event(self) -> DpEvent:
        """Not private."""
        return NOT_PRIVATE
