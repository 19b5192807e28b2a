"""MNIST from torchvision with its transforms, in minibatches of 64.

The running loss is printed every 300 batches, the test accuracy after every epoch.
"""

import argparse

from torch import nn
from torchvision.datasets import MNIST
from torchvision.transforms import Compose, Normalize, ToTensor

from easyclf import AccuracyLogger, Callback, Estimator
from example_data import find


def network(n_features, n_classes):
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(n_features, 512),
        nn.ReLU(),
        nn.Linear(512, 128),
        nn.ReLU(),
        nn.Linear(128, n_classes),
    )


class RunningLoss(Callback):
    """Print the mean loss of every 300 batches."""

    def on_epoch_begin(self, state):
        self.losses = []

    def on_batch_end(self, state):
        self.losses.append(state.logs["loss"])
        if len(self.losses) % 300 == 0:
            mean = sum(self.losses[-300:]) / 300
            print(f"epoch {state.epoch}, batch {len(self.losses)}: loss {mean:.3f}")


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--data", help="folder of MNIST/raw; it is downloaded there if need be")
parser.add_argument("--epochs", type=int, default=10)
options = parser.parse_args()
folder = find("torchvision", options.data)

transform = Compose([ToTensor(), Normalize(0.1307, 0.3081)])
train = MNIST(folder, train=True, transform=transform, download=True)
test = MNIST(folder, train=False, transform=transform, download=True)

clf = Estimator(
    network,
    optimizer="sgd",
    optimizer__momentum=0.5,
    lr=0.01,
    batch_size=64,
    epochs=options.epochs,
    callbacks=[RunningLoss(), AccuracyLogger()],
    random_state=0,
).fit(train, validation_data=test)
print(f"test accuracy {clf.score(test):.4f}")
