"""Layers of many kinds, as users write them, to be put together at random."""

import math
import random

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations

ACTIVATIONS = (
    nn.ReLU, nn.Tanh, nn.Sigmoid, nn.GELU, nn.SiLU, nn.ELU, nn.LeakyReLU, nn.Softplus, nn.Mish,
    nn.Hardswish, nn.Hardtanh, nn.ReLU6, nn.SELU, nn.PReLU, nn.Softsign, nn.LogSigmoid, nn.RReLU,
    nn.Identity,
)  # fmt: skip


class Function(nn.Module):
    """A function of itself and its input, as a layer; what it uses are attributes."""

    def __init__(self, function, **attributes):
        super().__init__()
        self.function = function
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward(self, x):
        return self.function(self, x)


class Residual(nn.Module):
    """A layer beside the identity."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return x + self.layer(x)


class Tied(nn.Module):
    """One layer, used twice."""

    def __init__(self, size):
        super().__init__()
        self.layer = nn.Linear(size, size)

    def forward(self, x):
        return self.layer(torch.tanh(self.layer(x)))


class Gated(nn.Module):
    """A product of a linear and a sigmoid layer."""

    def __init__(self, size, after):
        super().__init__()
        self.value, self.gate = nn.Linear(size, after), nn.Linear(size, after)

    def forward(self, x):
        return self.value(x) * torch.sigmoid(self.gate(x))


class Mixed(nn.Module):
    """A product with a matrix, written as a sum over indices."""

    def __init__(self, size, after):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(size, after) / math.sqrt(size))

    def forward(self, x):
        return torch.einsum("...f,fg->...g", x, self.weight)


class InPlace(nn.Module):
    """Columns that are written in place."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        x = x.clone()
        x[..., 0] = self.factor
        x[..., 1:] *= self.factor
        x[..., 1:2] += x[..., 2:3]
        return x


class Centered(nn.Module):
    """A running mean in a buffer, which is taken away."""

    def __init__(self, size, momentum):
        super().__init__()
        self.momentum = momentum
        self.register_buffer("mean", torch.zeros(size))

    def forward(self, x):
        if self.training:
            self.mean.mul_(1 - self.momentum).add_(self.momentum * x.detach().mean(0))
        return x - self.mean


class Warm(nn.Module):
    """A gain that grows with a counter in a buffer."""

    def __init__(self, steps):
        super().__init__()
        self.steps = steps
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x):
        if self.training:
            self.count += 1
        return x * (0.5 + (self.count / self.steps).clamp(max=1))


class Normalized(nn.Module):
    """A layer normalization by hand, with sums that keep their dimension."""

    def __init__(self, size):
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.ones(1, size)), nn.Parameter(torch.zeros(size))

    def forward(self, x):
        centered = x - x.mean(-1, keepdim=True)
        deviation = (centered.square().sum(-1, keepdim=True) / x.shape[-1] + 1e-3).sqrt()
        return centered / deviation * self.scale + self.shift


class Heads(nn.Module):
    """Layers side by side."""

    def __init__(self, size, after):
        super().__init__()
        self.heads = nn.ModuleList(nn.Linear(size, 1) for _ in range(after))

    def forward(self, x):
        return torch.cat([head(x) for head in self.heads], -1)


class Repeated(nn.Module):
    """A loop over a number that is an attribute, and a branch on a flag."""

    def __init__(self, size, times, is_deep):
        super().__init__()
        self.layer, self.times, self.is_deep = nn.Linear(size, size), times, is_deep

    def forward(self, x):
        for step in range(self.times):
            x = torch.tanh(self.layer(x)) + step / 10
            if not self.is_deep:
                break
        return x


class Binned(nn.Module):
    """An embedding of the place of the largest feature."""

    def __init__(self, size):
        super().__init__()
        self.embedding = nn.Embedding(size, size)

    def forward(self, x):
        return x + self.embedding(x.argmax(-1))


class Counting(nn.Module):
    """It counts in an attribute, which a recording would not."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return x * (1 + self.calls / 300)


class Drawing(nn.Module):
    """It draws from Python's generator."""

    def forward(self, x):
        return x * random.uniform(0.9, 1.1) if self.training else x


class Branching(nn.Module):
    """It looks at values."""

    def forward(self, x):
        return x if x.mean() > 0 else 0.5 * x


class Literal(nn.Module):
    """It makes a tensor of values that it reads."""

    def forward(self, x):
        return x * torch.tensor([x.mean(), 1.0]).sum().to(x.dtype)


class Skipped(nn.Module):
    """A layer that is left out of a step at random."""

    def __init__(self):
        super().__init__()
        self.layer = nn.LazyLinear(1)

    def forward(self, x):
        more = self.layer(x)
        return x + more if not self.training or torch.rand(1).item() < 0.7 else x


