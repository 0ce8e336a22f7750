"""Who calls and says nothing is worth no warning; who says something wrong is."""

import logging
import socket
import ssl
import threading
from contextlib import closing, suppress
from time import monotonic, sleep

import pytest

from fedloom.runtime.credentials import Credentials
from fedloom.runtime.net.door import Door
from fedloom.runtime.net.hall import Hall
from fedloom.runtime.net.line import CONTROL, Line
from fedloom.runtime.net.reception import Reception
from fedloom.runtime.provisioning import provision


@pytest.fixture
def told(tmp_path, caplog):
    """Return an open door's address, and what returns the levels of what was logged once all calls have ended."""
    provision(tmp_path / "home", ["127.0.0.1"])
    credentials = Credentials(tmp_path / "home")
    hall = Hall("run-1")

    def nobody(*_):
        raise AssertionError("nobody comes so far")

    reception = Reception(hall, nobody, nobody, nobody, nobody, nobody, "digest")
    door = Door(reception, credentials.server_context(), credentials.sign, nobody)
    caplog.set_level(logging.DEBUG, "fedloom")
    address = ("127.0.0.1", door.open("127.0.0.1", 0))

    def levels():
        for thread in [thread for thread in threading.enumerate() if thread.name == "call 127.0.0.1"]:
            with suppress(RuntimeError):  # it is only just being started
                thread.join(20)
        return [record.levelname for record in caplog.records]

    yield address, levels
    door.shut()


def stranger():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def heard(levels, count):
    """Wait until so many calls have been told of; the calls' threads end by themselves."""
    until = monotonic() + 20
    while len(levels()) < count:
        assert monotonic() < until, f"{levels()} after 20 s"
        sleep(0.01)
    return levels()


def test_a_probe_that_only_connects_is_quiet(told):
    address, levels = told
    socket.create_connection(address).close()
    assert heard(levels, 1) == ["DEBUG"]


def test_a_handshake_without_a_word_is_quiet(told):
    address, levels = told
    with socket.create_connection(address) as raw, stranger().wrap_socket(raw):
        pass
    assert heard(levels, 1) == ["DEBUG"]


def test_who_speaks_without_a_certificate_is_worth_a_warning(told):
    address, levels = told
    with socket.create_connection(address) as raw, closing(stranger().wrap_socket(raw)) as sock:
        Line(sock).send(CONTROL, b"x" * 100)
        assert heard(levels, 1) == ["WARNING"]


def test_who_speaks_no_tls_is_worth_a_warning(told):
    address, levels = told
    with socket.create_connection(address) as raw:
        raw.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert heard(levels, 1) == ["WARNING"]
