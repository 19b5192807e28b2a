"""How a fit runs."""

from easyclf.engine.fitted import Fitted, FittedAttribute
from easyclf.engine.fitting import Fitting, Settings

__all__ = ["Fitted", "FittedAttribute", "Fitting", "Settings"]
