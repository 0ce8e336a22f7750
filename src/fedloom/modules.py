"""The local modules of an app in Python, those below its folder: what its identity names is what runs.

Each file is read once; these bytes are hashed and executed, and no bytecode cache is asked. While an app is loaded,
whatever it imports from its folder is taken in, and then what the import statements in those files name, also inside
functions. A local module that was not taken in cannot be imported later, neither by the app nor by fedloom; whoever
else is in the process imports from that folder as ever, and keeps what it had imported, but for names of the app's.
"""

import ast
import linecache
import os
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from importlib import invalidate_caches
from importlib.abc import MetaPathFinder
from importlib.machinery import EXTENSION_SUFFIXES, SOURCE_SUFFIXES, ModuleSpec, PathFinder, SourceFileLoader
from importlib.util import decode_source, resolve_name, spec_from_file_location
from inspect import currentframe
from io import StringIO
from pathlib import Path
from pkgutil import get_importer
from types import CodeType, ModuleType
from typing import Any
from warnings import catch_warnings, simplefilter

from .core.errors import ConfigError

APP = "fedloom_app_"  # and the file's stem: the module that an app's file becomes
_NOT_LOCAL = ("__main__", "__mp_main__", "fedloom")
_HERE, _SITES = f"{Path(__file__).parent}{os.sep}", {"site-packages", "dist-packages"}
_INSTALLED = tuple(Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib"))


class _Loader(SourceFileLoader):
    """Executes these bytes, whatever lies on the disk by then, and shows them to `inspect` and in tracebacks."""

    def __init__(self, name: str, file: Path, text: bytes) -> None:
        super().__init__(name, str(file))
        self.text = text

    def get_data(self, path: str) -> bytes:
        return self.text if path == self.path else super().get_data(path)

    def get_code(self, fullname: str) -> CodeType:
        code: CodeType = self.source_to_code(self.text, self.path)
        lines = StringIO(decode_source(self.text)).readlines()
        linecache.cache[self.path] = (len(self.text), None, lines, self.path)  # None: never looked up on the disk
        return code


@dataclass(eq=False)
class Modules(MetaPathFinder):
    """Finds the local modules of one app.

    Args:
        app: its file, absolute.
        files: the bytes that were taken in; names: the module that each file was first found as.
        tops: the names, up to a dot, that the app imports.
        sealed: is that all?
        hidden: modules of this folder that somebody else had imported before; passed: that somebody else has since.
        before: the path before the app's file is run, which may add folders to it.
    """

    app: Path
    files: dict[Path, bytes] = field(default_factory=dict, repr=False)
    names: dict[Path, ModuleSpec] = field(default_factory=dict, repr=False)
    tops: set[str] = field(default_factory=set, repr=False)
    sealed: bool = False
    hidden: dict[str, ModuleType] = field(default_factory=dict, repr=False)
    passed: set[str] = field(default_factory=set, repr=False)
    before: tuple[str, ...] = field(default_factory=lambda: tuple(sys.path), repr=False)

    @property
    def digest(self) -> str:
        """SHA-256 over what was taken in: each file's place below the app's folder, and its bytes."""
        places = {self._place(file): sha256(content).hexdigest() for file, content in self.files.items()}
        return sha256(repr(sorted(places.items())).encode()).hexdigest()

    def top(self) -> ModuleSpec:
        """Return the module that the app's file becomes."""
        spec = spec_from_file_location(f"{APP}{self.app.stem}", self.app)
        assert spec is not None, "a .py file has a loader"
        return self._taken(spec, self.app)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None, /
    ) -> ModuleSpec | None:
        """Return a local module as it was taken in, or what the other finders return."""
        spec = self._found(fullname, path, [str(self.app.parent), *sys.path])
        file = self._file(spec)
        if spec is None or file is None:
            return spec
        if file in self.files or not self.sealed:
            return self._taken(spec, file)
        spec = self._found(fullname, path, sys.path)
        if spec is not None and self._file(spec) is None:
            return spec  # a library's own late import, of a name that a file of this folder has too
        if _top(fullname) not in self.tops and not self._asks():
            self.passed.add(fullname)
            return spec
        raise ModuleNotFoundError(  # without a name: `from package import module` would swallow it
            f"{fullname} lies beside {self.app.name} and is not among what it was loaded with: import it at the top "
            f"of {self.app.name}, so that an approval covers it."
        )

    def seal(self) -> None:
        """Take in what the files name in import statements; raises `ConfigError` for code that came in otherwise."""
        for name, module in list(sys.modules.items()):
            other = [file for file in _files(module) if file not in self.files and file.is_file()]
            if other and self._owns(name, module):
                raise ConfigError(
                    f"{self.app.name} loads {self._place(other[0])} by other means than an import statement; import "
                    "it, so that an approval covers it."
                )
        todo = list(self.names)
        for file in todo:
            for name in _imported(self.names[file], self.files[file]):
                self.tops.add(_top(name))
                spec = self._named(name)
                found = self._file(spec)
                if spec is not None and found is not None and found not in self.files and _readable(found):
                    self._taken(spec, found)
                    todo.append(found)
        self.tops |= {_top(name) for name in self._own()}
        theirs = {name: module for name, module in self.hidden.items() if _top(name) not in self.tops}
        sys.modules.update(theirs)
        self.passed |= theirs.keys()
        self.sealed = True

    def hide(self) -> None:
        """Let modules of this folder be imported anew: they may have changed, and somebody else had imported them."""
        self.hidden = {name: sys.modules.pop(name) for name in self._own()}

    def close(self) -> None:
        """Find nothing any more, and put back what others had imported."""
        sys.meta_path.remove(self)
        for name in self._own():
            if name not in self.passed:
                del sys.modules[name]
        sys.modules.update(self.hidden)

    def _own(self) -> list[str]:
        return [name for name, module in list(sys.modules.items()) if self._owns(name, module)]

    def _asks(self) -> bool:
        """Is it the app that imports now, or fedloom for it? Compiled code has no frames, so it may always be."""
        if any(file.suffix not in SOURCE_SUFFIXES for file in self.files):
            return True
        own, frame = {str(file) for file in self.files}, currentframe()
        while frame is not None:
            name = frame.f_code.co_filename
            if name in own or (name.startswith(_HERE) and name != __file__):
                return True
            frame = frame.f_back
        return False

    def _found(self, name: str, path: Sequence[str] | None, tops: Sequence[str]) -> ModuleSpec | None:
        for finder in list(sys.meta_path):
            if finder is self or not hasattr(finder, "find_spec"):
                continue
            spec = finder.find_spec(name, tops if path is None and finder is PathFinder else path)
            if spec is not None:
                return spec
        return None

    def _named(self, name: str) -> ModuleSpec | None:
        """Return a module without importing what it is in; None for one that is nowhere."""
        module, (above, _, _) = sys.modules.get(name), name.rpartition(".")
        if module is not None:
            found = getattr(module, "__spec__", None)
            return found if isinstance(found, ModuleSpec) else None
        if not above:
            return _searched(name, [str(self.app.parent), *filter(self._anywhere, sys.path)])
        parent = self._named(above)
        return _searched(name, list(parent.submodule_search_locations or ()) if parent is not None else ())

    def _anywhere(self, place: str) -> bool:
        """Is this folder of the path the same one wherever the process was started?"""
        return place not in self.before or os.path.abspath(place) != os.getcwd()

    def _file(self, spec: ModuleSpec | None) -> Path | None:
        """Return the file of a local module; None for every other one, and for a folder that is a namespace."""
        if spec is None or not spec.has_location or not spec.origin or _top(spec.name) in _NOT_LOCAL:
            return None
        file = Path(os.path.abspath(spec.origin))
        return next((each for each in (file, file.resolve()) if self._below(each)), None)

    def _taken(self, spec: ModuleSpec, file: Path) -> ModuleSpec:
        self.tops.add(_top(spec.name))
        if not _readable(file):
            raise ImportError(f"{file} is neither a .py file nor a compiled module, so no approval can cover it.")
        if file not in self.files:
            self.files[file], self.names[file] = file.read_bytes(), spec
        content = self.files[file]
        if file.suffix in SOURCE_SUFFIXES:
            loader, inside = _Loader(spec.name, file, content), spec.submodule_search_locations
            made = spec_from_file_location(spec.name, file, loader=loader, submodule_search_locations=inside)
            assert made is not None, "it has a loader"
            return made
        if file.read_bytes() != content:
            raise ImportError(f"{file} has changed since the app was loaded; start again, and approve what is new.")
        return spec

    def _owns(self, name: str, module: ModuleType) -> bool:
        files = [] if name.startswith(APP) or _top(name) in _NOT_LOCAL else _files(module)
        return bool(files) and all(map(self._below, files))

    def _below(self, file: Path) -> bool:
        return file.is_relative_to(self.app.parent) and not _installed(file) and not self._editable(file)

    def _editable(self, file: Path) -> bool:
        """Does it lie in a folder inside the app's from which a package was installed, to be edited?"""
        inside = (place for place in _edited() if self.app.parent in place.parents and place != self.app)
        return any(file.is_relative_to(place) or file.with_suffix("") == place for place in inside)

    def _place(self, file: Path) -> str:
        return "" if file == self.app else file.relative_to(self.app.parent).as_posix()


