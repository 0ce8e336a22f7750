"""Notes, keys and signatures: the published vector, and whatever is changed is no longer signed."""

from base64 import b64decode

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from fedloom.core.errors import RecordError
from fedloom.store.checkpoint import WITNESS, Checkpoint, Key, Signature, valid

# The example in the documentation of Go's golang.org/x/mod/sumdb/note.
VKEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
SAID = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
LINE = "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM="


def secret(number):
    return Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32)


def public(number):
    return secret(number).public_key().public_bytes_raw()


KEY, OTHER, SEEN = Key("log.example/1", public(1)), Key("log.example/1", public(2)), Key.witness(public(3))
BARE = Checkpoint("log.example/1", 7, bytes(range(32)))


def cosigned():
    note = BARE.signed(KEY, secret(1).sign)
    return note.adding(note.cosignature(SEEN, secret(3).sign, 1_700_000_000))


def test_the_published_note_is_signed_by_the_published_key():
    key, content = Key.of(VKEY), b64decode(LINE)
    assert (key.text(), content[:4]) == (VKEY, key.id)
    assert valid(key.public, content[4:], SAID.encode())
    assert not valid(key.public, content[4:], SAID.replace("you", "we").encode())


def test_a_checkpoint_is_written_and_read_again():
    note = cosigned()
    assert Checkpoint.of(note.text()) == note
    assert note.text().startswith("log.example/1\n7\nAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n\n— log.example/1 ")
    assert note.signed_by(KEY)
    assert note.signed_by(SEEN)
    assert not note.signed_by(Key.witness(public(4)))


def test_a_key_of_the_same_name_is_another_key():
    assert KEY.id != OTHER.id
    assert not cosigned().signed_by(OTHER)
    assert Key(KEY.name, KEY.public, WITNESS).id != KEY.id


def test_a_witness_signs_a_time_and_cannot_pass_for_a_log():
    (line,) = (each for each in cosigned().signatures if each.name == SEEN.name)
    assert int.from_bytes(line.content[:8], "big") == 1_700_000_000
    assert not valid(SEEN.public, line.content[8:], BARE.body().encode())
    moved = Signature(line.name, line.id, (1).to_bytes(8, "big") + line.content[8:])
    with pytest.raises(RecordError, match="that is not its own"):
        cosigned().adding(moved).signed_by(SEEN)


def test_one_key_signs_once():
    again = cosigned().cosignature(SEEN, secret(3).sign, 1_800_000_000)
    assert len(cosigned().adding(again).signatures) == 2


@settings(max_examples=60)
@given(st.data())
def test_whatever_is_changed_is_not_signed_any_more(data):
    text = cosigned().text()
    at = data.draw(st.integers(0, len(text) - 1))
    changed = text[:at] + data.draw(st.sampled_from("aA0+/=\n —é").filter(lambda c: c != text[at])) + text[at + 1 :]
    try:
        note = Checkpoint.of(changed)
        assert not (note.signed_by(KEY) and note.signed_by(SEEN)) or note == cosigned()
    except RecordError:
        return
    assert note != cosigned()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "log\n7\n",
        "log\n07\nAAAA\n\n",
        "log\n7\nAAAA\n\n",
        "log\n-1\nAAAA\n\n",
        cosigned().text() + "more\n",
        "a\n1\n?\n\n",
    ],
)
def test_what_is_no_checkpoint_is_refused(text):
    with pytest.raises(RecordError):
        Checkpoint.of(text)


@pytest.mark.parametrize("text", ["", "a+b+c", VKEY[:-2] + "==", VKEY.replace("c74f20a3", "c74f20a4"), "x" + VKEY])
def test_what_is_no_key_is_refused(text):
    with pytest.raises(RecordError, match="of a record"):
        Key.of(text)
