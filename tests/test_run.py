"""Pickles made before the files were moved say that they cannot be read."""

import pickle

import pytest

import easyclf.run

# A pickled estimator of easyclf 0.1 names this class.
OLD = b"ceasyclf.run\nLearned\n."


def test_an_estimator_pickled_before_the_move_is_refused_with_the_way_out():
    with pytest.raises(
        pickle.UnpicklingError, match=r"before 0\.2 and cannot be read .* fit it anew, or unpickle"
    ):
        pickle.loads(OLD)


def test_other_names_are_missing_as_everywhere():
    with pytest.raises(AttributeError, match="has no attribute 'run'"):
        easyclf.run.run  # noqa: B018
