"""The same training by easyclf, by hand, and by other libraries.

A rival is a function of a training and its data that trains from NumPy arrays and returns a
function that answers: labels for rows. Whoever is not installed, or cannot do a training, says so
with `Unable`.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.workloads import Data, Training

Answer = Callable[[NDArray[Any]], NDArray[Any]]
Rival = Callable[[Training, Data, str], Answer]


class Unable(Exception):
    """Why a rival does not take part."""


def _optimizer(training: Training, module: nn.Module, **keywords: Any) -> torch.optim.Optimizer:
    kinds: dict[str, Any] = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}
    return kinds[training.optimizer](module.parameters(), lr=training.lr, **keywords)


def _answer(module: nn.Module, device: str) -> Answer:
    def answer(X: NDArray[Any]) -> NDArray[Any]:
        with torch.inference_mode():
            return module.eval()(torch.from_numpy(X).to(device)).argmax(1).cpu().numpy()

    return answer


def easyclf(training: Training, data: Data, device: str) -> Answer:
    from easyclf import Estimator

    clf = Estimator(
        training.seeded_network(),
        optimizer=training.optimizer,
        lr=training.lr,
        epochs=training.epochs,
        batch_size=training.batch_size,
        device=device,
        random_state=0,
        verbose=0,
    )
    valid = None if data.X_val is None else (data.X_val, data.y_val)
    return clf.fit(data.X, data.y, validation_data=valid).predict


def expert(training: Training, data: Data, device: str) -> Answer:
    """Tensors in memory, fused optimizer, and one read of the figures an epoch."""
    module = training.seeded_network().to(device)
    optimizer = _optimizer(training, module, fused=True)
    X, y = torch.from_numpy(data.X).to(device), torch.from_numpy(data.y).to(device)
    valid = None
    if data.X_val is not None and data.y_val is not None:
        valid = torch.from_numpy(data.X_val).to(device), torch.from_numpy(data.y_val).to(device)
    size = training.batch_size
    for _ in range(training.epochs):
        module.train()
        figures = torch.zeros(4, device=device)
        order = torch.randperm(len(X)).to(device)
        for start in range(0, len(X), size):
            rows = order[start : start + size]
            x, target = (X[rows], y[rows]) if size < len(X) else (X, y)
            outputs = module(x)
            loss = F.cross_entropy(outputs, target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            figures[0] += loss.detach() * len(x)
            figures[1] += (outputs.detach().argmax(1) == target).sum()
        if valid is not None:
            module.eval()
            with torch.inference_mode():
                outputs = module(valid[0])
                figures[2] += F.cross_entropy(outputs, valid[1])
                figures[3] += (outputs.argmax(1) == valid[1]).sum()
        figures.tolist()
    return _answer(module, device)


def tutorial(training: Training, data: Data, device: str) -> Answer:
    """A DataLoader over a TensorDataset, and `.item()` in every batch."""
    module = training.seeded_network().to(device)
    optimizer = _optimizer(training, module)
    train, valid = _loaders(training, data)
    for _ in range(training.epochs):
        for loader in (train, valid):
            if loader is None:
                continue
            is_training = loader is train
            module.train(is_training)
            total = hits = 0.0
            with torch.set_grad_enabled(is_training):
                for x, target in loader:
                    x, target = x.to(device), target.to(device)
                    outputs = module(x)
                    loss = F.cross_entropy(outputs, target)
                    if is_training:
                        optimizer.zero_grad()
                        loss.backward()
                        optimizer.step()
                    total += loss.item() * len(x)
                    hits += (outputs.argmax(1) == target).sum().item()
    return _answer(module, device)


def _loaders(training: Training, data: Data) -> tuple[Any, Any]:
    train = TensorDataset(torch.from_numpy(data.X), torch.from_numpy(data.y))
    valid = None
    if data.X_val is not None and data.y_val is not None:
        rows = TensorDataset(torch.from_numpy(data.X_val), torch.from_numpy(data.y_val))
        valid = DataLoader(rows, training.batch_size)
    return DataLoader(train, training.batch_size, shuffle=True), valid


def skorch(training: Training, data: Data, device: str) -> Answer:
    try:
        from skorch import NeuralNetClassifier
        from skorch.dataset import Dataset
        from skorch.helper import predefined_split
    except ImportError as error:
        raise Unable("not installed") from error
    kinds: dict[str, Any] = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}
    valid = None if data.X_val is None else predefined_split(Dataset(data.X_val, data.y_val))
    net = NeuralNetClassifier(
        training.seeded_network(),
        criterion=nn.CrossEntropyLoss,
        optimizer=kinds[training.optimizer],
        lr=training.lr,
        max_epochs=training.epochs,
        batch_size=training.batch_size,
        iterator_train__shuffle=True,
        train_split=valid,
        device=device,
        verbose=0,
    )
    return net.fit(data.X, data.y).predict


def keras(training: Training, data: Data, device: str) -> Answer:
    if training.layers is None:
        raise Unable("no such network")
    os.environ["KERAS_BACKEND"] = "torch"
    try:
        import keras as library
    except ImportError as error:
        raise Unable("not installed") from error
    kinds = {"adam": library.optimizers.Adam, "sgd": library.optimizers.SGD}
    library.utils.set_random_seed(0)
    with library.device(device.replace("cuda", "gpu")):
        shape, dtype = data.X.shape[1:], str(data.X.dtype)
        layers = [library.Input(shape, dtype=dtype), *training.layers(library)]
        model = library.Sequential(layers)
        model.compile(
            optimizer=kinds[training.optimizer](training.lr),
            loss=library.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
        model.fit(
            data.X,
            data.y,
            epochs=training.epochs,
            batch_size=training.batch_size,
            validation_data=None if data.X_val is None else (data.X_val, data.y_val),
            verbose=0,
        )
    return lambda X: model.predict(X, batch_size=8192, verbose=0).argmax(1)


def lightning(training: Training, data: Data, device: str) -> Answer:
    try:
        import lightning as library
    except ImportError as error:
        raise Unable("not installed") from error
    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)

    class Module(library.LightningModule):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.network = training.seeded_network()

        def training_step(self, batch: Any, number: int) -> Any:
            return self._measure(batch, "")

        def validation_step(self, batch: Any, number: int) -> Any:
            return self._measure(batch, "val_")

        def _measure(self, batch: Any, prefix: str) -> Any:
            outputs = self.network(batch[0])
            loss = F.cross_entropy(outputs, batch[1])
            hits = (outputs.argmax(1) == batch[1]).float().mean()
            figures = {f"{prefix}loss": loss.detach(), f"{prefix}accuracy": hits}
            self.log_dict(figures, on_step=False, on_epoch=True)
            return loss

        def configure_optimizers(self) -> Any:
            return _optimizer(training, self)

    module = Module()
    trainer = library.Trainer(
        max_epochs=training.epochs,
        accelerator="gpu" if device.startswith("cuda") else device,
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(module, *_loaders(training, data))
    return _answer(module.network.to(device), device)


def mlp_classifier(training: Training, data: Data, device: str) -> Answer:
    """It measures no validation rows, so it does less where there are some."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    if training.hidden is None or device != "cpu":
        raise Unable("no such network, or no such device")
    clf = MLPClassifier(
        training.hidden,
        solver=training.optimizer,
        alpha=0.0,
        learning_rate_init=training.lr,
        batch_size=training.batch_size,
        max_iter=training.epochs,
        n_iter_no_change=training.epochs,
        random_state=0,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return clf.fit(data.X, data.y).predict  # type: ignore[no-any-return]


RIVALS: dict[str, Rival] = {
    "easyclf": easyclf,
    "expert loop": expert,
    "tutorial loop": tutorial,
    "skorch": skorch,
    "Keras": keras,
    "Lightning": lightning,
    "MLPClassifier": mlp_classifier,
}


def accuracy(answer: Answer, data: Data) -> float:
    """Share of right answers for the validation rows, or for the training rows."""
    X, y = (data.X, data.y) if data.X_val is None else (data.X_val, data.y_val)
    return float(np.mean(answer(X) == y))
