"""F: programs whose optimizer is not what it looks like, or becomes another one."""

import functools

import torch
from torch import nn

from easyclf import Callback, LambdaCallback
from tape.misleading.changes_unannounced import Late
from tape.misleading.program import Programs, net, run

PROGRAMS = Programs("F")
mislead, play = PROGRAMS.mislead, PROGRAMS.play


def plain():
    return net(lambda self, x: torch.tanh(self.middle(x)), middle=nn.Linear(6, 6))


def with_optimizer(optimizer, module=None, **settings):
    return run(module or plain(), optimizer=optimizer, **{"lr": 0.05, **settings})


def changed_late(change, optimizer=torch.optim.Adam, **settings):
    """A run in which `change(optimizer)` happens within an epoch, after a tape was made."""
    kept = []

    def factory(parameters, lr):
        kept.append(optimizer(parameters, lr=lr))
        return kept[0]

    augment = Late(lambda: change(kept[0]))
    return run(plain(), optimizer=factory, augment=augment, **{"lr": 0.02, **settings})


def at_epoch(change, epoch=6, hook="on_epoch_begin"):
    return LambdaCallback(**{hook: lambda state: change(state) if state.epoch == epoch else None})


# Steps of one's own.


@mislead
def a_step_of_its_own():
    class Sign(torch.optim.SGD):
        @torch.no_grad()
        def step(self, closure=None):
            for group in self.param_groups:
                for parameter in group["params"]:
                    parameter.sub_(0.1 * group["lr"] * parameter.grad.sign())

    return with_optimizer(Sign)


@mislead
def a_step_that_shrinks_weights_first():
    class Shrinking(torch.optim.Adam):
        @torch.no_grad()
        def step(self, closure=None):
            for group in self.param_groups:
                for parameter in group["params"]:
                    parameter.mul_(0.99)
            return super().step(closure)

    return with_optimizer(Shrinking)


@mislead
def a_step_that_counts():
    class Warming(torch.optim.SGD):
        steps = 0

        def step(self, closure=None):
            self.steps += 1
            self.param_groups[0]["lr"] = 0.05 * min(1.0, self.steps / 100)
            return super().step(closure)

    return with_optimizer(Warming)


@mislead
def a_step_that_assigns_data():
    class Assigning(torch.optim.SGD):
        def step(self, closure=None):
            for group in self.param_groups:
                for parameter in group["params"]:
                    parameter.data = parameter.data - group["lr"] * parameter.grad

    return with_optimizer(Assigning)


@mislead
def a_step_that_assigns_data_late():
    class Assigning(torch.optim.SGD):
        steps = 0

        def step(self, closure=None):
            self.steps += 1
            if self.steps == 23:
                for parameter in self.param_groups[0]["params"]:
                    parameter.data = parameter.data * 0.5
            return super().step(closure)

    return with_optimizer(Assigning)


@mislead
def a_step_that_changes_gradients_in_place():
    class Decaying(torch.optim.Optimizer):
        def __init__(self, params, lr):
            super().__init__(params, {"lr": lr})

        @torch.no_grad()
        def step(self, closure=None):
            for group in self.param_groups:
                for parameter in group["params"]:
                    parameter.grad.add_(parameter, alpha=0.01).mul_(group["lr"])
                    parameter.sub_(parameter.grad)

    return with_optimizer(Decaying)


@mislead
def a_step_that_keeps_gradients():
    """The gradients of the step before are still there: they must not be written over."""

    class Extrapolating(torch.optim.Optimizer):
        def __init__(self, params, lr):
            super().__init__(params, {"lr": lr})

        @torch.no_grad()
        def step(self, closure=None):
            for group in self.param_groups:
                for parameter in group["params"]:
                    before = self.state[parameter].get("before", parameter.grad)
                    parameter.sub_(group["lr"] * (2 * parameter.grad - before))
                    self.state[parameter]["before"] = parameter.grad

    return with_optimizer(Extrapolating)


@mislead
def a_step_that_clamps_weights():
    class Clamped(torch.optim.Adam):
        @torch.no_grad()
        def step(self, closure=None):
            result = super().step(closure)
            for parameter in self.param_groups[0]["params"]:
                parameter.clamp_(-0.3, 0.3)
            return result

    return with_optimizer(Clamped)


@mislead
def a_step_that_renormalizes_weights():
    class Spherical(torch.optim.SGD):
        @torch.no_grad()
        def step(self, closure=None):
            super().step(closure)
            for parameter in self.param_groups[0]["params"]:
                if parameter.ndim == 2:
                    parameter.copy_(nn.functional.normalize(parameter, dim=1))

    return with_optimizer(Spherical)


@mislead
def lookahead():
    class Lookahead(torch.optim.Adam):
        steps = 0

        @torch.no_grad()
        def step(self, closure=None):
            super().step(closure)
            self.steps += 1
            for parameter in self.param_groups[0]["params"]:
                slow = self.state[parameter].setdefault("slow", parameter.clone())
                if self.steps % 5 == 0:
                    slow.lerp_(parameter, 0.5)
                    parameter.copy_(slow)

    return with_optimizer(Lookahead)


@mislead
def sharpness_aware_noise():
    """It climbs a little after each step, and climbs back before the next one."""

    class Sharpness(torch.optim.SGD):
        @torch.no_grad()
        def step(self, closure=None):
            for parameter in self.param_groups[0]["params"]:
                climb = self.state[parameter].get("climb")
                if climb is not None:
                    parameter.sub_(climb)
            super().step(closure)
            for parameter in self.param_groups[0]["params"]:
                self.state[parameter]["climb"] = 0.02 * parameter.grad.sign()
                parameter.add_(self.state[parameter]["climb"])

    return with_optimizer(Sharpness)


