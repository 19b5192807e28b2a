"""C: programs whose code is where nobody looks: behind dunder methods, partials, properties."""

import functools

import torch
from torch import nn

from tape.misleading.program import Net, Programs, net

PROGRAMS = Programs("C")
mislead, play = PROGRAMS.mislead, PROGRAMS.play


class Warmth:
    """A number that grows each time it is read, in one of many ways."""

    def __init__(self):
        self.reads = 0

    def read(self, *_):
        self.reads += 1
        return 1 + self.reads / 50


def child(**methods):
    """A module without weights, of a class with these methods, that holds a `Warmth`."""
    made = type("Child", (nn.Module,), methods)()
    object.__setattr__(made, "warmth", Warmth())
    return made


def steps_of(self):
    """The steps that a module has counted; it counts this one too."""
    object.__setattr__(self, "steps", getattr(self, "steps", 0) + 1)
    return 1 + self.steps / 50


def counted(self):
    """The same, kept in the module's dictionary."""
    vars(self)["steps"] = vars(self).get("steps", 0) + 1
    return 1 + self.steps / 50


class Counted(Net):
    """A `Net` that counts in a method of an ordinary name."""

    steps = 0

    def grow(self):
        self.steps += 1
        return 1 + self.steps / 50


# Dunder methods.


@mislead
def getitem_of_a_module():
    class Own(Counted):
        def __getitem__(self, place):
            return self.grow()

        def between(self, x):
            return x * self[0]

    return Own()


@mislead
def iter_of_a_module():
    class Own(Counted):
        def __iter__(self):
            yield self.grow()

        def between(self, x):
            for scale in self:
                x = x * scale
            return x

    return Own()


@mislead
def len_of_a_module():
    class Own(Counted):
        def __len__(self):
            self.steps += 1
            return self.steps // 8

        def between(self, x):
            return x * (1 + len(self))

    return Own()


@mislead
def contains_of_a_module():
    class Own(Counted):
        def __contains__(self, item):
            self.steps += 1
            return self.steps % 7 == item

        def between(self, x):
            return x * 2 if 3 in self else x

    return Own()


@mislead
def bool_of_a_module():
    class Own(Counted):
        def __bool__(self):
            self.steps += 1
            return self.steps > 30

        def between(self, x):
            return 2 * x if self else x

    return Own()


@mislead
def arithmetic_of_a_module():
    class Own(Counted):
        def __rmul__(self, other):
            return other + self.grow()

        def between(self, x):
            return torch.tanh(x) * 1.0 if False else (2 * self) + x

    return Own()


@mislead
def equality_of_a_module():
    class Own(Counted):
        def __eq__(self, other):
            self.steps += 1
            return self.steps % 5 == 0

        __hash__ = nn.Module.__hash__

        def between(self, x):
            return x * 2 if self == 1 else x

    return Own()


@mislead
def float_of_a_module():
    class Own(Counted):
        def __float__(self):
            return self.grow()

        def between(self, x):
            return x * float(self)

    return Own()


@mislead
def enter_of_a_module():
    class Own(Counted):
        def __enter__(self):
            return self.grow()

        def __exit__(self, *error):
            return None

        def between(self, x):
            with self as scale:
                return x * scale

    return Own()


@mislead
def getattr_of_a_module():
    class Own(Counted):
        def __getattr__(self, name):
            if name == "growing":
                vars(self)["steps"] = vars(self).get("steps", 0) + 1
                return 1 + self.steps / 50
            return super().__getattr__(name)

        def between(self, x):
            return x * self.growing

    return Own()


@mislead
def getattribute_of_a_module():
    class Own(Counted):
        def __getattribute__(self, name):
            if name == "growing":
                return self.grow()
            return super().__getattribute__(name)

        def between(self, x):
            return x * self.growing

    return Own()


@mislead
def call_of_a_child():
    def call(self, x):
        return x * self.warmth.read()

    return net(lambda self, x: self.child(x), child=child(__call__=call))


@mislead
def getitem_of_a_child():
    return net(
        lambda self, x: x * self.child[0], child=child(__getitem__=lambda self, i: steps_of(self))
    )


@mislead
def len_of_a_child():
    made = child(__len__=lambda self: int(8 * counted(self)))
    return net(lambda self, x: x * len(self.child) / 8, child=made)


@mislead
def iter_of_a_child_list():
    class Skipping(nn.ModuleList):
        def __iter__(self):
            object.__setattr__(self, "turn", getattr(self, "turn", 0) + 1)
            return iter(list(super().__iter__())[: 1 + self.turn % 3])

    def between(self, x):
        for layer in self.layers:
            x = torch.tanh(layer(x))
        return x

    return net(between, layers=Skipping(nn.Linear(6, 6) for _ in range(3)))


