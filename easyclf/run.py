"""The old name of the engine: pickles made by easyclf before 0.2 ask for it."""

from __future__ import annotations

import pickle


def __getattr__(name: str) -> object:
    if name == "Learned":
        raise pickle.UnpicklingError(
            "This estimator was pickled by easyclf before 0.2 and cannot be read by this version; "
            "fit it anew, or unpickle it with the version that made it."
        )
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
