"""H: programs in which training and evaluation differ in their own way."""

import torch
import torch.nn.functional as F
from torch import nn

from easyclf import LambdaCallback
from tape.misleading.changes_unannounced import Late
from tape.misleading.program import IMAGES, LONG, STEPS, Net, Programs, net, run

PROGRAMS = Programs("H", **LONG)
mislead, play = PROGRAMS.mislead, PROGRAMS.play


def at_epoch(change, epoch=23, hook="on_epoch_begin"):
    return LambdaCallback(
        **{hook: lambda state: change(state.module) if state.epoch == epoch else None}
    )


def residual_layers(n=3):
    return nn.ModuleList(nn.Linear(6, 6) for _ in range(n))


@mislead
def layer_drop():
    def between(self, x):
        for layer in self.layers:
            if not self.training or torch.rand(1).item() > 0.3:
                x = x + torch.tanh(layer(x))
        return x

    return net(between, layers=residual_layers())


@mislead
def layer_drop_by_a_comparison():
    def between(self, x):
        for layer in self.layers:
            if self.training and torch.rand(()) < 0.3:
                continue
            x = x + torch.tanh(layer(x))
        return x

    return net(between, layers=residual_layers())


@mislead
def layer_drop_in_the_list_of_layers():
    """As in fairseq: the list leaves out layers when it is gone through."""

    class LayerDrop(nn.ModuleList):
        def __iter__(self):
            draws = torch.empty(len(self)).uniform_()
            for place, layer in enumerate(super().__iter__()):
                if not self.training or draws[place] > 0.3:
                    yield layer

    def between(self, x):
        for layer in self.layers:
            x = x + torch.tanh(layer(x))
        return x

    return net(between, layers=LayerDrop(residual_layers()))


@mislead
def layer_drop_by_the_list_of_draws():
    def between(self, x):
        draws = torch.rand(len(self.layers)).tolist()
        for layer, draw in zip(self.layers, draws, strict=True):
            x = x + torch.tanh(layer(x)) if draw > 0.3 or not self.training else x
        return x

    return net(between, layers=residual_layers())


@mislead
def stochastic_depth_of_a_batch():
    def between(self, x):
        if self.training and bool(torch.bernoulli(torch.tensor(0.3))):
            return x
        return x + torch.tanh(self.middle(x))

    return net(between, middle=nn.Linear(6, 6))


