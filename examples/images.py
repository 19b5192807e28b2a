"""Ants or bees, from folders of photographs: augmentation, a small network, and `resnet18`.

Every picture is decoded and scaled once, and kept as bytes (`cache=True`). Flips and crops are
drawn anew for each picture in every epoch.
"""

import argparse
import os
import sys
from pathlib import Path

import torch
from torch import nn
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from easyclf import AccuracyLogger, EarlyStopping, Estimator

folder = os.environ.get("EASYCLF_DATA", Path(__file__).parents[2] / "shared" / "data")
parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--data", type=Path, default=Path(folder, "hymenoptera"))
parser.add_argument("--epochs", type=int, default=20)
parser.add_argument(
    "--weights", help='of resnet18; "DEFAULT" are those of ImageNet, which are fetched if need be'
)
arguments = parser.parse_args()

decode = v2.Compose([v2.PILToTensor(), v2.Resize(72), v2.CenterCrop(72)])
try:
    train = ImageFolder(arguments.data / "train", decode)
    valid = ImageFolder(arguments.data / "val", decode)
except OSError:
    sys.exit(
        f"Cannot read {arguments.data}: give your copy with --data PATH, or set EASYCLF_DATA to "
        "the folder that holds hymenoptera/train and hymenoptera/val."
    )


def block(n_in, n_out):
    """A convolution that halves height and width."""
    return nn.Sequential(
        nn.Conv2d(n_in, n_out, 3, padding=1), nn.BatchNorm2d(n_out), nn.ReLU(), nn.MaxPool2d(2)
    )


small = nn.Sequential(
    block(3, 16), block(16, 32), block(32, 64), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    nn.Dropout(0.3), nn.Linear(64, 2),
)  # fmt: skip
settings = {
    "cache": True,
    "augment": v2.Compose([v2.RandomHorizontalFlip(), v2.RandomResizedCrop(72, (0.6, 1))]),
    "preprocess": v2.Compose(
        [
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    ),
    "epochs": arguments.epochs,
    "random_state": 0,
}

print("A small network:")
clf = Estimator(
    small,
    lr=3e-3,
    callbacks=[AccuracyLogger(every=5), EarlyStopping(monitor="val_accuracy", patience=10)],
    **settings,
)
clf.fit(train, validation_data=valid)
print(f"accuracy {clf.score(valid):.3f} for {', '.join(clf.class_names_)}")

print("resnet18:")
tuned = Estimator("resnet18", callbacks=[AccuracyLogger(every=5)], **settings)
if arguments.weights:
    # The published layers stay as they are; only the new last one is trained.
    tuned.set_params(module__weights=arguments.weights, freeze=["conv1", "bn1", "layer*"], lr=0.01)
else:
    tuned.set_params(lr=3e-4)
tuned.fit(train, validation_data=valid)
print(f"accuracy {tuned.score(valid):.3f}")
