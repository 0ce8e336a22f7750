"""A relay says how it stands from its first moment on."""

from contextlib import closing

from apps import TOML, written
from fedloom.load import load
from fedloom.relay import ABOVE, Relaying, relay
from fedloom.status import standing
from wired import HOST, authority, enrolled


def test_a_relay_without_its_sites_does_not_say_that_it_waits_for_the_one_above(tmp_path):
    top, home = authority(tmp_path / "top", relay_hosts=["relay.example"]), tmp_path / "east"
    authority(home)
    enrolled(top, home / ABOVE, "east", "relay", hosts=["relay.example"])
    how = Relaying(name="east", home=home, server=(HOST, 1), sites=2)
    passing, _ = relay(load(written(tmp_path, TOML)), how, HOST, 0)
    with closing(passing.held):
        seen = standing(home)
    assert (seen.status, seen.reason) == ("waiting", "0 of this relay's 2 members are here: nobody yet")
