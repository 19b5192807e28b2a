"""Fits without private names of torch and scikit-learn: `without_private_names.py NAME=HOME ...`.

A home is "tape", "data", of which workers are needed, or "others".

Torch and scikit-learn stay as they are, since they need these names themselves. What is changed is
what easyclf sees of them: its files are imported anew, rewritten so that a name is not there, or so
that what it names raises. Then everyday fits have to give what they give with all names.
"""

import ast
import functools
import gc
import importlib.util
import logging
import multiprocessing
import sys
import traceback
import warnings
from importlib.abc import Loader, MetaPathFinder
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils.data import DataLoader, TensorDataset

from private_names import PACKAGE, dotted, is_on_self

HOOKS = (
    "register_forward_hook",
    "register_forward_pre_hook",
    "register_full_backward_hook",
    "register_full_backward_pre_hook",
    "register_hook",
    "register_post_accumulate_grad_hook",
    "register_step_pre_hook",
    "register_step_post_hook",
)
HOOKS_OF_ALL = (
    register_module_forward_hook,
    register_module_forward_pre_hook,
    register_optimizer_step_post_hook,
)
ERRORS = (AttributeError, RuntimeError, TypeError)
# The results of everyday fits while the door of the tapes is shut, once they are known.
CLOSED = []


class Without(ast.NodeTransformer):
    """Rewrites code so that a private name seems to be another one, which nobody knows."""

    def __init__(self, name):
        self.name, self.gone = name, f"{name}_is_gone"
        self.is_changed = False

    def rename(self, name):
        self.is_changed |= name == self.name
        return self.gone if name == self.name else name

    def visit_Attribute(self, node):
        self.generic_visit(node)
        if not is_on_self(node):
            node.attr = self.rename(node.attr)
        return node

    def visit_ImportFrom(self, node):
        if node.module is not None:
            node.module = ".".join(map(self.rename, node.module.split(".")))
        for alias in node.names:
            alias.asname = alias.asname or alias.name
            alias.name = self.rename(alias.name)
        return node

    def visit_Constant(self, node):
        if isinstance(node.value, str) and self.name in dotted(node.value):
            return ast.Constant(".".join(map(self.rename, node.value.split("."))))
        return node


class Raising(Without):
    """Rewrites code so that what a private name means raises when it is called or read."""

    def __init__(self, name, error):
        super().__init__(name)
        self.error = error.__name__

    def visit_Attribute(self, node):
        self.generic_visit(node)
        if node.attr != self.name or is_on_self(node) or not isinstance(node.ctx, ast.Load):
            return node
        return self.stand_in([node.value, ast.Constant(self.name)])

    def visit_Call(self, node):
        self.generic_visit(node)
        is_getattr = isinstance(node.func, ast.Name) and node.func.id == "getattr"
        if is_getattr and getattr(node.args[1], "value", None) == self.name:
            return self.stand_in(node.args)
        return node

    def visit_ImportFrom(self, node):
        for alias in node.names:
            if alias.name == self.name:
                bound = ast.Name(alias.asname or alias.name, ast.Store())
                read = ast.Name(bound.id, ast.Load())
                return [node, ast.Assign([bound], self.stand_in([read]))]
        return node

    def visit_Constant(self, node):
        return node

    def stand_in(self, arguments):
        self.is_changed = True
        names = [ast.Name(name, ast.Load()) for name in ("_stand_in", self.error)]
        return ast.Call(names[0], [names[1], *arguments], [])


def stand_in(error, owner, *name):
    """What raises when it is called; where it is no function, raise at once."""
    value = getattr(owner, *name) if name else owner

    def call(*args, **keywords):
        raise error("the private name means something else now")

    if callable(value):
        return call
    if not name:
        return value
    # What `getattr` has a default for.
    return name[1] if error is AttributeError and len(name) == 2 else call()


