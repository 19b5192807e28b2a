"""C: programs whose code is in a base, in a nested function, or in what was replaced."""

import contextlib
import functools
import types

import torch
import torch.nn.functional as F
from torch import nn

from tape.misleading.code_not_read import Counted, Warmth, steps_of
from tape.misleading.program import Net, Programs, net, run

PROGRAMS = Programs("C")
mislead, play = PROGRAMS.mislead, PROGRAMS.play


# Inheritance.


@mislead
def a_hook_method_of_the_subclass():
    class Base(Net):
        def forward(self, x):
            return self.post(super().forward(x))

        def post(self, x):
            return x

    class Own(Base):
        steps = 0

        def post(self, x):
            self.steps += 1
            return x * (1 + self.steps / 50)

    return Own()


@mislead
def an_overridden_activation_of_a_layer_of_torch():
    class Own(nn.TransformerEncoderLayer):
        def _ff_block(self, x):
            return super()._ff_block(x) * steps_of(self)

    class Encoder(Net):
        def __init__(self):
            super().__init__()
            self.layer = Own(6, 2, 8, dropout=0.0, batch_first=True)

        def between(self, x):
            return self.layer(x.unsqueeze(1))[:, 0]

    return Encoder()


@mislead
def a_mixin():
    class Growing:
        steps = 0

        def scaled(self, x):
            self.steps += 1
            return x * (1 + self.steps / 50)

    class Own(Growing, Net):
        def between(self, x):
            return self.scaled(x)

    return Own()


@mislead
def a_mixin_that_wraps_call():
    class Growing:
        steps = 0

        def __call__(self, x):
            self.steps += 1
            return super().__call__(x) * (1 + self.steps / 50)

    return type("Own", (Growing, Net), {})()


@mislead
def a_metaclass():
    class Growing(type(nn.Module)):
        steps = 0

        @property
        def scale(cls):
            cls.steps = cls.steps + 1
            return 1 + cls.steps / 50

    class Own(Net, metaclass=Growing):
        def between(self, x):
            return x * type(self).scale

    return Own()


@mislead
def a_linear_layer_with_its_own_weight():
    class Own(nn.Linear):
        @property
        def gain(self):
            return steps_of(self)

        def forward(self, x):
            return F.linear(x, self.weight * self.gain, self.bias)

    return net(lambda self, x: self.middle(x), middle=Own(6, 6))


# The shape of the code.


@mislead
def a_nested_function_that_counts():
    def make():
        steps = 0

        def between(self, x):
            def grow():
                nonlocal steps
                steps += 1
                return 1 + steps / 50

            return x * grow()

        return between

    return net(make())


@mislead
def a_generator():
    class Own(Counted):
        def scales(self):
            yield self.grow()

        def between(self, x):
            return x * sum(self.scales())

    return Own()


@mislead
def a_generator_that_goes_on():
    def numbers():
        scale = 1.0
        while True:
            scale += 0.02
            yield scale

    scales = numbers()
    return net(lambda self, x: x * next(scales))


@mislead
def a_comprehension():
    class Own(Counted):
        def between(self, x):
            return torch.stack([x * self.grow() for _ in range(2)]).mean(0)

    return Own()


@mislead
def a_match_statement():
    class Own(Counted):
        __match_args__ = ("scale",)

        @property
        def scale(self):
            return self.grow()

        def between(self, x):
            match self:
                case Own(scale):
                    return x * scale

    return Own()


@mislead
def a_match_that_reads_data():
    def between(self, x):
        match x.clone():
            case torch.Tensor(data=values):
                values.mul_(2)
                return x * values

    return net(between)


@mislead
def a_decorator_that_counts():
    def counts(function):
        calls = [0]

        @functools.wraps(function)
        def wrapper(self, x):
            calls[0] = calls[0] + 1
            return function(self, x) * (1 + calls[0] / 50)

        return wrapper

    return net(counts(lambda self, x: x))


@mislead
def a_decorator_that_is_an_object():
    class Counts:
        def __init__(self, function):
            self.function, self.calls = function, 0

        def __get__(self, owner, kind):
            return functools.partial(self, owner)

        def __call__(self, owner, x):
            self.calls += 1
            return self.function(owner, x) * (1 + self.calls / 50)

    return net(Counts(lambda self, x: x))


