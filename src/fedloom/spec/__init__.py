"""Apps without code: what a TOML file may say, and the typed objects that it means, one to one."""

from .file import build, load, traces
from .override import parsed, put

__all__ = ["build", "load", "parsed", "put", "traces"]
