"""Files whose pages are used again: the last large one that was dropped is written over by the next.

Writing into pages that are there takes half as long as into new ones. A file that somebody still reads is not written
over: what was read from it stays as it is.
"""

import os
from contextlib import suppress
from dataclasses import dataclass, field
from mmap import ACCESS_READ, mmap
from pathlib import Path
from threading import Lock
from weakref import WeakSet

LARGE = 1 << 16  # bytes; a smaller file is not worth keeping
SPARE = "spare"


@dataclass(eq=False)
class Files:
    """The files of a folder; several threads may use them.

    Args:
        folder: where they lie, and the spare one among them.
    """

    folder: Path
    _reading: "dict[str, WeakSet[mmap]]" = field(default_factory=dict)  # name -> through what somebody reads it
    _lock: Lock = field(default_factory=Lock)
    _spared: bool = False
    _spare: str = field(init=False)

    def __post_init__(self) -> None:
        self._spare = str(self.folder / SPARE)

    def make(self, path: Path, size: int, keep: int) -> None:
        """Make a file of `size` bytes: `keep` that may hold anything, as those of the spare file, and zeros behind."""
        with self._lock, suppress(FileNotFoundError):
            if size > LARGE:
                os.truncate(self._spare, keep)
                os.truncate(self._spare, size)
                os.replace(self._spare, path)
                return
        with open(path, "wb", buffering=0) as file:
            file.truncate(size)

    def read(self, path: Path) -> memoryview:
        """Return what a file holds, as it stays whatever becomes of the file."""
        with self._lock, open(path, "rb", buffering=0) as file:
            content = mmap(file.fileno(), 0, access=ACCESS_READ)
            self._reading.setdefault(path.name, WeakSet()).add(content)
        return memoryview(content)

    def drop(self, path: Path) -> None:
        """Forget a file, if it is there."""
        with self._lock, suppress(FileNotFoundError):
            if self._reading.pop(path.name, None) or os.stat(path).st_size <= LARGE:
                os.unlink(path)
            else:
                os.replace(path, self._spare)
                self._spared = True

    def close(self) -> None:
        """Remove the spare file, if it was put there by this."""
        if self._spared:
            Path(self._spare).unlink(missing_ok=True)