@mislead
def a_context_manager_that_counts():
    steps = []

    @contextlib.contextmanager
    def scaled():
        steps.append(1)
        yield 1 + len(steps) / 50

    def between(self, x):
        with scaled() as scale:
            return x * scale

    return net(between)


@mislead
def a_default_argument_that_is_code():
    warmth = Warmth()

    def between(self, x, read=warmth.read):
        return x * read()

    return net(between)


@mislead
def a_cache_of_what_was_seen():
    class Own(Counted):
        @functools.lru_cache  # noqa: B019
        def scale(self, batch):
            return self.grow()

        def between(self, x):
            return x * self.scale(id(self))

    return Own()


@mislead
def a_cached_mask_that_is_thrown_away():
    warmth = Warmth()

    @functools.lru_cache(maxsize=1)
    def scale(size):
        return warmth.read()

    def between(self, x):
        scaled = x * scale(len(x))
        scale.cache_clear()
        return scaled

    return net(between)


@mislead
def a_long_function():
    """More than 255 names stand between a module and what is read of it."""
    names = [f"name_{number}" for number in range(300)]
    lines = "".join(f"    {name} = helpers.one\n" for name in names)
    unread = "".join(f"    if x is None:\n        x = helpers.{name}(x)\n" for name in names)
    source = f"def between(self, x):\n{lines}{unread}    return x * helpers.grow()\n"
    space = {"helpers": types.SimpleNamespace(one=1, grow=Warmth().read)}
    exec(source, space)
    return net(space["between"])


@mislead
def a_long_function_that_counts_in_an_attribute():
    unread = "".join(f"    if x is None:\n        x = self.name_{n}(x)\n" for n in range(300))
    body = "    self.steps_taken = self.steps_taken + 1\n    return x * (1 + self.steps_taken / 50)"
    space = {}
    exec(f"def between(self, x):\n{unread}{body}\n", space)
    return net(space["between"], steps_taken=0)


# Functions that were replaced.


@mislead
def a_function_of_torch_that_was_replaced():
    """As a user does who patches a library; it is put back after the fit."""
    from easyclf import LambdaCallback

    original, warmth = F.gelu, Warmth()

    def patch(state):
        F.gelu = lambda x: original(x) * warmth.read()

    def unpatch(state):
        F.gelu = original

    callbacks = [LambdaCallback(on_train_begin=patch, close=unpatch)]
    return run(net(lambda self, x: F.gelu(x)), callbacks=callbacks)


@mislead
def a_function_inside_a_layer_of_torch_that_was_replaced():
    from easyclf import LambdaCallback

    original, warmth = F.linear, Warmth()

    def patch(state):
        F.linear = lambda *arguments: original(*arguments) * warmth.read()

    def unpatch(state):
        F.linear = original

    callbacks = [LambdaCallback(on_train_begin=patch, close=unpatch)]
    return run(net(lambda self, x: x), callbacks=callbacks)


@mislead
def a_method_of_a_layer_of_torch_that_was_replaced():
    from easyclf import LambdaCallback

    original, warmth = nn.Tanh.forward, Warmth()

    def patch(state):
        nn.Tanh.forward = lambda self, x: original(self, x) * warmth.read()

    def unpatch(state):
        nn.Tanh.forward = original

    callbacks = [LambdaCallback(on_train_begin=patch, close=unpatch)]
    return run(net(lambda self, x: self.act(x), act=nn.Tanh()), callbacks=callbacks)


@mislead
def a_method_of_tensors_that_was_replaced():
    from easyclf import LambdaCallback

    original, warmth = torch.Tensor.softmax, Warmth()

    def patch(state):
        torch.Tensor.softmax = lambda *arguments: original(*arguments) * warmth.read()

    def unpatch(state):
        torch.Tensor.softmax = original

    callbacks = [LambdaCallback(on_train_begin=patch, close=unpatch)]
    return run(net(lambda self, x: x.softmax(1)), callbacks=callbacks)


@mislead
def a_module_that_says_it_is_torch():
    """Its function claims to come from a module that is trusted."""
    space = {"__name__": "torch.nn.functional", "warmth": Warmth()}
    exec("def act(x):\n    return x * warmth.read()\n", space)
    act = space["act"]
    return net(lambda self, x: act(x))


@mislead
def a_class_that_says_it_is_torchs():
    def forward(self, x):
        return x * steps_of(self)

    kind = type("Scaled", (nn.Module,), {"forward": forward, "__module__": "torch.nn.modules.own"})
    return net(lambda self, x: self.act(x), act=kind())


