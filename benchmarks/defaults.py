"""Accuracy and time of `Estimator()` and `MLPClassifier()` as they come, on seven data sets.

Run it as `python -m benchmarks.defaults`. Both stand behind a StandardScaler in 5-fold cross
validation, and take turns fold by fold. `--set epochs=50 module__hidden='(64, 64)'` tries other
parameters of the Estimator.
"""

from __future__ import annotations

import argparse
import ast
import time
import warnings
from typing import Any

import numpy as np
import torch
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import StratifiedKFold
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from benchmarks.datasets import TABLES
from easyclf import Estimator


def compare(X: Any, y: Any, models: dict[str, Any]) -> dict[str, tuple[float, float]]:
    """Mean accuracy and total seconds of each model, which take turns in every fold."""
    scores: dict[str, list[float]] = {name: [] for name in models}
    seconds = dict.fromkeys(models, 0.0)
    for number, (train, test) in enumerate(StratifiedKFold(5).split(X, y)):
        names = list(models) if number % 2 else list(models)[::-1]
        for name in names:
            model = make_pipeline(StandardScaler(), clone(models[name]))
            began = time.perf_counter()
            model.fit(X[train], y[train])
            scores[name].append(model.score(X[test], y[test]))
            seconds[name] += time.perf_counter() - began
    return {name: (float(np.mean(scores[name])), seconds[name]) for name in models}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", nargs="*", default=list(TABLES), choices=list(TABLES))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE")
    parser.add_argument("--alone", action="store_true", help="leave MLPClassifier out")
    arguments = parser.parse_args()
    parameters = {}
    for assignment in arguments.set:
        name, _, value = assignment.partition("=")
        try:
            parameters[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            parameters[name] = value
    models: dict[str, Any] = {"easyclf": Estimator(random_state=0, **parameters)}
    if not arguments.alone:
        models["MLPClassifier"] = MLPClassifier(random_state=0)
    torch.set_num_threads(arguments.threads)
    warnings.simplefilter("ignore", ConvergenceWarning)
    results = {}
    print(f"{'':15}" + "".join(f"{name:>24}" for name in models))
    with threadpool_limits(arguments.threads):
        for table in arguments.tables:
            results[table] = compare(*TABLES[table](), models)
            cells = "".join(f"{a:14.4f} {s:7.1f} s" for a, s in results[table].values())
            print(f"{table:15}{cells}", flush=True)
    mean = [
        (
            np.mean([row[name][0] for row in results.values()]),
            sum(row[name][1] for row in results.values()),
        )
        for name in models
    ]
    print(f"{'mean, total':15}" + "".join(f"{a:14.4f} {s:7.1f} s" for a, s in mean))


if __name__ == "__main__":
    main()
