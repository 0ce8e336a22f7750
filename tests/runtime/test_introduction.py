"""A list of keys is taken if the root key has signed it, or another site has the same number; nothing else vouches."""

import json

import pytest

from enrolled import federation
from fedloom.core.errors import AccessDenied, ConfigError
from fedloom.runtime import introduction
from fedloom.runtime.authority import Authority
from fedloom.runtime.directory import directory
from fedloom.runtime.identity import text_of
from fedloom.runtime.provisioning import provision, root_key

KEYS = {"a": b"\1" * 32, "b": b"\2" * 32}


@pytest.fixture(scope="module")
def there(tmp_path_factory):
    folder = tmp_path_factory.mktemp("introduced")
    return folder, federation(folder, "north", "south")


def test_a_list_has_the_sites_that_have_enrolled(there):
    folder, home = there
    Authority(home).invite("west")
    keys = introduction.listed(home)
    assert sorted(keys) == ["north", "south"]
    introduction.write(folder / "list.json", keys, home, None)
    assert introduction.read(folder / "list.json", folder / "north") == (keys, False)
    introduction.keep(folder / "north", keys)
    assert directory(folder / "north") == keys


def test_nobody_is_no_list(tmp_path):
    with pytest.raises(ConfigError, match="no site has enrolled"):
        introduction.listed(federation(tmp_path))


def test_the_root_key_vouches_for_a_list(there):
    folder, home = there
    keys = introduction.listed(home)
    introduction.write(folder / "signed.json", keys, home, root_key(home))
    assert introduction.read(folder / "signed.json", folder / "south") == (keys, True)


def test_another_root_key_does_not(there, tmp_path):
    folder, home = there
    provision(tmp_path / "other", ["fl.example"])
    with pytest.raises(ConfigError, match="is not the key of"):
        introduction.write(folder / "not.json", KEYS, home, root_key(tmp_path / "other"))
    assert not (folder / "not.json").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda told: told["keys"].update(sybil=text_of(bytes(32))), "not signed by the root key"),
        (lambda told: told["keys"].pop("south"), "not signed by the root key"),
        (lambda told: told["keys"].update(north=text_of(bytes(32))), "has not this site's key under 'north'"),
        (lambda told: told["keys"].pop("north"), "has not this site's key under 'north'"),
        (lambda told: told.update(signature=text_of(b"x" * 70)), "not signed by the root key"),
        (lambda told: told.update(signature=7), "a signature that is no text"),
        (lambda told: told.update(version=2), "must say"),
    ],
)
def test_a_list_that_was_changed_is_refused(there, change, words):
    folder, home = there
    path = folder / "changed.json"
    introduction.write(path, introduction.listed(home), home, root_key(home))
    told = json.loads(path.read_text())
    change(told)
    path.write_text(json.dumps(told))
    with pytest.raises((ConfigError, AccessDenied), match=words):
        introduction.read(path, folder / "north")


def test_a_number_is_of_one_list(there):
    other = [{**KEYS, "a": KEYS["b"]}, {"a": KEYS["a"]}, {**KEYS, "c": b"\3" * 32}, {"a": KEYS["b"], "b": KEYS["a"]}]
    numbers = [introduction.number(keys) for keys in (KEYS, *other)]
    assert len(set(numbers)) == 5
    assert introduction.number(dict(reversed(KEYS.items()))) == numbers[0]
    assert introduction.same(numbers[0].replace(" ", "-"), KEYS)
    assert not introduction.same(numbers[1], KEYS)
    assert not introduction.same("", KEYS)


def test_what_changes_is_said():
    before = {"a": b"\1" * 32, "b": b"\2" * 32}
    assert introduction.changes(before, before) == []
    assert introduction.changes(before, {"b": b"\3" * 32, "c": b"\4" * 32}) == [
        "new: c",
        "no longer there: a",
        "another key than before: b",
    ]
