"""A hold on a run in a database that several machines reach; a run in a folder is held by that."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from sqlalchemy import func, select
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DBAPIError

from ..core.errors import RunError
from .gone import unusable

_ALIVE = {"idle": 30, "interval": 10, "count": 3}  # the server looks whether a silent machine is still there


@contextmanager
def held(engine: Engine, run: str) -> Iterator[None]:
    """Hold a run, so that no coordinator on another machine serves it at the same time.

    The hold goes with its connection, also when the database is started anew. Raises `RunError` if somebody has it.
    """
    if engine.dialect.name != "postgresql":
        yield
        return
    connection = _taken(engine, run)
    try:
        yield
    finally:
        with suppress(Exception):  # it is given back with the connection, which may be gone
            connection.invalidate()
            connection.close()


def _taken(engine: Engine, run: str) -> Connection:
    try:
        connection = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        for name, value in _ALIVE.items():
            connection.exec_driver_sql(f"SET tcp_keepalives_{name} = {value}")
        free = connection.execute(select(func.pg_try_advisory_lock(func.hashtextextended(run, 0)))).scalar()
    except (DBAPIError, OSError) as error:
        raise unusable(engine, error) from error
    if not free:
        connection.close()
        raise RunError(
            f"the run {run} in this database is served by another coordinator: stop that one. The database lets go of "
            "one whose machine has died within a minute."
        )
    return connection
