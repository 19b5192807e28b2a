"""E: programs in which something changes where no hook of an epoch says so."""

import copy
import functools
import threading
import time
import warnings

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

from easyclf import Callback, LambdaCallback
from tape.misleading.program import LABELS, TABLE, Programs, net, run

PROGRAMS = Programs("E")
mislead, play = PROGRAMS.mislead, PROGRAMS.play

# Calls of a transform before a change: later than a tape is made, within an epoch.
LATE = 23


class Late:
    """A transform of batches that leaves them alone, and does something in its late calls."""

    def __init__(self, change, call=LATE, again=False):
        self.change, self.call, self.again, self.calls = change, call, again, 0

    def __call__(self, x):
        self.calls += 1
        if self.calls == self.call or (self.again and self.calls > self.call):
            self.change()
        return x


def scaled():
    """A `Net` with a number, a buffer and a layer that others may change."""
    made = net(
        lambda self, x: self.drop(self.middle(x) * self.scale + self.shift),
        scale=1.0,
        middle=nn.Linear(6, 6),
        drop=nn.Dropout(0.1),
    )
    made.register_buffer("shift", torch.zeros(6))
    return made


def fill(tensor, value):
    with torch.no_grad():
        tensor.fill_(value)


def new_weight(layer):
    layer.weight = nn.Parameter(torch.ones_like(layer.weight))


def new_data(layer):
    layer.weight.data = torch.ones_like(layer.weight)


def by_augment(change, **keywords):
    made = scaled()
    return run(made, augment=Late(lambda: change(made), **keywords))


# A transform of the training's batches.


@mislead
def augment_changes_an_attribute():
    return by_augment(lambda made: setattr(made, "scale", 2.0))


@mislead
def augment_changes_an_attribute_in_each_batch():
    return by_augment(lambda made: setattr(made, "scale", made.scale + 0.01), again=True)


@mislead
def augment_opens_a_branch_with_a_clock():
    def between(self, x):
        if self.is_late:
            return x * (1 + time.time() % 1e-9 + self.last.bias.numel())
        return x

    made = net(between, is_late=False)
    return run(made, augment=Late(lambda: setattr(made, "is_late", True)))


@mislead
def augment_opens_a_branch_that_reads_values_by_another_name():
    def between(self, x):
        if self.is_late:
            read = list(map(float, x[0]))
            return x * (1 + sum(read))
        return x

    made = net(between, is_late=False)
    return run(made, augment=Late(lambda: setattr(made, "is_late", True)))


@mislead
def augment_changes_weights_in_place():
    return by_augment(lambda made: fill(made.middle.weight, 0.3))


@mislead
def augment_changes_a_buffer_in_place():
    return by_augment(lambda made: fill(made.shift, 0.3))


@play
def prints_and_warnings_in_branches_that_stay_closed():
    def between(self, x):
        if self.is_verbose:
            print(f"a batch of {x.shape[0]} rows", x.mean())
            warnings.warn("a batch", stacklevel=2)
        return x

    return run(net(between, is_verbose=False))


@mislead
def augment_replaces_a_buffer():
    return by_augment(lambda made: setattr(made, "shift", torch.ones(6, dtype=torch.float64)))


@mislead
def augment_replaces_a_weight():
    return by_augment(lambda made: new_weight(made.middle))


@mislead
def augment_replaces_the_data_of_a_weight():
    return by_augment(lambda made: new_data(made.middle))


@mislead
def augment_replaces_a_layer():
    return by_augment(lambda made: setattr(made, "drop", nn.Hardtanh()))


@mislead
def augment_changes_the_rate_of_dropout():
    return by_augment(lambda made: setattr(made.drop, "p", 0.6))


@mislead
def augment_freezes_a_weight():
    return by_augment(lambda made: made.middle.weight.requires_grad_(False))


@mislead
def augment_replaces_forward():
    return by_augment(lambda made: setattr(made, "between", lambda x: 2 * x))


