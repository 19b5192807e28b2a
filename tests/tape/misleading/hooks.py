"""G: programs in which hooks see or change what passes."""

import warnings

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations, prune
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from easyclf import Callback, LambdaCallback
from tape.misleading.changes_unannounced import Late
from tape.misleading.program import Net, Programs, net, run

PROGRAMS = Programs("G")
mislead, play = PROGRAMS.mislead, PROGRAMS.play


class Growing:
    """Multiplies what it is given by a number that grows."""

    def __init__(self):
        self.calls = 0

    def __call__(self, *given):
        self.calls += 1
        return given[-1] * (1 + self.calls / 200)


def plain():
    return net(lambda self, x: torch.tanh(self.middle(x)), middle=nn.Linear(6, 6))


def at_start(register, **settings):
    """A run in which `register(module)` is called before the first epoch."""
    return run(
        plain(),
        callbacks=[LambdaCallback(on_train_begin=lambda state: register(state.module))],
        **settings,
    )


def at_epoch(register, epoch=6, **settings):
    """A run in which `register(module)` is called before a later epoch."""
    hook = LambdaCallback(
        on_epoch_begin=lambda state: register(state.module) if state.epoch == epoch else None
    )
    return run(plain(), callbacks=[hook], **settings)


def within_an_epoch(register):
    made = plain()
    return run(made, augment=Late(lambda: register(made)))


class Within(Callback):
    """A context manager that is open during a run, or from some epoch on."""

    def __init__(self, make, epoch=1):
        self.make, self.epoch, self.context = make, epoch, None

    def on_epoch_begin(self, state):
        if state.epoch == self.epoch:
            self.context = self.make()
            self.context.__enter__()

    def close(self, state):
        if self.context is not None:
            self.context.__exit__(None, None, None)


# Hooks of modules.


@mislead
def a_forward_hook():
    made = plain()
    made.middle.register_forward_hook(Growing())
    return made


@mislead
def a_forward_hook_from_some_epoch_on():
    return at_epoch(lambda module: module.middle.register_forward_hook(Growing()))


@mislead
def a_forward_hook_within_an_epoch():
    return within_an_epoch(lambda module: module.middle.register_forward_hook(Growing()))


@mislead
def a_forward_pre_hook():
    made, growing = plain(), Growing()
    made.middle.register_forward_pre_hook(lambda module, given: growing(given[0]))
    return made


@mislead
def a_forward_hook_of_the_whole():
    made = plain()
    made.register_forward_hook(Growing())
    return made


@mislead
def a_forward_hook_that_is_always_called():
    made = plain()
    made.middle.register_forward_hook(Growing(), always_call=True)
    return made


@mislead
def a_backward_hook():
    growing = Growing()
    made = plain()
    made.middle.register_full_backward_hook(
        lambda module, grad_input, grad_output: tuple(map(growing, grad_input))
    )
    return made


@mislead
def a_backward_hook_within_an_epoch():
    growing = Growing()
    return within_an_epoch(
        lambda module: module.middle.register_full_backward_hook(
            lambda module, grad_input, grad_output: tuple(map(growing, grad_input))
        )
    )


@mislead
def a_backward_pre_hook():
    growing = Growing()
    made = plain()
    made.middle.register_full_backward_pre_hook(lambda module, grads: tuple(map(growing, grads)))
    return made


@mislead
def a_hook_of_the_loss():
    loss = nn.CrossEntropyLoss()
    loss.register_forward_hook(Growing())
    return run(plain(), loss=loss)


@mislead
def a_hook_of_a_loss_of_ones_own():
    class Loss(nn.Module):
        def forward(self, out, y):
            return F.cross_entropy(out, y)

    loss = Loss()
    loss.register_forward_hook(Growing())
    return run(plain(), loss=loss)


@mislead
def a_hook_for_all_modules():
    class Handled:
        def __enter__(self):
            growing = Growing()

            def scale(module, given, out):
                return growing(out) if isinstance(module, nn.Linear) else None

            self.handle = nn.modules.module.register_module_forward_hook(scale)

        def __exit__(self, *error):
            self.handle.remove()

    return run(plain(), callbacks=[Within(Handled)])


@mislead
def a_hook_for_all_modules_from_some_epoch_on():
    class Handled:
        def __enter__(self):
            growing = Growing()

            def scale(module, given):
                return (growing(given[0]),) if isinstance(module, nn.Linear) else None

            self.handle = nn.modules.module.register_module_forward_pre_hook(scale)

        def __exit__(self, *error):
            self.handle.remove()

    return run(plain(), callbacks=[Within(Handled, epoch=6)])