class Rewritten(MetaPathFinder, Loader):
    """Imports easyclf with its code rewritten."""

    def __init__(self, rewriting):
        self.rewriting = rewriting

    def find_spec(self, fullname, path=None, target=None):
        if fullname.split(".")[0] != "easyclf":
            return None
        inside = PACKAGE.joinpath(*fullname.split(".")[1:])
        is_folder = inside.is_dir()
        file = inside / "__init__.py" if is_folder else inside.with_suffix(".py")
        if not file.exists():
            return None
        folders = [str(inside)] if is_folder else None
        return importlib.util.spec_from_file_location(
            fullname, file, loader=self, submodule_search_locations=folders
        )

    def exec_module(self, module):
        module._stand_in = stand_in
        exec(self.code(Path(module.__file__)), vars(module))

    def code(self, path):
        text = path.read_text()
        if self.rewriting is not None and self.rewriting.name in text:
            tree = ast.fix_missing_locations(self.rewriting.visit(ast.parse(text)))
            return compile(tree, path, "exec")
        return compiled(path)


@functools.cache
def compiled(path):
    return compile(path.read_text(), path, "exec")


def everyday(*, needs_data, needs_workers):
    """Fits and predictions of all sorts, as arrays by name; on request from all sorts of data."""
    from easyclf import EarlyStopping, Estimator

    rng = np.random.default_rng(0)
    y = np.arange(60) % 2
    X = (rng.normal(size=(60, 4)) + y[:, None]).astype(np.float32)
    weight = (np.arange(60) % 3).astype(float)
    frame = pd.DataFrame({"a": X[:, 0], "b": np.array(["u", "v"])[y]})
    data = TensorDataset(torch.from_numpy(X), torch.from_numpy(y))
    found = {}

    def fit(name, module, X, y=None, *, sample_weight=None, **parameters):
        settings = {"epochs": 3, "batch_size": 10, "lr": 0.01, "random_state": 0, **parameters}
        clf = Estimator(module, **settings).fit(X, y, sample_weight)
        found[name] = [*(w.detach().numpy() for w in clf.module_.state_dict().values())]
        found[name] += [clf.predict_proba(X), clf.history_["loss"]]
        return clf

    early = EarlyStopping("val_loss", patience=1)
    fit("default", None, X, y, epochs=8, validation_split=0.2, callbacks=[early])
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 2)
    )
    clf = fit("dropout", network, X, y, clip_grad_norm=1.0)
    clf.set_params(lr=0.1, optimizer="sgd", optimizer__momentum=0.9)
    found["continued"] = [clf.partial_fit(X, y).predict_proba(X)]
    if not needs_data:
        for hook in HOOKS:
            called = []
            make, optimizer = hooked(hook, lambda *_, called=called: called.append(0))
            fit(hook, make, X, y, optimizer=optimizer)
            found[f"calls of {hook}"] = [len(called)]
        for register in HOOKS_OF_ALL:
            called = []
            handle = register(lambda *_, called=called: called.append(0))
            fit(register.__name__, nn.Linear(4, 2), X, y)
            handle.remove()
            found[f"calls of {register.__name__}"] = [len(called)]
        fit("taped", Compressed(), X, y)
        fit("taped, with buffers", network, X, y, optimizer="sgd")
        return found
    torch.manual_seed(0)
    fit("weights", None, frame, y, sample_weight=weight)
    if needs_workers:
        options = {"loader__num_workers": 1, "batch_size": 30, "epochs": 2, "classes": [0, 1]}
        fit("workers", network, data, **options)
        kept = DataLoader(data, 30, num_workers=1, persistent_workers=True)
        fit("kept workers", network, kept, epochs=2, batch_size="auto", classes=[0, 1])
    inputs = {"a": X[:, :2], "b": X[:, 2:]}
    fit("several inputs", Joined(), inputs, y, validation_split=0.2)
    return found


def hooked(hook, call):
    """A factory of modules and one of optimizers, with a hook that a tape never calls."""

    def make():
        module = nn.Linear(4, 2)
        if hook in ("register_hook", "register_post_accumulate_grad_hook"):
            getattr(module.weight, hook)(call)
        elif not hook.startswith("register_step"):
            getattr(module, hook)(call)
        return nn.Sequential(nn.Linear(4, 4), module)

    def optimizer(parameters):
        made = torch.optim.Adam(parameters, fused=True)
        if hook.startswith("register_step"):
            getattr(made, hook)(call)
        return made

    return make, optimizer