@mislead
def a_loss_with_a_call_of_its_own():
    class Loss:
        def __init__(self):
            self.warmth = Warmth()

        def __call__(self, out, y):
            return F.cross_entropy(out, y) * self.warmth.read()

    return run(net(lambda self, x: x), loss=Loss())


@mislead
def a_loss_that_is_a_bound_method():
    class Losses:
        steps = 0

        def growing(self, out, y):
            self.steps += 1
            return F.cross_entropy(out, y) * (1 + self.steps / 50)

    return run(net(lambda self, x: x), loss=Losses().growing)


@mislead
def a_loss_that_is_a_partial():
    def growing(warmth, out, y):
        return F.cross_entropy(out, y) * warmth.read()

    return run(net(lambda self, x: x), loss=functools.partial(growing, Warmth()))


@mislead
def a_loss_module_with_a_property():
    class Loss(nn.Module):
        @property
        def smoothing(self):
            return steps_of(self) / 10 - 0.1

        def forward(self, out, y):
            return F.cross_entropy(out, y, label_smoothing=min(0.5, self.smoothing))

    return run(net(lambda self, x: x), loss=Loss())


# Honest: the same shapes of code, which only compute.


@play
def a_helper_with_layers():
    def helper(layer, x):
        return torch.tanh(layer(x))

    return net(lambda self, x: helper(self.middle, x), middle=nn.Linear(6, 6))


@play
def a_method_of_its_own():
    class Own(Net):
        def scaled(self, x):
            return x * 2

        def between(self, x):
            return self.scaled(x)

    return Own()


@play
def a_property_that_computes():
    class Own(Net):
        scale_of_all = 2.0

        @property
        def scale(self):
            return self.scale_of_all / 4

        def between(self, x):
            return x * self.scale

    return Own()


@play
def a_base_whose_hook_method_computes():
    class Base(Net):
        def forward(self, x):
            return self.post(super().forward(x))

        def post(self, x):
            return x

    class Own(Base):
        def post(self, x):
            return x - x.mean(1, keepdim=True)

    return Own()


@play
def a_list_of_layers():
    def between(self, x):
        for layer in self.layers:
            x = torch.tanh(layer(x))
        return x

    return net(between, layers=nn.ModuleList(nn.Linear(6, 6) for _ in range(2)))


@play
def a_dict_of_layers():
    layers = nn.ModuleDict({"a": nn.Linear(6, 6), "b": nn.Linear(6, 6)})
    return net(lambda self, x: self.layers["a"](x) + self.layers["b"](x), layers=layers)


@play
def a_sequential():
    body = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.LayerNorm(6), nn.Dropout(0.1))
    return net(lambda self, x: x + self.body(x), body=body)


@play
def a_partial_of_a_function_of_torch():
    act = functools.partial(F.leaky_relu, negative_slope=0.2)
    return net(lambda self, x: self.act(x), act=act)


@play
def a_function_of_torch_as_an_attribute():
    return net(lambda self, x: self.act(x), act=torch.tanh)


@play
def a_comprehension_of_layers():
    heads = nn.ModuleList(nn.Linear(6, 2) for _ in range(3))
    return net(lambda self, x: torch.cat([head(x) for head in self.heads], 1), heads=heads)


@play
def a_default_argument_that_is_a_number():
    def between(self, x, scale=0.5):
        return x * scale

    return net(between)


@play
def a_decorator_that_only_wraps():
    def wrapped(function):
        @functools.wraps(function)
        def wrapper(self, x):
            return function(self, x) * 0.5

        return wrapper

    return net(wrapped(lambda self, x: x))


@play
def a_loss_of_a_closure():
    def make(smoothing):
        def loss(out, y):
            return F.cross_entropy(out, y, label_smoothing=smoothing)

        return loss

    return run(net(lambda self, x: x), loss=make(0.1))


@play
def a_loss_module_of_ones_own():
    class Loss(nn.Module):
        def __init__(self):
            super().__init__()
            self.gamma = 2.0

        def forward(self, out, y):
            losses = F.cross_entropy(out, y, reduction="none")
            return ((1 - torch.exp(-losses)) ** self.gamma * losses).mean()

    return run(net(lambda self, x: x), loss=Loss())
