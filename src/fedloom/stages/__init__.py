"""What happens to an update on the road: the client's half and the server's half in one object."""

from .adaptive_noise import AdaptiveNoise
from .band_noise import BandNoise
from .clip import Clip
from .fixedpoint import FixedPoint
from .local_noise import LocalGaussianNoise, LocalLaplaceNoise
from .noise import GaussianNoise, LaplaceNoise
from .normbound import NormBound
from .quantize import Quantize
from .rotate import Rotate
from .skellam_noise import SkellamNoise
from .tree_noise import TreeNoise

__all__ = [
    "AdaptiveNoise",
    "BandNoise",
    "Clip",
    "FixedPoint",
    "GaussianNoise",
    "LaplaceNoise",
    "LocalGaussianNoise",
    "LocalLaplaceNoise",
    "NormBound",
    "Quantize",
    "Rotate",
    "SkellamNoise",
    "TreeNoise",
]
