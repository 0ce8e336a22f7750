"""What `--set` writes into a file's tables."""

import tomllib
from typing import Any

from ..core.errors import ConfigError
from .table import Table, shorthand

_OPENING = ("[", "{", '"', "'")  # what begins so is no bare word


def put(table: Table, override: str) -> None:
    """Write "strategy.cohort=10" into a table; a name that stands for a table becomes one first.

    >>> put(table := {"strategy": "fedavg"}, "strategy.cohort=10")
    >>> table
    {'strategy': {'name': 'fedavg', 'cohort': 10}}
    """
    key, given, value = override.partition("=")
    if not given or not key.strip():
        raise ConfigError(f"--set takes key=value, such as rounds=5; got {override!r}.")
    *way, last = key.strip().split(".")
    for part in way:
        inner = table.setdefault(part, {})
        if isinstance(inner, str):
            inner = table[part] = {shorthand(part): inner}
        if not isinstance(inner, dict):
            raise ConfigError(f"--set {key}: {part!r} is a value and has no parts.")
        table = inner
    whole = last in table and isinstance(table[last], dict) and isinstance(parsed(value), str)
    if whole and last in ("model", "strategy", "data"):
        table[last] = {**table[last], shorthand(last): parsed(value)}
    else:
        table[last] = parsed(value)


def parsed(text: str) -> Any:
    """Return a TOML value, or the text itself where it is a bare word; raises `ConfigError` for broken TOML.

    >>> parsed("0.5"), parsed("mlp"), parsed("[1, 2]")
    (0.5, 'mlp', [1, 2])
    """
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError as error:
        if text.lstrip().startswith(_OPENING):
            raise ConfigError(f"--set: {text} is not TOML: {str(error).partition(' (at ')[0]}.") from error
        return text
