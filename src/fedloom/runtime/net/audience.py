"""Who watches the coordinator's record: witnesses are shown each checkpoint, and what they sign is taken in."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from logging import getLogger
from threading import Lock
from typing import Any, Protocol

from ...core.errors import WireError
from ...core.task import Fault
from .hall import Hall
from .seats import Seat
from .talk import Channel, Message, field_of

log = getLogger(__name__)


class Shows(Protocol):
    """A record that can be shown."""

    def introduced(self, name: str, key: bytes, commitment: str) -> None:
        """Learn of a witness: its key, and the salted fingerprint of its data."""
        ...

    def message(self, names: frozenset[str], since: int, commitment: str) -> Mapping[str, Any]:
        """Return what a witness is told."""
        ...

    def cosigned(self, name: str, size: int, line: str) -> bool:
        """Take a witness's signature; return whether it is one."""
        ...


@dataclass(eq=False)
class Audience:
    """The witnesses among the parties of a hall.

    Args:
        hall: where they sit.
        record: that they are shown.
        key: party -> its identity key, as the roll has it.
        watching: party -> up to which size it was shown the record, its data's commitment, and on which connection it
            said what it had seen: what was sent on another one may not have come.
    """

    hall: Hall
    record: Shows
    key: Callable[[str], bytes | None]
    watching: dict[str, tuple[int, str, Channel | None]] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)  # one after the other: each proof goes on from the one before

    def publish(self) -> None:
        """Show the newest checkpoint to all witnesses that are here."""
        with self.hall.changed:
            seats = [seat for seat in self.hall.seats.values() if seat.name in self.watching and seat.channel]
        for seat in seats:
            self._show(seat)

    def hear(self, seat: Seat, said: Message) -> None:
        """Act on what a witness says of the record; raises `WireError` for what cannot be meant."""
        match said["kind"]:
            case "witness":
                size, data, key = field_of(said, "size", int), field_of(said, "data", str), self.key(seat.name)
                if key is None or not 0 <= size < 2**53 or len(data) > 64:
                    raise WireError("a witness says which size of the record it has seen, and one hash of its data.")
                self.record.introduced(seat.name, key, data)
                with self._lock:
                    shown, _, channel = self.watching.get(seat.name, (0, data, None))
                    on_its_way = channel is not None and channel is seat.channel  # when this was said
                    self.watching[seat.name] = (max(size, shown) if on_its_way else size, data, seat.channel)
                self._show(seat)
            case "cosign":
                if not self.record.cosigned(seat.name, field_of(said, "size", int), field_of(said, "line", str)):
                    log.warning("not a cosignature", extra={"site": seat.name})
            case "distrust":
                why = field_of(said, "reason", str)[:400]
                with self.hall.changed:
                    seat.faults.append((self.hall.now(), Fault(seat.name, "record", "RecordError", why)))
                log.error("record distrusted", extra={"site": seat.name, "said": why})
                raise WireError("it distrusts the record, so there is nothing more to say on this connection.")

    def _show(self, seat: Seat) -> None:
        with self._lock:
            size, data, channel = self.watching[seat.name]
            shown = self.record.message(frozenset(member.name for member in seat.members), size, data)
            with self.hall.changed:
                if channel is not None and seat.channel is channel:
                    self.watching[seat.name] = (_size(shown), data, channel)
                    seat.say("record", later=True, run=self.hall.run, **shown)


def _size(shown: Mapping[str, Any]) -> int:
    return int(str(shown["note"]).split("\n", 2)[1])
