"""Ants or bees, from folders of photographs: augmentation, a small network, and `resnet18`.

Every picture is decoded and scaled once, and kept as bytes (`cache=True`). Flips and crops are
drawn anew for each picture in every epoch. The photographs are those of torch's tutorial on
transfer learning, "hymenoptera".
"""

import argparse

import torch
from torch import nn
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from easyclf import AccuracyLogger, EarlyStopping, Estimator
from example_data import find

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--data", help="folder of yours that holds train and val")
parser.add_argument("--epochs", type=int, default=20)
parser.add_argument(
    "--weights", help='of resnet18; "DEFAULT" are those of ImageNet, which are fetched if need be'
)
arguments = parser.parse_args()
folder = find("hymenoptera", arguments.data)

decode = v2.Compose([v2.PILToTensor(), v2.Resize(72), v2.CenterCrop(72)])
train = ImageFolder(folder / "train", decode)
valid = ImageFolder(folder / "val", decode)


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
