"""D: programs that read something which changes, and is not compared."""

import argparse
import contextvars
import dataclasses
import itertools
import math
import os
import random
import sys
import threading
import types

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from easyclf import LambdaCallback
from tape.misleading.program import Net, Programs, net, run

PROGRAMS = Programs("D")
mislead, play = PROGRAMS.mislead, PROGRAMS.play

CLOCK = {"now": 0}
SCALE = 1.0
SPOKEN = contextvars.ContextVar("spoken", default=1.0)
LOCAL = threading.local()


def at(epoch, change, hook="on_epoch_begin"):
    """A callback that does something once, before an epoch."""
    return LambdaCallback(**{hook: lambda state: change(state) if state.epoch == epoch else None})


def changed_later(module, change, **settings):
    """A run in which `change()` happens before the 6th epoch, and nobody is told."""
    return run(module, callbacks=[at(6, lambda state: change())], **settings)


# Classes and functions.


@mislead
def a_class_attribute():
    class Own(Net):
        scale = 1.0

        def between(self, x):
            return x * self.scale

    return changed_later(Own(), lambda: setattr(Own, "scale", 2.0))


@mislead
def a_class_attribute_of_a_base():
    class Base(Net):
        scale = 1.0

    class Own(Base):
        def between(self, x):
            return x * self.scale

    return changed_later(Own(), lambda: setattr(Base, "scale", 2.0))


@mislead
def a_class_attribute_read_through_type():
    class Own(Net):
        scale = 1.0

        def between(self, x):
            return x * type(self).scale

    return changed_later(Own(), lambda: setattr(Own, "scale", 2.0))


@mislead
def a_class_attribute_of_another_class():
    class Config:
        scale = 1.0

    return changed_later(
        net(lambda self, x: x * Config.scale), lambda: setattr(Config, "scale", 2.0)
    )


@mislead
def a_class_attribute_of_a_child():
    class Child(nn.Module):
        scale = 1.0

        def forward(self, x):
            return x * self.scale

    made = net(lambda self, x: self.child(x), child=Child())
    return changed_later(made, lambda: setattr(Child, "scale", 2.0))


@mislead
def a_class_attribute_that_counts():
    class Own(Net):
        seen = [0]  # noqa: RUF012

        def between(self, x):
            self.seen[0] = self.seen[0] + 1
            return x * (1 + self.seen[0] / 100)

    return Own()


@mislead
def a_method_that_is_replaced():
    class Own(Net):
        def scaled(self, x):
            return x

        def between(self, x):
            return self.scaled(x)

    return changed_later(Own(), lambda: setattr(Own, "scaled", lambda self, x: 2 * x))


@mislead
def a_class_that_is_given_a_new_base():
    class Base(Net):
        def between(self, x):
            return x

    class Other(Net):
        def between(self, x):
            return 2 * x

    class Own(Base):
        pass

    return changed_later(Own(), lambda: setattr(Own, "__bases__", (Other,)))


@mislead
def a_module_that_changes_its_class():
    class Other(Net):
        def between(self, x):
            return 2 * x

    made = net(lambda self, x: x)
    return changed_later(made, lambda: setattr(made, "__class__", Other))


@mislead
def a_function_attribute():
    def helper(x):
        return x * helper.scale

    helper.scale = 1.0
    return changed_later(net(lambda self, x: helper(x)), lambda: setattr(helper, "scale", 2.0))


@mislead
def a_function_attribute_that_counts():
    def helper(x):
        helper.calls += 1
        return x * (1 + helper.calls / 100)

    helper.calls = 0
    return net(lambda self, x: helper(x))


@mislead
def the_code_of_a_function():
    def helper(x):
        return x

    def other(x):
        return 2 * x

    return changed_later(
        net(lambda self, x: helper(x)), lambda: setattr(helper, "__code__", other.__code__)
    )


@mislead
def the_defaults_of_a_function():
    def helper(x, scale=1.0):
        return x * scale

    return changed_later(
        net(lambda self, x: helper(x)), lambda: setattr(helper, "__defaults__", (2.0,))
    )


@mislead
def a_mutable_default():
    def between(self, x, seen=[]):  # noqa: B006
        seen.append(1)
        return x * (1 + len(seen) / 100)

    return net(between)


@mislead
def a_mutable_default_changed_from_outside():
    scales = [1.0]

    def between(self, x, scales=scales):
        return x * scales[0]

    return changed_later(net(between), lambda: scales.__setitem__(0, 2.0))


