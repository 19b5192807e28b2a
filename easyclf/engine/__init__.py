"""How a fit runs."""

from easyclf.engine.fitted import Fitted, FittedAttribute
from easyclf.engine.fitting import Fitting, Settings
from easyclf.engine.given import Given
from easyclf.engine.storing import Wanted, describe_fitted, make_fitted
from easyclf.engine.unseen import Unseen

__all__ = [
    "Fitted",
    "FittedAttribute",
    "Fitting",
    "Given",
    "Settings",
    "Unseen",
    "Wanted",
    "describe_fitted",
    "make_fitted",
]