class LoRA(nn.Module):
    """A low-rank change of a linear layer, which is merged into it for evaluation."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, 6)
        self.linear.requires_grad_(False)
        self.down, self.up = nn.Linear(6, 2, bias=False), nn.Linear(2, 6, bias=False)
        self.is_merged = False

    def train(self, mode=True):
        super().train(mode)
        if mode and self.is_merged:
            self.linear.weight.data -= self.up.weight.data @ self.down.weight.data
            self.is_merged = False
        elif not mode and not self.is_merged:
            self.linear.weight.data += self.up.weight.data @ self.down.weight.data
            self.is_merged = True
        return self

    def forward(self, x):
        return self.linear(x) if self.is_merged else self.linear(x) + self.up(self.down(x))


@mislead
def lora_that_merges_in_evaluation():
    return net(lambda self, x: self.lora(x), lora=LoRA())


@mislead
def lora_that_assigns_in_evaluation():
    class Assigning(LoRA):
        def train(self, mode=True):
            nn.Module.train(self, mode)
            if mode is self.is_merged:
                change = self.up.weight.detach() @ self.down.weight.detach()
                sign = -1 if mode else 1
                self.linear.weight = nn.Parameter(
                    self.linear.weight.detach() + sign * change, requires_grad=False
                )
                self.is_merged = not mode
            return self

    return net(lambda self, x: self.lora(x), lora=Assigning())


@mislead
def train_that_counts():
    class Own(Net):
        trainings = 0

        def train(self, mode=True):
            if mode:
                self.trainings += 1
            return super().train(mode)

        def between(self, x):
            return x * (1 + self.trainings / 100)

    return Own()


@mislead
def train_that_changes_a_buffer():
    class Own(Net):
        def __init__(self):
            super().__init__()
            self.register_buffer("scale", torch.ones(()))

        def train(self, mode=True):
            if hasattr(self, "scale"):
                self.scale.mul_(1.01 if mode else 0.995)
            return super().train(mode)

        def between(self, x):
            return x * self.scale

    return Own()


@mislead
def eval_that_changes_an_attribute():
    class Own(Net):
        scale = 1.0

        def eval(self):
            self.scale = self.scale * 1.01
            return super().eval()

        def between(self, x):
            return x * self.scale

    return Own()


@mislead
def train_that_keeps_a_layer_in_evaluation():
    class Own(Net):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm1d(6)

        def train(self, mode=True):
            super().train(mode)
            self.norm.eval()
            return self

        def between(self, x):
            return self.norm(x)

    return Own()


@mislead
def train_that_keeps_a_layer_in_evaluation_at_times():
    class Own(Net):
        calls = 0

        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm1d(6)

        def train(self, mode=True):
            self.calls += 1
            super().train(mode)
            self.norm.train(mode and self.calls % 4 < 2)
            return self

        def between(self, x):
            return self.norm(x)

    return Own()


@mislead
def train_that_draws():
    class Own(Net):
        def train(self, mode=True):
            torch.rand(1)
            return super().train(mode)

        def between(self, x):
            return F.dropout(x, 0.2, self.training)

    return Own()


@mislead
def a_child_whose_train_counts():
    class Child(nn.Module):
        turns = 0

        def train(self, mode=True):
            self.turns += 1
            return super().train(mode)

        def forward(self, x):
            return x * (1 + self.turns / 200)

    return net(lambda self, x: self.child(x), child=Child())


@mislead
def training_as_a_property():
    class Child(nn.Module):
        reads = 0

        def __init__(self):
            super().__init__()
            vars(self).pop("training", None)

        @property
        def training(self):
            vars(self)["count"] = vars(self).get("count", 0) + 1
            return self.count % 3 == 0

        @training.setter
        def training(self, mode):
            pass

        def forward(self, x):
            return 2 * x if self.training else x

    return net(lambda self, x: self.child(x), child=Child())


@mislead
def modules_built_in_forward():
    def between(self, x):
        layer = nn.Linear(6, 6, dtype=x.dtype)
        return x + 0.1 * layer(x)

    return net(between)


@mislead
def dropout_built_in_forward():
    """A fresh module is in training mode, whatever the mode of the one around it is."""
    return net(lambda self, x: nn.Dropout(0.3)(x))


@mislead
def batch_norm_built_in_forward():
    return net(lambda self, x: nn.BatchNorm1d(6, dtype=x.dtype)(x))


@mislead
def a_layer_built_in_the_first_forward():
    class Own(Net):
        def between(self, x):
            if not hasattr(self, "middle"):
                self.middle = nn.Linear(6, 6, dtype=x.dtype)
            return self.middle(x)

    return Own()


@mislead
def a_layer_added_when_it_has_seen_enough():
    class Own(Net):
        steps = 0

        def between(self, x):
            self.steps += self.training
            if self.steps == 23 and not hasattr(self, "more"):
                self.more = nn.Linear(6, 6, dtype=x.dtype)
            return self.more(x) if self.steps >= 23 else x

    return Own()


@mislead
def the_momentum_of_a_batch_norm():
    made = net(lambda self, x: self.norm(x), norm=nn.BatchNorm1d(6))
    return run(made, callbacks=[at_epoch(lambda module: setattr(module.norm, "momentum", 0.9))])


@mislead
def the_momentum_of_a_batch_norm_within_an_epoch():
    made = net(lambda self, x: self.norm(x), norm=nn.BatchNorm1d(6))
    return run(made, augment=Late(lambda: setattr(made.norm, "momentum", 0.9)))


@mislead
def the_momentum_of_a_batch_norm_in_forward():
    def between(self, x):
        self.norm.momentum = max(0.01, self.norm.momentum * 0.99)
        return self.norm(x)

    return net(between, norm=nn.BatchNorm1d(6))


@mislead
def a_cumulative_average_of_a_batch_norm():
    return net(lambda self, x: self.norm(x), norm=nn.BatchNorm1d(6, momentum=None))


@mislead
def a_batch_norm_that_stops_tracking():
    def change(module):
        module.norm.track_running_stats = False

    made = net(lambda self, x: self.norm(x), norm=nn.BatchNorm1d(6))
    return run(made, callbacks=[at_epoch(change)])


@mislead
def a_batch_norm_that_is_frozen_from_some_epoch_on():
    class Own(Net):
        def __init__(self):
            super().__init__()
            self.norm, self.is_frozen = nn.BatchNorm1d(6), False

        def train(self, mode=True):
            super().train(mode)
            if self.is_frozen:
                self.norm.eval()
            return self

        def between(self, x):
            return self.norm(x)

    return run(Own(), callbacks=[at_epoch(lambda module: setattr(module, "is_frozen", True))])


@mislead
def the_rate_of_a_dropout_in_forward():
    def between(self, x):
        if self.training:
            self.drop.p = min(0.5, self.drop.p + 0.003)
        return self.drop(x)

    return net(between, drop=nn.Dropout(0.0))


@mislead
def the_rate_of_a_dropout_before_an_epoch():
    def change(state):
        state.module.drop.p = 0.005 * state.epoch

    made = net(lambda self, x: self.drop(x), drop=nn.Dropout(0.0))
    return run(made, callbacks=[LambdaCallback(on_epoch_begin=change)])


@mislead
def the_rate_of_a_dropout_from_an_epoch_on():
    made = net(lambda self, x: self.drop(x), drop=nn.Dropout(0.0))
    return run(made, callbacks=[at_epoch(lambda module: setattr(module.drop, "p", 0.5))])


@mislead
def a_mode_switched_in_forward():
    def between(self, x):
        self.drop.train(not self.training)
        return self.drop(x)

    return net(between, drop=nn.Dropout(0.3))


@mislead
def a_mode_switched_by_assignment():
    def between(self, x):
        self.drop.training = True
        return self.drop(x)

    return net(between, drop=nn.Dropout(0.3))


@mislead
def a_mode_switched_within_an_epoch():
    made = net(lambda self, x: self.drop(x), drop=nn.Dropout(0.3))
    return run(made, augment=Late(made.eval))


@mislead
def a_number_drawn_for_evaluation():
    """Monte-Carlo dropout: validation draws from the same generator as the next training step."""
    return net(lambda self, x: F.dropout(x, 0.2, training=True))


@mislead
def a_counter_of_validations():
    class Own(Net):
        validations = 0

        def between(self, x):
            if not self.training:
                self.validations += 1
            return x * (1 + self.validations / 100)

    return Own()


@mislead
def a_buffer_changed_in_evaluation():
    def between(self, x):
        if not self.training:
            self.seen.add_(0.01 * x.detach().mean(0))
        return x + self.seen

    made = net(between)
    made.register_buffer("seen", torch.zeros(6))
    return made


@mislead
def a_buffer_replaced_in_evaluation():
    def between(self, x):
        if not self.training:
            self.seen = self.seen + 0.01 * x.detach().mean(0)
        return x + self.seen

    made = net(between)
    made.register_buffer("seen", torch.zeros(6))
    return made


@mislead
def an_average_inside_the_module():
    """It evaluates with a moving average of its weights, which `train` updates."""

    class Averaged(Net):
        def __init__(self):
            super().__init__()
            self.middle = nn.Linear(6, 6)
            self.register_buffer("average", self.middle.weight.detach().clone())

        def train(self, mode=True):
            if not mode and hasattr(self, "average"):
                self.average.lerp_(self.middle.weight.detach(), 0.1)
            return super().train(mode)

        def between(self, x):
            weight = self.middle.weight if self.training else self.average
            return F.linear(x, weight, self.middle.bias)

    return Averaged()


@mislead
def batches_that_are_counted_by_their_length():
    class Own(Net):
        rows = 0

        def between(self, x):
            self.rows += len(x)
            return x / (1 + self.rows / 2000)

    return Own()


# Honest: layers that know their mode.


@play
def dropout():
    return net(lambda self, x: self.drop(x), drop=nn.Dropout(0.3))


@play
def batch_norm():
    return net(lambda self, x: self.norm(x), norm=nn.BatchNorm1d(6))


@play
def a_branch_on_the_mode():
    return net(lambda self, x: x + 0.1 * torch.randn_like(x) if self.training else x)


@play
def stochastic_depth_of_each_row():
    def between(self, x):
        more = torch.tanh(self.middle(x))
        if not self.training:
            return x + 0.7 * more
        return x + more * (torch.rand(len(x), 1) < 0.7)

    return net(between, middle=nn.Linear(6, 6))


@play
def an_average_that_training_updates():
    class Averaged(Net):
        def __init__(self):
            super().__init__()
            self.middle = nn.Linear(6, 6)
            self.register_buffer("average", self.middle.weight.detach().clone())

        def between(self, x):
            if self.training:
                self.average.lerp_(self.middle.weight.detach(), 0.1)
                return self.middle(x)
            return F.linear(x, self.average, self.middle.bias)

    return Averaged()


@play
def an_adaptive_pool_of_one():
    body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return run(nn.Sequential(body, nn.Linear(4, 3)), IMAGES)


@play
def squeeze_and_excitation():
    class Excited(nn.Module):
        def __init__(self):
            super().__init__()
            self.convolution, self.norm = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)
            self.pool, self.gate = nn.AdaptiveAvgPool2d(1), nn.Conv2d(4, 4, 1)
            self.last = nn.Linear(4, 3)

        def forward(self, x):
            x = F.relu(self.norm(self.convolution(x)))
            x = x * torch.sigmoid(self.gate(self.pool(x)))
            return self.last(x.mean((2, 3)))

    return run(Excited(), IMAGES)


@play
def an_lstm_with_dropout():
    class Steps(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.LSTM(4, 4, 2, batch_first=True, dropout=0.2)
            self.last = nn.Linear(4, 3)

        def forward(self, x):
            return self.last(self.layer(x)[0][:, -1])

    return run(Steps(), STEPS)