class Joined(nn.Module):
    """A linear layer over two inputs side by side."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, a, b):
        return self.layer(torch.cat([a, b], 1))


class Scale(NamedTuple):
    """Numbers of a module, in a class that Python writes."""

    factor: float
    shift: float


class Compressed(nn.Module):
    """A layer behind a scale."""

    def __init__(self):
        super().__init__()
        self.layer, self.scale = nn.Linear(4, 2), Scale(2.0, 1.0)

    def forward(self, x):
        factor, shift = Scale(*self.scale)
        return self.layer(x * factor + shift)


def results(rewriting, *, needs_data, needs_workers):
    """What everyday fits give, with the package rewritten; complains of processes left behind."""
    for module in [module for module in sys.modules if module.split(".")[0] == "easyclf"]:
        del sys.modules[module]
    finder, found = Rewritten(rewriting), None
    sys.meta_path.insert(0, finder)
    try:
        torch.manual_seed(0)
        importlib.import_module("easyclf")
        assert rewriting is None or rewriting.is_changed, "the name is nowhere"
        tapes = sys.modules.get("easyclf.tape.tapes")
        if tapes is not None:
            # At once, and often.
            tapes._SEEN, tapes._WORTHWHILE = 2, 0
        elif not needs_data and CLOSED:
            # Of the folder no other file is used than when its door was shut by another name.
            found = CLOSED[0]
        found = found or everyday(needs_data=needs_data, needs_workers=needs_workers)
        if tapes is None:
            CLOSED.append(found)
    finally:
        sys.meta_path.remove(finder)
    if needs_workers:
        gc.collect()  # of a loader that is in a circle, the end would come later
    assert not multiprocessing.active_children(), "workers are left"
    return found


class TapesMade(logging.Handler):
    """Notes which modules are trained from tapes, while it is active."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def emit(self, record):
        text = record.getMessage()
        if text.endswith(" is trained from a tape."):
            self.names.add(text.split()[0])

    def __enter__(self):
        logging.getLogger("easyclf").addHandler(self)
        logging.getLogger("easyclf").setLevel(logging.DEBUG)
        return self

    def __exit__(self, *_):
        logging.getLogger("easyclf").removeHandler(self)
        logging.getLogger("easyclf").setLevel(logging.WARNING)


def check(expected, rewriting, **needs):
    found = results(rewriting, **needs)
    assert found.keys() == expected.keys()
    for name, arrays in expected.items():
        for one, other in zip(arrays, found[name], strict=True):
            np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-5, err_msg=name)


def main():
    warnings.filterwarnings("error")
    warnings.filterwarnings("ignore", "This DataLoader will create")
    torch.set_num_threads(1)
    wanted, failed, expected = [word.split("=") for word in sys.argv[1:]], [], {}
    for home in dict(map(reversed, wanted)):
        # The tapes never see where rows are from.
        needs = {"needs_data": home != "tape", "needs_workers": home == "data"}
        with TapesMade() as made:
            expected[home] = needs, results(None, **needs)
        assert made.names >= {"Sequential", "Compressed"} or home != "tape", "there are no tapes"
    gc.freeze()  # what is imported for good makes each collection long
    for name, home in wanted:
        needs, found_with_all = expected[home]
        needs_data = needs["needs_data"]
        errors = ERRORS if needs_data else ERRORS[1:2]  # one for the many names of the tapes
        for rewriting in [Without(name), *(Raising(name, error) for error in errors)]:
            how = f"{name} {getattr(rewriting, 'error', 'deleted')}"
            try:
                check(found_with_all, rewriting, **needs)
            except AssertionError as error:
                if str(error) != "the name is nowhere" or type(rewriting) is Without:
                    failed.append(f"{how}: {error}")
            except Exception:
                failed.append(f"{how}: {traceback.format_exc(limit=-4)}")
    gc.unfreeze()
    print("\n".join(failed))
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
