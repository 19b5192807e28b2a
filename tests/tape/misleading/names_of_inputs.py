"""I: programs whose inputs have names, and come in another order or not at all."""

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from tape.misleading.program import LABELS, TABLE, Programs, run

PROGRAMS = Programs("I")
mislead, play = PROGRAMS.mislead, PROGRAMS.play

OTHER = np.roll(TABLE, 3, 0) * 0.5 - 0.2
# Batches before something changes.
LATE = 22


class Joined(nn.Module):
    """Two inputs of one shape, of which each is used in its own way."""

    def __init__(self):
        super().__init__()
        self.left, self.right, self.last = nn.Linear(4, 6), nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, a, b):
        return self.last(torch.tanh(self.left(a)) * 2 - torch.sigmoid(self.right(b)))


class Optional(Joined):
    """The second input may be missing."""

    def forward(self, a, b=None):
        return super().forward(a, a if b is None else b)


class Keywords(Joined):
    """Inputs under any name, in the order in which they come."""

    def forward(self, **inputs):
        total = sum((place + 1) * self.left(value) for place, value in enumerate(inputs.values()))
        return self.last(torch.tanh(total))


class Named(Joined):
    """Inputs under any name, of which the name counts."""

    def forward(self, **inputs):
        total = sum(len(name) * self.left(value) for name, value in inputs.items())
        return self.last(torch.tanh(total))


class Late:
    """A transform that changes how its inputs are named, from some call on."""

    def __init__(self, change, call=LATE):
        self.change, self.call, self.calls = change, call, 0

    def __call__(self, x):
        self.calls += 1
        return self.change(x) if self.calls > self.call else x


def both():
    return {"a": TABLE, "b": OTHER}


def named(module, change, call=LATE, **settings):
    return run(module, X=both(), augment=Late(change, call), **settings)


def turned(x):
    """The same inputs, in another order."""
    return {name: x[name] for name in reversed(x)}


def swapped(x):
    """The names change places."""
    return {"a": x["b"], "b": x["a"]}


@mislead
def inputs_in_another_order():
    return named(Joined(), turned)


@mislead
def inputs_in_another_order_every_second_time():
    class Turning(Late):
        def __call__(self, x):
            self.calls += 1
            return turned(x) if self.calls % 2 else x

    return run(Joined(), X=both(), augment=Turning(None))


@mislead
def inputs_that_change_places():
    return named(Joined(), swapped)


@mislead
def inputs_in_another_order_where_the_order_counts():
    return named(Keywords(), turned)


@mislead
def inputs_that_become_one():
    return named(Joined(), lambda x: {"a": x["a"], "b": x["a"]})


@mislead
def inputs_that_share_memory():
    return named(Joined(), lambda x: {"a": x["a"], "b": x["a"].view(-1).view(16, 4)})


@mislead
def inputs_that_are_views_of_one_tensor():
    def change(x):
        joined = torch.stack([x["a"], x["b"]])
        return {"a": joined[1], "b": joined[0]}

    return named(Joined(), change)


@mislead
def inputs_of_another_layout():
    return named(Joined(), lambda x: {"a": x["a"].t().contiguous().t(), "b": x["b"]})


@mislead
def inputs_in_another_order_in_validation():
    class Turning(Late):
        def __call__(self, x):
            self.calls += 1
            return turned(x) if self.calls % 3 == 0 else x

    return run(Joined(), X=both(), preprocess=Turning(None))


@mislead
def inputs_in_another_order_from_preprocess():
    return run(Joined(), X=both(), preprocess=Late(turned, call=25))


@mislead
def a_key_that_counts_by_its_length():
    class Loose(Named):
        def forward(self, a=None, b=None, longer=None):
            given = {"a": a, "b": b, "longer": longer}
            return super().forward(**{name: x for name, x in given.items() if x is not None})

    def change(x):
        return {"a": x["a"], "longer": x["b"]}

    return run(Loose(), X=both(), preprocess=Late(change, call=25))


@mislead
def a_key_that_is_missing_at_times():
    class Loose(Named):
        def forward(self, a=None, b=None):
            given = {"a": a, "b": b}
            return super().forward(**{name: x for name, x in given.items() if x is not None})

    class Missing(Late):
        def __call__(self, x):
            self.calls += 1
            return {"ba"[self.calls % 2]: x["a"]}

    return run(Loose(), X=both(), preprocess=Missing(None))


@mislead
def a_key_instead_of_another():
    def change(x):
        return {"b": x["a"], "a": x["b"] * 2}

    return named(Named(), change)


class Items(Dataset):
    """Rows as dicts, whose keys come in an order that changes."""

    def __init__(self, turns):
        self.turns, self.calls = turns, 0

    def __len__(self):
        return len(TABLE)

    def __getitem__(self, row):
        self.calls += 1
        names = ["a", "b"]
        if self.turns and (self.calls // 64) % 3 == 2:
            names.reverse()
        values = {"a": torch.from_numpy(TABLE[row]), "b": torch.from_numpy(OTHER[row])}
        return {**{name: values[name] for name in names}, "y": int(LABELS[row])}


@mislead
def a_dataset_whose_keys_turn():
    return run(Joined(), X=Items(turns=True), y=None, validation=Items(turns=False))


@mislead
def a_loader_whose_keys_turn():
    loader = DataLoader(Items(turns=True), batch_size=16)
    validation = Items(turns=False)
    return run(Joined(), X=loader, y=None, validation=validation, batch_size="auto")


# Honest: several inputs, always the same.


@play
def two_inputs_by_name():
    return run(Joined(), X=both())


@play
def two_inputs_by_place():
    return run(Joined(), X=(TABLE, OTHER))


@play
def two_inputs_in_another_order_from_the_start():
    return run(Joined(), X={"b": OTHER, "a": TABLE})


@play
def an_optional_input_that_is_missing():
    return run(Optional(), X={"a": TABLE})


@play
def an_optional_input_that_is_there():
    return run(Optional(), X=both())


@play
def one_tensor_under_two_names():
    return run(Joined(), X=both(), preprocess=lambda x: {"a": x["a"], "b": x["a"]})