@mislead
def a_wrapper_around_an_optimizer():
    class Wrapped(torch.optim.Optimizer):
        def __init__(self, params, lr):
            self.inner = torch.optim.Adam(params, lr=lr)
            super().__init__(self.inner.param_groups, {})
            self.calls = 0

        def step(self, closure=None):
            self.calls += 1
            if self.calls % 2:
                self.inner.step()

    return with_optimizer(Wrapped)


@mislead
def noise_in_the_step():
    class Langevin(torch.optim.SGD):
        @torch.no_grad()
        def step(self, closure=None):
            super().step(closure)
            for parameter in self.param_groups[0]["params"]:
                parameter.add_(1e-3 * torch.randn_like(parameter))

    return with_optimizer(Langevin)


@mislead
def a_step_that_leaves_out_every_third():
    class Lazy(torch.optim.Adam):
        calls = 0

        def step(self, closure=None):
            self.calls += 1
            return None if self.calls % 3 == 0 else super().step(closure)

    return with_optimizer(Lazy)


# A step that is replaced.


def doubled(original):
    """A step that is taken twice."""

    def step(*arguments, **keywords):
        original(*arguments, **keywords)
        return original(*arguments, **keywords)

    return step


@mislead
def a_step_replaced_on_the_instance():
    def factory(params, lr):
        made = torch.optim.Adam(params, lr=lr)
        made.step = doubled(made.step)
        return made

    return with_optimizer(factory)


@mislead
def a_step_replaced_under_the_mark_of_a_scheduler():
    def factory(params, lr):
        made = torch.optim.Adam(params, lr=lr, fused=True)
        made.step = doubled(made.step)
        made.step._wrapped_by_lr_sched = True
        return made

    return with_optimizer(factory)


@mislead
def a_step_replaced_after_a_scheduler():
    class Schedule(Callback):
        def on_train_begin(self, state):
            self.schedule = torch.optim.lr_scheduler.ExponentialLR(state.optimizer, 0.999)
            inner = state.optimizer.step

            @functools.wraps(inner)
            def step(*arguments):
                for parameter in state.module.parameters():
                    parameter.grad.mul_(0.5).clamp_(-0.05, 0.05)
                return inner(*arguments)

            state.optimizer.step = step

        def on_epoch_end(self, state):
            self.schedule.step()

    return run(plain(), optimizer="sgd", lr=0.2, callbacks=[Schedule()])


@mislead
def a_step_replaced_within_an_epoch():
    return changed_late(lambda made: setattr(made, "step", doubled(made.step)))


@mislead
def a_step_replaced_before_an_epoch():
    def change(state):
        state.optimizer.step = doubled(state.optimizer.step)

    return run(plain(), callbacks=[at_epoch(change)])


@mislead
def a_step_replaced_on_the_class():
    original = torch.optim.Adam.step

    def patch(state):
        torch.optim.Adam.step = doubled(original)

    def unpatch(state):
        torch.optim.Adam.step = original

    return run(plain(), callbacks=[LambdaCallback(on_train_begin=patch, close=unpatch)])


@mislead
def a_step_replaced_on_the_class_within_a_run():
    original = torch.optim.SGD.step

    def patch(state):
        torch.optim.SGD.step = doubled(original)

    def unpatch(state):
        torch.optim.SGD.step = original

    callbacks = [at_epoch(patch), LambdaCallback(close=unpatch)]
    return run(plain(), optimizer="sgd", lr=0.05, callbacks=callbacks)


@mislead
def a_class_of_its_own_that_hides_behind_a_name():
    class Adam(torch.optim.Adam):
        def step(self, closure=None):
            self.param_groups[0]["lr"] *= 0.99
            return super().step(closure)

    Adam.__module__, Adam.__qualname__ = "torch.optim.adam", "Adam"
    return with_optimizer(Adam)


# Honest: torch's own optimizers, with their options.


@play
def adam():
    return run(plain())


@play
def adam_with_amsgrad():
    return run(plain(), optimizer__amsgrad=True, optimizer__weight_decay=0.01)


@play
def adamw():
    return run(plain(), optimizer="adamw", optimizer__weight_decay=0.1)


@play
def sgd():
    return run(plain(), optimizer="sgd", lr=0.1)


@play
def sgd_with_nesterov_momentum():
    settings = {"optimizer__momentum": 0.9, "optimizer__nesterov": True}
    return run(plain(), optimizer="sgd", lr=0.05, **settings)


@play
def rmsprop():
    return run(plain(), optimizer="rmsprop", lr=0.01)


@play
def adagrad():
    return run(plain(), optimizer="adagrad", lr=0.05)


@play
def nadam():
    return run(plain(), optimizer="nadam", lr=0.01)


@play
def adam_without_its_fused_kernel():
    return run(plain(), optimizer__fused=False)


@play
def rates_by_pattern():
    return run(plain(), lr={"last.*": 0.05, "*": 0.01})


@play
def clipped_gradients():
    return run(plain(), clip_grad_norm=0.1)


@play
def frozen_weights():
    return run(plain(), freeze="first.*")


@play
def a_rate_that_a_callback_says_it_changes_in_each_step():
    class Warmup(Callback):
        changes = "learning rate"

        def on_batch_begin(self, state):
            for group in state.optimizer.param_groups:
                group["lr"] = 0.02 * min(1.0, (state.step + 1) / 50)

    return run(plain(), callbacks=[Warmup()])
