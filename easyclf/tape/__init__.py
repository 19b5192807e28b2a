"""A step without Python: what is done with every batch, recorded once and played from then on."""

from easyclf.tape.tapes import Tapes

__all__ = ["Tapes"]
