"""The state of a run."""

import pytest

from easyclf import Estimator, LambdaCallback


def test_a_stop_has_a_reason(blobs, network):
    states = []
    stop = LambdaCallback(on_batch_end=lambda state: states.append(state) or state.stop("enough"))

    Estimator(network, callbacks=[stop], lr=0.1).fit(*blobs)

    assert states[0].stop_reason == "enough"


def test_a_rate_that_would_change_nothing_is_refused(blobs, network):
    set_rate = LambdaCallback(on_batch_end=lambda state: setattr(state, "lr", 0.5))

    with pytest.raises(AttributeError, match=r"param_groups: group\['lr'\] = 0\.5`"):
        Estimator(network, callbacks=[set_rate]).fit(*blobs)


def test_the_rate_that_is_typed_instead_is_that_of_the_next_step(blobs, network):
    def set_rate(state):
        for group in state.optimizer.param_groups:
            group["lr"] = 0.5

    clf = Estimator(network, epochs=2, callbacks=[LambdaCallback(on_epoch_end=set_rate)])

    assert clf.fit(*blobs).history_["lr"].tolist() == [1e-3, 0.5]


def test_a_run_that_goes_on_has_the_last_rate_of_the_one_before(blobs, network):
    seen = []
    go_on = LambdaCallback(
        on_train_end=lambda state: (
            state.go_on_after(3, 30, 0.25),
            seen.extend([state.epoch, state.step, state.lr]),
        )
    )

    Estimator(network, epochs=1, callbacks=[go_on]).fit(*blobs)

    assert seen == [3, 30, 0.25]
