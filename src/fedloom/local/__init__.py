"""What a client does with a model and its data."""

from .attacks import ALittle, Backdoor, LabelFlip, Noise, Scaling, SignFlip
from .custom import Custom
from .dpsgd import DpSgd
from .home import AtHome
from .prox import Prox
from .scaffold import Scaffold
from .sgd import Sgd

__all__ = [
    "ALittle",
    "AtHome",
    "Backdoor",
    "Custom",
    "DpSgd",
    "LabelFlip",
    "Noise",
    "Prox",
    "Scaffold",
    "Scaling",
    "Sgd",
    "SignFlip",
]
