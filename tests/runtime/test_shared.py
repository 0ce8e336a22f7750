"""The shared key reaches the sites of the list, by any way, and nobody else."""

import json
import stat

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from enrolled import federation
from fedloom.core.errors import AccessDenied, ConfigError
from fedloom.runtime import introduction, shared

SECRET = bytes(range(256)) * 3


@pytest.fixture(scope="module")
def there(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shared")
    keys = introduction.listed(federation(folder, "north", "south", "west"))
    for name in keys:
        introduction.keep(folder / name, keys)
    return folder


def test_each_other_site_opens_its_own_file(there):
    paths = shared.make(there / "north", SECRET)
    assert [path.stem for path in paths] == ["south", "west"]
    for path in paths:
        assert shared.opened(there / path.stem, path) == "north"
        assert shared.read(there / path.stem) == SECRET
        assert SECRET[:32].hex() not in path.read_text()
        assert stat.S_IMODE((there / path.stem / shared.KEY).stat().st_mode) == 0o600
    assert shared.read(there / "north") == SECRET


def test_nobody_opens_anothers_file(there):
    south, west = shared.make(there / "north", SECRET)
    with pytest.raises(AccessDenied, match="is from 'north' for 'west'; this is 'south'"):
        shared.opened(there / "south", west)
    told = json.loads(west.read_text()) | {"for": "south"}
    south.write_text(json.dumps(told))
    with pytest.raises(AccessDenied, match="signature"):
        shared.opened(there / "south", south)


@pytest.mark.parametrize("part", ["ephemeral", "content", "signature", "from"])
def test_a_file_that_was_changed_is_refused(there, part):
    south, west = (json.loads(path.read_text()) for path in shared.make(there / "north", SECRET))
    path = there / "changed.json"
    path.write_text(json.dumps(south | {part: west[part] if part != "from" else "west"}))
    with pytest.raises(AccessDenied):
        shared.opened(there / "south", path)


@pytest.mark.parametrize("content", [[], {}, {"version": 1, "from": "north"}, {"version": 2}])
def test_another_file_is_refused(there, content):
    path = there / "other.json"
    path.write_text(json.dumps(content))
    with pytest.raises(AccessDenied, match="is no sealed key"):
        shared.opened(there / "south", path)


def test_a_stranger_is_not_believed(there, tmp_path):
    federation(tmp_path, "rogue")
    keys = introduction.listed(tmp_path / "coordinator")
    south = introduction.listed(there / "coordinator")["south"]
    introduction.keep(tmp_path / "rogue", {**keys, "south": south})
    (path,) = shared.make(tmp_path / "rogue", SECRET)
    with pytest.raises(AccessDenied, match="its list decides"):
        shared.opened(there / "south", path)


def test_without_one_it_says_how_to_come_by_it(tmp_path):
    with pytest.raises(ConfigError, match="fedloom key --make"):
        shared.read(tmp_path)


def test_an_identity_key_agrees_as_its_x25519_key():
    """Both ways to the public key are the same: from the seed, and from the public point."""
    from hashlib import sha512

    for _ in range(20):
        identity = Ed25519PrivateKey.generate()
        private = X25519PrivateKey.from_private_bytes(sha512(identity.private_bytes_raw()).digest()[:32])
        public = identity.public_key().public_bytes_raw()
        assert private.public_key().public_bytes_raw() == shared.montgomery(public)
