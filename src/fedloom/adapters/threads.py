"""One thread for a trainer: cores are used by several processes, and sums in libraries keep one order."""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any

from ..core.cores import keep_to_one

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt(3)


@cache
def _controller() -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def one_thread() -> None:
    """Make this process a worker: all keeps to one thread, and freed memory is kept for the next client."""
    _keep_memory()
    keep_to_one()
    _controller().limit(limits=1)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


def forkable() -> bool:
    """Return whether a forked process could compute: one that has used CUDA has children that cannot."""
    return "torch" not in sys.modules or not sys.modules["torch"].cuda.is_initialized()


def gpus() -> int:
    """Return how many CUDA devices this process may use; 0 without torch. It does not start CUDA: forks still work."""
    with suppress(ModuleNotFoundError):
        import torch

        return int(torch.cuda.device_count())
    return 0


def _keep_memory() -> None:
    """Tell glibc not to give large arrays back to the system each time: their pages would be zeroed over and over."""
    with suppress(AttributeError, OSError):
        for option in (_MMAP_THRESHOLD, _TRIM_THRESHOLD):
            ctypes.CDLL(None).mallopt(option, 1 << 30)


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
