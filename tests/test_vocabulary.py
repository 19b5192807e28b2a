"""Foreign words: each says what to type here, and what it says is there."""

import inspect
import re
from pathlib import Path

import pytest
from sklearn.metrics import get_scorer_names
from torch.utils.data import DataLoader

import easyclf
from easyclf import EarlyStopping, Estimator, vocabulary
from easyclf.callbacks.base import HOOKS
from easyclf.losses import build_loss

GUIDE = Path(__file__).parents[1] / "docs" / "guide" / "coming_from.md"
TYPED = re.compile("`([^`]+)`")
# What issue trackers and newcomers typed, which must never lead to a wrong neighbour.
SEEN = """scoring early_stopping patience max_epochs max_iter criterion learning_rate scheduler
    gradient_clip_val seed gpu n_jobs dropout hidden activation threshold tol""".split()


def first_typed(meaning):
    typed = TYPED.match(meaning)
    return typed and typed.group(1)


@pytest.mark.parametrize("word", [*vocabulary.FOREIGN_PARAMETERS])
def test_what_is_said_of_a_foreign_parameter_is_there(word):
    meant = first_typed(vocabulary.FOREIGN_PARAMETERS[word])

    assert word not in Estimator().get_params()
    if meant is None or meant.startswith(("callbacks=", "fit(", "sklearn.")):
        return
    prefix, _, rest = meant.partition("__")
    if prefix == "module" and rest:
        assert rest in inspect.signature(easyclf.MLP).parameters
    elif prefix == "loader":
        assert rest in inspect.signature(DataLoader).parameters
    elif prefix != "optimizer" or not rest:
        assert meant in Estimator().get_params()


@pytest.mark.parametrize("word", [*vocabulary.FOREIGN_LOSSES])
def test_what_is_said_of_a_foreign_loss_is_there(word):
    for typed in TYPED.findall(vocabulary.FOREIGN_LOSSES[word]):
        if typed.isidentifier():
            build_loss(typed, {})
    with pytest.raises(ValueError, match=f"`loss` '{word}' is unknown; "):
        build_loss(word, {})


@pytest.mark.parametrize("word", [*vocabulary.FOREIGN_HOOKS])
def test_what_is_said_of_a_foreign_hook_is_there(word):
    meant = first_typed(vocabulary.FOREIGN_HOOKS[word])

    assert word not in HOOKS
    assert meant is None or meant in HOOKS


@pytest.mark.parametrize("word", [*vocabulary.FOREIGN_METHODS])
def test_foreign_methods_are_no_methods_here(word):
    assert not hasattr(Estimator, word)


@pytest.mark.parametrize("word", [*vocabulary.FOREIGN_QUANTITIES])
def test_foreign_quantities_are_no_quantities_here(word):
    meant = first_typed(vocabulary.FOREIGN_QUANTITIES[word])

    assert meant in ("loss", "accuracy", "val_loss", "val_accuracy", "lr", "seconds")


@pytest.mark.parametrize("word", SEEN)
def test_words_that_were_typed_are_known(word):
    assert word in vocabulary.FOREIGN_PARAMETERS


@pytest.mark.parametrize(
    ("typed", "meant"), [("train_loss", "`loss`"), ("valid_loss", "`val_loss`")]
)
def test_foreign_quantity_of_a_monitor_is_named(typed, meant):
    clf = Estimator(callbacks=[EarlyStopping(typed)])

    with pytest.raises(ValueError, match=f"'{typed}'.*did you mean {meant}"):
        clf.fit([[0.0], [1.0]], [0, 1])


# Keras's arguments of `fit` that are none here, and what of the answer tells what to type.
ARGUMENTS = {
    "initial_epoch": r"did you mean `fit\(X, y, warm_start=True\)`\?",
    "validation_freq": "; validation goes through all rows after every epoch",
    "validation_steps": "; validation goes through all rows after every epoch",
    "validation_batch_size": "; validation takes as many rows at once as memory has room for",
    "use_multiprocessing": "did you mean `loader__num_workers`",
    "max_queue_size": "did you mean `loader__num_workers`",
    "weighted_metrics": "did you mean `metrics`",
    "train_loader": r"did you mean `fit\(loader\)`",
    "val_loader": r"did you mean `fit\(X, y, validation_data=loader\)`",
    "early_stopping_rounds": r"did you mean `callbacks=\[EarlyStopping\(",
    "ckpt_path": r"did you mean `callbacks=\[Checkpoint\(folder\)\]`",
}


@pytest.mark.parametrize("argument", ARGUMENTS)
def test_foreign_argument_of_fit_is_answered_with_what_to_type(argument):
    with pytest.raises(TypeError, match=f"unknown argument `{argument}`.*{ARGUMENTS[argument]}"):
        Estimator().fit([[0.0], [1.0]], [0, 1], **{argument: 1})


def test_words_that_are_near_to_nothing_get_no_neighbour():
    with pytest.raises(TypeError, match=r"has no parameter `shuttle_bus`\.$"):
        Estimator(shuttle_bus=1)


@pytest.mark.parametrize(
    "table",
    [
        vocabulary.FOREIGN_PARAMETERS,
        vocabulary.FOREIGN_LOSSES,
        vocabulary.FOREIGN_HOOKS,
        vocabulary.FOREIGN_METHODS,
    ],
    ids=["parameters", "losses", "hooks", "methods"],
)
def test_the_guide_shows_the_tables(table):
    text = GUIDE.read_text(encoding="utf-8")
    rows = {
        meaning: [word for word, other in table.items() if other == meaning]
        for meaning in table.values()
    }
    for meaning, words in rows.items():
        assert f"| {', '.join(f'`{word}`' for word in words)} | {meaning.rstrip('.')} |" in text


@pytest.mark.parametrize("word", [*vocabulary.FOREIGN_METRICS])
def test_what_is_said_of_a_foreign_metric_is_there(word):
    names = get_scorer_names()

    assert word not in names
    assert set(TYPED.findall(vocabulary.FOREIGN_METRICS[word])) <= {*names}