@mislead
def a_backward_hook_for_all_modules():
    class Handled:
        def __enter__(self):
            growing = Growing()
            self.handle = nn.modules.module.register_module_full_backward_hook(
                lambda module, grad_input, grad_output: tuple(
                    grad if grad is None else growing(grad) for grad in grad_input
                )
            )

        def __exit__(self, *error):
            self.handle.remove()

    return run(plain(), callbacks=[Within(Handled, epoch=6)])


@mislead
def a_hook_for_all_parameters_that_are_registered():
    """It replaces what a module registers, from some epoch on."""

    class Handled:
        def __enter__(self):
            self.handle = nn.modules.module.register_module_buffer_registration_hook(
                lambda module, name, buffer: buffer * 2
            )

        def __exit__(self, *error):
            self.handle.remove()

    made = net(lambda self, x: x * self.scale)
    made.register_buffer("scale", torch.ones(6))

    def again(state):
        if state.epoch == 7:
            state.module.register_buffer("scale", torch.ones(6, dtype=torch.float64))

    callbacks = [Within(Handled, epoch=6), LambdaCallback(on_epoch_begin=again)]
    return run(made, callbacks=callbacks)


# Hooks of weights.


@mislead
def a_hook_of_a_weight():
    return at_start(lambda module: module.middle.weight.register_hook(Growing()))


@mislead
def a_hook_of_a_weight_from_some_epoch_on():
    return at_epoch(lambda module: module.middle.weight.register_hook(Growing()))


@mislead
def a_hook_of_a_weight_within_an_epoch():
    return within_an_epoch(lambda module: module.middle.weight.register_hook(Growing()))


def accumulator(parameter):
    """The node of autograd that adds up the gradients of a parameter."""
    return parameter.expand_as(parameter).grad_fn.next_functions[0][0]


@mislead
def a_hook_of_the_node_of_a_weight():
    kept, growing = [], Growing()

    def register(module):
        kept.append(accumulator(module.middle.weight))
        kept[0].register_prehook(lambda gradients: (growing(gradients[0]),))

    return at_start(register)


@mislead
def a_hook_after_the_node_of_a_weight():
    kept = []

    def register(module):
        weight = module.middle.weight
        kept.append(accumulator(weight))

        def hook(*_):
            weight.grad.clamp_(-0.001, 0.001)

        kept[0].register_hook(hook)

    return at_start(register)


@mislead
def a_hook_of_the_node_of_a_weight_from_some_epoch_on():
    kept, growing = [], Growing()

    def register(module):
        kept.append(accumulator(module.middle.weight))
        kept[0].register_prehook(lambda gradients: (growing(gradients[0]),))

    return at_epoch(register)


def clip(parameter):
    parameter.grad.clamp_(-0.005, 0.005)


@mislead
def a_hook_after_gradients_are_added_up():
    def register(module):
        for parameter in module.parameters():
            parameter.register_post_accumulate_grad_hook(clip)

    return at_start(register)


@mislead
def a_hook_after_gradients_are_added_up_from_some_epoch_on():
    def register(module):
        for parameter in module.parameters():
            parameter.register_post_accumulate_grad_hook(clip)

    return at_epoch(register)


@mislead
def an_optimizer_in_the_backward_pass():
    def register(module):
        def step(parameter):
            with torch.no_grad():
                parameter.sub_(0.02 * parameter.grad)

        for parameter in module.parameters():
            parameter.register_post_accumulate_grad_hook(step)

    return at_start(register)


@mislead
def a_hook_of_several_weights():
    handles = []

    def register(module):
        def shrink(gradients):
            for gradient in gradients:
                gradient.mul_(0.5)

        weights = [module.middle.weight, module.last.weight]
        handles.append(torch.autograd.graph.register_multi_grad_hook(weights, shrink))

    return at_start(register)


# Hooks of what is computed.


@mislead
def a_hook_registered_in_forward():
    growing = Growing()

    def between(self, x):
        x = x * 1
        if x.requires_grad:
            x.register_hook(growing)
        return x

    return net(between)


@mislead
def a_hook_registered_in_forward_on_a_node():
    growing = Growing()

    def between(self, x):
        x = x * 1
        if x.grad_fn is not None:
            x.grad_fn.register_hook(lambda inputs, _: (growing(inputs[0]), *inputs[1:]))
        return x

    return net(between)


@mislead
def a_gradient_that_the_next_step_reads():
    """The gradient of the features of the step before is added to those of this one."""

    class Own(Net):
        kept = None

        def between(self, x):
            x = x * 1
            if self.kept is not None and self.kept.grad is not None and self.training:
                x = x - self.kept.grad
            if x.requires_grad:
                x.retain_grad()
                self.kept = x
            return x

    return Own()


