"""Each of the 136 bad inputs and faults has a test: here, or where this table says.

The letters and numbers are those of the list of inputs that easyclf must survive: D data, L labels
and weights, P parameters, T training, F files, E the environment. `tests/test_bad_inputs.py` has
most of what is refused; a row that stands there, or in this file, has its number in the id or in
the docstring of its test.
"""

import ast
import functools
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.base import clone
from torch import nn
from torch.utils.data import Dataset

import easyclf
import measure_code
from easyclf import EarlyStopping, Estimator, LRScheduler

TESTS = Path(__file__).parent
PACKAGE = Path(easyclf.__file__).parent
COUNTS = {"D": 32, "L": 17, "P": 22, "T": 35, "F": 22, "E": 8}
NUMBERS = [f"{letter}{i:02d}" for letter, count in COUNTS.items() for i in range(1, count + 1)]
# The tests of other files that show the outcome of a row.
ELSEWHERE = {
    "D03": "test_modules.py test_numbers_of_any_dtype_become_those_of_the_module",
    "D04": "test_modules.py test_tokens_stay_integers",
    "D10": "test_modules.py test_images_and_sequences_reach_the_module_in_their_shape",
    "D12": "data/test_sparse.py test_rows_become_dense_only_a_batch_at_a_time",
    "D17": "data/test_reader.py test_a_tensor_that_needs_gradients_gets_none",
    "D18": "data/test_properties.py test_a_module_never_writes_to_the_rows_of_the_user",
    "D27": "data/test_memmap.py test_what_was_read_takes_no_memory_of_the_process",
    "D32": "data/test_streams.py test_its_length_need_not_be_known",
    "L07": "test_estimator.py test_a_class_that_is_too_rare_to_stratify_is_named",
    "L12": "test_bad_inputs.py test_parameters_that_make_no_sense_are_refused",  # as L09
    "L15": "data/test_properties.py test_rows_of_weight_0_are_as_if_they_were_not_there",
    "P09": "test_modules.py test_template_is_never_changed",
    "T09": "data/test_workers.py test_an_error_in_a_worker_keeps_its_traceback_and_its_row",
    "T10": "data/test_workers.py test_a_worker_that_dies_is_an_error_with_a_hint",
    "T18": "engine/test_evaluation.py test_every_allocator_is_understood",
    "T19": "engine/test_evaluation.py test_every_allocator_is_understood",
    "T25": "callbacks/test_records.py test_a_file_that_fails_later_costs_one_warning",
    "T33": "test_soak.py test_many_fits_leave_nothing_behind",
    "E01": "test_checks.py test_history_without_its_optional_package_says_what_to_install",
    "E05": "test_ci.py test_all_that_is_needed_to_run_and_to_test_is_constrained",
    "E07": "test_estimator.py test_the_default_dtype_of_the_user_is_left_alone",
    "E08": "test_randomness.py test_fit_and_its_kin_leave_the_global_states",
    "F16": "test_estimator.py test_every_protocol_of_pickle_keeps_the_format_of_the_inputs",
}
# Those of saved files and of resumed runs, whose files come with what they are about.
OF_FILES = {
    "T04": "test_faults.py test_sigterm_ends_a_kept_run_and_a_forked_fit_waits_for_no_thread",
    "T05": "test_kills.py test_a_training_that_is_killed_at_any_moment_ends_as_one_that_is_not",
    "T06": "callbacks/test_checkpoints.py test_a_torn_checkpoint_is_passed_over_with_a_warning",
    "T07": "callbacks/test_checkpoints.py test_a_run_that_died_ends_as_one_that_did_not",
    "T08": "callbacks/test_checkpoints.py "
    "test_the_checkpoint_of_another_training_is_refused_by_name",
    "T24": "callbacks/test_checkpoints.py "
    "test_a_full_disk_costs_one_warning_and_the_old_checkpoint_stays",
    "F01": "test_files.py test_a_failed_write_leaves_the_old_file_alone",
    "F02": "test_files.py test_impossible_targets_are_refused",
    "F03": "test_saving.py test_only_what_was_fitted_is_saved",
    "F04": "test_archives.py test_foreign_files_are_named",
    "F05": "test_archives.py test_every_file_that_was_cut_or_grew_is_refused",
    "F06": "test_archives.py test_every_changed_byte_is_noticed",
    "F07": "test_saving.py test_weights_of_another_architecture_are_listed",
    "F08": "test_saving.py test_nothing_of_a_pickle_is_executed",
    "F09": "test_saving.py test_a_module_that_easyclf_does_not_know_is_named_and_not_imported",
    "F10": "test_archives.py test_bombs_are_refused_in_little_memory",
    "F11": "test_archives.py test_a_damaged_zip_with_a_right_checksum_is_refused_or_read",
    "F12": "test_archives.py test_a_newer_format_says_so",
    "F13": "test_saving.py test_another_version_is_told_once_with_both",
    "F14": "device/test_estimators.py test_a_file_is_loaded_onto_the_host_and_goes_back",
    "F15": "test_saving.py test_a_further_fit_goes_on_as_it_would_have",
    "F17": "test_files.py test_a_reader_sees_one_whole_version_while_others_write",
    "F18": "test_saving.py test_weights_of_any_dtype_come_back",
    "F19": "test_files.py test_relative_paths_links_and_odd_names_are_written_to",
    "F20": "test_saving.py test_labels_of_every_dtype_come_back",
    "F21": "test_saving.py test_factories_and_instances_have_to_be_given_back",
    "F22": "test_saving.py test_other_processes_answer_the_same_eight_at_once_and_write_nothing",
}
ROWS = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
LABELS = np.tile([0, 1, 2], 10)


