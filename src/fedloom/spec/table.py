"""Tables of a TOML file, checked by pydantic: a key that is not known is an error that names the nearest known one."""

import inspect
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from ..core.errors import ConfigError

Table = dict[str, Any]


class Strict(BaseModel):
    """A table in which every key is known."""

    model_config = ConfigDict(extra="forbid", strict=False)


def read(path: Path) -> Table:
    """Return what a TOML file says; raises `ConfigError` with its name."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}; check the name.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}.") from error


def checked(kind: type[Any], table: Mapping[str, Any], where: str) -> Any:
    """Return the table as `kind`, or raise a `ConfigError` for the first thing that is wrong, in one sentence."""
    try:
        made = kind(**table)
    except ValidationError as error:
        found = error.errors()
    else:
        if key := next(truths(table, made), None):
            raise ConfigError(f"{where}: {key!r} is a number, and true and false are none.")
        return made
    first = next((each for each in found if each["type"] == "extra_forbidden"), found[0])
    key = _key(table, first["loc"]) or str(first["loc"][0])
    if first["type"] == "extra_forbidden":
        raise ConfigError(f"{where}: unknown key {key!r}; {nearest(key, list(kind.model_fields))}")
    if first["type"] == "missing":
        missing = ".".join(filter(None, (_key(table, first["loc"][:-1]), str(first["loc"][-1]))))
        raise ConfigError(f"{where}: {missing!r} is missing.")
    if first["type"] == "tuple_type":
        raise ConfigError(f"{where}: {key!r} is a list, such as [{first['input']!r}], got {first['input']!r}.")
    raise ConfigError(f"{where}: {key!r}: {first['msg'][0].lower()}{first['msg'][1:]}, got {first['input']!r}.")


def truths(given: Any, made: Any, place: tuple[str, ...] = ()) -> Iterator[str]:
    """Yield the keys at which true or false was given and taken for a number: pydantic takes them for 1 and 0.

    >>> list(truths({"a": True, "b": [True], "c": True}, {"a": 1, "b": (1.0,), "c": True}))
    ['a', 'b.0']
    """
    if isinstance(given, bool):
        if not isinstance(made, bool):
            yield ".".join(place)
        return
    if isinstance(given, Mapping):
        pairs = [(str(key), value, _part(made, key)) for key, value in given.items()]
    else:
        both = zip(given, made, strict=True) if isinstance(given, list) else ()
        pairs = [(str(at), *pair) for at, pair in enumerate(both)]
    for key, value, part in pairs:
        yield from truths(value, part, (*place, key))


def _part(made: Any, key: str) -> Any:
    return made[key] if isinstance(made, Mapping) else getattr(made, key)


def _key(value: Any, place: Sequence[str | int]) -> str:
    """Return the place in a table as a key with dots; pydantic's names for members of a union are not part of it."""
    kept = []
    for part in place:
        inside = part in value if isinstance(value, Mapping) else isinstance(value, list) and part in range(len(value))
        if inside:
            kept.append(str(part))
            value = value[part]
    return ".".join(kept)


def nearest(name: str, known: Sequence[str]) -> str:
    """Return the end of a sentence about an unknown name.

    >>> nearest("rouds", ["rounds", "seed"]), nearest("x", ["rounds", "seed"])
    ("did you mean 'rounds'?", 'known are rounds, seed.')
    """
    near = get_close_matches(name, known, 1)
    return f"did you mean {near[0]!r}?" if near else f"known are {', '.join(sorted(known))}."


def shorthand(part: str) -> str:
    """Return the key that a bare name stands for in that table."""
    return {"data": "source", "partition": "kind"}.get(part, "name")


def named(part: str, value: str | Table) -> Table:
    """Return a table, also for a bare name: `model = "mlp"` is `model = { name = "mlp" }`."""
    return {shorthand(part): value} if isinstance(value, str) else value


def made(kind: Callable[..., Any], given: Mapping[str, Any], where: str) -> Any:
    """Call a class or recipe with what `fitted` returns."""
    return kind(**fitted(kind, given, where))


def fitted(kind: Callable[..., Any], given: Mapping[str, Any], where: str) -> Table:
    """Return what is given as the arguments of a class or recipe, checked against its signature."""
    fields: dict[str, Any] = {}
    for name, parameter in inspect.signature(kind).parameters.items():
        default = ... if parameter.default is inspect.Parameter.empty else parameter.default
        fields[name] = (Table if name == "sgd" else parameter.annotation, default)
    table = create_model("Arguments", __base__=Strict, **fields)
    found = checked(table, given, where)
    return {name: getattr(found, name) for name in found.model_fields_set}


def chosen(known: Mapping[str, type], key: str, what: str, table: Table, where: str) -> Any:
    """Make the one of `known` classes that `table[key]` names, with the rest of the table."""
    name = str(table.get(key))
    if name not in known:
        raise ConfigError(f"{where}: there is no {what} {name!r}; {nearest(name, list(known))}")
    return made(known[name], {k: v for k, v in table.items() if k != key}, f"{where}: {name}")
