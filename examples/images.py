"""Ants or bees, from folders of photographs: why augmentation, and which pictures go wrong.

A small network is trained twice, on the photographs as they are and on flips and crops that are
drawn anew for each of them in every epoch: it then learns them by heart more slowly. Below the
curves are the photographs of which it was surest. They tell what it goes by: the flowers around
the bees, so a flower with an ant on it, or with nothing, is a bee to it.

The photographs are those of torch's tutorial on transfer learning, "hymenoptera". Each is decoded
and scaled once, and kept as bytes (`cache=True`). `--weights DEFAULT` also fine-tunes `resnet18`.
"""

import argparse

import numpy as np
import torch
from torch import nn
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from easyclf import AccuracyLogger, Estimator, LRScheduler
from example_data import find

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--data", help="folder of yours that holds train and val")
parser.add_argument("--epochs", type=int, default=30)
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


def small(n_classes):
    """A network of three such blocks."""
    return nn.Sequential(
        block(3, 16), block(16, 32), block(32, 64), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(64, n_classes),
    )  # fmt: skip


flip_and_crop = v2.Compose([v2.RandomHorizontalFlip(), v2.RandomResizedCrop(72, (0.5, 1))])
settings = {
    "cache": True,
    "preprocess": v2.Compose(
        [
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    ),
    "epochs": arguments.epochs,
    "random_state": 0,
}

runs = {}
for name, augment in (("as they are", None), ("flipped and cropped", flip_and_crop)):
    print(f"Photographs {name}:")
    callbacks = [AccuracyLogger(every=10), LRScheduler("cosine")]
    clf = Estimator(small, lr=3e-3, augment=augment, callbacks=callbacks, **settings)
    runs[name] = clf.fit(train, validation_data=valid)
    print(f"accuracy {clf.score(valid):.3f} for {', '.join(clf.class_names_)}")

if arguments.weights:
    print("resnet18:")
    # The published layers stay as they are; only the new last one is trained.
    tuned = Estimator(
        "resnet18",
        module__weights=arguments.weights,
        freeze=["conv1", "bn1", "layer*"],
        augment=flip_and_crop,
        lr=0.01,
        callbacks=[AccuracyLogger(every=10)],
        **settings,
    )
    tuned.fit(train, validation_data=valid)
    print(f"accuracy {tuned.score(valid):.3f}")

probabilities, labels = clf.predict_proba(valid), np.array(valid.targets)
answers, best = probabilities.argmax(1), probabilities.max(1)
surest = np.argsort(-best, kind="stable")
rows = {
    "right": [row for row in surest if answers[row] == labels[row]][:5],
    "wrong": [row for row in surest if answers[row] != labels[row]][:5],
}
for word, chosen in rows.items():
    shown = ", ".join(f"{clf.class_names_[answers[row]]} {best[row]:.2f}" for row in chosen)
    print(f"surest {word} answers: {shown}")

try:
    import matplotlib.pyplot as plt
except ImportError as error:
    print(f"no picture: {error}")
else:
    figure = plt.figure(figsize=(10, 6.4), layout="constrained")
    curves, pictures = figure.subfigures(2, 1, height_ratios=(1, 1.15))
    for panel, quantity in zip(curves.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for color, (name, run) in zip(("tab:orange", "tab:blue"), runs.items(), strict=True):
            epochs = run.history_["epoch"]
            panel.plot(epochs, run.history_[quantity], color=color, label=f"{name}: training")
            panel.plot(
                epochs, run.history_[f"val_{quantity}"], "--", color=color, label="validation"
            )
        panel.set(xlabel="epoch", ylabel=quantity)
    panel.legend(fontsize="small")
    grid = pictures.subplots(2, 5)
    for panel in grid.flat:
        panel.axis("off")
    for line, (word, chosen) in zip(grid, rows.items(), strict=True):
        for panel, row in zip(line, chosen, strict=False):
            panel.imshow(valid[row][0].permute(1, 2, 0).numpy())
            answer = f"{clf.class_names_[answers[row]]} {best[row]:.2f}, {word}"
            panel.set_title(
                answer, fontsize="small", color="green" if word == "right" else "tab:red"
            )
    figure.savefig("images.png", dpi=90)
    print("curves and photographs in images.png")
