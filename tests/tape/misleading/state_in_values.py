"""D: programs that keep state in values which carry more than they show."""

import dataclasses
import enum
import itertools
import types
import weakref
from collections import OrderedDict, UserDict, defaultdict, deque, namedtuple
from typing import NamedTuple

import numpy as np
import torch

from tape.misleading.program import Programs, net
from tape.misleading.state_not_compared import changed_later

PROGRAMS = Programs("D")
mislead, play = PROGRAMS.mislead, PROGRAMS.play

# Values that carry more than they show.


@mislead
def a_dict_with_an_attribute():
    class Config(dict):
        scale = 1.0

    config = Config(rate=1.0)
    made = net(lambda self, x: x * self.config.scale, config=config)
    return changed_later(made, lambda: setattr(config, "scale", 2.0))


@mislead
def a_dict_that_answers_to_attributes():
    class Config(dict):
        __getattr__ = dict.__getitem__

    config = Config(scale=1.0)
    made = net(lambda self, x: x * self.config.scale, config=config)
    return changed_later(made, lambda: config.update(scale=2.0))


@mislead
def a_dict_that_counts_its_reads():
    class Config(dict):
        def __getitem__(self, key):
            self.reads = getattr(self, "reads", 0) + 1
            return super().__getitem__(key) * (1 + self.reads / 100)

    return net(lambda self, x: x * self.config["scale"], config=Config(scale=1.0))


@mislead
def a_dict_with_missing():
    class Config(dict):
        def __missing__(self, key):
            self.reads = getattr(self, "reads", 0) + 1
            return 1 + self.reads / 100

    return net(lambda self, x: x * self.config["scale"], config=Config())


@mislead
def a_defaultdict_of_a_counter():
    config = defaultdict(itertools.count(1).__next__)

    def between(self, x):
        return x * (1 + self.config[len(self.config)] / 100)

    return net(between, config=config)


@mislead
def a_user_dict():
    config = UserDict(scale=1.0)
    made = net(lambda self, x: x * self.config["scale"], config=config)
    return changed_later(made, lambda: config.update(scale=2.0))


@mislead
def an_ordered_dict_in_another_order():
    config = OrderedDict(first=1.0, second=2.0)
    made = net(lambda self, x: x * next(iter(self.config.values())), config=config)
    return changed_later(made, lambda: config.move_to_end("first"))


@mislead
def a_list_with_an_attribute():
    class Scales(list):
        factor = 1.0

    scales = Scales([1.0])
    made = net(lambda self, x: x * self.scales[0] * self.scales.factor, scales=scales)
    return changed_later(made, lambda: setattr(scales, "factor", 2.0))


@mislead
def a_list_that_counts_its_reads():
    class Scales(list):
        reads = 0

        def __iter__(self):
            self.reads += 1
            return iter([1 + self.reads / 100])

    return net(lambda self, x: x * sum(self.scales), scales=Scales([1.0]))


@mislead
def a_float_with_state():
    class Rate(float):
        reads = 0

        def __rmul__(self, other):
            self.reads += 1
            return other * (1 + self.reads / 100)

        __radd__ = __rmul__

        def __mul__(self, other):
            return self.__rmul__(other)

    return net(lambda self, x: self.rate * x, rate=Rate(1.0))


@mislead
def a_float_with_an_attribute():
    class Rate(float):
        gain = 1.0

    rate = Rate(1.0)
    made = net(lambda self, x: x * self.rate.gain, rate=rate)
    return changed_later(made, lambda: setattr(rate, "gain", 2.0))


@mislead
def an_int_with_a_method():
    class Size(int):
        gains = [1.0]  # noqa: RUF012

        def gain(self):
            return self.gains[0]

    size = Size(3)
    made = net(lambda self, x: x * self.size.gain(), size=size)
    return changed_later(made, lambda: Size.gains.__setitem__(0, 2.0))


@mislead
def a_text_with_an_attribute():
    class Name(str):
        gain = 1.0

    name = Name("gain")
    made = net(lambda self, x: x * self.name_.gain, name_=name)
    return changed_later(made, lambda: setattr(name, "gain", 2.0))


@mislead
def a_named_tuple_that_holds_a_list():
    Config = namedtuple("Config", "scales")
    config = Config([1.0])
    made = net(lambda self, x: x * self.config.scales[0], config=config)
    return changed_later(made, lambda: config.scales.__setitem__(0, 2.0))


