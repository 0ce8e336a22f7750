"""Whose key is whose, as a site has taken it: HOME/directory.json, which no coordinator writes.

`{"version": 1, "keys": {"north": "KEY", "south": "KEY"}}`, keys in base64url as certificates have them. Certificates
would not do: the coordinator issues them, and could issue some for sites that do not exist. `introduction.py` says how
a site comes to it.
"""

from pathlib import Path
from typing import Any

from ..core.errors import AccessDenied, ConfigError, RunError
from ..core.hidden import Directory, Identity
from ..store.files import read_json
from .credentials import Credentials
from .identity import bytes_of, check_name, text_of

DIRECTORY, VERSION = "directory.json", 1


def directory(home: Path) -> Directory:
    """Return the sites' public keys by name.

    Raises `ConfigError` for a file that is missing or says something else, `RunError` for one that cannot be read.
    """
    path = home / DIRECTORY
    own = Credentials(home).peer
    line = f'"{own.name}": "{text_of(own.key)}"'
    if not path.exists():
        raise ConfigError(
            f"{path} is missing: a hidden sum needs every site's key, and not on the coordinator's word. When all have "
            f"enrolled, `fedloom provision HOME --directory FILE` lists them there, and `fedloom approve --directory "
            f"FILE --home {home}` takes the list here. This site is enrolled as {line}."
        )
    keys = keys_of(path, read_json(path))
    if keys.get(own.name) != own.key:
        raise ConfigError(f"{path} has another key for this site than its own; it should say {line}.")
    if len(set(keys.values())) < len(keys):
        raise ConfigError(f"{path} has one key under two names; each site has its own.")
    return keys


def identity(home: Path, run: str) -> Identity:
    """Return who a site is in a run to the others of a hidden sum; refuses as `directory` does."""
    credentials = Credentials(home)
    return Identity(credentials.peer.name, run, credentials.sign, directory(home))


def handed(path: Path, what: str) -> Any:
    """Return what the JSON of a file holds that somebody was handed; raises `ConfigError`, which says `what` it is."""
    try:
        return read_json(path)
    except RunError as error:
        raise ConfigError(f"{error} It must be {what}.") from error


def keys_of(path: Path, content: Any) -> dict[str, bytes]:
    """Return the keys in a file's content; raises `ConfigError` for anything else."""
    match content:
        case {"version": 1, "keys": dict(keys)} if all(isinstance(key, str) for key in keys.values()):
            try:
                found = {check_name(name): bytes_of(key) for name, key in keys.items()}
            except (AccessDenied, ConfigError) as error:
                raise ConfigError(f"{path}: {error}") from error
            if all(len(key) == 32 for key in found.values()):
                return found
    raise ConfigError(f'{path} must say {{"version": {VERSION}, "keys": {{"NAME": "KEY", …}}}}, each key of 32 bytes.')
