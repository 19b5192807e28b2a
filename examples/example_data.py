"""Where the examples' data are: yours, or small ones that are made here and stand in for them.

`find("titanic/train.csv", given)` is `given`, from `--data`, or that file in the folder that
EASYCLF_DATA names. Where neither is there, it is a small stand-in of the same format: what an
example prints then says nothing of the real data.
"""

import gzip
import os
import struct
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_breast_cancer, load_digits, load_sample_images

HOME = Path(__file__).parents[2] / "shared" / "data"


def find(name, given=None):
    """The path of a data set; a stand-in is made in a temporary folder, and says so."""
    if given is not None:
        if not Path(given).exists():
            sys.exit(
                f"Cannot read {given}: give your copy with --data PATH, or set EASYCLF_DATA to the "
                f"folder that holds {name}."
            )
        return Path(given)
    path = Path(os.environ.get("EASYCLF_DATA", HOME), name)
    if path.exists():
        return path
    print(f"{path} is not there (see --data); small data that are made here stand in for it")
    stand_in = Path(tempfile.mkdtemp(), name)
    stand_in.parent.mkdir(parents=True, exist_ok=True)
    STAND_INS[name](stand_in)
    return stand_in


def make_titanic(path):
    """Made-up passengers, with gaps."""
    rng = np.random.default_rng(0)
    lines = ["Survived,Pclass,Sex,Age,SibSp,Parch,Fare,Embarked"]
    for _ in range(300):
        pclass, sex = rng.integers(1, 4), rng.choice(["male", "female"])
        age = "" if rng.random() < 0.2 else rng.integers(1, 70)
        survived = int(rng.normal(2.0 * (sex == "female") - 0.6 * pclass) > 0)
        port = rng.choice(["S", "C", "Q", ""], p=[0.7, 0.19, 0.1, 0.01])
        fare = round(rng.gamma(2) * 60 / pclass**2, 2)
        family = f"{rng.integers(0, 3)},{rng.integers(0, 3)}"
        lines.append(f"{survived},{pclass},{sex},{age},{family},{fare},{port}")
    path.write_text("\n".join(lines))


def make_diabetes(path):
    """Eight columns of another table, of tumours, scaled as the real ones are."""
    X, y = load_breast_cancer(return_X_y=True)
    X = 2 * (X - X.min(0)) / (X.max(0) - X.min(0)) - 1
    np.savetxt(path, np.c_[X[:, :8], y], delimiter=",", fmt="%.6g")  # gzip, by the suffix


def make_adult(path):
    """Made-up people, with gaps, in a file for training and one for tests."""
    path.mkdir()
    rng = np.random.default_rng(0)
    for name, n_rows, first, dot in (("data", 600, "", ""), ("test", 200, "|made up\n", ".")):
        lines = []
        for _ in range(n_rows):
            age, years, hours = rng.integers(17, 80), rng.integers(4, 17), rng.integers(20, 60)
            work = rng.choice(["Private", "State-gov", "?"])
            sex = rng.choice(["Male", "Female"])
            is_rich = rng.normal(0.05 * age + 0.4 * years + 0.05 * hours) > 9
            income = (">50K" if is_rich else "<=50K") + dot
            lines.append(
                f"{age}, {work}, {rng.integers(20_000, 400_000)}, School-{years}, {years}, Single, "
                f"Sales, Unmarried, White, {sex}, 0, 0, {hours}, United-States, {income}"
            )
        (path / f"adult.{name}").write_text(first + "\n".join(lines))


def make_names(path):
    """Made-up surnames, of syllables and of the endings of their countries."""
    path.mkdir()
    rng = np.random.default_rng(0)
    syllables = "ba de fi go lu ma ne pi ro sa ta vi ko li".split()
    endings = {"Russian": ["ov", "ev", "sky"], "Greek": ["akis", "poulos"], "Italian": ["ini"]}
    for part, n_rows in (("train", 900), ("test", 200)):
        lines = []
        for _ in range(n_rows):
            country = rng.choice(list(endings))
            start = "".join(rng.choice(syllables, rng.integers(1, 4)))
            lines.append(f"{(start + rng.choice(endings[country])).title()},{country}")
        (path / f"names_{part}.csv.gz").write_bytes(gzip.compress("\n".join(lines).encode()))


def make_images(path):
    """Pieces of scikit-learn's two photographs, of a temple and of a flower."""
    rng = np.random.default_rng(0)
    for part, n_pieces in (("train", 40), ("val", 15)):
        for name, photograph in zip(("ants", "bees"), load_sample_images().images, strict=True):
            folder = path / part / name
            folder.mkdir(parents=True)
            for piece in range(n_pieces):
                top, left = rng.integers(0, photograph.shape[0] - 96), rng.integers(0, 540)
                pixels = photograph[top : top + 96, left : left + 96]
                Image.fromarray(pixels).save(folder / f"{piece}.jpg")


def make_digits(path):
    """scikit-learn's digits of 8 x 8 pixels, enlarged, in the files of MNIST and Fashion-MNIST."""
    digits = load_digits()
    images = np.kron(digits.images * 15.9, np.ones((3, 3))).astype(np.uint8)
    images = np.pad(images, ((0, 0), (2, 2), (2, 2)))
    for folder in (path / "MNIST" / "raw", path / "FashionMNIST" / "raw"):
        folder.mkdir(parents=True)
        for part, rows in (("train", slice(300, None)), ("t10k", slice(300))):
            x, y = images[rows], digits.target[rows].astype(np.uint8)
            head = struct.pack(">iiii", 2051, *x.shape)
            (folder / f"{part}-images-idx3-ubyte").write_bytes(head + x.tobytes())
            head = struct.pack(">ii", 2049, len(y))
            (folder / f"{part}-labels-idx1-ubyte").write_bytes(head + y.tobytes())


STAND_INS = {
    "titanic/train.csv": make_titanic,
    "pima/diabetes.csv.gz": make_diabetes,
    "adult": make_adult,
    "names": make_names,
    "hymenoptera": make_images,
    "torchvision": make_digits,
}
