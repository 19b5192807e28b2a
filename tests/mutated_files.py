"""Damages files in many ways, loads each, and counts how they are refused.

`python tests/mutated_files.py COUNT SEED` runs in little memory and with a limit of time for each
file, and fails where anything but an error of easyclf's own comes of a file.
"""

import collections
import copy
import hashlib
import io
import json
import random
import resource
import signal
import sys
import tempfile
import warnings
import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import nn

import saved_modules
from easyclf import Estimator, InvalidFile

# Memory beyond what the process has when it begins, and seconds for a file.
MEMORY, SECONDS = 400 * 2**20, 20
X = np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32)
VALUES = [
    *(None, True, False, 0, 1, -1, 3, 2**31, 2**63, -(2**63), 10**30, 0.5, -1e308, 1e-320),
    *(float("nan"), float("inf"), "", "x", "torch.nn.Linear", "os.system", "../../etc", "a" * 5000),
    *("torch.optim.SGD", "torchvision.models.resnet18", "resnet18", "saved_modules.Net", "0", "O"),
    *([], [[]], [1, 2, 3], [None] * 100, {}, {"type": "tuple", "items": []}, {"type": "name"}),
    *({"type": "dict", "items": [["a", 1]]}, {"type": "tensor", "tensor": "0"}),
    *({"type": "tuple", "items": [10**9, 10**9]}, {"type": "name", "name": "torch.nn.Linear"}),
    *({"type": "random_state", "state": []}, {"type": "device", "name": "cuda:9"}),
    {"type": "array", "dtype": "<U999999999", "shape": [1], "items": ["a"]},
    {"type": "array", "dtype": "<f8", "shape": [0, 2**40], "tensor": "0"},
    {"type": "loss", "class": "torch.nn.CrossEntropyLoss", "fields": []},
]


def good_files(folder):
    """Files of several kinds of estimators, in bytes."""
    y, settings = np.arange(12) % 3, {"epochs": 2, "random_state": 0, "compile": False}
    frame = __import__("pandas").DataFrame({"a": [1.0, None] * 6, "b": list("xyzxyzxyzxyz")})
    estimators = [
        Estimator(module__hidden=(3,), **settings).fit(X, np.array(["a", "b", "c"])[y]),
        Estimator(module__hidden=(), optimizer="sgd", **settings).fit(frame, y > 0),
        Estimator(nn.Linear, loss=nn.CrossEntropyLoss(label_smoothing=0.1), **settings).fit(X, y),
        Estimator(saved_modules.Net, module__hidden=3, freeze="first", **settings).fit(X, y),
    ]
    for number, clf in enumerate(estimators):
        clf.save(folder / f"{number}.easyclf")
        yield (folder / f"{number}.easyclf").read_bytes()


def signed(data):
    """Bytes with a comment of a ZIP that is their right digest."""
    return data[:-64] + hashlib.sha256(data[:-64]).hexdigest().encode()


def with_parts(parts, compression=zipfile.ZIP_STORED):
    """A file with these parts, whose checksums are right."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as opened:
        for name, data in parts:
            opened.writestr(name, data)
        opened.comment = bytes(64)
    return signed(file.getvalue())


def parts_of(data):
    with zipfile.ZipFile(io.BytesIO(data)) as opened:
        return [(info.filename, opened.read(info)) for info in opened.infolist()]


def flipped(data, rng):
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 8, 64])):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def cut(data, rng):
    begin, end = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    return rng.choice([data[:end], data[begin:], data[:begin] + data[end:]])


def spliced(data, rng):
    begin, end = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    place, piece = rng.randrange(len(data) + 1), data[begin:end]
    if rng.random() < 0.5:
        return data[:place] + piece + data[place:]
    return data[:place] + piece + data[place + len(piece) :]


def inside(mutate):
    """Damage one part, and make its checksum right."""

    def mutated(data, rng):
        parts = parts_of(data)
        place = rng.randrange(len(parts))
        name, content = parts[place]
        parts[place] = (name, mutate(content, rng) if content else content)
        return with_parts(parts)

    return mutated


def nodes(value):
    """All containers in a JSON document, with the keys of what they hold."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield value, key
            yield from nodes(part)
    elif isinstance(value, list):
        for place, part in enumerate(value):
            yield value, place
            yield from nodes(part)


def rewritten(data, rng):
    """Replace, delete, repeat or swap values of a document, with right checksums."""
    parts = parts_of(data)
    places = [place for place, (name, _) in enumerate(parts) if name.endswith(".json")]
    place = rng.choice([places[-1]] * 9 + places)
    document = json.loads(parts[place][1])
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        container, key = rng.choice(list(nodes(document)))
        how = rng.random()
        if how < 0.6:
            container[key] = copy.deepcopy(rng.choice(VALUES))
        elif how < 0.75:
            del container[key]
        elif how < 0.85 and isinstance(container, list):
            container.insert(key, container[key])
        else:
            other, other_key = rng.choice(list(nodes(document)))
            container[key] = json.loads(json.dumps(other[other_key]))
        if not list(nodes(document)):
            break
    parts[place] = (parts[place][0], json.dumps(document).encode())
    return with_parts(parts)


