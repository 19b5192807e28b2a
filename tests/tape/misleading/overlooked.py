"""D: programs in which something changes for a while, between two audits, where few look."""

import abc
import enum

import torch
import torch.nn.functional as F
from torch import nn

from easyclf import LambdaCallback, LRScheduler
from tape.misleading.program import LABELS, LONG, TABLE, Net, Programs, net, run

PROGRAMS = Programs("D")
mislead, play = PROGRAMS.mislead, PROGRAMS.play
# An epoch whose steps are no audits: the 11th to the 14th use of a tape.
AWAY, BACK = 5, 6


def for_a_while(module, change, undo, **settings):
    """A run in which something is changed before an epoch, and put back before the next one."""

    def begin(state):
        if state.epoch == AWAY:
            change()
        if state.epoch == BACK:
            undo()

    return run(module, callbacks=[LambdaCallback(on_epoch_begin=begin)], **settings)


def attribute_for_a_while(module, owner, name, **settings):
    """A run in which an attribute is 3 for an epoch, and 1 before and after it."""
    setattr(owner, name, 1.0)
    change, undo = (lambda value=value: setattr(owner, name, value) for value in (3.0, 1.0))
    return for_a_while(module, change, undo, **settings)


# What belongs to what is compared.


@mislead
def an_attribute_of_a_weight():
    made = net(lambda self, x: x * self.last.weight.gain)
    return attribute_for_a_while(made, made.last.weight, "gain")


@play
def an_attribute_of_a_weight_that_stays():
    made = net(lambda self, x: x * self.last.weight.gain)
    made.last.weight.gain = 1.5
    return run(made)


@mislead
def an_attribute_of_a_member_of_an_enumeration():
    class Mode(enum.Enum):
        SOFT = 1

    return attribute_for_a_while(net(lambda self, x: x * Mode.SOFT.gain), Mode.SOFT, "gain")


@mislead
def an_attribute_of_an_enumeration():
    class Mode(enum.Enum):
        SOFT = 1

    return attribute_for_a_while(net(lambda self, x: x * Mode.gain), Mode, "gain")


@play
def a_member_of_an_enumeration_that_has_an_attribute():
    class Mode(enum.Enum):
        SOFT = 1

        def __init__(self, value):
            self.gain = 1.5 * value

    return run(net(lambda self, x: x * self.mode.gain, mode=Mode.SOFT))


@mislead
def an_attribute_of_a_class_of_torch():
    # Left behind in the process, under a name that nobody else reads.
    made = net(lambda self, x: x * self.last.gain_of_a_test)
    return attribute_for_a_while(made, nn.Linear, "gain_of_a_test")


@mislead
def a_hidden_layer_that_changes_its_mode():
    drop = nn.Dropout(0.3).eval()
    return for_a_while(net(lambda self, x: self.kept[0](x), kept=[drop]), drop.train, drop.eval)


@play
def a_hidden_layer_that_stays_in_evaluation():
    return run(net(lambda self, x: self.kept[0](x), kept=[nn.Dropout(0.3).eval()]))


@mislead
def an_abstract_class_that_takes_another_in():
    class Smooth(abc.ABC):
        @abc.abstractmethod
        def forward(self, x):
            pass

    class Activation(nn.Module):
        def forward(self, x):
            return 2 * x if isinstance(self, Smooth) else x

    made = net(lambda self, x: self.activation(x), activation=Activation())
    return for_a_while(made, lambda: Smooth.register(Activation), lambda: None)


# Names that code does not spell out.


@mislead
def a_name_in_a_format():
    template = "{0.gain}"
    made = net(lambda self, x: x * float(template.format(self)))
    return attribute_for_a_while(made, made, "gain")


@mislead
def getattr_as_a_default():
    made = net(lambda self, x, ask=getattr: x * ask(self, "".join(("ga", "in"))))
    return attribute_for_a_while(made, made, "gain")


@mislead
def a_get_that_was_bound_before():
    numbers = {"gain": 1.0}
    get = numbers.get
    made = net(lambda self, x: x * get("gain"))
    return for_a_while(made, lambda: numbers.update(gain=3.0), lambda: numbers.update(gain=1.0))


@play
def a_get_of_a_dict_that_stays():
    get = {"gain": 1.5}.get
    return run(net(lambda self, x: x * get("gain")))


@mislead
def an_append_that_was_bound_before():
    lengths = []
    note = lengths.append

    def between(self, x):
        note(len(x))
        return x

    made = net(between)
    made.register_buffer("count", torch.zeros(()))
    count = LambdaCallback(on_train_end=lambda state: made.count.fill_(len(lengths)))
    return run(made, callbacks=[count])


# What torch is asked for, and what it is.


@mislead
def a_setting_of_torch():
    def between(self, x):
        return 3 * x if torch.get_float32_matmul_precision() == "high" else x

    change, undo = (
        lambda value=value: torch.set_float32_matmul_precision(value)
        for value in ("high", "highest")
    )
    return for_a_while(net(between), change, undo)


@mislead
def a_flag_of_a_backend():
    def between(self, x):
        return 3 * x if torch.backends.cudnn.benchmark else x

    change, undo = (
        lambda value=value: setattr(torch.backends.cudnn, "benchmark", value)
        for value in (True, False)
    )
    return for_a_while(net(between), change, undo)


