"""A step without Python: what is done with every batch, recorded once and played from then on.

All that recording needs of torch's private names is tried behind this door
(`torch_internals.py`). Where torch has renamed one of them, or has given it another meaning, there
are no tapes: everything is slower then, and nothing else.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from easyclf.tape.graph import Graphs

__all__ = ["Graphs", "Tapes"]

if TYPE_CHECKING:
    from easyclf.tape.tapes import Tapes
else:
    try:
        from easyclf.tape.tapes import Tapes
    except Exception as missing:  # what is private may do anything when it is tried
        from easyclf.tape.absent import NoTapes as Tapes

        logging.getLogger("easyclf").debug("There are no tapes with this torch: %s.", missing)
