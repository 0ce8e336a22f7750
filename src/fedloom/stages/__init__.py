"""What happens to an update on the road: the client's half and the server's half in one object."""

from .clip import Clip
from .quantize import Quantize

__all__ = ["Clip", "Quantize"]