@mislead
def a_cell_of_a_closure():
    scale = 1.0

    def between(self, x):
        return x * scale

    def change():
        nonlocal scale
        scale = 2.0

    return changed_later(net(between), change)


@mislead
def a_list_in_a_closure():
    scales = [1.0]
    return changed_later(
        net(lambda self, x: x * scales[0]), lambda: scales.append(scales.pop() * 2)
    )


@mislead
def a_global_number():
    def change(value):
        global SCALE
        SCALE = value

    callbacks = [
        at(6, lambda state: change(2.0)),
        LambdaCallback(close=lambda state: change(1.0)),
    ]
    return run(net(lambda self, x: x * SCALE), callbacks=callbacks)


@mislead
def a_global_in_a_dict():
    def between(self, x):
        CLOCK["now"] += 1
        return x * (1 + CLOCK["now"] / 100)

    CLOCK["now"] = 0
    return net(between)


@mislead
def a_global_seen_through_sys_modules():
    module = types.ModuleType("a_module_of_the_user")
    module.scale = 1.0
    sys.modules[module.__name__] = module

    def between(self, x):
        return x * sys.modules["a_module_of_the_user"].scale

    return changed_later(net(between), lambda: setattr(module, "scale", 2.0))


@mislead
def an_attribute_of_a_module_of_the_user():
    settings = types.ModuleType("settings_of_the_user")
    settings.scale = 1.0
    return changed_later(
        net(lambda self, x: x * settings.scale), lambda: setattr(settings, "scale", 2.0)
    )


@mislead
def a_counter_of_another_module():
    counter = types.ModuleType("counter_of_the_user")
    exec(
        "calls = 0\ndef tick():\n    global calls\n    calls += 1\n    return calls\n",
        vars(counter),
    )
    return net(lambda self, x: x * (1 + counter.tick() / 100))


# Things that are never twice the same.


@mislead
def a_count():
    return net(lambda self, x: x * (1 + next(self.steps) / 100), steps=itertools.count())


@mislead
def a_cycle():
    return net(lambda self, x: x * next(self.scales), scales=itertools.cycle([1.0, 2.0, 0.5]))


@mislead
def an_iterator_of_a_list():
    scales = iter([1 + step / 500 for step in range(500)])
    return net(lambda self, x: x * next(scales))


@mislead
def a_random_number_of_python():
    return net(lambda self, x: x * random.random())


@mislead
def a_random_number_of_numpy():
    return net(lambda self, x: x * np.random.rand())  # noqa: NPY002


@mislead
def a_generator_of_numpy():
    return net(lambda self, x: x * self.rng.random(), rng=np.random.default_rng(0))


@mislead
def a_generator_of_torch():
    generator = torch.Generator().manual_seed(0)
    return net(lambda self, x: x + 0.1 * torch.rand(6, generator=generator, dtype=x.dtype))


@mislead
def a_distribution_of_torch():
    def between(self, x):
        return x + torch.distributions.Normal(0.0, 0.1).sample((6,)) * self.training

    return net(between)


@mislead
def mixup_drawn_by_numpy():
    def between(self, x):
        share = float(np.random.beta(0.4, 0.4))  # noqa: NPY002
        return share * x + (1 - share) * x.flip(0) if self.training else x

    return net(between)


@mislead
def an_environment_variable():
    def change():
        os.environ["EASYCLF_TEST_SCALE"] = "2.0"

    callbacks = [
        at(6, lambda state: change()),
        LambdaCallback(close=lambda state: os.environ.pop("EASYCLF_TEST_SCALE", None)),
    ]
    return run(
        net(lambda self, x: x * float(os.environ.get("EASYCLF_TEST_SCALE", 1))),
        callbacks=callbacks,
    )


@mislead
def a_context_variable():
    callbacks = [
        at(6, lambda state: SPOKEN.set(2.0)),
        LambdaCallback(close=lambda state: SPOKEN.set(1.0)),
    ]
    return run(net(lambda self, x: x * SPOKEN.get()), callbacks=callbacks)


@mislead
def a_value_local_to_the_thread():
    LOCAL.scale = 1.0
    return changed_later(net(lambda self, x: x * LOCAL.scale), lambda: setattr(LOCAL, "scale", 2.0))


@mislead
def a_warm_up_with_a_counter():
    def between(self, x):
        if self.training:
            self.steps += 1
        return x * min(1.0, self.steps / 100)

    return net(between, steps=0)


