"""Processes that read ahead, and what torch says of them."""

import multiprocessing
import os
import time

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torch.utils.data import get_worker_info as worker

from easyclf import LambdaCallback
from easyclf.data import workers
from easyclf.data.workers import iterate, says_worker_died, shut_down
from small_dataset import Kind, fit, network, weights

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")


class Dying(Kind):
    """Rows of which one, in the second batch, ends the worker that reads it."""

    def __init__(self, after):
        super().__init__()
        self.after = after

    def __getitem__(self, row):
        if row == 17 and worker():
            time.sleep(self.after)
            os._exit(1)
        return super().__getitem__(row)


DYING = {"classes": [0, 1], "loader__num_workers": 1, "shuffle": False}
# torch raises for a dead worker wherever the process is, in a finalizer too.
dying = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture
def _no_workers_left():
    yield
    deadline = time.monotonic() + 10
    while multiprocessing.active_children() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not multiprocessing.active_children()


class Failing(Dataset):
    """Raises, or ends the worker, when its row is read."""

    def __init__(self, error):
        self.error = error

    def __len__(self):
        return 2

    def __getitem__(self, row):
        if self.error is None:
            os._exit(1)
        raise self.error


def test_an_error_of_a_dataset_in_a_worker_begins_as_torch_passes_it_on():
    loader = DataLoader(Failing(ConnectionError("no network")), num_workers=1)

    with pytest.raises(ConnectionError) as caught:
        list(iterate(loader))

    assert str(caught.value).startswith(workers._PASSED_ON)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_dead_worker_is_told_by_torchs_message():
    loader = DataLoader(Failing(None), num_workers=1)

    with pytest.raises(RuntimeError) as caught:
        list(loader)

    assert says_worker_died(caught.value)


@pytest.mark.parametrize("error", [RuntimeError("another"), ValueError("DataLoader worker (pid")])
def test_other_errors_are_none_of_a_dead_worker(error):
    assert not says_worker_died(error)


def test_a_loader_without_workers_raises_the_error_of_its_dataset():
    with pytest.raises(ConnectionError, match="no network"):
        list(iterate(DataLoader(Failing(ConnectionError("no network")))))


def test_batches_pass_through():
    assert list(iterate([torch.ones(1), torch.zeros(1)])) == [torch.ones(1), torch.zeros(1)]


@pytest.mark.usefixtures("_no_workers_left")
class TestWorkers:
    def test_the_same_batches_come_from_any_number_of_workers(self):
        found = [weights(fit(Kind(noise=0.3), loader__num_workers=n)) for n in (0, 1, 2)]

        assert found[0] == found[1] == found[2]

    def test_dropout_too_is_the_same_for_any_number_of_workers(self):
        module = nn.Sequential(network(), nn.Dropout(0.5))

        found = [weights(fit(Kind(), module, loader__num_workers=n)) for n in (0, 2)]

        assert found[0] == found[1]

    def test_random_rows_differ_between_epochs_and_seeds(self):
        seen = []

        class Seeing(Kind):
            def __getitem__(self, row):
                item = super().__getitem__(row)
                seen.append((row, item[0].tolist()))
                return item

        fit(Seeing(noise=0.3), epochs=2, shuffle=False)

        first = [x for row, x in seen if row == 5][-2:]
        assert first[0] != first[1]
        other = fit(Kind(noise=0.3), random_state=1, shuffle=False)
        assert weights(other) != weights(fit(Kind(noise=0.3), shuffle=False))

    def test_global_random_states_stay_as_they_are(self, random_states):
        module, before = network(), random_states()

        clf = fit(DataLoader(Kind(noise=0.3), 16, shuffle=True), module)
        clf.evaluate(DataLoader(Kind(noise=0.3), 16, shuffle=True))
        fit(Kind(noise=0.3), module, loader__num_workers=1)

        assert random_states() == before

    def test_workers_live_as_long_as_the_fit(self):
        processes = []

        def note(state):
            processes.append({process.pid for process in multiprocessing.active_children()})

        fit(Kind(), loader__num_workers=2, callbacks=[LambdaCallback(on_epoch_end=note)])

        assert len(processes[0]) == 2
        assert processes[0] == processes[2]
        assert not multiprocessing.active_children()

    def test_a_loader_of_the_users_keeps_its_own_workers_and_order(self):
        loader = DataLoader(Kind(), 16, num_workers=1, persistent_workers=True)

        clf = fit(loader)

        assert weights(clf) == weights(fit(Kind(), shuffle=False))
        assert not multiprocessing.active_children()

    def test_an_error_in_a_worker_keeps_its_traceback_and_its_row(self):
        class Broken(Kind):
            def __getitem__(self, row):
                if row == 17:
                    raise OSError("no such picture")
                return super().__getitem__(row)

        with pytest.raises(OSError, match=r"no such picture(.|\n)*for row 17"):
            fit(Broken(), classes=[0, 1], loader__num_workers=2)

        assert not multiprocessing.active_children()

    @dying
    @pytest.mark.parametrize("after", [0.0, 0.2])
    def test_a_worker_that_dies_is_an_error_with_a_hint(self, after):
        with pytest.raises(RuntimeError, match=r"worker died.*loader__num_workers=0"):
            fit(Dying(after), **DYING)

        assert not multiprocessing.active_children()

    @dying
    def test_a_worker_that_dies_during_a_step_is_one_with_the_same_hint(self):
        def wait(state):
            deadline = time.monotonic() + 10
            while time.monotonic() < deadline:
                time.sleep(0.01)

        with pytest.raises(RuntimeError, match=r"worker died.*loader__num_workers=0"):
            fit(Dying(0.2), callbacks=[LambdaCallback(on_batch_end=wait)], **DYING)

        assert not multiprocessing.active_children()

    @dying
    def test_a_worker_that_dies_in_the_end_does_not_hide_the_error_before(self):
        def fail(state):
            raise LookupError("the first error")

        with pytest.raises(LookupError, match="the first error"):
            fit(Dying(0.5), callbacks=[LambdaCallback(on_batch_end=fail)], **DYING)

        assert not multiprocessing.active_children()

    @pytest.mark.parametrize("began", [False, True])
    def test_workers_are_ended_also_if_torch_says_there_that_one_died(self, began):
        calls = []

        class Iterator:
            def _shutdown_workers(self):
                calls.append("ended" if calls or began else "not begun")
                if len(calls) == 1:
                    raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed.")

        shut_down(Iterator())

        assert calls[-1] == "ended"

    @pytest.mark.parametrize("error", [AttributeError, RuntimeError, TypeError])
    def test_batches_are_whole_where_workers_cannot_be_ended_at_once(self, error):
        class Loader:
            num_workers, persistent_workers = 1, False

            def __iter__(self):
                return Batches()

        class Batches:
            def __init__(self):
                self.left = [2, 1]

            def __iter__(self):
                return self

            def __next__(self):
                if not self.left:
                    raise StopIteration
                return self.left.pop()

            def _shutdown_workers(self):
                raise error("the method is private, and may be another one")

        assert list(iterate(Loader())) == [1, 2]

    def test_ctrl_c_ends_the_workers(self):
        def interrupt(state):
            raise KeyboardInterrupt

        callbacks = [LambdaCallback(on_batch_end=interrupt)]
        with pytest.raises(KeyboardInterrupt):
            fit(Kind(), loader__num_workers=2, callbacks=callbacks)

        assert not multiprocessing.active_children()
