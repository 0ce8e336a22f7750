"""Where the files of data sets lie."""

import os
from pathlib import Path

from ..core.errors import DataError
from .schema import hint

FOLDER = "$FEDLOOM_DATA"  # a path that begins with it lies in `data_folder()`


def data_folder() -> Path:
    """Return the folder of data sets: the environment's FEDLOOM_DATA, or the nearest `shared/data` above.

    Raises `DataError` if there is none.
    """
    named = os.environ.get("FEDLOOM_DATA")
    here = Path.cwd()
    folders = [Path(named)] if named else [folder / "shared" / "data" for folder in (here, *here.parents)]
    found = next((folder for folder in folders if folder.is_dir()), None)
    if found is None:
        tried = f"FEDLOOM_DATA names {named!r}, which is none" if named else f"no shared/data lies at or above {here}"
        raise DataError(
            f"the folder of public data sets is not found: {tried}. Their files are no part of fedloom: set the "
            f"environment variable FEDLOOM_DATA to the folder that holds them."
        )
    return found


def locate(path: str | Path | None) -> Path:
    """Return where a source's path leads; "$FEDLOOM_DATA/…" is within `data_folder()`."""
    if path is None:
        raise DataError("this source has no file of its own; give the path of yours.")
    parts = Path(path).parts
    return data_folder().joinpath(*parts[1:]) if parts[:1] == (FOLDER,) else Path(path)


def absent(path: Path) -> DataError:
    """Return the complaint about a file that is not there, with the nearest name in its folder."""
    near = hint(path.name, sorted(p.name for p in path.parent.glob("*"))) if path.parent.is_dir() else ""
    return DataError(f"{path}: there is no such file; {near or 'its folder is missing too.'}")
