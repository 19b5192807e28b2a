"""Prints pip constraints, the oldest versions that pyproject.toml allows: `python .ci/oldest.py`.

`torch>=2.6` becomes `torch==2.6.*`: the oldest series, with its last corrections. `numpy>=2` means
`numpy==2.0.*`, and a bound that names a correction, as `>=0.4.5`, exactly that one.
"""

import re
import tomllib
from pathlib import Path

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"
# What the tests run with; docs, benchmarks and linters are made with the newest alone.
EXTRAS = ("plot", "frames", "test")
# What the oldest versions need of their own time: newer ones warn of how matplotlib 3.8 calls
# pyparsing, and scikit-learn 1.6 SciPy. Each can go when that lower bound rises.
COMPANIONS = ("pyparsing<3.3", "scipy<1.16")


def oldest(requirement: str) -> str | None:
    """The constraint of one requirement; None for an extra of easyclf itself."""
    bound = re.fullmatch(r"([\w-]+)>=(\d+(?:\.\d+)*)", requirement)
    if bound is None:
        if requirement.startswith("easyclf["):
            return None
        raise ValueError(f"{requirement!r} says no oldest version; expected `name>=1.2`")
    name, version = bound.groups()
    numbers = version.split(".")
    if len(numbers) > 2:
        return f"{name}=={version}"
    return f"{name}=={'.'.join([*numbers, '0'][:2])}.*"


def main() -> None:
    """Print a line for each dependency, and for each requirement of the tests."""
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    requirements = [*project["dependencies"], *(name for extra in EXTRAS for name in extras[extra])]
    for constraint in [*filter(None, map(oldest, requirements)), *COMPANIONS]:
        print(constraint)


if __name__ == "__main__":
    main()
