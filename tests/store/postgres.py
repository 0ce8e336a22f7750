"""A PostgreSQL server of one's own, reached by a socket in a folder: no port, no password, gone with the test."""

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
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
        control = [*as_user, _program("pg_ctl"), "-D", name + "/data", "-w", "-t", "60"]
        start = [*control, "-o", options, "-l", name + "/log", "start"]
        subprocess.run(start, check=True, capture_output=True, cwd="/")
        try:
            yield f"postgresql+pg8000://fedloom@/postgres?unix_sock={name}/.s.PGSQL.5432"
        finally:
            subprocess.run([*control, "-m", "immediate", "stop"], check=False, capture_output=True, cwd="/")
