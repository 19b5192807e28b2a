"""How a fit runs."""

from easyclf.engine.fitted import Fitted
from easyclf.engine.fitting import PreviousFit, run

__all__ = ["Fitted", "PreviousFit", "run"]