@mislead
def a_method_of_tensors_that_is_hidden():
    tanh = torch.Tensor.tanh

    def undo():
        del torch.Tensor.tanh

    made = net(lambda self, x: x.tanh())
    return for_a_while(made, lambda: setattr(torch.Tensor, "tanh", lambda x: 3 * tanh(x)), undo)


@mislead
def a_function_under_a_layer_that_is_replaced():
    relu = F.relu
    made = net(lambda self, x: self.relu(x), relu=nn.ReLU())
    return for_a_while(
        made,
        lambda: setattr(F, "relu", lambda x, inplace: 3 * relu(x)),
        lambda: setattr(F, "relu", relu),
    )


@mislead
def a_backward_pass_that_is_replaced():
    backward = torch.Tensor.backward
    return for_a_while(
        net(lambda self, x: x),
        lambda: setattr(torch.Tensor, "backward", lambda loss: backward(3 * loss)),
        lambda: setattr(torch.Tensor, "backward", backward),
        optimizer="sgd",
    )


# Code that runs beside the tapes.


@mislead
def a_weight_that_forward_gives_other_memory():
    """As layers with a constraint do, which is how EEGNet is written."""

    def between(self, x):
        self.last.weight.data = torch.renorm(self.last.weight.data, p=2, dim=0, maxnorm=0.6)
        return x

    return net(between)


class Bounded(nn.Linear):
    """Its weights have a norm of at most a half."""

    def forward(self, x):
        self.weight.data = torch.renorm(self.weight.data, p=2, dim=0, maxnorm=0.5)
        return super().forward(x)


@mislead
def a_weight_that_forward_gives_other_memory_while_it_is_watched():
    # The fifth batch of a shape, which is watched, is not the first of an epoch.
    return run(nn.Sequential(Bounded(4, 8), nn.ELU(), Bounded(8, 3)), batch_size=10)


@mislead
def a_forward_that_makes_the_optimizer_forget():
    optimizers, calls = [], []

    def between(self, x):
        calls.append(len(x))
        if len(calls) == 33:
            optimizers[-1].state.clear()
        return x

    def factory(parameters, lr):
        optimizers.append(torch.optim.Adam(parameters, lr=lr, fused=True))
        return optimizers[-1]

    return run(net(between), optimizer=factory)


@play
def a_weight_that_forward_holds_within_bounds():
    def between(self, x):
        with torch.no_grad():
            self.last.weight.clamp_(-0.3, 0.3)
        return x

    return net(between)


@mislead
def a_short_batch_that_changes_an_attribute():
    class Noting(Net):
        def between(self, x):
            if len(x) == 8:
                self.note()
            return x * self.gain

        def note(self):
            self.n_short += 1
            self.gain = 3.0 if self.n_short == AWAY - 1 else 1.0

    rows = [*range(64), *range(8)]
    return run(Noting(n_short=0, gain=1.0), TABLE[rows], LABELS[rows], validation=None)


@mislead
def a_validation_that_changes_an_attribute():
    class Noting(Net):
        def between(self, x):
            if not self.training and len(x) == 64:
                self.note()
            return x * self.gain

        def note(self):
            self.n_times += 1
            self.gain = 3.0 if 17 <= self.n_times < 19 else 1.0

    return run(Noting(n_times=0, gain=1.0), **LONG)


@mislead
def a_hook_after_the_step_that_changes_an_attribute():
    made = net(lambda self, x: x * self.gain, gain=1.0)

    def change(state):
        # Back at the end of the epoch, when all is looked at.
        made.gain = 3.0 if state.epoch == AWAY and state.batch < 4 else 1.0

    def begin(state):
        state.optimizer.register_step_post_hook(lambda *_: change(state))

    return run(made, callbacks=[LambdaCallback(on_train_begin=begin)])


@mislead
def a_schedule_that_changes_an_attribute():
    made = net(lambda self, x: x * self.gain, gain=1.0)

    def rate(step):
        made.gain = 3.0 if step in (16, 17, 18) else 1.0
        return 0.02

    return run(made, callbacks=[LRScheduler(rate, every="step")])


@mislead
def a_second_optimizer_in_a_callback():
    made, others = net(lambda self, x: x), []

    def begin(state):
        others.append(torch.optim.SGD(made.last.parameters(), lr=0.02))

    def end(state):
        others[0].step()
        others[0].zero_grad()

    return run(
        made,
        optimizer=lambda parameters, lr: torch.optim.SGD([*parameters][:2], lr=lr),
        callbacks=[LambdaCallback(on_train_begin=begin, on_epoch_end=end)],
    )


@play
def a_teacher_without_gradients():
    def between(self, x):
        with torch.no_grad():
            taught = self.teacher(x)
        return x + 0.1 * taught

    return run(net(between, teacher=nn.Linear(6, 6)))


@mislead
def targets_that_the_loss_changes_in_place():
    def loss(outputs, y):
        return F.cross_entropy(outputs, y.add_(1).remainder_(3), reduction="none")

    return run(net(lambda self, x: x), y=LABELS.copy(), validation=None, loss=loss, **LONG)