def make(**parameters):
    return Estimator(**{"epochs": 1, "lr": 0.1, "random_state": 0, **parameters})


@functools.cache
def functions_of(path):
    tree = ast.parse((TESTS / path).read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


@functools.cache
def told_by_tests():
    """The numbers in ids and docstrings of tests."""
    texts = [path.read_text(encoding="utf-8") for path in TESTS.rglob("test_*.py")]
    table = re.compile(r"^(ELSEWHERE|OF_FILES) = \{.*?^\}", re.MULTILINE | re.DOTALL)
    return set(re.findall(r"\b[DLPTFE]\d\d\b", "\n".join(table.sub("", text) for text in texts)))


@pytest.mark.parametrize("number", NUMBERS)
def test_every_row_has_its_test(number):
    tests = ELSEWHERE | OF_FILES
    if number in tests:
        path, name = tests[number].split()
        assert name in functions_of(path)
    else:
        assert number in told_by_tests()


def changed_layouts():
    read_only = ROWS.copy()
    read_only.flags.writeable = False
    yield "D14 read-only", read_only
    yield "D14 Fortran", np.asfortranarray(ROWS)
    yield "D14 not contiguous", np.repeat(ROWS, 2, axis=1)[:, ::2]
    yield "D14 negative strides", ROWS[::-1].copy()[::-1]
    yield "D15 other byte order", ROWS.astype(">f4")


@pytest.mark.parametrize("X", [pytest.param(X, id=name) for name, X in changed_layouts()])
def test_an_array_in_any_layout_is_as_its_plain_copy(X):
    before = X.tobytes()
    expected = make().fit(ROWS, LABELS).predict_proba(ROWS)

    np.testing.assert_array_equal(make().fit(X, LABELS).predict_proba(X), expected)
    assert X.tobytes() == before


@pytest.mark.parametrize("size", [1, 7])
def test_a_few_rows_are_answered_as_all_of_them(size):
    """D26."""
    clf = make().fit(ROWS, LABELS)
    parts = [ROWS[start : start + size] for start in range(0, 30, size)]

    proba = np.concatenate([clf.predict_proba(part) for part in parts])

    np.testing.assert_allclose(proba, clf.predict_proba(ROWS), rtol=1e-5)
    assert np.concatenate([clf.predict(part) for part in parts]).tolist() == (
        clf.predict(ROWS).tolist()
    )


def test_a_broken_picture_is_named_with_its_file(tmp_path):
    """D31."""
    image = pytest.importorskip("PIL.Image")
    datasets = pytest.importorskip("torchvision.datasets")
    transforms = pytest.importorskip("torchvision.transforms")
    for name in ("cat/1.png", "cat/2.png", "dog/1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        image.new("RGB", (4, 4)).save(tmp_path / name)
    (tmp_path / "dog/2.png").write_bytes(b"no picture")
    folder = datasets.ImageFolder(tmp_path, transform=transforms.ToTensor())

    with pytest.raises(Exception, match="cannot identify image") as raised:
        make().fit(folder)

    assert "dog/2.png" in f"{raised.value} {raised.value.__notes__}"
    assert "row 3" in str(raised.value.__notes__)


class Items(Dataset):
    def __len__(self):
        return len(ROWS)

    def __getitem__(self, row):
        return torch.from_numpy(ROWS[row]), int(LABELS[row])


class InWorkers(Items):
    """Does something in workers alone: in the first look all is well."""

    def __init__(self, fault):
        self.fault = fault

    def __getitem__(self, row):
        if torch.utils.data.get_worker_info():
            self.fault()
        return super().__getitem__(row)


def fail_to_share():
    raise RuntimeError("unable to write to file </torch_7_8_9>: No space left on device (28)")


_hung = []


def hang():
    """Longer than the loader waits, once in a worker: the loader waits 5 s for one that goes on."""
    if not _hung:
        _hung.append(True)
        time.sleep(2)


@pytest.mark.parametrize("n_workers", [-1, "two", 1.5, None])
def test_a_number_of_workers_that_makes_no_sense_is_refused(n_workers):
    """P18."""
    with pytest.raises(ValueError, match=rf"`loader__num_workers`.*got {n_workers!r}"):
        make(loader__num_workers=n_workers).fit(Items())


@pytest.mark.skipif(sys.platform == "win32", reason="faults are sent to workers by forking")
@pytest.mark.parametrize(
    ("dataset", "options", "error", "words"),
    [
        pytest.param(
            InWorkers(hang), {"timeout": 1}, RuntimeError, ["timed out", "`loader__timeout`"],
            id="T11",
        ),
        pytest.param(
            InWorkers(fail_to_share), {}, RuntimeError, ["No space left", "/dev/shm"], id="T12"
        ),
        pytest.param(
            InWorkers(lambda: None),
            {"multiprocessing_context": "spawn"},
            Exception,
            ["lambda", "top level", "`loader__num_workers=0`"],
            id="T13",
        ),
    ],
)  # fmt: skip
def test_what_workers_cannot_do_is_told_with_a_way_out(dataset, options, error, words):
    options = {f"loader__{name}": value for name, value in options.items()}

    with pytest.raises(error) as raised:
        make(loader__num_workers=1, **options).fit(dataset)

    text = "\n".join([str(raised.value), *getattr(raised.value, "__notes__", [])])
    assert [word for word in words if word not in text] == []
    # torch 2.6 asks a worker to end, and does not wait for it.
    for process in torch.multiprocessing.active_children():
        process.join(20)
        assert not process.is_alive()


def test_a_schedule_or_a_patience_may_be_longer_than_the_run():
    """T26."""
    callbacks = [
        LRScheduler("StepLR", step_size=50),
        LRScheduler(lambda epoch: 0.1 / (epoch + 1)),
        EarlyStopping("loss", patience=99),
    ]

    assert make(epochs=2, callbacks=callbacks[::2]).fit(ROWS, LABELS).n_iter_ == 2
    assert make(epochs=2, callbacks=callbacks[1:]).fit(ROWS, LABELS).n_iter_ == 2


class Remembering(nn.Linear):
    """Keeps a list of what it has seen."""

    def __init__(self):
        super().__init__(4, 3)
        self.seen = []

    def forward(self, x):
        self.seen.append(len(x))
        return super().forward(x)


def test_a_clone_shares_no_state_that_a_module_keeps_beside_its_weights():
    """T31."""
    template = Remembering()
    clf = make(module=template)

    copied = clone(clf)
    clf.fit(ROWS, LABELS)

    assert template.seen == []
    assert clf.module_.seen
    assert copied.module.seen == []
    assert copied.fit(ROWS, LABELS).module_.seen is not clf.module_.seen


def refuse_to_compile(graph, inputs):
    raise RuntimeError("no compiler here")


@pytest.mark.filterwarnings("ignore:Guards may run slower on Python 3.13.0:RuntimeWarning")
def test_a_module_that_torch_cannot_compile_is_trained_as_it_is(monkeypatch):
    """T32."""
    compiled = functools.partial(torch.compile, backend=refuse_to_compile)
    monkeypatch.setattr(torch, "compile", compiled)

    with pytest.warns(UserWarning, match="cannot compile Linear.*the fit goes on") as warned:
        clf = make(module=nn.Linear(4, 3), compile=True, epochs=3).fit(ROWS, LABELS)

    assert len(warned) == 1
    expected = make(module=clf.module, compile=False, epochs=3).fit(ROWS, LABELS)
    np.testing.assert_array_equal(clf.predict_proba(ROWS), expected.predict_proba(ROWS))


def test_the_error_of_a_module_under_torch_compile_is_its_own(monkeypatch):
    """T32: the compiler is not to blame."""

    class Failing(nn.Linear):
        def forward(self, x):
            if len(x) > 10:
                raise LookupError("too many rows")
            return super().forward(x)

    monkeypatch.setattr(torch, "compile", lambda module: module.forward)

    with pytest.raises(LookupError, match="too many rows"):
        make(module=Failing(4, 3), compile=True).fit(ROWS, LABELS)


@pytest.mark.parametrize(
    ("number", "first", "then", "words"),
    [
        ("T34", None, {}, "`classes` must be passed on the first call"),
        ("T34", {"classes": [0, 1, 2]}, {"y": LABELS + 1}, r"\[3\].*\[0, 1, 2\]"),
        ("T34", {"classes": [0, 1, 2]}, {"X": ROWS[:, :3]}, "X has 3 features.*expecting 4"),
        ("T35", {}, {"y": LABELS + 1}, r"\[3\].*\[0, 1, 2\]"),
        ("T35", {}, {"X": ROWS[:, :3]}, "X has 3 features.*expecting 4"),
    ],
)
def test_a_training_that_goes_on_refuses_other_classes_and_columns(number, first, then, words):
    clf = make(warm_start=True)
    call = clf.fit if number == "T35" else clf.partial_fit
    if first is not None:
        call(ROWS, LABELS, **first)
    before = None if first is None else clf.predict_proba(ROWS)

    with pytest.raises(ValueError, match=words):
        call(**{"X": ROWS, "y": LABELS, **then})

    if before is not None:
        np.testing.assert_array_equal(clf.predict_proba(ROWS), before)


def test_asserts_tell_types_and_check_nothing():
    """E04: without them, under `python -O`, everything is refused that is refused with them."""
    for path, tree in measure_code.trees().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Assert):
                told = ast.unparse(node.test)
                tells = told.startswith("isinstance(") or told.endswith(" is not None")
                assert tells, f"{path.name}: {told}"


# The network is cut off, and nothing can be written.
STRANGE_PLACE = """
import socket
def refuse(*_): raise OSError("no network")
socket.socket.connect = refuse
import sys
import numpy as np
from easyclf import Estimator
OPTIONAL = ["matplotlib", "pandas", "polars", "torchvision", "tqdm", "IPython"]
print([name for name in OPTIONAL if name in sys.modules])
X = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
clf = Estimator(epochs=1, lr=0.1, random_state=0).fit(X, np.tile([0, 1, 2], 10))
try:
    clf.set_params(epochs=-1).fit(X, X[:, 0])
except ValueError:
    print(clf.predict_proba(X).tolist())
"""


def test_a_fit_is_the_same_in_strange_surroundings(tmp_path):
    """E02, E03, E06: no home, no network, `-W error`, another locale, time zone and hash seed.

    In that process `import easyclf` has loaded nothing optional.
    """
    environment = {
        **os.environ,
        "HOME": "/nonexistent",
        "PYTHONHASHSEED": "12345",
        "LC_ALL": "tr_TR.UTF-8",
        "TZ": "Asia/Kathmandu",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(TESTS.parent),
    }
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", STRANGE_PLACE],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert ended.returncode == 0, ended.stderr
    expected = make().fit(ROWS, LABELS).predict_proba(ROWS).tolist()
    loaded, answered = ended.stdout.splitlines()
    # scikit-learn itself looks for pandas where it is installed.
    assert set(eval(loaded)) <= {"pandas", "tqdm"}
    assert answered == str(expected)
    assert ended.stderr == ""
    assert list(tmp_path.iterdir()) == []
