"""Lines of code of the tasks in `docs/lines.md`, by library: `python -m benchmarks.lines`.

It prints the table of the page; `--run keras skorch` runs the code of others, where installed.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import os
import re
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "lines.md"
LIBRARIES = ("easyclf", "Keras", "skorch", "by hand")
_TASK = re.compile(r"^## (.+)$", re.MULTILINE)
_BLOCK = re.compile(
    r"^```(?:python|py)\n(?:# (Keras|skorch|by hand)\n)?(.*?)^```$", re.MULTILINE | re.DOTALL
)
# What the code of a library has at hand.
_IMPORTS = {
    "easyclf": "",
    "by hand": "",
    "Keras": (
        "import keras\n"
        "from keras.layers import Dense\n"
        "from keras.losses import SparseCategoricalCrossentropy\n"
        "layers = [Dense(32, 'relu'), Dense(3)]\n"
    ),
    "skorch": "from skorch import NeuralNetClassifier\n",
}


def shared_code() -> str:
    """The data and the network, which all of them share."""
    block = _BLOCK.search(PAGE.read_text(encoding="utf-8"))
    assert block is not None
    return block[2]


def tasks() -> dict[str, dict[str, str]]:
    """The code of each task by library, in the order of the page."""
    _, *parts = _TASK.split(PAGE.read_text(encoding="utf-8"))
    return {
        name: {block[1] or "easyclf": block[2] for block in _BLOCK.finditer(text)}
        for name, text in zip(parts[::2], parts[1::2], strict=True)
    }


def count(code: str) -> int:
    """The statements that are no imports: lines of code, however they are broken."""
    return sum(
        isinstance(node, ast.stmt) and not isinstance(node, (ast.Import, ast.ImportFrom))
        for node in ast.walk(ast.parse(code))
    )


def table() -> str:
    """The table of the page, in Markdown."""
    rows = [f"| task | {' | '.join(LIBRARIES)} |", "|---|---|---|---|---|"]
    for name, codes in tasks().items():
        counts = [str(count(codes[library])) for library in LIBRARIES]
        rows.append(f"| {name} | {' | '.join(counts)} |")
    return "\n".join(rows)


def run(library: str) -> Iterator[tuple[str, str | None]]:
    """Run the code of a library: each task, and the error that it ended in, if any."""
    for name, codes in tasks().items():
        try:
            exec(shared_code() + _IMPORTS[library] + codes[library], {"__name__": "page"})
            yield name, None
        except Exception:
            yield name, traceback.format_exc(limit=-1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", nargs="+", choices=["easyclf", "keras", "skorch", "hand"])
    arguments = parser.parse_args()
    if not arguments.run:
        print(table())
        return
    os.environ["KERAS_BACKEND"] = "torch"
    os.environ.setdefault("MPLBACKEND", "Agg")
    full_names = {"keras": "Keras", "hand": "by hand"}
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        for word in arguments.run:
            for name, error in run(full_names.get(word, word)):
                print(f"{word}: {name}: {error or 'runs'}")


if __name__ == "__main__":
    main()
