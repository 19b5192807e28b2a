"""How a fit runs."""

from easyclf.engine.fitted import Fitted, FittedAttribute
from easyclf.engine.fitting import Fitting, Settings
from easyclf.engine.given import as_given
from easyclf.engine.unseen import Unseen

__all__ = ["Fitted", "FittedAttribute", "Fitting", "Settings", "Unseen", "as_given"]
