"""Folders and files that a command is told to write: made, or refused in one sentence."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..core.errors import ConfigError


def made(folder: Path, then: str, mode: int = 0o777) -> Path:
    """Return a folder, and make it where it is not there; raises `ConfigError`, which ends with what to do `then`."""
    try:
        folder.mkdir(mode, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot make the folder {folder}: {error.strerror}; {then}.") from error
    return folder


@contextmanager
def filled(folder: Path, then: str) -> Iterator[Path]:
    """Make a folder for what the block writes; if it fails, a folder that is new and still empty is taken away."""
    new = not folder.exists()
    made(folder, then)
    try:
        yield folder
    except BaseException:
        with suppress(OSError):  # it is not empty
            if new:
                folder.rmdir()
        raise


def writable(output: Path, *inputs: Path | None, option: str = "--output") -> None:
    """Refuse a file that lies in no folder, is one, or is read; raises `ConfigError`, before anything is computed."""
    if not output.parent.is_dir():
        raise ConfigError(f"there is no folder {output.parent} for {output.name}; choose another {option}.")
    if output.is_dir():
        raise ConfigError(f"{output} is a folder; name a file in it with {option}.")
    for given in inputs:
        if given is not None and given.resolve() == output.resolve():
            raise ConfigError(f"{option} {output} is the file that is read, and would be lost; name another one.")
