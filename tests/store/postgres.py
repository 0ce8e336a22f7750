"""A PostgreSQL server of one's own, reached by a socket in a folder: no port, no password, gone with the test."""

import os
import pwd
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest


def _program(name: str) -> str | None:
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return str(found[-1]) if found else shutil.which(name)


@contextmanager
def server() -> Iterator[str]:
    """Yield the URL of an empty database; skips where there is no PostgreSQL, or no user that may run it."""
    with controlled() as (url, _):
        yield url


@contextmanager
def controlled() -> Iterator[tuple[str, Callable[..., None]]]:
    """Yield that, and what stops the server and starts it again: `control("-m", "fast", "stop")`."""
    if _program("initdb") is None:
        pytest.skip("there is no PostgreSQL on this machine")
    if os.getuid() == 0 and not any(user.pw_name == "postgres" for user in pwd.getpwall()):
        pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
    as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.getuid() == 0 else []
    with TemporaryDirectory(prefix="pg-") as name:
        folder = Path(name)
        if as_user:
            shutil.chown(folder, "postgres", "postgres")
        made = [*as_user, _program("initdb"), "-D", name + "/data", "-A", "trust", "-U", "fedloom", "-N"]
        subprocess.run(made, check=True, capture_output=True, cwd="/")
        options = f"-k {name} -c listen_addresses='' -c fsync=off"
        told = [
            *as_user,
            _program("pg_ctl"),
            "-D",
            name + "/data",
            "-w",
            "-t",
            "60",
            "-o",
            options,
            "-l",
            name + "/log",
        ]

        def control(*words: str, check: bool = True) -> None:
            subprocess.run([*told, *words], check=check, capture_output=True, cwd="/")

        control("start")
        try:
            yield f"postgresql+pg8000://fedloom@/postgres?unix_sock={name}/.s.PGSQL.5432", control
        finally:
            control("-m", "immediate", "stop", check=False)
