"""From a file's name to an app: Python, TOML, or the built-in demo; and settings changed from outside."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from difflib import get_close_matches
from hashlib import sha256
from importlib.util import module_from_spec
from pathlib import Path
from types import ModuleType
from typing import Any, get_type_hints

from .app import App
from .core.errors import ConfigError, FedloomError
from .modules import Modules, modules

DEMO = "demo"
_EXAMPLES = Path(__file__).parent / "examples"


@dataclass(frozen=True)
class Loaded:
    """An app, where it came from, its identity (digest of settings, layout, file, local imports), what was set."""

    app: App
    source: str
    identity: str
    overrides: tuple[str, ...] = ()


def load(name: str, overrides: Sequence[str] = ()) -> Loaded:
    """Return the app in that file; raises `ConfigError` in one sentence for anything that keeps it from being one."""
    path = _EXAMPLES / "demo.toml" if name == DEMO else Path(name)
    if path.is_dir():
        raise ConfigError(f"{name!r} is a folder; an app is a .py or a .toml file, so name one in it.")
    if not path.is_file():
        raise ConfigError(f"there is no file {name!r}; {_suggested(path)}")
    if path.suffix == ".toml":
        from .spec import load as from_toml

        app = from_toml(path, overrides)
        return Loaded(app, name if name == DEMO else str(path.resolve()), app.digest, tuple(overrides))
    if path.suffix != ".py":
        raise ConfigError(f"{name}: an app is a .py or a .toml file, got {path.suffix or 'no suffix'!r}.")
    with modules(path.resolve()) as code:
        app = _from_python(path.resolve(), code)
        for override in overrides:
            app = changed(app, override)
        settings = app.digest  # builds the model, which may import more
    identity = sha256(f"{settings}{code.digest}".encode()).hexdigest()
    return Loaded(app, str(path.resolve()), identity, tuple(overrides))


def _suggested(path: Path) -> str:
    others = sorted(each.name for each in path.parent.glob("*") if each.suffix in (".toml", ".py") and each.is_file())
    near = get_close_matches(path.name, others, 1)
    return f"did you mean {near[0]!r}?" if near else "`fedloom new FILE.csv` writes one for your own rows."


def _from_python(path: Path, code: Modules) -> App:
    """Run the file as a module, with its folder first among those that imports look in; return its `app`."""
    folder = str(path.parent)
    sys.path.insert(0, folder)
    try:
        module = _run(code)
    except FedloomError:
        raise
    except (Exception, SystemExit) as error:
        raise ConfigError(
            f"{path.name} cannot be run: {_place(error, path)}{type(error).__name__}: {' '.join(str(error).split())}."
        ) from error
    finally:
        sys.path.remove(folder)
    app = getattr(module, "app", None)
    if not isinstance(app, App):
        raise ConfigError(f"{path.name} has no app; write `app = fedloom.App(…)` at its top level.")
    return replace(app, name=path.stem) if app.name == App.name else app  # as for a .toml without a name


def _run(code: Modules) -> ModuleType:
    spec = code.top()
    module = module_from_spec(spec)
    sys.modules[spec.name] = module  # so that dataclasses and inspect find the file's source
    assert spec.loader is not None, "a .py file has a loader"
    spec.loader.exec_module(module)
    return module


def _place(error: BaseException, path: Path) -> str:
    line, trace = getattr(error, "lineno", None), error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path):
            line = trace.tb_lineno
        trace = trace.tb_next
    return f"line {line}: " if line else ""


def changed(app: App, override: str) -> App:
    """Return the app with one setting changed by its path through the typed objects: "strategy.local.epochs=3".

    >>> from fedloom import BuiltIn, Data, SklearnSet
    >>> app = App(model=BuiltIn(name="logistic"), data=Data(source=SklearnSet("wine")))
    >>> changed(app, "strategy.schedule.quorum=0.5").strategy.schedule.quorum
    0.5
    """
    from .spec import parsed

    key, given, value = override.partition("=")
    if not given or not key.strip():
        raise ConfigError(f"--set takes key=value, such as rounds=5; got {override!r}.")
    result: App = _replaced(app, key.strip().split("."), parsed(value), key)
    return result


def _replaced(part: Any, way: Sequence[str], value: Any, key: str) -> Any:
    name, *rest = way
    if isinstance(part, Mapping):
        if rest and name not in part:
            raise ConfigError(f"--set {key}: there is no {name!r} in it; it has {', '.join(map(str, part)) or 'none'}.")
        return {**part, name: _replaced(part[name], rest, value, key) if rest else value}
    if not is_dataclass(part) or isinstance(part, type):
        raise ConfigError(f"--set {key}: {name!r} cannot be set on a {type(part).__name__}.")
    known = [field.name for field in fields(part) if field.init]
    if name not in known:
        near = get_close_matches(name, known, 1)
        asked = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(known)}."
        raise ConfigError(f"--set {key}: {type(part).__name__} has no {name!r}; {asked}")
    if rest:
        return replace(part, **{name: _replaced(getattr(part, name), rest, value, key)})
    return replace(part, **{name: _fitting(part, name, value, key)})


def _fitting(part: Any, name: str, value: Any, key: str) -> Any:
    """Return the value as the field is annotated; parts of an app are not values, and cannot be set."""
    from pydantic import PydanticUserError, TypeAdapter, ValidationError

    from .spec.table import truths

    now = getattr(part, name)
    try:
        made = TypeAdapter(get_type_hints(type(part))[name]).validate_python(value)
    except (ValidationError, PydanticUserError) as error:
        raise ConfigError(f"--set {key}: {value!r} cannot take the place of {now!r}; edit the app.") from error
    if any(True for _ in truths(value, made)):
        raise ConfigError(f"--set {key}: {value!r} cannot take the place of {now!r}: a number is due.")
    return made
