"""Folders and files that a command is told to write: made, or refused in one sentence."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import ConfigError


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


def apart(output: Path, *inputs: Path | None) -> None:
    """Refuse to write over a file that is read; raises `ConfigError`."""
    for given in inputs:
        if given is not None and given.resolve() == output.resolve():
            raise ConfigError(f"--output {output} is the file that is read, and would be lost; name another one.")
