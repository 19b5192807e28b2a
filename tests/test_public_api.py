"""What users may import, and what its documentation says."""

import inspect
import re

import pytest

import easyclf
from easyclf import Estimator

PUBLIC = [getattr(easyclf, name) for name in easyclf.__all__]
FUNCTIONS = [
    member
    for cls in PUBLIC
    for name, member in vars(cls).items()
    if inspect.isfunction(member) and not name.startswith("_") and name != "forward"
]


def test_names_are_those_of_the_contract():
    assert set(easyclf.__all__) == {
        "AccuracyLogger",
        "Callback",
        "EarlyStopping",
        "Estimator",
        "LRScheduler",
        "LambdaCallback",
        "MultiInput",
        "MLP",
        "ProgressBar",
        "ReduceLROnPlateau",
        "SliceDataset",
        "StopAt",
        "TimeLimit",
        "TrainingDiverged",
        "EMA",
        "CSVLogger",
        "JSONLogger",
        "TensorBoard",
        "TrainingDisplay",
        "LivePlot",
        "SWA",
        "InvalidFile",
        "Checkpoint",
        "GradientNorm",
        "Unfreeze",
    }


def test_parameters_are_those_of_the_contract():
    shown = inspect.signature(Estimator).parameters

    assert list(shown) == [
        "module",
        "loss",
        "optimizer",
        "lr",
        "epochs",
        "batch_size",
        "shuffle",
        "validation_split",
        "callbacks",
        "metrics",
        "class_weight",
        "classes",
        "preprocess",
        "augment",
        "cache",
        "freeze",
        "device",
        "precision",
        "output",
        "compile",
        "clip_grad_norm",
        "accumulate",
        "random_state",
        "deterministic",
        "warm_start",
        "verbose",
    ]
    assert [name for name, p in shown.items() if p.kind is p.POSITIONAL_OR_KEYWORD] == ["module"]


def test_fit_takes_the_names_of_keras_and_of_scikit_learn():
    assert list(inspect.signature(Estimator.fit).parameters) == [
        "self",
        "X",
        "y",
        "sample_weight",
        "validation_data",
        "X_val",
        "y_val",
        "sample_weight_val",
        "groups",
        "steps_per_epoch",
        "overrides",
    ]


@pytest.mark.parametrize(
    "cls", [c for c in PUBLIC if "__init__" in vars(c)], ids=lambda c: c.__name__
)
def test_every_parameter_is_documented_with_its_default(cls):
    text = inspect.getdoc(cls)

    for name, parameter in inspect.signature(cls).parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            continue
        line = re.search(rf"^(?:\w+, )*{name}(?:, \w+)* : (.*)$", text, flags=re.MULTILINE)
        assert line, f"{cls.__name__}.{name} is not documented"
        if parameter.default is not parameter.empty:
            default = f'"{parameter.default}"' if isinstance(parameter.default, str) else None
            told = line[1].partition("default=")[2]
            assert told == default or eval(told) == parameter.default


def test_every_public_method_documents_its_parameters():
    for function in FUNCTIONS:
        text = inspect.getdoc(function) or inspect.getdoc(
            getattr(easyclf.Callback, function.__name__, None)
        )

        assert text, function.__qualname__
        if issubclass(getattr(easyclf, function.__qualname__.split(".")[0]), easyclf.Callback):
            continue  # a hook takes the state, as its base class says
        for name in list(inspect.signature(function).parameters)[1:]:
            told = re.search(rf"^(\w+, )*(\*\*)?{name}(, \w+)*( : |$)", text, flags=re.MULTILINE)
            assert told, f"{function.__qualname__}: {name}"