@mislead
def a_temperature_that_cools():
    def between(self, x):
        self.temperature = max(0.5, self.temperature * 0.99)
        return (x / self.temperature).softmax(1)

    return net(between, temperature=2.0)


@mislead
def a_moving_average_without_a_buffer():
    def between(self, x):
        mean = x.detach().mean(0)
        self.average = mean if self.average is None else 0.9 * self.average + 0.1 * mean
        return x - self.average

    return net(between, average=None)


@mislead
def a_queue_of_earlier_batches():
    def between(self, x):
        if len(self.queue) < 2 or not self.training:
            self.queue.append(x.detach().mean(0))
            return x
        return x - self.queue.pop(0)

    return net(between, queue=[])


@mislead
def a_gradient_reversal_of_growing_strength():
    class Reversed(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, strength):
            ctx.strength = strength
            return x.view_as(x)

        @staticmethod
        def backward(ctx, gradient):
            return -ctx.strength * gradient, None

    def between(self, x):
        self.strength = min(1.0, self.strength + 0.01)
        return x + Reversed.apply(x, self.strength) / 2

    return net(between, strength=0.0)


@mislead
def a_curriculum_in_the_loss():
    class Curriculum:
        steps = 0

        def __call__(self, out, y):
            self.steps += 1
            losses = F.cross_entropy(out, y, reduction="none")
            return losses.sort().values[: 2 + min(6, self.steps // 20)].mean()

    return run(net(lambda self, x: x), loss=Curriculum())


@mislead
def a_loss_with_a_running_weight():
    class Loss(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = 0.0

        def forward(self, out, y):
            self.weight = min(1.0, self.weight + 0.01)
            return F.cross_entropy(out, y) + self.weight * out.square().mean()

    return run(net(lambda self, x: x), loss=Loss())


@mislead
def a_loss_whose_global_list_changes():
    weights = [1.0, 1.0, 1.0]

    def loss(out, y):
        return F.cross_entropy(out, y, weight=torch.tensor(weights, dtype=out.dtype))

    return changed_later(net(lambda self, x: x), lambda: weights.__setitem__(0, 5.0), loss=loss)


# Honest: state that is compared, and does not change.


@play
def a_class_attribute_that_stays():
    class Own(Net):
        scale = 2.0

        def between(self, x):
            return x * self.scale

    return Own()


@play
def numbers_and_tuples():
    return net(lambda self, x: x * self.scale + self.shifts[0], scale=2.0, shifts=(0.1, 0.2))


@play
def a_plain_dict():
    return net(lambda self, x: x * self.config["scale"], config={"scale": 2.0})


@play
def a_global_that_stays():
    return net(lambda self, x: x * SCALE)


@play
def a_closure_that_stays():
    scale = 2.0
    return net(lambda self, x: x * scale)


@play
def a_frozen_dataclass():
    @dataclasses.dataclass(frozen=True)
    class Config:
        scale: float = 2.0
        depth: int = 2

    return net(lambda self, x: x * self.config.scale, config=Config())


@play
def a_namespace_of_numbers():
    return net(lambda self, x: x * self.config.scale, config=types.SimpleNamespace(scale=2.0))


@play
def an_argparse_namespace():
    return net(lambda self, x: x * self.config.scale, config=argparse.Namespace(scale=2.0))


@play
def an_array_that_is_only_read():
    return net(lambda self, x: x * float(self.scales[1]), scales=np.linspace(0.5, 1.5, 6))


@play
def roots_of_plain_numbers():
    def between(self, x):
        return x / math.sqrt(self.width) * np.sqrt(self.width)

    return net(between, width=6)


@play
def a_mode_by_name():
    return net(lambda self, x: 2 * x if self.mode == "doubled" else x, mode="doubled")


@play
def an_attribute_that_a_callback_changes_between_epochs():
    made = net(lambda self, x: x * self.scale, scale=1.0)
    return changed_later(made, lambda: setattr(made, "scale", 0.5))


@play
def noise_of_torch():
    return net(lambda self, x: x + 0.1 * torch.randn_like(x) if self.training else x)


@play
def mixup_in_forward():
    def between(self, x):
        if not self.training:
            return x
        share = torch.rand(len(x), 1, dtype=x.dtype)
        return share * x + (1 - share) * x[torch.randperm(len(x))]

    return net(between)
