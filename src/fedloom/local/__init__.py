"""What a client does with a model and its data."""

from .custom import Custom
from .dpsgd import DpSgd
from .home import AtHome
from .prox import Prox
from .scaffold import Scaffold
from .sgd import Sgd

__all__ = ["AtHome", "Custom", "DpSgd", "Prox", "Scaffold", "Sgd"]
