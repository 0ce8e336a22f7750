"""Messages are read only if the peer has signed them, once, in order, on this connection; chunks with their place."""

import json
import threading
from contextlib import suppress

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st
from lines import KEYS, WAIT_S, channel, channels, lines

from fedloom.core.errors import WireError
from fedloom.runtime.net.line import CHUNK, CHUNK_BYTES, CONTROL, ENROL, LIMITS, NONCE
from fedloom.runtime.net.talk import DEEPEST, MOST_TOGETHER, SIGNATURE, Chunk, field_of, numbers_of, parsed

REFUSED = "unsigned, signed by somebody else, or out of its order; it is not read"
DIGEST = blake3(b"body").hexdigest()


def frame_of(end, kind, **fields):
    """Return the content of the frame that an end would send now, without sending it."""
    payload = json.dumps([{"kind": kind, **fields}], separators=(",", ":")).encode()
    return end.sign(end._signed(end.serving, end._out, payload)) + payload


def test_messages_arrive_in_both_directions():
    with channels() as (server, client):
        for i in range(3):
            client.send("offer", number=i, text="Zürich")
            server.send("task", number=-i)
            assert server.receive(WAIT_S) == {"kind": "offer", "number": i, "text": "Zürich"}
            assert client.receive(WAIT_S) == {"kind": "task", "number": -i}
        assert server.receive(0.01) is None


def test_what_is_nested_deeper_than_any_message_is_refused():
    for opens, closes, levels in (("[", "]", DEEPEST - 2), ('{"a":', "}", DEEPEST - 2)):
        whole = f'[{{"kind":"task","a":{opens * levels}1{closes * levels}}}]'
        assert parsed(whole.encode())[0]["kind"] == "task"
        with pytest.raises(WireError, match="nested deeper than 100 levels"):
            parsed(whole.replace(opens * levels, opens * (levels + 1)).replace("1", "1" + closes).encode())
    many = [{"kind": "cancel", "keys": [[]] * 1000}]
    assert parsed(json.dumps(many).encode()) == many


def test_a_message_that_is_sent_again_is_refused():
    with channels() as (server, client):
        recorded = frame_of(client, "offer")
        client.line.send(CONTROL, recorded)
        assert server.receive(WAIT_S) == {"kind": "offer"}
        client.line.send(CONTROL, recorded)
        with pytest.raises(WireError, match=REFUSED):
            server.receive(WAIT_S)


def test_a_message_of_another_connection_is_refused():
    with channels() as (_, client):
        recorded = frame_of(client, "offer")
    with channels() as (server, client):
        client.line.send(CONTROL, recorded)
        with pytest.raises(WireError, match=REFUSED):
            server.receive(WAIT_S)


def test_a_message_is_not_turned_back_to_its_sender():
    """Even where both sides have one key."""
    with lines() as (one, two):
        server, client = channel(one, "server", "server"), channel(two, "client", "server")
        client.sign = KEYS["server"].sign
        thread = threading.Thread(target=server.open)
        thread.start()
        client.open()
        thread.join(WAIT_S)
        server.send("task")
        _, content = client.line.receive(WAIT_S)
        client.line.send(CONTROL, content)
        with pytest.raises(WireError, match=REFUSED):
            server.receive(WAIT_S)


def test_messages_out_of_order_and_messages_left_out_are_refused():
    for order in ((1, 0), (1,)):
        with channels() as (server, client):
            recorded = []
            for i in range(2):
                recorded.append(frame_of(client, "offer", number=i))
                client._out += 1
            client.line.send(CONTROL, recorded[order[0]])
            with pytest.raises(WireError, match=REFUSED):
                server.receive(WAIT_S)


def test_a_stranger_s_signature_is_refused():
    with channels(client="stranger") as (server, client):
        client.send("offer")
        with pytest.raises(WireError, match=REFUSED):
            server.receive(WAIT_S)


@pytest.mark.parametrize("signature", [bytes(SIGNATURE), b"\xff" * SIGNATURE])
def test_an_unsigned_message_is_not_read(signature, monkeypatch):
    monkeypatch.setattr("fedloom.runtime.net.talk.parsed", lambda payload: pytest.fail("it was read"))
    with channels() as (server, client):
        client.line.send(CONTROL, signature, b'{"kind":"offer"}')
        with pytest.raises(WireError, match=REFUSED):
            server.receive(WAIT_S)


@pytest.mark.parametrize("at", [0, 63, 64, 70, -1])
def test_a_message_with_one_bit_changed_is_refused(at):
    with channels() as (server, client):
        content = bytearray(frame_of(client, "offer"))
        content[at] ^= 1
        client.line.send(CONTROL, bytes(content))
        with pytest.raises(WireError, match=REFUSED):
            server.receive(WAIT_S)


def test_a_refused_message_leaves_the_counter_where_it_was():
    with channels() as (server, client):
        client.line.send(CONTROL, bytes(SIGNATURE), b'{"kind":"offer"}')
        with pytest.raises(WireError):
            server.receive(WAIT_S)
        client.send("offer")
        assert server.receive(WAIT_S) == {"kind": "offer"}


