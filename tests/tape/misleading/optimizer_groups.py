"""F: programs whose groups of weights, options and averages become others."""

import copy
import types

import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from easyclf import Callback, LambdaCallback
from tape.misleading.changes_unannounced import fill
from tape.misleading.optimizers import at_epoch, changed_late, plain, with_optimizer
from tape.misleading.program import Net, Programs, net, run

PROGRAMS = Programs("F")
mislead, play = PROGRAMS.mislead, PROGRAMS.play


# Groups and options.


@mislead
def a_rate_changed_within_an_epoch():
    return changed_late(lambda made: made.param_groups[0].update(lr=0.2))


@mislead
def a_decay_changed_within_an_epoch():
    return changed_late(lambda made: made.param_groups[0].update(weight_decay=0.5))


@mislead
def an_option_that_is_switched_within_an_epoch():
    return changed_late(lambda made: made.param_groups[0].update(maximize=True), lr=0.001)


@mislead
def an_option_that_is_switched_before_an_epoch():
    def change(state):
        state.optimizer.param_groups[0]["maximize"] = True

    return run(plain(), lr=0.001, callbacks=[at_epoch(change)])


@mislead
def momentum_that_begins_before_an_epoch():
    def change(state):
        state.optimizer.param_groups[0]["momentum"] = 0.9

    return run(
        plain(), optimizer="sgd", lr=0.05, callbacks=[at_epoch(change)], optimizer__fused=False
    )


@mislead
def a_weight_taken_out_of_a_group():
    return changed_late(lambda made: made.param_groups[0]["params"].pop())


@mislead
def a_weight_taken_out_of_a_group_before_an_epoch():
    def change(state):
        state.optimizer.param_groups[0]["params"].pop(0)

    return run(plain(), callbacks=[at_epoch(change)])


@mislead
def weights_in_another_order():
    return changed_late(lambda made: made.param_groups[0]["params"].reverse())


@mislead
def weights_in_another_order_before_an_epoch():
    def change(state):
        state.optimizer.param_groups[0]["params"].reverse()

    return run(plain(), callbacks=[at_epoch(change)])


@mislead
def weights_in_another_order_from_the_start():
    def factory(params, lr):
        return torch.optim.Adam(list(params)[::-1], lr=lr, fused=True)

    return with_optimizer(factory)


@mislead
def groups_of_other_weights_than_the_modules():
    """Only some weights are trained, and one tensor that the module does not have."""

    def factory(params, lr):
        params = list(params)
        return torch.optim.SGD([params[0], torch.zeros(3, requires_grad=True)], lr=lr)

    return with_optimizer(factory)


@mislead
def a_group_added_within_an_epoch():
    extra = torch.ones(6, dtype=torch.float64, requires_grad=True)
    return changed_late(lambda made: made.add_param_group({"params": [extra]}))


@mislead
def a_group_added_before_an_epoch():
    def change(state):
        state.module.scale = nn.Parameter(torch.ones(6, dtype=torch.float64))
        state.optimizer.add_param_group({"params": [state.module.scale], "lr": 0.1})

    class Own(Net):
        def between(self, x):
            return x * self.scale if hasattr(self, "scale") else x

    return run(Own(), callbacks=[at_epoch(change)])


@mislead
def a_group_that_is_frozen_before_an_epoch():
    def change(state):
        for parameter in state.module.first.parameters():
            parameter.requires_grad_(False)

    return run(plain(), lr={"first.*": 0.05, "*": 0.01}, callbacks=[at_epoch(change)])


@mislead
def a_group_that_is_frozen_from_the_start():
    def factory(params, lr):
        params = list(params)
        for parameter in params[:2]:
            parameter.requires_grad_(False)
        groups = [{"params": params[:2]}, {"params": params[2:]}]
        return torch.optim.Adam(groups, lr=lr, fused=True)

    return with_optimizer(factory)


@mislead
def a_group_without_gradients():
    made = plain()
    made.unused = nn.Linear(2, 2)
    return run(made, lr={"unused.*": 0.1, "*": 0.02}, optimizer__weight_decay=0.1)


@mislead
def weights_used_from_some_epoch_on():
    def between(self, x):
        return self.middle(x) if self.is_deep else x

    made = net(between, middle=nn.Linear(6, 6), is_deep=False)
    return run(
        made,
        optimizer="sgd",
        optimizer__momentum=0.9,
        callbacks=[at_epoch(lambda state: setattr(made, "is_deep", True))],
        optimizer__fused=False,
    )


@mislead
def an_option_that_torch_does_not_know():
    class Scaled(torch.optim.SGD):
        def step(self, closure=None):
            for group in self.param_groups:
                kept = group["lr"]
                group["lr"] = kept * group["scale"]
            result = super().step(closure)
            for group in self.param_groups:
                group["lr"] = kept
            return result

    def factory(params, lr):
        return Scaled([{"params": list(params), "scale": 0.5}], lr=lr)

    return with_optimizer(factory)


@mislead
def a_rate_that_is_an_object():
    class Rate(float):
        reads = 0

        def __float__(self):
            self.reads += 1
            return 0.05 / (1 + self.reads / 50)

        def __neg__(self):
            return -float(self)

        def __mul__(self, other):
            return float(self) * other

    return with_optimizer(lambda params, lr: torch.optim.SGD(params, lr=Rate(lr), foreach=False))


