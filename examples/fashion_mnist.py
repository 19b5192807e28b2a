"""Softmax regression on Fashion-MNIST, from images in memory whose pixels stay bytes.

With --own-sgd a hand-written optimizer takes the place of torch's.
"""

import argparse

import torch
from torch import nn
from torchvision.datasets import FashionMNIST

from easyclf import AccuracyLogger, Estimator
from example_data import find


class SoftmaxRegression(nn.Module):
    def __init__(self, n_features, n_classes):
        super().__init__()
        self.linear = nn.Linear(n_features, n_classes)
        nn.init.normal_(self.linear.weight, std=0.01)
        nn.init.zeros_(self.linear.bias)

    def forward(self, images):
        return self.linear(images.flatten(1) / 255)


class OwnSGD(torch.optim.Optimizer):
    def __init__(self, params, lr):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter -= group["lr"] * parameter.grad


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--data", help="folder of FashionMNIST/raw; it is downloaded there")
parser.add_argument("--own-sgd", action="store_true", help="use the hand-written optimizer")
options = parser.parse_args()
folder = find("torchvision", options.data)

train = FashionMNIST(folder, train=True, download=True)
test = FashionMNIST(folder, train=False, download=True)

clf = Estimator(
    SoftmaxRegression,
    loss=nn.CrossEntropyLoss(reduction="none"),
    optimizer=OwnSGD if options.own_sgd else "sgd",
    lr=0.1,
    batch_size=256,
    epochs=10,
    callbacks=[AccuracyLogger()],
    random_state=0,
).fit(train.data, train.targets, validation_data=(test.data, test.targets))
print(f"test accuracy {clf.score(test.data, test.targets):.4f}")
names = [test.classes[label] for label in clf.predict(test.data[:5])]
print(f"the first test images: {', '.join(names)}")