@pytest.mark.parametrize(("kind", "content"), [(NONCE, b"x" * 32), (ENROL, b"{}"), (CONTROL, b"x" * SIGNATURE)])
def test_frames_of_another_kind_or_without_a_payload_are_refused(kind, content):
    with channels() as (server, client):
        client.line.send(kind, content)
        with pytest.raises(WireError, match=f"got a frame of kind {kind}"):
            server.receive(WAIT_S)


@pytest.mark.parametrize(("kind", "content"), [(NONCE, b"x" * 31), (NONCE, b""), (CONTROL, b"x" * 32)])
def test_a_connection_begins_with_a_nonce(kind, content):
    with lines() as (one, two):
        two.send(kind, content)
        with pytest.raises(WireError, match="did not begin with a nonce"):
            channel(one, "server", "client").open()


def test_a_message_that_is_too_long_is_not_sent_and_costs_no_number():
    with channels() as (server, client):
        with pytest.raises(WireError, match="it must go as a body"):
            client.send("offer", text="x" * LIMITS[CONTROL])
        with pytest.raises(ValueError, match="JSON compliant"):
            client.send("offer", seconds=float("nan"))
        client.send("offer")
        assert server.receive(WAIT_S) == {"kind": "offer"}


def test_messages_that_are_said_together_share_a_frame_and_a_signature():
    with channels() as (server, client):
        client.send_all([{"kind": "offer", "number": i} for i in range(MOST_TOGETHER)])
        assert client._out == 1
        assert [server.receive(WAIT_S)["number"] for _ in range(MOST_TOGETHER)] == list(range(MOST_TOGETHER))
        client.send("bye")
        assert server.receive(WAIT_S) == {"kind": "bye"}


def test_messages_that_are_too_long_together_go_each_in_its_own_frame():
    with channels() as (server, client):
        halves = [{"kind": "offer", "text": letter * (LIMITS[CONTROL] // 2)} for letter in "ab"]
        sending = threading.Thread(target=client.send_all, args=(halves,))
        sending.start()
        assert [server.receive(WAIT_S) for _ in halves] == halves
        sending.join()
        assert client._out == 2


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{",
        b"[]",
        b"[3]",
        b"[[]]",
        b"[" + b'{"kind":"beat"},' * MOST_TOGETHER + b'{"kind":"beat"}]',
        b'[{"kind":"offer"},{}]',
        b'{"kind":"offer"}',
        b"3",
        b"null",
        b'"kind"',
        b"[{}]",
        b'[{"kind":3}]',
        b'[{"kind":null}]',
        b"\xff\xfe\x00",
        b'[{"kind":"offer"}]x',
        b'[{"kind":"bye","kind":"offer"}]',
        b'[{"kind":"offer","a":{"b":1,"b":2}}]',
        b"[" * 500_000,
        b'{"kind":' * 200_000,
        b'{"kind":"offer","n":' + b"9" * 5000 + b"}",
    ],
)
def test_what_is_no_message_is_refused(payload):
    with pytest.raises(WireError, match="is not"):
        parsed(payload)


@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_no_payload_raises_anything_else(payload):
    with suppress(WireError):
        assert all(isinstance(message["kind"], str) for message in parsed(payload))


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("3", int),
        (3.0, int),
        (True, int),
        (3, float),
        (float("nan"), float),
        (float("inf"), float),
        (-float("inf"), float),
        (None, str),
        ([], dict),
        ({}, list),
        (1, bool),
    ],
)
def test_a_field_of_another_type_is_refused(value, kind):
    with pytest.raises(WireError, match=f"message 'offer': x must be of type {kind.__name__}"):
        field_of({"kind": "offer", "x": value}, "x", kind)


def test_a_field_that_is_missing_is_refused_unless_there_is_a_default():
    with pytest.raises(WireError, match="message 'bye': leaving must be of type bool"):
        field_of({"kind": "bye"}, "leaving", bool)
    assert field_of({"kind": "bye"}, "leaving", bool, False) is False
    with pytest.raises(WireError):
        field_of({"kind": "bye", "leaving": 0}, "leaving", bool, False)


@pytest.mark.parametrize("numbers", [[0], [-1], [1.0], [True], ["1"], [None], [2**63], [1] * 6])
def test_what_is_no_list_of_dispatch_numbers_is_refused(numbers):
    with pytest.raises(WireError, match="must be at most 5 dispatch numbers"):
        numbers_of({"kind": "pending", "numbers": numbers}, "numbers", most=5)
    assert numbers_of({"kind": "pending", "numbers": [1, 2**63 - 1]}, "numbers") == [1, 2**63 - 1]


@pytest.mark.parametrize("size", [1, 1000, CHUNK_BYTES])
def test_a_chunk_arrives_with_its_place(size):
    with channels() as (server, client):
        data = bytes(i % 251 for i in range(size))
        thread = threading.Thread(target=client.send_chunk, args=(DIGEST, 2**40, memoryview(data)))
        thread.start()
        got = server.receive(WAIT_S)
        thread.join(WAIT_S)
        assert isinstance(got, Chunk)
        assert (got.digest, got.offset, bytes(got.data)) == (DIGEST, 2**40, data)


@pytest.mark.parametrize("size", [0, 1, 39, 40])
def test_a_chunk_without_content_is_refused(size):
    with channels() as (server, client):
        client.line.send(CHUNK, bytes(size))
        with pytest.raises(WireError, match="holds at least one byte"):
            server.receive(WAIT_S)