class Merging(nn.Module):
    """A gain that is merged into a buffer for evaluation."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(()))
        self.register_buffer("merged", torch.ones(()))

    def train(self, mode=True):
        if not mode and hasattr(self, "merged"):
            self.merged.lerp_(self.gain.detach(), 0.5)
        return super().train(mode)

    def forward(self, x):
        return x * (self.gain if self.training else self.merged)


class Unused(nn.Module):
    """A layer that has weights and does not use them."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, x):
        return x


IMPURE = (Counting, Drawing, Branching, Literal, Skipped, Merging, Unused)


class Attending(nn.Module):
    """Attention by hand, causal or not."""

    def __init__(self, size, is_causal):
        super().__init__()
        self.project, self.is_causal = nn.Linear(size, 3 * size), is_causal

    def forward(self, x):
        query, key, value = self.project(x).chunk(3, dim=-1)
        scores = query @ key.transpose(1, 2) / math.sqrt(x.shape[-1])
        if self.is_causal:
            mask = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).tril()
            scores = scores.masked_fill(~mask, -1e9)
        return x + scores.softmax(-1) @ value


class Attention(nn.Module):
    """The attention of torch, to itself."""

    def __init__(self, size, dropout):
        super().__init__()
        self.attention = nn.MultiheadAttention(size, 2, dropout=dropout, batch_first=True)

    def forward(self, x):
        return x + self.attention(x, x, x, need_weights=False)[0]


class Recurrent(nn.Module):
    """A recurrent layer of torch, of which the outputs are used."""

    def __init__(self, kind, size, after, **options):
        super().__init__()
        self.layer = kind(size, after, batch_first=True, **options)

    def forward(self, x):
        return self.layer(x)[0]


class Stepped(nn.Module):
    """A recurrent cell in a loop over the steps."""

    def __init__(self, size, after):
        super().__init__()
        self.cell, self.after = nn.GRUCell(size, after), after

    def forward(self, x):
        hidden, outputs = x.new_zeros(len(x), self.after), []
        for step in range(x.shape[1]):
            hidden = self.cell(x[:, step], hidden)
            outputs.append(hidden)
        return torch.stack(outputs, 1)


class Convolved(nn.Module):
    """A convolution along the steps."""

    def __init__(self, size, after):
        super().__init__()
        self.layer = nn.Conv1d(size, after, 3, padding=1)

    def forward(self, x):
        return self.layer(x.transpose(1, 2)).transpose(1, 2)


class Placed(nn.Module):
    """A learned position."""

    def __init__(self, steps, size):
        super().__init__()
        self.position = nn.Parameter(0.1 * torch.randn(1, steps, size))

    def forward(self, x):
        return x + self.position[:, : x.shape[1]]


class Pooled(nn.Module):
    """A mean of steps, weighted by attention."""

    def __init__(self, size):
        super().__init__()
        self.score = nn.Linear(size, 1)

    def forward(self, x):
        return (self.score(x).softmax(1) * x).sum(1)


class Shared(nn.Module):
    """A second linear layer that has the weight of the first, turned."""

    def __init__(self, size, after):
        super().__init__()
        self.first = nn.Linear(size, after)
        self.bias = nn.Parameter(torch.zeros(size))

    def forward(self, x):
        return F.linear(torch.tanh(self.first(x)), self.first.weight.t(), self.bias)


def noisy(self, x):
    return x + 0.1 * torch.randn_like(x) if self.training else x


def mixed(self, x):
    if not self.training:
        return x
    share = torch.rand(len(x), 1, dtype=x.dtype)
    return share * x + (1 - share) * x[torch.randperm(len(x))]


def rolled(self, x):
    left, right = x.chunk(2, dim=-1)
    return torch.cat([right.flip(-1), left.roll(1, -1)], -1)


def rounded(self, x):
    return x + ((4 * x).round() / 4 - x).detach()


def squashed(self, x):
    size = x.norm(dim=-1, keepdim=True)
    return x / (1 + size)


def softened(self, x):
    exponents = torch.exp(x - x.amax(-1, keepdim=True))
    return exponents / exponents.sum(-1, keepdim=True)


def spread(self, x):
    return x - x.sum(0, keepdim=True).view(x.shape[1:]) / len(x)


def crossed(self, x):
    return x + torch.einsum("bi,bj->bij", x, x).mean(2).clamp(-1, 1)


def ranked(self, x):
    return x + 0.5 * x.sort(-1).values + 0.1 * x.cumsum(-1)


def masked(self, x):
    return torch.where(x > 0, x, 0.1 * x) * (x.abs() < 2)


def detached(self, x):
    return x + 0.5 * x.detach()


def written(self, x):
    out = torch.zeros_like(x)
    out[..., ::2] = x[..., ::2] * self.factor
    out[..., 1::2].copy_(x[..., 1::2])
    return out


def shaped(self, x):
    return x.flatten(1) if x.ndim > 3 else x.view(len(x), -1).view(x.shape) * len(x) / 8


