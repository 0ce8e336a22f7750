"""A site's policy file, HOME/policy.toml: what it may say, and the policy that it means."""

import tomllib
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from pydantic import create_model

from . import gather, stages
from .core.budget import Budget
from .core.errors import ConfigError
from .load import DEMO
from .privacy.ledger import FILE as LEDGER
from .runtime.policy import Policy, plain
from .spec.table import Strict, checked

FILE = "policy.toml"
PROTECTIONS = (*stages.__all__, *gather.__all__)
_FIELDS: dict[str, Any] = {field.name: (field.type, field.default) for field in fields(Policy)}
_Table = create_model("PolicyTable", __base__=Strict, **_FIELDS)  # one key for each of the policy's settings


def read(home: Path) -> Policy:
    """Return a site's policy, the safe default where it has no file; raises `ConfigError` for one that cannot be read.

    >>> from tempfile import mkdtemp
    >>> read(Path(mkdtemp())) == Policy()
    True
    """
    path = home / FILE
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Policy()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}; nothing is answered without a policy.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}.") from error
    try:
        settings: dict[str, Any] = dict(checked(_Table, table, str(path)))
        policy = Policy(**settings)
    except ConfigError as error:
        raise ConfigError(str(error) if str(error).startswith(str(path)) else f"{path}: {error}") from error
    _known(path, policy)
    return policy


def _known(path: Path, policy: Policy) -> None:
    """Refuse the name of a protection that there is not: no app could ever have it."""
    unknown = [name for name in policy.protections if plain(name) not in map(plain, PROTECTIONS)]
    if unknown:
        raise ConfigError(
            f"{path}: 'protections': {', '.join(unknown)} is unknown; there are {', '.join(sorted(PROTECTIONS))}."
        )


def admit(home: Path, app: str) -> None:
    """Refuse an app's file that a policy does not let run; before it is loaded, since to load it is to run it."""
    if read(home).code == "none" and not (app == DEMO or Path(app).suffix == ".toml"):
        raise ConfigError(
            f'{home / FILE} has code = "none": an app here is a .toml file, and {app!r} is or may be a program; it '
            "was not run."
        )


def told(home: Path, policy: Policy) -> str:
    """Return the policy in one line, for people: where it is from, and all that it says."""
    policy = replace(policy, ledger=f"{home / (policy.ledger or LEDGER)}")
    unset = {"budget": "none: the ledger is kept, and nothing enforced"}
    said = ", ".join(
        f"{field.name} = {unset.get(field.name, 'unlimited') if value is None else _shown(value)}"
        for field in fields(policy)
        for value in (getattr(policy, field.name),)
    )
    path = home / FILE
    return f"policy ({path}): {said}" if path.is_file() else f"policy (there is no {path}, so the default): {said}"


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return " ".join(value) or "none"
    if isinstance(value, Budget):
        return str(value)
    return str(value).lower() if isinstance(value, bool) else str(value)
