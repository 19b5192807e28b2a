"""From surnames to countries with a GRU: sequences of several lengths, padded batch by batch.

The names are those of the course "PyTorch" of Liu Er.
"""

import argparse

import pandas as pd
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_sequence
from torch.utils.data import Dataset

from easyclf import AccuracyLogger, Estimator
from example_data import find

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument(
    "--data", help="folder of yours that holds names_train.csv.gz and the test part"
)
parser.add_argument("--epochs", type=int, default=5)
arguments = parser.parse_args()
folder = find("names", arguments.data)


class Names(Dataset):
    """Surnames as ASCII codes, with their countries as `targets`."""

    def __init__(self, path):
        table = pd.read_csv(path, header=None, names=["name", "country"], keep_default_na=False)
        self.names = [torch.tensor(list(name.encode())) for name in table["name"]]
        self.targets = table["country"].to_numpy()

    def __len__(self):
        return len(self.names)

    def __getitem__(self, row):
        return self.names[row], self.targets[row]


def collate(items):
    """Pad the names of a batch with zeros: two inputs, the letters and the lengths."""
    names, countries = zip(*items, strict=True)
    lengths = torch.tensor([len(name) for name in names])
    return (pad_sequence(names, batch_first=True), lengths), list(countries)


class Classifier(nn.Module):
    """The last states of a GRU that reads in both directions."""

    def __init__(self, n_classes, hidden=100):
        super().__init__()
        self.embedding = nn.Embedding(128, hidden)
        self.gru = nn.GRU(hidden, hidden, batch_first=True, bidirectional=True)
        self.output = nn.Linear(2 * hidden, n_classes)

    def forward(self, letters, lengths):
        packed = pack_padded_sequence(
            self.embedding(letters), lengths.cpu(), batch_first=True, enforce_sorted=False
        )
        _, states = self.gru(packed)
        return self.output(torch.cat([states[0], states[1]], dim=1))


train = Names(folder / "names_train.csv.gz")
test = Names(folder / "names_test.csv.gz")

clf = Estimator(
    Classifier,
    epochs=arguments.epochs,
    batch_size=256,
    lr=3e-3,
    loader__collate_fn=collate,
    callbacks=[AccuracyLogger()],
    random_state=0,
)
clf.fit(train, validation_data=test)
print(f"test accuracy {clf.score(test):.4f} over {len(clf.classes_)} countries")
for row, country in zip(range(3), clf.predict(test), strict=False):
    print(f"{bytes(test.names[row].tolist()).decode()}: {country} (it is {test.targets[row]})")