@mislead
def a_named_tuple_with_a_method():
    gains = [1.0]

    class Config(NamedTuple):
        scale: float

        def gain(self):
            gains[0] += 0.01
            return self.scale * gains[0]

    return net(lambda self, x: x * self.config.gain(), config=Config(1.0))


@mislead
def an_enum_that_holds_a_list():
    class Mode(enum.Enum):
        plain = [1.0]  # noqa: RUF012

    made = net(lambda self, x: x * self.mode.value[0], mode=Mode.plain)
    return changed_later(made, lambda: Mode.plain.value.__setitem__(0, 2.0))


@mislead
def an_enum_with_a_property():
    gains = [1.0]

    class Mode(enum.Enum):
        plain = 1

        @property
        def gain(self):
            gains.append(1.0)
            return len(gains) / 100

    return net(lambda self, x: x * (1 + self.mode.gain), mode=Mode.plain)


@mislead
def a_dataclass():
    @dataclasses.dataclass
    class Config:
        scale: float = 1.0

    config = Config()
    made = net(lambda self, x: x * self.config.scale, config=config)
    return changed_later(made, lambda: setattr(config, "scale", 2.0))


@mislead
def a_frozen_dataclass_that_is_thawed():
    @dataclasses.dataclass(frozen=True)
    class Config:
        scale: float = 1.0

    config = Config()
    made = net(lambda self, x: x * self.config.scale, config=config)
    return changed_later(made, lambda: object.__setattr__(config, "scale", 2.0))


@mislead
def a_frozen_dataclass_with_a_list():
    @dataclasses.dataclass(frozen=True)
    class Config:
        scales: list = dataclasses.field(default_factory=lambda: [1.0])

    config = Config()
    made = net(lambda self, x: x * self.config.scales[0], config=config)
    return changed_later(made, lambda: config.scales.__setitem__(0, 2.0))


@mislead
def a_namespace_that_changes():
    config = types.SimpleNamespace(scale=1.0)
    made = net(lambda self, x: x * self.config.scale, config=config)
    return changed_later(made, lambda: setattr(config, "scale", 2.0))


@mislead
def a_namespace_that_counts():
    def between(self, x):
        self.config.calls += 1
        return x * (1 + self.config.calls / 100)

    return net(between, config=types.SimpleNamespace(calls=0))


@mislead
def an_object_of_its_own_class():
    class Schedule:
        def __init__(self):
            self.steps = 0

        def rate(self):
            self.steps += 1
            return 1 + self.steps / 100

    return net(lambda self, x: x * self.schedule.rate(), schedule=Schedule())


@mislead
def an_object_with_slots():
    class Schedule:
        __slots__ = ("rate",)

    schedule = Schedule()
    schedule.rate = 1.0
    made = net(lambda self, x: x * self.schedule.rate, schedule=schedule)
    return changed_later(made, lambda: setattr(schedule, "rate", 2.0))


@mislead
def an_array_that_changes():
    scales = np.ones(6)
    made = net(lambda self, x: x * float(self.scales[0]), scales=scales)
    return changed_later(made, lambda: scales.fill(2.0))


@mislead
def an_array_that_a_tensor_shares():
    scales = np.ones(6)
    made = net(lambda self, x: x * torch.from_numpy(scales))
    return changed_later(made, lambda: scales.fill(2.0))


@mislead
def a_deque():
    scales = deque([1.0, 2.0])

    def between(self, x):
        self.scales.rotate(1)
        return x * self.scales[0]

    return net(between, scales=scales)


@mislead
def a_set_that_grows():
    def between(self, x):
        self.seen.add(len(self.seen))
        return x * (1 + len(self.seen) / 100)

    return net(between, seen=set())


@mislead
def a_weak_reference_to_what_changes():
    class Schedule:
        rate = 1.0

    schedule = Schedule()
    made = net(lambda self, x: x * self.schedule().rate, schedule=weakref.ref(schedule))
    return changed_later(made, lambda: setattr(schedule, "rate", 2.0))


@mislead
def a_weak_reference_to_what_goes():
    class Schedule:
        pass

    held = [Schedule()]

    def between(self, x):
        return x if self.schedule() is not None else 2 * x

    made = net(between, schedule=weakref.ref(held[0]))
    return changed_later(made, held.clear)


@mislead
def a_weak_value_dictionary():
    class Schedule:
        rate = 1.0

    schedule = Schedule()
    known = weakref.WeakValueDictionary(one=schedule)
    made = net(lambda self, x: x * self.known["one"].rate, known=known)
    return changed_later(made, lambda: setattr(schedule, "rate", 2.0))