@mislead
def augment_registers_a_hook():
    return by_augment(lambda made: made.middle.register_forward_hook(lambda m, x, out: 2 * out))


@mislead
def augment_switches_a_layer_to_evaluation():
    return by_augment(lambda made: made.drop.eval())


@mislead
def augment_loads_a_state():
    return by_augment(
        lambda made: made.load_state_dict(
            {name: torch.ones_like(value) / 4 for name, value in made.state_dict().items()},
            assign=True,
        )
    )


@mislead
def augment_changes_a_class():
    made = scaled()
    del made.scale
    type(made).scale = 1.0
    return run(made, augment=Late(lambda: setattr(type(made), "scale", 2.0)))


@mislead
def augment_changes_what_the_loss_reads():
    weights = [1.0, 1.0, 1.0]

    def loss(out, y):
        return F.cross_entropy(out, y, weight=torch.tensor(weights, dtype=out.dtype))

    return run(scaled(), loss=loss, augment=Late(lambda: weights.__setitem__(1, 6.0)))


@mislead
def augment_in_another_thread():
    made = scaled()

    def change():
        thread = threading.Thread(target=setattr, args=(made, "scale", 2.0))
        thread.start()
        thread.join()

    return run(made, augment=Late(change))


@mislead
def augment_of_growing_strength():
    class Noise:
        calls = 0

        def __call__(self, x):
            self.calls += 1
            return x + 0.002 * self.calls * torch.randn_like(x)

    return run(scaled(), augment=Noise())


@mislead
def augment_that_seeds_torch():
    return by_augment(lambda made: torch.manual_seed(3), again=True)


@mislead
def preprocess_changes_an_attribute():
    made = scaled()
    return run(made, preprocess=Late(lambda: setattr(made, "scale", 2.0)))


@mislead
def preprocess_changes_what_it_reads():
    scales = [1.0]

    def preprocess(x):
        return x * scales[0]

    return run(scaled(), preprocess=preprocess, augment=Late(lambda: scales.__setitem__(0, 0.5)))


# Datasets.


class Rows(Dataset):
    """Rows that do something when they are read late."""

    def __init__(self, change, call=LATE * 16):
        self.change, self.call, self.calls = change, call, 0

    def __len__(self):
        return len(TABLE)

    def __getitem__(self, row):
        self.calls += 1
        if self.calls == self.call:
            self.change()
        return torch.from_numpy(TABLE[row]), int(LABELS[row])


def by_dataset(change, **keywords):
    made = scaled()
    return run(made, X=Rows(lambda: change(made), **keywords), y=None, validation=(TABLE, LABELS))


@mislead
def a_dataset_changes_an_attribute():
    return by_dataset(lambda made: setattr(made, "scale", 2.0))


@mislead
def a_dataset_changes_weights_in_place():
    return by_dataset(lambda made: fill(made.middle.weight, 0.3))


@mislead
def a_dataset_replaces_a_weight():
    return by_dataset(lambda made: new_data(made.middle))


@mislead
def a_dataset_changes_the_rate_of_dropout():
    return by_dataset(lambda made: setattr(made.drop, "p", 0.6))


@mislead
def a_loader_changes_an_attribute():
    made = scaled()
    rows = Rows(lambda: setattr(made, "scale", 2.0))
    loader = DataLoader(rows, batch_size=16)
    return run(made, X=loader, y=None, validation=(TABLE, LABELS), batch_size="auto")


@mislead
def a_collate_function_changes_an_attribute():
    made = scaled()
    late = Late(lambda: setattr(made, "scale", 2.0))

    def collate(items):
        late(None)
        return torch.utils.data.default_collate(items)

    loader = DataLoader(Rows(None, call=-1), batch_size=16, collate_fn=collate)
    return run(made, X=loader, y=None, validation=(TABLE, LABELS), batch_size="auto")