@contextmanager
def modules(app: Path) -> Iterator[Modules]:
    """Take in what is imported from the app's folder in this block; after it the folder gives nothing else.

    It holds until another app is loaded: a process has the modules of one.
    """
    found = Modules(app)
    for finder in [each for each in sys.meta_path if isinstance(each, Modules)]:
        finder.close()
    found.hide()
    invalidate_caches()
    sys.meta_path.insert(0, found)
    try:
        yield found
        found.seal()
    except BaseException:
        found.close()
        raise


def _files(module: ModuleType) -> list[Path]:
    """Return a module's file, or the folders of a namespace."""
    file, spec = getattr(module, "__file__", None), getattr(module, "__spec__", None)
    if isinstance(file, str):
        return [Path(os.path.normpath(file))]
    inside = spec.submodule_search_locations if isinstance(spec, ModuleSpec) else None
    with suppress(KeyError):  # a namespace whose own namespace somebody has removed
        return [Path(place) for place in inside or ()]
    return []


def _installed(file: Path) -> bool:
    """Is it Python's own or a package's, though it may lie below the app's folder: ~/app.py and ~/.pyenv?"""
    return bool(_SITES & {*file.parts}) or any(map(file.is_relative_to, _INSTALLED))


@cache  # before the first app is run
def _edited() -> tuple[Path, ...]:
    """Return what installs to be edited name: folders in .pth files, and what their finders map names to."""
    found = [place for site in sys.path if Path(site).name in _SITES for place in _lines(Path(site))]
    for finder in sys.meta_path:
        if (name := getattr(finder, "__module__", "")).startswith("__editable__"):
            found += map(Path, getattr(sys.modules.get(name), "MAPPING", {}).values())
    return tuple({each for place in found for each in (place, place.resolve())})