def reshaped(data, rng):
    """Change headers of safetensors, with right checksums."""
    parts = parts_of(data)
    places = [place for place, (name, _) in enumerate(parts) if name.endswith("safetensors")]
    place = rng.choice(places)
    name, content = parts[place]
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    described = rng.choice([part for part in header.values() if "shape" in part] or [{}])
    how = rng.randrange(6)
    if how == 0:
        described["shape"] = rng.choice(VALUES + [list(reversed(described.get("shape", [])))])
    elif how == 1:
        described["dtype"] = rng.choice(["F64", "F32", "U8", "BF16", "I64", "BOOL", "C64", None])
    elif how == 2:
        described["data_offsets"] = rng.choice([[0, 0], [0, 2**60], [-8, 0], [4], None, [0.0, 4]])
    elif how == 3 and header:
        header[rng.choice(["x", "0", "__metadata__", ""])] = header.pop(rng.choice([*header]))
    elif how == 4 and described.get("shape"):
        described["shape"] = [-1, *described["shape"][1:]]
    else:
        header = copy.deepcopy(rng.choice(VALUES))
    text = json.dumps(header).encode()
    new_length = rng.choice([len(text)] * 5 + [2**40, len(text) + 1])
    parts[place] = (name, new_length.to_bytes(8, "little") + text + content[8 + length :])
    return with_parts(parts)


def rezipped(data, rng):
    """Other ZIPs of the same parts: other orders, names, doubles, compression, comments."""
    parts = parts_of(data)
    how = rng.randrange(5)
    if how == 0:
        rng.shuffle(parts)
        return with_parts(parts)
    if how == 1:
        return with_parts(parts + [rng.choice(parts)])
    if how == 2:
        parts.pop(rng.randrange(len(parts)))
        return with_parts(parts or [("about.json", b"{}")])
    if how == 3:
        name = rng.choice(["../x.json", "/etc/passwd.json", "x.pkl", "A.json", "a" * 101 + ".json"])
        return with_parts([*parts, (name, b"{}")])
    return with_parts(parts, zipfile.ZIP_DEFLATED)


def disguised(mutate):
    """Damage the bytes of the ZIP itself, and make the digest right."""
    return lambda data, rng: signed(mutate(data, rng))


MUTATIONS = [
    *(flipped, cut, spliced, inside(flipped), inside(cut), inside(spliced)),
    *(disguised(flipped), disguised(flipped), disguised(cut), disguised(spliced)),
    *(rewritten, rewritten, rewritten, rewritten, reshaped, reshaped, rezipped),
]


def out_of_time(*_):
    raise AssertionError(f"a file took more than {SECONDS} seconds")


def limit_memory():
    """No memory beyond what this process has now, but for so much."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def try_to_load(path, counts, rng):
    """Load a file; one that loads must not bring the process down when it is used."""
    try:
        clf = Estimator.load(path, trusted="saved_modules.Net")
    except InvalidFile as error:
        assert str(error).count(str(path)) == 1  # noqa: PT017
        counts["refused"] += 1
        return
    counts["loaded"] += 1
    try:
        clf.predict_proba(X)
        if rng.random() < 0.2:
            clf.set_params(epochs=1, device="cpu", compile=False, verbose=0)
            clf.partial_fit(X, clf.classes_[np.arange(12) % len(clf.classes_)])
    except Exception:
        counts["useless"] += 1


def main(count, seed):
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    rng, counts = random.Random(seed), collections.Counter()
    with tempfile.TemporaryDirectory() as folder:
        files = list(good_files(Path(folder)))
        path = Path(folder, "mutated.easyclf")
        for file in files:  # so that all code is in memory
            path.write_bytes(file)
            try_to_load(path, collections.Counter(), rng)
        limit_memory()
        signal.signal(signal.SIGALRM, out_of_time)
        for number in range(count):
            mutate = MUTATIONS[number % len(MUTATIONS)]
            path.write_bytes(mutate(rng.choice(files), rng))
            signal.alarm(SECONDS)
            try:
                try_to_load(path, counts, rng)
            except BaseException as error:
                error.add_note(f"of mutation {number} under seed {seed}")
                raise
            signal.alarm(0)
        left = sorted(entry.name for entry in Path(folder).iterdir())
        assert left == [*(f"{number}.easyclf" for number in range(len(files))), path.name]
    print(", ".join(f"{number} {what}" for what, number in counts.items()))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