@mislead
def a_stream_changes_an_attribute():
    made = scaled()

    class Stream(IterableDataset):
        calls = 0

        def __iter__(self):
            for row in range(len(TABLE)):
                self.calls += 1
                if self.calls == LATE * 16:
                    made.scale = 2.0
                yield torch.from_numpy(TABLE[row]), int(LABELS[row])

    return run(made, X=Stream(), y=None, validation=(TABLE, LABELS), shuffle=False)


# Validation.


@mislead
def a_validation_set_changes_an_attribute():
    made = scaled()
    rows = Rows(lambda: setattr(made, "scale", 2.0), call=6 * 64)
    return run(made, validation=rows)


# Callbacks, whose hooks are about batches, and those that say nothing.


def by_callback(change, **hooks):
    made = scaled()
    names = hooks or {"on_batch_begin": LATE}

    def at(step):
        return lambda state: change(made, state) if state.step == step else None

    callbacks = [LambdaCallback(**{name: at(step) for name, step in names.items()})]
    return run(made, callbacks=callbacks)


@mislead
def an_attribute_before_a_batch():
    return by_callback(lambda made, state: setattr(made, "scale", 2.0), on_batch_begin=LATE)


@mislead
def an_attribute_after_a_batch():
    return by_callback(lambda made, state: setattr(made, "scale", 2.0), on_batch_end=LATE)


@mislead
def weights_after_a_batch():
    return by_callback(lambda made, state: fill(made.middle.weight, 0.3), on_batch_end=LATE)


@mislead
def gradients_after_a_batch():
    def change(made, state):
        for parameter in made.parameters():
            parameter.grad.zero_()

    return by_callback(change, on_batch_end=LATE)


@mislead
def the_optimizer_replaced_after_a_batch():
    def change(made, state):
        state.optimizer = torch.optim.SGD(made.parameters(), lr=0.1)

    return by_callback(change, on_batch_end=LATE)


@mislead
def the_optimizer_replaced_before_an_epoch():
    def change(made, state):
        state.optimizer = torch.optim.SGD(made.parameters(), lr=0.1)

    return by_callback(change, on_epoch_begin=20)


@mislead
def the_optimizer_replaced_by_one_of_fewer_weights():
    def change(made, state):
        state.optimizer = torch.optim.Adam(made.last.parameters(), lr=0.1)

    return by_callback(change, on_epoch_begin=20)


@mislead
def forward_wrapped_at_the_start():
    calls = [0]

    def wrap(state):
        original = state.forward

        def forward(*inputs):
            calls[0] += 1
            return original(*inputs) * (1 + calls[0] / 100)

        state.forward = forward

    return run(scaled(), callbacks=[LambdaCallback(on_train_begin=wrap)])


@mislead
def forward_wrapped_before_an_epoch():
    def wrap(made, state):
        original = state.forward
        state.forward = lambda *inputs: original(*inputs) * 2

    return by_callback(wrap, on_epoch_begin=20)


@mislead
def the_loss_replaced_before_an_epoch():
    def change(made, state):
        state.head = copy.copy(state.head)
        state.head.losses = lambda out, y, original=state.head.losses: 2 * original(out, y)

    return by_callback(change, on_epoch_begin=20)


@mislead
def the_module_replaced_in_the_state():
    def change(made, state):
        state.module.forward = functools.partial(lambda old, x: 2 * old(x), state.module.forward)

    return by_callback(change, on_epoch_begin=20)


class Passive(Callback):
    """It says that it only looks, and does not keep its word."""

    changes = "nothing"

    def __init__(self, change):
        self.change = change

    def on_epoch_begin(self, state):
        if state.step == 24:
            self.change(state)


@mislead
def a_passive_callback_that_changes_an_attribute():
    made = scaled()
    return run(made, callbacks=[Passive(lambda state: setattr(made, "scale", 2.0))])


@mislead
def a_passive_callback_that_replaces_a_weight():
    made = scaled()
    return run(made, callbacks=[Passive(lambda state: new_data(made.middle))])


