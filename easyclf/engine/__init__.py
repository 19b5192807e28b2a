"""How a fit runs."""

from easyclf.engine.fitted import Fitted, FittedAttribute
from easyclf.engine.fitting import Fitting, Settings
from easyclf.engine.storing import Wanted, describe_fitted, make_fitted

__all__ = [
    "Fitted",
    "FittedAttribute",
    "Fitting",
    "Settings",
    "Wanted",
    "describe_fitted",
    "make_fitted",
]
