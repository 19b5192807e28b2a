"""The state of a run."""

from easyclf import Estimator, LambdaCallback


def test_a_stop_has_a_reason(blobs, network):
    states = []
    stop = LambdaCallback(on_batch_end=lambda state: states.append(state) or state.stop("enough"))

    Estimator(network, callbacks=[stop], lr=0.1).fit(*blobs)

    assert states[0].stop_reason == "enough"