@mislead
def a_rate_that_is_a_tensor():
    def factory(params, lr):
        rate = torch.tensor(lr)
        made = torch.optim.Adam(params, lr=rate, foreach=False, fused=True)
        made.rate = rate
        return made

    def change(state):
        state.optimizer.rate.mul_(0.97)

    callbacks = [LambdaCallback(on_epoch_begin=change)]
    return with_optimizer(factory, callbacks=callbacks)


# State.


@mislead
def averages_forgotten_within_an_epoch():
    return changed_late(lambda made: made.state.clear())


@mislead
def averages_replaced_within_an_epoch():
    def change(made):
        for state in made.state.values():
            state["exp_avg"] = torch.ones_like(state["exp_avg"])

    return changed_late(change)


@mislead
def averages_forgotten_before_an_epoch():
    return run(plain(), callbacks=[at_epoch(lambda state: state.optimizer.state.clear())])


@mislead
def averages_loaded_before_an_epoch():
    def change(state):
        loaded = copy.deepcopy(state.optimizer.state_dict())
        for averages in loaded["state"].values():
            averages["exp_avg"].mul_(-1)
        state.optimizer.load_state_dict(loaded)

    return run(plain(), callbacks=[at_epoch(change)])


@mislead
def weights_assigned_before_an_epoch():
    def change(state):
        loaded = {name: value / 2 for name, value in state.module.state_dict().items()}
        state.module.load_state_dict(loaded, assign=True)

    return run(plain(), callbacks=[at_epoch(change)])


@mislead
def weights_assigned_and_given_to_the_optimizer():
    def change(state):
        loaded = {name: value / 2 for name, value in state.module.state_dict().items()}
        state.module.load_state_dict(loaded, assign=True)
        state.optimizer.param_groups[0]["params"] = list(state.module.parameters())

    return run(plain(), optimizer="sgd", lr=0.05, callbacks=[at_epoch(change)])


# Schedules, and hooks of optimizers.


@mislead
def a_scheduler_in_each_step():
    class Schedule(Callback):
        def on_train_begin(self, state):
            self.schedule = torch.optim.lr_scheduler.OneCycleLR(
                state.optimizer, max_lr=0.1, total_steps=400
            )

        def on_batch_end(self, state):
            self.schedule.step()

    return run(plain(), callbacks=[Schedule()])


@mislead
def a_scheduler_in_the_step():
    class Scheduled(torch.optim.Adam):
        def __init__(self, params, lr):
            super().__init__(params, lr=lr)
            self.schedule = torch.optim.lr_scheduler.LambdaLR(self, lambda step: 0.99**step)
            inner = self.step

            def step(*arguments):
                inner(*arguments)
                self.schedule.step()

            self.step = step

    return with_optimizer(Scheduled)


@mislead
def a_scheduler_in_augment():
    def change(made):
        if not hasattr(made, "schedule"):
            made.schedule = torch.optim.lr_scheduler.ExponentialLR(made, 0.9)
        made.schedule.step()

    made = changed_late(change)
    made.settings["augment"].again = True
    return made


@mislead
def a_hook_before_the_step():
    def halve(optimizer, arguments, keywords):
        for parameter in optimizer.param_groups[0]["params"]:
            parameter.grad.mul_(0.5).add_(0.01)

    def register(state):
        state.optimizer.register_step_pre_hook(halve)

    return run(plain(), callbacks=[LambdaCallback(on_train_begin=register)])


@mislead
def a_hook_after_the_step():
    def clamp(optimizer, arguments, keywords):
        for parameter in optimizer.param_groups[0]["params"]:
            fill(parameter.data.view(-1)[:1], 0.1)

    def register(state):
        state.optimizer.register_step_post_hook(clamp)

    return run(plain(), callbacks=[LambdaCallback(on_train_begin=register)])


@mislead
def a_hook_after_the_step_registered_late():
    def clamp(optimizer, arguments, keywords):
        for parameter in optimizer.param_groups[0]["params"]:
            parameter.data.clamp_(-0.2, 0.2)

    return changed_late(lambda made: made.register_step_post_hook(clamp))


@mislead
def a_hook_for_all_optimizers():
    handles = []

    def halve(optimizer, arguments, keywords):
        for parameter in optimizer.param_groups[0]["params"]:
            parameter.grad.mul_(0.5).add_(0.01)

    def register(state):
        handles.append(register_optimizer_step_pre_hook(halve))

    callbacks = [
        at_epoch(register),
        LambdaCallback(close=lambda state: [handle.remove() for handle in handles]),
    ]
    return run(plain(), callbacks=callbacks)


@mislead
def gradients_set_to_zero_in_another_way():
    class Keeping(torch.optim.SGD):
        def zero_grad(self, set_to_none=True):
            return None

    return with_optimizer(Keeping)


@mislead
def weight_decay_by_pattern_that_changes():
    class Decay(Callback):
        def on_epoch_begin(self, state):
            for group in state.optimizer.param_groups:
                group["weight_decay"] = 0.001 * state.epoch

    return run(plain(), optimizer="adamw", lr={"last.*": 0.02, "*": 0.01}, callbacks=[Decay()])


@mislead
def a_step_bound_to_another_optimizer():
    def change(state):
        other = torch.optim.SGD(state.module.parameters(), lr=0.1)
        state.optimizer.step = types.MethodType(
            lambda self, closure=None: other.step(), state.optimizer
        )

    return run(plain(), callbacks=[at_epoch(change)])
