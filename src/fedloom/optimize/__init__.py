"""How a vector moves: the same classes serve clients and server."""

from .adaptive import Adagrad, Adam, Yogi
from .perblock import PerBlock
from .rate import Constant, Cosine, Exponential, Staircase
from .step import Momentum, Step

__all__ = ["Adagrad", "Adam", "Constant", "Cosine", "Exponential", "Momentum", "PerBlock", "Staircase", "Step", "Yogi"]
