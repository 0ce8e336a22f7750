"""Whose key is whose comes from people: a directory that is missing, or says what cannot be, is refused by its name."""

import json

import pytest

from fedloom.core.errors import ConfigError, RunError
from fedloom.runtime.directory import DIRECTORY, directory, identity
from fedloom.runtime.identity import text_of, verify
from wired import identities

KEYS = {"south": text_of(b"\1" * 32), "west": text_of(b"\2" * 32)}


@pytest.fixture
def home(tmp_path):
    """Return a site's folder, as a link to its keys, and its own key as text."""
    credentials = identities(("north",))[1]["north"]
    (tmp_path / "pki").symlink_to(credentials.home / "pki")
    return tmp_path, text_of(credentials.peer.key)


def written(folder, content):
    (folder / DIRECTORY).write_text(content if isinstance(content, str) else json.dumps(content))


def test_it_says_whose_key_is_whose(home):
    folder, own = home
    written(folder, {"version": 1, "keys": {**KEYS, "north": own}})
    found = directory(folder)
    assert {name: text_of(key) for name, key in found.items()} == {**KEYS, "north": own}


def test_an_identity_signs_with_the_key_that_the_directory_names(home):
    folder, own = home
    written(folder, {"version": 1, "keys": {**KEYS, "north": own}})
    who = identity(folder, "a run")
    assert (who.name, who.run) == ("north", "a run")
    verify(who.directory["north"], who.sign(b"text"), b"text")


def test_without_it_a_site_says_what_to_give_to_the_others(home):
    folder, own = home
    with pytest.raises(ConfigError, match=f'is missing: .* This site is enrolled as "north": "{own}"'):
        directory(folder)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda keys: {}, "must say"),
        (lambda keys: [], "must say"),
        (lambda keys: {"version": 2, "keys": keys}, "must say"),
        (lambda keys: {"version": 1, "keys": {**keys, "west": 7}}, "must say"),
        (lambda keys: {"version": 1, "keys": {**keys, "west": text_of(b"short")}}, "each key of 32 bytes"),
        (lambda keys: {"version": 1, "keys": {**keys, "west": "!!"}}, "base64url"),
        (lambda keys: {"version": 1, "keys": {**keys, "": KEYS["west"]}}, "'' cannot be a party's name"),
        (lambda keys: {"version": 1, "keys": {**keys, "a, b": KEYS["west"]}}, "'a, b' cannot be a party's name"),
        (lambda keys: {"version": 1, "keys": {**keys, "../up": KEYS["west"]}}, "'../up' cannot be a party's name"),
        (lambda keys: {"version": 1, "keys": {**keys, "west": keys["south"]}}, "one key under two names"),
        (lambda keys: {"version": 1, "keys": {**keys, "north": KEYS["west"], "west": keys["north"]}}, "another key"),
        (lambda keys: {"version": 1, "keys": KEYS}, "another key for this site than its own"),
    ],
)
def test_what_cannot_be_is_refused(home, change, words):
    folder, own = home
    written(folder, change({**KEYS, "north": own}))
    with pytest.raises(ConfigError, match=words):
        directory(folder)


def test_a_file_that_cannot_be_read_is_refused(home):
    folder, _ = home
    written(folder, "{")
    with pytest.raises(RunError, match=DIRECTORY):
        directory(folder)
