"""One address cannot take all places at the door."""

import socket
from contextlib import ExitStack

from test_quiet import told  # noqa: F401 (a fixture)

from fedloom.runtime.net.strangers import Strangers


def test_one_address_leaves_room_for_others():
    places = Strangers()
    assert [places.enter("192.0.2.1") for _ in range(40)].count("") == 32
    assert [places.enter(f"198.51.100.{at}") for at in range(60)].count("") == 32
    places.leave("192.0.2.1")
    assert places.enter("192.0.2.1") == ""


def test_one_house_with_many_addresses_is_one():
    places = Strangers(from_one=2)
    refused = [places.enter(f"2001:db8:0:1::{at}") for at in range(1, 4)]
    assert refused == ["", "", "too many handshakes at a time from 2001:db8:0:1::/64"]
    assert places.enter("2001:db8:0:2::1") == ""


def test_whoever_holds_its_places_at_the_door_is_refused_another(told):  # noqa: F811
    address, levels = told
    with ExitStack() as held:
        for _ in range(32):
            held.enter_context(socket.create_connection(address, 20.0))
        last = held.enter_context(socket.create_connection(address, 20.0))
        assert last.recv(1) == b""
    assert levels().count("WARNING") == 1
