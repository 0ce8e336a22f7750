"""Who is at the door and has not said yet who it is: so many at a time, and fewer from one place."""

from collections import Counter
from dataclasses import dataclass, field
from ipaddress import IPv6Address, ip_address
from threading import Lock


@dataclass(eq=False)
class Strangers:
    """Places for handshakes; each is given back.

    Args:
        most: at a time.
        from_one: of those, from one address, which a house with many sites may share; in IPv6 from one network of 64
            bits, which is what one house is given.

    >>> places = Strangers(most=3, from_one=2)
    >>> [places.enter("192.0.2.1") for _ in range(3)]
    ['', '', 'too many handshakes at a time from 192.0.2.1']
    >>> [places.enter("192.0.2.2") for _ in range(2)]
    ['', 'too many handshakes at a time']
    """

    most: int = 64
    from_one: int = 32
    _here: "Counter[str]" = field(default_factory=Counter)
    _lock: Lock = field(default_factory=Lock)

    def enter(self, address: str) -> str:
        """Take a place; return why there is none."""
        of = place(address)
        with self._lock:
            if self._here.total() >= self.most:
                return "too many handshakes at a time"
            if self._here[of] >= self.from_one:
                return f"too many handshakes at a time from {of}"
            self._here[of] += 1
        return ""

    def leave(self, address: str) -> None:
        """Give the place back."""
        of = place(address)
        with self._lock:
            self._here[of] -= 1
            if not self._here[of]:
                del self._here[of]


def place(address: str) -> str:
    """Return where an address is counted.

    >>> place("192.0.2.1"), place("::ffff:192.0.2.1"), place("2001:db8:1:2:3::4"), place("2001:db8:1:2::")
    ('192.0.2.1', '192.0.2.1', '2001:db8:1:2::/64', '2001:db8:1:2::/64')
    """
    found = ip_address(address.partition("%")[0])
    if not isinstance(found, IPv6Address):
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return f"{IPv6Address(int(found) >> 64 << 64)}/64"