def literal(self, x):
    total = torch.tensor(0.5)
    total += 0.25
    return x * total.to(x.dtype)


FUNCTIONS = (
    noisy, rolled, rounded, squashed, softened, spread, ranked, masked, detached, written, shaped,
    literal,
)  # fmt: skip


def activation(rng):
    return rng.choice(ACTIVATIONS)()


def drop(rng):
    return rng.choice((nn.Dropout, nn.AlphaDropout))(rng.choice((0.1, 0.3)))


def tabular(rng, size):
    """A layer for rows of features, and their number after it."""
    after = rng.choice((4, 6, 8))
    makers = {
        "linear": lambda: (nn.Linear(size, after, bias=rng.random() < 0.8), after),
        "gated": lambda: (Gated(size, after), after),
        "mixed": lambda: (Mixed(size, after), after),
        "heads": lambda: (Heads(size, after), after),
        "bilinear": lambda: (nn.Sequential(Residual(Tied(size)), nn.Linear(size, after)), after),
        "activation": lambda: (activation(rng), size),
        "drop": lambda: (drop(rng), size),
        "batch norm": lambda: (nn.BatchNorm1d(size, momentum=rng.choice((0.1, 0.5))), size),
        "layer norm": lambda: (nn.LayerNorm(size, eps=1e-3), size),
        "group norm": lambda: (nn.GroupNorm(2, size, eps=1e-3), size),
        "residual": lambda: (Residual(nn.Sequential(nn.Linear(size, size), activation(rng))), size),
        "tied": lambda: (Tied(size), size),
        "shared": lambda: (Shared(size, after), size),
        "in place": lambda: (InPlace(rng.choice((0.5, 2.0))), size),
        "centered": lambda: (Centered(size, 0.1), size),
        "warm": lambda: (Warm(50), size),
        "normalized": lambda: (Normalized(size), size),
        "repeated": lambda: (Repeated(size, rng.randint(1, 3), rng.random() < 0.5), size),
        "binned": lambda: (Binned(size), size),
        "weight norm": lambda: (parametrizations.weight_norm(nn.Linear(size, after)), after),
        "function": lambda: (Function(rng.choice((*FUNCTIONS, mixed, crossed)), factor=0.7), size),
        "impure": lambda: (rng.choice(IMPURE)(), size),
    }
    return makers[_named(rng, makers)]()


def sequential(rng, steps, size):
    """A layer for sequences, and the number of their features after it."""
    after = rng.choice((4, 6))
    kind = rng.choice((nn.LSTM, nn.GRU, nn.RNN))
    makers = {
        "linear": lambda: (nn.Linear(size, after), after),
        "recurrent": lambda: (Recurrent(kind, size, after), after),
        "recurrent, both ways": lambda: (
            Recurrent(kind, size, after // 2, bidirectional=True),
            after,
        ),
        "cell": lambda: (Stepped(size, after), after),
        "convolved": lambda: (Convolved(size, after), after),
        "attention": lambda: (Attention(size, rng.choice((0.0, 0.1))), size),
        "attending": lambda: (Attending(size, rng.random() < 0.5), size),
        "transformer": lambda: (
            nn.TransformerEncoderLayer(
                size, 2, 8, dropout=rng.choice((0.0, 0.1)), batch_first=True
            ),
            size,
        ),
        "placed": lambda: (Placed(steps, size), size),
        "activation": lambda: (activation(rng), size),
        "layer norm": lambda: (nn.LayerNorm(size, eps=1e-3), size),
        "normalized": lambda: (Normalized(size), size),
        "drop": lambda: (nn.Dropout(0.2), size),
        "function": lambda: (Function(rng.choice(FUNCTIONS), factor=0.7), size),
        "impure": lambda: (rng.choice(IMPURE)(), size),
    }
    return makers[_named(rng, makers)]()


def convolutional(rng, channels):
    """A layer for images, which keeps their height and width, and the channels after it."""
    after = rng.choice((2, 4))
    makers = {
        "convolution": lambda: (nn.Conv2d(channels, after, 3, padding=1), after),
        "depthwise": lambda: (
            nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False),
            channels,
        ),
        "batch norm": lambda: (nn.BatchNorm2d(channels), channels),
        "group norm": lambda: (nn.GroupNorm(1, channels), channels),
        "drop": lambda: (nn.Dropout2d(0.2), channels),
        "activation": lambda: (activation(rng), channels),
        "residual": lambda: (Residual(nn.Conv2d(channels, channels, 1)), channels),
        "function": lambda: (Function(rng.choice((noisy, masked, detached)), factor=1.0), channels),
    }
    return makers[_named(rng, makers)]()


def _named(rng, makers):
    """A name; what runs as it is written comes once in twenty times."""
    names = [name for name in makers if name != "impure"]
    return "impure" if "impure" in makers and rng.random() < 0.05 else rng.choice(names)