def _lines(site: Path) -> Iterator[Path]:
    for file in sorted(site.glob("*.pth")):
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.strip() and not line.startswith(("#", "import ", "import\t")):
                yield Path(os.path.abspath(site / line.strip()))


def _top(name: str) -> str:
    return name.partition(".")[0]


def _readable(file: Path) -> bool:
    return file.is_file() and file.name.endswith((*SOURCE_SUFFIXES, *EXTENSION_SUFFIXES))


def _searched(name: str, places: Sequence[str]) -> ModuleSpec | None:
    """Return a module that lies in one of these folders, or the namespace that several of them make up."""
    inside: list[str] = []
    for place in places:
        finder: Any = get_importer(place)
        spec: ModuleSpec | None = finder.find_spec(name) if finder is not None else None
        if spec is not None and spec.loader is not None:
            return spec
        inside += spec.submodule_search_locations or () if spec is not None else ()
    space = ModuleSpec(name, None, is_package=True)
    space.submodule_search_locations = inside
    return space if inside else None


def _imported(spec: ModuleSpec, content: bytes) -> Iterator[str]:
    """Yield the names that a file's import statements may mean, each after those that it is in."""
    try:
        with catch_warnings():
            simplefilter("ignore")
            tree = ast.parse(content)
    except (SyntaxError, ValueError):  # said when it is run, and a compiled module has none
        return
    for node in ast.walk(tree):
        for name in _meant(node, spec.parent or ""):
            parts = name.split(".")
            yield from (".".join(parts[:i]) for i in range(1, len(parts) + 1))


def _meant(node: ast.AST, package: str) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom) or (node.level and not package):
        return []
    try:
        base = resolve_name("." * node.level + (node.module or ""), package)
    except ImportError:  # above the top package
        return []
    return [base, *(f"{base}.{alias.name}" for alias in node.names if alias.name != "*")]
