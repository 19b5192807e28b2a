"""Measures the package, for the table of `docs/architecture.md`: `python tests/measure_code.py`.

Lines of files and classes are all their lines; those of functions are without docstrings, comments
and blank lines. The way from `fit` to the step is what is on the stack when the module is called
and when the optimizer steps: files that a reader goes through, with all their lines.
"""

import ast
import functools
import io
import re
import sys
import tokenize
from pathlib import Path

import numpy as np
import torch
from torch import nn

PACKAGE = Path(__file__).parent.parent / "easyclf"


@functools.cache
def trees():
    return {path: ast.parse(path.read_text()) for path in sorted(PACKAGE.rglob("*.py"))}


@functools.cache
def code_lines(path):
    """Numbers of the lines that hold code: no comments, no docstrings, no blank lines."""
    text = path.read_text()
    ignored = {
        tokenize.COMMENT,
        tokenize.NL,
        tokenize.NEWLINE,
        tokenize.INDENT,
        tokenize.DEDENT,
        tokenize.ENDMARKER,
    }
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in ignored:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            lines.difference_update(range(node.lineno, node.end_lineno + 1))
    return lines


def functions():
    """Code lines of every function."""
    for path, tree in trees().items():
        code = code_lines(path)
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                n_lines = len(code.intersection(range(node.lineno, node.end_lineno + 1)))
                yield n_lines, f"{path.relative_to(PACKAGE)}: {node.name}"


def files():
    for path in trees():
        yield len(path.read_text().splitlines()), str(path.relative_to(PACKAGE))


def classes():
    for path, tree in trees().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                n_lines = node.end_lineno - node.lineno + 1
                yield n_lines, f"{path.relative_to(PACKAGE)}: {node.name}"


def annotations():
    """All annotations of parameters, results and variables."""
    for tree in trees().values():
        for node in ast.walk(tree):
            if isinstance(node, ast.arg | ast.AnnAssign) and node.annotation is not None:
                yield node.annotation
            elif isinstance(node, ast.FunctionDef) and node.returns is not None:
                yield node.returns


def bare_any_share():
    """The part of the annotations that say no more than `Any`."""
    found = list(annotations())
    return sum(isinstance(note, ast.Name) and note.id == "Any" for note in found) / len(found)


def _takes_tensors(function):
    arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    notes = [a.annotation for a in arguments if a.annotation is not None]
    notes += [function.returns] if function.returns is not None else []
    return any("Tensor" in ast.unparse(note) for note in notes)


def tensor_functions_without_shapes():
    """Public functions on tensors whose docstring, or that of their class, says no shape."""
    for path, tree in trees().items():
        for owner in ast.walk(tree):
            if not isinstance(owner, ast.Module | ast.ClassDef):
                continue
            if isinstance(owner, ast.ClassDef) and owner.name.startswith("_"):
                continue
            for node in owner.body:
                if not isinstance(node, ast.FunctionDef) or node.name.startswith("_"):
                    continue
                text = ast.get_docstring(node) or ""
                if (
                    text
                    and _takes_tensors(node)
                    and not re.search(r"shape|\((n\b|n_|rows|batch)", text)
                ):
                    yield f"{path.relative_to(PACKAGE)}: {node.name}"


def way_of_an_eager_batch():
    """Files on the stack when the module is called or the optimizer steps, with their lines."""
    from easyclf import Estimator

    seen = set()

    def look():
        frame = sys._getframe()
        while frame is not None:
            path = Path(frame.f_code.co_filename)
            if PACKAGE in path.parents:
                seen.add(path)
            frame = frame.f_back

    class Network(nn.Linear):
        def forward(self, x):
            if torch.is_grad_enabled() and self.training:
                look()
            return super().forward(x)

    class Optimizer(torch.optim.SGD):
        def step(self, closure=None):
            look()
            return super().step(closure)

    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(64, 4)), np.arange(64) % 2
    Estimator(Network(4, 2), optimizer=Optimizer, epochs=2, compile=False).fit(X, y)
    # Probing calls the module too, but no batch goes that way.
    return {
        str(path.relative_to(PACKAGE)): len(path.read_text().splitlines())
        for path in sorted(seen)
        if path.name != "probing.py"
    }


def main():
    way = way_of_an_eager_batch()
    without_shapes = list(tensor_functions_without_shapes())
    rows = [
        ("longest function", *max(functions())),
        ("largest file", *max(files())),
        ("largest class", *max(classes())),
        ("`fit` to the step, files", len(way), ", ".join(way)),
        ("`fit` to the step, lines", sum(way.values()), ""),
        ("annotations that are a bare `Any`", f"{bare_any_share():.1%}", ""),
        (
            "public functions on tensors without shapes",
            len(without_shapes),
            ", ".join(without_shapes),
        ),
    ]
    for name, figure, where in rows:
        print(f"| {name} | {figure} | {where} |")


if __name__ == "__main__":
    main()
