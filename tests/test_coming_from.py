"""What the tables for those who come from Keras and skorch say is typed here, runs."""

import copy
import pickle
import re
from pathlib import Path
from types import SimpleNamespace

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import FixedThresholdClassifier, GroupKFold
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import easyclf
from easyclf import Callback, Estimator

DOCS = Path(__file__).parents[1] / "docs"
CODE = re.compile(r"`([^`]+)`")
PAGES = {"Keras": DOCS / "coming-from-keras.md", "skorch": DOCS / "coming-from-skorch.md"}
# Every callback of Keras 3.16 and of skorch 1.4, and all arguments of Keras's `compile` and `fit`
# and of skorch's constructor.
CALLBACKS = {
    "Keras": """Callback CallbackList History ProgbarLogger EarlyStopping ModelCheckpoint
        BackupAndRestore OrbaxCheckpoint CSVLogger TensorBoard LambdaCallback LearningRateScheduler
        ReduceLROnPlateau RemoteMonitor SwapEMAWeights TerminateOnNaN""",
    "skorch": """Callback EpochTimer PassthroughScoring EpochScoring PrintLog BatchScoring
        EarlyStopping Checkpoint TrainEndCheckpoint LoadInitState LRScheduler WarmRestartLR
        GradientNormClipping ParamMapper Freezer Unfreezer Initializer InputShapeSetter ProgressBar
        TensorBoard WandbLogger MlflowLogger NeptuneLogger SacredLogger""",
}
ARGUMENTS = {
    "Keras": """optimizer loss loss_weights metrics weighted_metrics run_eagerly jit_compile
        steps_per_execution auto_scale_loss x y batch_size epochs verbose callbacks
        validation_split validation_data shuffle class_weight sample_weight initial_epoch
        steps_per_epoch validation_steps validation_batch_size validation_freq""",
    "skorch": """criterion optimizer lr max_epochs batch_size iterator_train iterator_valid dataset
        train_split callbacks predict_nonlinearity warm_start verbose device compile use_caching
        torch_load_kwargs classes train_step get_loss forward_iter""",
}


def rows():
    """The rows of all tables: the library, what is typed there, the cell of easyclf, the rest."""
    for library, page in PAGES.items():
        for line in page.read_text(encoding="utf-8").splitlines():
            if line.startswith("| ") and not line.startswith(("| Keras |", "| skorch |", "| what")):
                there, here, rest = (cell.strip() for cell in line.strip("|").split(" |"))
                yield pytest.param(library, there, here, rest, id=f"{library}: {there}"[:60])


# The one that the rows have copies of.
_fitted = []


@pytest.fixture
def namespace(blobs, network, tmp_path, monkeypatch):
    """What the pages say is there, with clients of services that do nothing."""
    mpl.use("Agg")
    monkeypatch.chdir(tmp_path)
    X, y = blobs
    dataset = TensorDataset(torch.from_numpy(X), torch.from_numpy(y))
    client = SimpleNamespace(log=print, log_metrics=print, post=lambda url, json: print(json))
    frame = pd.DataFrame(X, columns=list("abcd")).assign(text=np.array(["a", "b", None])[y])
    settings = {"epochs": 2, "lr": 0.1, "random_state": 0}
    names = {name: getattr(easyclf, name) for name in easyclf.__all__}
    if not _fitted:
        _fitted.append(Estimator(network, **settings).fit(X, y, validation_data=(X, y)))
    clf = copy.deepcopy(_fitted[0])
    clients = dict.fromkeys(["requests", "wandb", "mlflow", "run"], client)
    weights, groups = np.ones(len(y)), np.arange(len(y)) % 2
    data = {"X": X, "y": y, "X_val": X, "y_val": y, "w": weights, "groups": groups, "frame": frame}
    data |= {"dataset": dataset, "loader": DataLoader(dataset, 10), "network": network, "clf": clf}
    modules = {"np": np, "torch": torch, "nn": nn, "pickle": pickle, "GroupKFold": GroupKFold}
    thresholds = {"FixedThresholdClassifier": FixedThresholdClassifier}
    return names | clients | data | modules | thresholds


def train(value, namespace):
    """Fit with a callback, or an estimator that is not fitted."""
    data = namespace["X"], namespace["y"]
    if isinstance(value, Callback):
        value = Estimator(namespace["network"], epochs=2, lr=0.1, callbacks=[value])
    if isinstance(value, Estimator) and not value.__sklearn_is_fitted__():
        clone(value)
        if value.compile is True:
            value.set_params(compile=False)  # the compiler takes half a minute
        value.fit(*data, validation_data=data, epochs=2)
        assert value.n_iter_ > 0


@pytest.mark.parametrize(("library", "there", "here", "rest"), [*rows()])
def test_a_row_has_code_that_runs_or_a_reason(library, there, here, rest, namespace):
    if here == "none":
        assert len(rest.split()) >= 4, "say why"
        return
    assert CODE.sub("", here).replace(",", "").strip() == "", "the cell has code alone"
    for code in CODE.findall(here):
        if "TensorBoard" in code:
            pytest.importorskip("tensorboard")
        train(eval(code, namespace), namespace)


@pytest.mark.parametrize("names", [CALLBACKS, ARGUMENTS], ids=["callbacks", "arguments"])
@pytest.mark.parametrize("library", PAGES)
def test_all_that_there_is_has_a_row(names, library):
    typed = {
        word
        for of, there, *_ in (row.values for row in rows())
        if of == library
        for code in CODE.findall(there)
        for word in re.findall(r"[A-Za-z_]+?(?=__|\b)", code)
    }

    assert set(names[library].split()) - typed == set()


@pytest.mark.parametrize(
    "name", sorted({name for row in CALLBACKS.values() for name in row.split()})
)
def test_a_callback_of_theirs_is_ours_or_is_answered(name):
    if name in easyclf.__all__:
        return
    with pytest.raises(ImportError, match=f"easyclf has no {name}; use "):
        exec(f"from easyclf import {name}")