@mislead
def saved_tensors_of_fewer_bits():
    def make():
        return torch.autograd.graph.saved_tensors_hooks(
            lambda tensor: tensor.float() if tensor.is_floating_point() else tensor,
            lambda tensor: tensor.double() if tensor.is_floating_point() else tensor,
        )

    return run(plain(), callbacks=[Within(make)])


@mislead
def saved_tensors_changed_from_some_epoch_on():
    growing = Growing()

    def make():
        return torch.autograd.graph.saved_tensors_hooks(
            lambda tensor: growing(tensor) if tensor.is_floating_point() else tensor,
            lambda tensor: tensor,
        )

    return run(plain(), callbacks=[Within(make, epoch=6)])


@mislead
def saved_tensors_in_forward():
    growing = Growing()

    def between(self, x):
        with torch.autograd.graph.saved_tensors_hooks(growing, lambda tensor: tensor):
            return torch.tanh(x)

    return net(between)


# Modes that see every function or operation.


@mislead
def a_mode_of_functions():
    class Scaling(TorchFunctionMode):
        calls = 0

        def __torch_function__(self, function, types, arguments=(), keywords=None):
            result = function(*arguments, **(keywords or {}))
            if function is torch.tanh:
                self.calls += 1
                return result * (1 + self.calls / 200)
            return result

    return run(plain(), callbacks=[Within(Scaling)])


@mislead
def a_mode_of_functions_from_some_epoch_on():
    class Scaling(TorchFunctionMode):
        def __torch_function__(self, function, types, arguments=(), keywords=None):
            result = function(*arguments, **(keywords or {}))
            return result * 0.5 if function is torch.tanh else result

    return run(plain(), callbacks=[Within(Scaling, epoch=6)])


@mislead
def a_mode_of_operations_from_some_epoch_on():
    class Scaling(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
            result = function(*arguments, **(keywords or {}))
            return result * 0.5 if function is torch.ops.aten.tanh.default else result

    return run(plain(), callbacks=[Within(Scaling, epoch=6)])


@mislead
def a_default_dtype_from_some_epoch_on():
    class Single:
        def __enter__(self):
            self.kept = torch.get_default_dtype()
            torch.set_default_dtype(torch.float64)

        def __exit__(self, *error):
            torch.set_default_dtype(self.kept)

    def between(self, x):
        return x + torch.rand(6) * 0.1 if self.training else x

    return run(net(between), callbacks=[Within(Single, epoch=6)])


@mislead
def autocast_from_some_epoch_on():
    def make():
        return torch.autocast("cpu", torch.bfloat16)

    return run(plain(), precision="float32", callbacks=[Within(make, epoch=6)])


@mislead
def no_gradients_from_some_epoch_on():
    """A gate that follows whether gradients are enabled."""

    def between(self, x):
        return x * 2 if torch.is_grad_enabled() else x

    return net(between)


# Hooks under another name.


@mislead
def weight_norm_of_old():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = plain()
        nn.utils.weight_norm(made.middle)
    return made


@mislead
def spectral_norm_of_old():
    made = plain()
    nn.utils.spectral_norm(made.middle)
    return made


@mislead
def pruned_weights():
    made = plain()
    prune.random_unstructured(made.middle, "weight", 0.5)
    return made


@mislead
def pruned_more_in_each_epoch():
    return at_epoch(lambda module: prune.l1_unstructured(module.middle, "weight", 0.5))


@mislead
def a_parametrization_that_counts():
    class Growth(nn.Module):
        def __init__(self):
            super().__init__()
            self.growing = Growing()

        def forward(self, weight):
            return self.growing(weight)

    made = plain()
    nn.utils.parametrize.register_parametrization(made.middle, "weight", Growth())
    return made


# Honest: layers that torch itself hooks together without hooks.


@play
def a_module_whose_hook_was_removed():
    made = plain()
    made.middle.register_forward_hook(Growing()).remove()
    return made


@play
def weight_norm():
    made = plain()
    parametrizations.weight_norm(made.middle)
    return made


@play
def spectral_norm():
    made = plain()
    parametrizations.spectral_norm(made.middle)
    return made


@play
def a_parametrization_of_ones_own():
    class Symmetric(nn.Module):
        def forward(self, weight):
            return weight.triu() + weight.triu(1).transpose(-1, -2)

    made = plain()
    nn.utils.parametrize.register_parametrization(made.middle, "weight", Symmetric())
    return made


@play
def a_hook_on_another_module():
    other = nn.Linear(2, 2)
    other.register_forward_hook(Growing())
    return plain()
