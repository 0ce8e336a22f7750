"""One thread for a trainer: cores are used by several processes, and sums in libraries keep one order."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any


@cache
def _controller() -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def one_thread() -> None:
    """Keep this process's numerical libraries to one thread from now on."""
    _controller().limit(limits=1)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@contextmanager
def single_threaded() -> Iterator[None]:
    """Keep them to one thread for a while."""
    torch = sys.modules.get("torch")
    before = torch.get_num_threads() if torch else 1
    with _controller().limit(limits=1):
        if torch:
            torch.set_num_threads(1)
        try:
            yield
        finally:
            if torch:
                torch.set_num_threads(before)
