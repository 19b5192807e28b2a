"""Which part of what a module returns is answered."""

import pickle
from collections import OrderedDict
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.base import clone
from torch import nn

from easyclf import Estimator
from tape.misleading.program import Log


class Several(nn.Module):
    """Returns logits among other things, in one of several forms."""

    def __init__(self, form):
        super().__init__()
        self.hidden, self.last, self.form = nn.Linear(4, 8), nn.Linear(8, 3), form

    def forward(self, x):
        hidden = torch.tanh(self.hidden(x))
        return self.form(hidden, self.last(hidden))


def as_tuple(hidden, logits):
    return hidden, logits


def as_dict(hidden, logits):
    return OrderedDict(hidden=hidden, logits=logits)


def as_object(hidden, logits):
    return SimpleNamespace(hidden=hidden, logits=logits)


def plain(hidden, logits):
    return logits


def second(returned):
    return returned[1]


CHOICES = [(as_tuple, 1), (as_tuple, -1), (as_dict, "logits"), (as_object, "logits"),
           (as_tuple, second)]  # fmt: skip


def fit(form, output, blobs, **parameters):
    torch.manual_seed(0)
    settings = {"epochs": 12, "lr": 0.03, "batch_size": 10, "random_state": 0, **parameters}
    return Estimator(Several(form), output=output, **settings).fit(*blobs, validation_data=blobs)


@pytest.mark.parametrize(("form", "output"), CHOICES)
@pytest.mark.parametrize("compile_", ["auto", False])
def test_the_part_is_trained_as_if_it_were_all(form, output, compile_, blobs, monkeypatch):
    monkeypatch.setattr("easyclf.tape.tapes._WORTHWHILE", 2)
    parameters = {"compile": compile_, "precision": "float64", "metrics": ["f1_macro"]}

    with Log() as log:
        clf = fit(form, output, blobs, **parameters)

    # A tape is made of neither an `OrderedDict` nor a function that chooses. In torch 2.6 a
    # function of `typing` that runs only once in a process looks at frames.
    is_tapeable = form is not as_dict and output is not second and torch.__version__ >= (2, 7)
    if compile_ == "auto" and is_tapeable:
        assert log.is_trained_from_a_tape
        assert log.is_evaluated_from_a_tape
    alone = fit(plain, None, blobs, **parameters)
    for name in ("loss", "val_loss", "val_f1_macro"):
        assert clf.history_[name] == pytest.approx(alone.history_[name], rel=1e-9)
    assert clf.predict_proba(blobs[0]) == pytest.approx(alone.predict_proba(blobs[0]))
    assert clf.evaluate(*blobs) == pytest.approx(alone.evaluate(*blobs))


def test_under_autocast_it_is_the_same_part(blobs):
    clf = fit(as_dict, "logits", blobs, precision="bf16")

    assert clf.score(*blobs) > 0.5


def test_the_choice_clones_and_pickles(blobs):
    clf = fit(as_tuple, 1, blobs)

    assert clone(clf).get_params()["output"] == 1
    found = pickle.loads(pickle.dumps(clf)).predict_proba(blobs[0])
    assert np.array_equal(found, clf.predict_proba(blobs[0]))


@pytest.mark.parametrize(
    ("form", "output", "words"),
    [
        (as_dict, "logit", r"`output` is 'logit', .* OrderedDict with \['hidden', 'logits'\]; did "
         "you mean `logits`"),
        (as_tuple, 2, "`output` is 2, but the module returned a tuple of 2; give a key, a place"),
        (as_tuple, "logits", "returned a tuple of 2"),
        (as_object, "logit", "returned a SimpleNamespace"),
        (plain, "logits", "returned a Tensor"),
        (plain, "logit", "`output` is 'logit', but the module returned a Tensor; give a key"),
        (as_tuple, None, "expected one tensor .* or say with `output` which part"),
        (as_dict, None, "say with `output` which part"),
        (as_tuple, 1.5, "'output' parameter of Estimator must be .* Got 1.5"),
        (as_tuple, True, "'output' parameter of Estimator must be .* Got True"),
    ],
)  # fmt: skip
def test_a_part_that_is_not_there_is_refused(form, output, words, blobs):
    with pytest.raises((ValueError, TypeError), match=words):
        fit(form, output, blobs)