@mislead
def a_passive_callback_that_changes_the_learning_rate():
    def change(state):
        state.optimizer.param_groups[0]["lr"] = 0.2

    return run(scaled(), callbacks=[Passive(change)])


@mislead
def a_rate_that_is_set_in_each_step():
    def warm_up(state):
        for group in state.optimizer.param_groups:
            group["lr"] = 0.05 * min(1.0, state.step / 100)

    return run(scaled(), callbacks=[LambdaCallback(on_batch_begin=warm_up)])


@mislead
def a_moving_average_of_weights_that_is_swapped_in():
    """As an EMA callback does: trained weights for training, averaged ones for validation."""

    class Average(Callback):
        def on_train_begin(self, state):
            self.average = copy.deepcopy(state.module.state_dict())

        def on_batch_end(self, state):
            for name, value in state.module.state_dict().items():
                if value.is_floating_point():
                    self.average[name].lerp_(value, 0.1)

        def on_epoch_end(self, state):
            if state.epoch == 6:
                state.module.load_state_dict(self.average)

    return run(scaled(), callbacks=[Average()])


@mislead
def layers_unfrozen_before_an_epoch():
    def change(made, state):
        made.middle.requires_grad_(True)
        state.optimizer.add_param_group({"params": list(made.middle.parameters()), "lr": 0.1})

    made = scaled()
    callbacks = [
        LambdaCallback(
            on_epoch_begin=lambda state: change(made, state) if state.epoch == 6 else None
        )
    ]
    return run(made, callbacks=callbacks, freeze="middle.*")


@mislead
def a_thread_between_epochs():
    def change(made, state):
        thread = threading.Thread(target=fill, args=(made.shift, 0.5))
        thread.start()
        thread.join()

    return by_callback(change, on_epoch_end=20)


@mislead
def a_layer_that_is_shared_from_some_epoch_on():
    def change(made, state):
        made.middle.weight = made.last.weight = nn.Parameter(torch.ones(6, 6, dtype=torch.float64))

    made = net(lambda self, x: self.middle(x), middle=nn.Linear(6, 6))
    made.last = nn.Linear(6, 6)
    callbacks = [
        LambdaCallback(
            on_epoch_begin=lambda state: change(made, state) if state.epoch == 6 else None
        )
    ]
    return run(made, y=LABELS + LABELS // 2, callbacks=callbacks)


# Honest: code of the user's that changes nothing, or says so.


@play
def augment_that_draws_noise():
    return run(scaled(), augment=lambda x: x + 0.1 * torch.randn_like(x))


@play
def augment_that_flips():
    return run(scaled(), augment=lambda x: x.flip(1))


@play
def preprocess_that_scales():
    return run(scaled(), preprocess=lambda x: (x - 0.1) / 2)


@play
def a_dataset_of_rows():
    return by_dataset(None, call=-1)


@play
def a_callback_that_looks():
    losses = []
    look = LambdaCallback(on_epoch_end=lambda state: losses.append(state.logs["loss"]))
    return run(scaled(), callbacks=[look])


@play
def a_callback_that_sets_the_rate_before_an_epoch():
    def change(state):
        state.optimizer.param_groups[0]["lr"] = 0.02 * 0.99**state.epoch

    return run(scaled(), callbacks=[LambdaCallback(on_epoch_begin=change)])


@play
def a_callback_that_changes_weights_in_place_before_an_epoch():
    def change(state):
        fill(state.module.middle.bias, 0.1)

    return run(scaled(), callbacks=[LambdaCallback(on_epoch_begin=change)])


@play
def a_scheduler_of_torch_in_each_epoch():
    class Schedule(Callback):
        def on_train_begin(self, state):
            self.schedule = torch.optim.lr_scheduler.ExponentialLR(state.optimizer, 0.99)

        def on_epoch_end(self, state):
            self.schedule.step()

    return run(scaled(), callbacks=[Schedule()])