@mislead
def getitem_of_a_child_dict():
    class Turning(nn.ModuleDict):
        def __getitem__(self, key):
            object.__setattr__(self, "turn", getattr(self, "turn", 0) + 1)
            return super().__getitem__("ab"[self.turn % 2])

    layers = Turning({"a": nn.Linear(6, 6), "b": nn.Linear(6, 6)})
    return net(lambda self, x: self.layers["a"](x), layers=layers)


@mislead
def iter_of_a_sequential():
    class Skipping(nn.Sequential):
        def __iter__(self):
            object.__setattr__(self, "turn", getattr(self, "turn", 0) + 1)
            return iter(list(super().__iter__())[self.turn % 2 :])

    return net(lambda self, x: self.body(x), body=Skipping(nn.Linear(6, 6), nn.Linear(6, 6)))


# Attributes that are code.


@mislead
def a_property():
    class Own(Counted):
        @property
        def scale(self):
            object.__setattr__(self, "steps", self.steps + 1)
            return 1 + self.steps / 50

        def between(self, x):
            return x * self.scale

    return Own()


@mislead
def a_property_of_a_child():
    made = child(scale=property(lambda self: self.warmth.read()))
    return net(lambda self, x: x * self.child.scale, child=made)


@mislead
def a_property_read_by_getattr():
    class Own(Counted):
        scale = property(lambda self: self.grow())

        def between(self, x):
            return x * getattr(self, "sc" + "ale")

    return Own()


@mislead
def a_descriptor():
    class Growing:
        def __get__(self, owner, kind):
            return steps_of(owner)

    class Own(Net):
        scale = Growing()

        def between(self, x):
            return x * self.scale

    return Own()


@mislead
def a_cached_property():
    class Own(Net):
        @functools.cached_property
        def scale(self):
            return 1.5 if self.training else 0.5

        def between(self, x):
            return x * self.scale

    return Own()


@mislead
def a_static_method():
    warmth = Warmth()

    class Own(Net):
        @staticmethod
        def grow():
            return warmth.read()

        def between(self, x):
            return x * self.grow()

    return Own()


@mislead
def a_class_method():
    class Own(Net):
        steps = 0

        @classmethod
        def grow(cls):
            cls.steps = cls.steps + 1
            return 1 + cls.steps / 50

        def between(self, x):
            return x * self.grow()

    return Own()


# Functions that hold what they call.


@mislead
def a_partial_of_a_method():
    class Own(Counted):
        def between(self, x):
            return x * self.scale()

    made = Own()
    made.scale = functools.partial(Counted.grow, made)
    return made


@mislead
def a_partial_with_itself():
    def helper(module, x):
        return x * steps_of(module)

    made = net(lambda self, x: self.act(x))
    made.act = functools.partial(helper, made)
    return made


@mislead
def a_partial_method():
    class Own(Counted):
        def scaled(self, x, more):
            return x * self.grow() + more

        twice = functools.partialmethod(scaled, more=0.1)

        def between(self, x):
            return self.twice(x)

    return Own()


@mislead
def a_bound_method_of_another_object():
    warmth = Warmth()
    made = net(lambda self, x: x * self.read())
    made.read = warmth.read
    return made


@mislead
def a_bound_method_kept_in_a_tuple():
    warmth = Warmth()
    return net(lambda self, x: x * self.tools[0](), tools=(warmth.read,))


@mislead
def a_bound_method_kept_in_a_dict():
    warmth = Warmth()
    return net(lambda self, x: x * self.tools["read"](), tools={"read": warmth.read})


@mislead
def a_lambda_that_is_given_self():
    class Own(Counted):
        def between(self, x):
            return x * self.read(self)

    made = Own()
    made.read = lambda module: module.grow()
    return made


@mislead
def a_helper_that_is_given_self():
    def helper(module, x):
        return x * module.grow()

    class Own(Counted):
        def between(self, x):
            return helper(self, x)

    return Own()


@mislead
def a_helper_that_is_given_a_method():
    def helper(method, x):
        return x * method()

    class Own(Counted):
        def between(self, x):
            return helper(self.grow, x)

    return Own()


@mislead
def a_helper_that_maps():
    class Own(Counted):
        def scaled(self, x):
            return x * self.grow()

        def between(self, x):
            return next(map(self.scaled, (x,)))

    return Own()


@mislead
def a_method_called_through_its_class():
    class Own(Counted):
        def between(self, x):
            return x * Counted.grow(self)

    return Own()


@mislead
def a_method_called_through_super():
    class Own(Counted):
        def grow(self):
            return super().grow() + 0.1

        def between(self, x):
            return x * self.grow()

    return Own()


@mislead
def a_method_called_through_type():
    class Own(Counted):
        def between(self, x):
            return x * type(self).grow(self)

    return Own()
