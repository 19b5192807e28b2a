"""B: programs whose operations change memory that others see, to mislead what rewrites them."""

import torch
import torch.nn.functional as F
from torch import nn

from tape.misleading.program import STEPS, Net, Programs, net, run

PROGRAMS = Programs("B")
mislead, play = PROGRAMS.mislead, PROGRAMS.play


class Late(Net):
    """A `Net` in which something begins long after a tape was made and tried."""

    def __init__(self):
        super().__init__()
        self.register_buffer("steps", torch.zeros(()))

    def late(self):
        """0.0, and 1.0 from the 23rd step on."""
        if self.training:
            self.steps.add_(1)
        return (self.steps > 22).double()


def late_net(between):
    """A `Late` whose `between` is a function of itself and the features."""
    return type("Own", (Late,), {"between": between})()


@mislead
def a_kept_sum_changed_before_its_view():
    def between(self, x):
        total = x.sum(0, keepdim=True)
        total.add_(self.late())
        return x + total.view(6)

    return late_net(between)


@mislead
def a_kept_sum_changed_after_its_view():
    def between(self, x):
        total = x.sum(0, keepdim=True)
        flat = total.view(6)
        total.sub_(self.late())
        return x + flat

    return late_net(between)


@mislead
def a_kept_sum_changed_through_its_view():
    def between(self, x):
        total = x.sum(0, keepdim=True)
        total.view(6).add_(self.late())
        return x + total

    return late_net(between)


@mislead
def a_kept_sum_changed_through_one_of_two_views():
    def between(self, x):
        total = x.sum(0, keepdim=True)
        first, second = total.view(6), total.view(6)
        first.add_(self.late())
        return x + second

    return late_net(between)


@mislead
def a_kept_sum_changed_through_a_slice():
    def between(self, x):
        total = x.sum(1, keepdim=True)
        total[:4].sub_(self.late())
        return x + total.view(len(x), 1) + total.view(-1).view(len(x), 1)

    return late_net(between)


@mislead
def a_kept_sum_of_fewer_bits():
    def between(self, x):
        total = x.sum(0, keepdim=True, dtype=torch.float32)
        return x + total.view(6)

    return net(between)


@mislead
def a_kept_sum_of_booleans():
    def between(self, x):
        return x * (x > 0).sum(0, keepdim=True, dtype=torch.float64).view(6) / 8

    return net(between)


@mislead
def a_kept_sum_of_what_is_changed_later():
    def between(self, x):
        copied = x.clone()
        total = copied.sum(0, keepdim=True)
        copied.add_(self.late())
        return copied + total.view(6)

    return late_net(between)


@mislead
def a_kept_sum_of_a_view_of_what_is_changed_later():
    def between(self, x):
        copied = x.clone()
        total = copied[:, :3].sum(0, keepdim=True)
        copied[:, 0] += self.late()
        return copied + torch.cat([total.view(3), total.view(3)])

    return late_net(between)


@mislead
def a_kept_sum_without_gradient():
    def between(self, x):
        with torch.no_grad():
            total = x.sum(0, keepdim=True)
            total.clamp_(-0.5, 0.5)
        return x + total.view(6)

    return net(between)


@mislead
def a_kept_sum_clamped_from_some_step_on():
    def between(self, x):
        total = x.sum(0, keepdim=True)
        total.clamp_(max=2 - self.late())
        return x + total.view(6)

    return late_net(between)


@mislead
def a_scale_that_is_used_twice():
    """The gradients of both uses are added up in place, where a sum has kept its dimension."""

    def between(self, x):
        scale = self.scale.view(1, 6)
        return x * scale + torch.tanh(x) * scale + x.square() * scale

    return net(between, scale=nn.Parameter(torch.linspace(0.5, 1.5, 6)))


@mislead
def a_bias_over_steps_that_is_used_twice():
    class Steps(Net):
        def __init__(self):
            super().__init__()
            self.bias = nn.Parameter(torch.zeros(6))

        def forward(self, x):
            bias = self.bias.view(1, 1, 6)
            x = torch.tanh(self.first(x) + bias) * (1 + bias)
            return self.last(x.mean(1))

    return run(Steps(), STEPS)


@mislead
def a_transpose_changed_in_place():
    def between(self, x):
        copied = x.clone()
        copied.t().add_(self.late())
        return copied.t().t() * copied

    return late_net(between)


@mislead
def a_transpose_that_is_turned_back_in_place():
    def between(self, x):
        turned = x.clone().t()
        other = turned.clone().t_()
        other.add_(self.late())
        return turned.t() + other

    return late_net(between)


@mislead
def a_transpose_of_what_is_turned_in_place():
    def between(self, x):
        square = x.t() @ x
        before = square.t()
        square.t_()
        return x @ (before - 2 * square) / 10

    return net(between)


@mislead
def two_names_turned_in_place():
    def between(self, x):
        named = x.clone()
        other = named
        named.unsqueeze_(0)
        return (other * 2)[0]

    return net(between)


@mislead
def a_literal_that_grows():
    def between(self, x):
        total = torch.tensor(0.0)
        for _ in range(3):
            total.add_(0.5)
        return x * total

    return net(between)


@mislead
def a_view_of_a_literal_that_grows():
    def between(self, x):
        scales = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
        scales[2:].mul_(0.5)
        return x * scales.view(1, 6)

    return net(between)


@mislead
def a_literal_that_takes_values():
    def between(self, x):
        row = torch.tensor([0.0] * 6, dtype=torch.float64)
        row.copy_(x.detach().mean(0))
        return x + row

    return net(between)


@mislead
def zeros_that_are_filled():
    def between(self, x):
        out = torch.zeros_like(x)
        for column in range(0, 6, 2):
            out[:, column] = x[:, column] * 2
        return out

    return net(between)


@mislead
def ones_whose_view_is_filled():
    def between(self, x):
        ones = torch.ones_like(x)
        ones.view(-1)[::2] = 0.25
        return x * ones

    return net(between)


@mislead
def the_same_zeros_twice():
    def between(self, x):
        zeros = torch.zeros(6, dtype=x.dtype)
        shared = zeros.expand(len(x), 6)
        zeros.add_(x.detach().mean(0))
        return x + shared

    return net(between)


@mislead
def an_accumulator_by_index():
    def between(self, x):
        groups = torch.tensor([0, 1, 0, 1, 2, 2])
        total = torch.zeros(len(x), 3, dtype=x.dtype).index_add(1, groups, x)
        total.index_add_(1, groups, x)
        return x + total.repeat(1, 2)

    return net(between)


@mislead
def results_written_into_a_given_place():
    def between(self, x):
        with torch.no_grad():
            place = torch.empty_like(x)
            torch.mul(x, 2, out=place)
            torch.add(place, 1, out=place)
        return x + place

    return net(between)


@mislead
def a_buffer_as_the_place_of_results():
    made = net(lambda self, x: x + torch.mean(x.detach(), 0, out=self.seen).clone())
    made.register_buffer("seen", torch.zeros(6))
    return made


@mislead
def a_view_of_a_buffer_made_before_its_change():
    def between(self, x):
        view = self.seen.view(1, 6)
        transposed = view.t()
        self.seen.mul_(0.9).add_(0.1 * x.detach().mean(0))
        return x + view + transposed.t()

    made = net(between)
    made.register_buffer("seen", torch.zeros(6))
    return made


@mislead
def a_copy_of_a_buffer_made_before_its_change():
    def between(self, x):
        before = self.seen.clone()
        same = self.seen.detach()
        self.seen.add_(0.01)
        return x * before + x * same

    made = net(between)
    made.register_buffer("seen", torch.zeros(6))
    return made


@mislead
def an_output_that_lies_in_a_buffer():
    class Kept(Net):
        def __init__(self):
            super().__init__()
            self.register_buffer("kept", torch.zeros(3))

        def forward(self, x):
            out = super().forward(x)
            self.kept.copy_(out.detach().mean(0))
            return out - self.kept.expand_as(out)

    return Kept()


@mislead
def an_output_changed_in_place():
    class Shifted(Net):
        def forward(self, x):
            out = super().forward(x)
            out[:, 0] += 0.5
            out.view(-1)[1::3] *= 2
            return out

    return Shifted()


@mislead
def an_input_changed_in_place():
    class Scaled(Net):
        def forward(self, x):
            x[:, 0].mul_(2)
            return super().forward(x.add_(0.1))

    return run(Scaled(), shuffle=False)


@mislead
def a_view_changed_in_place():
    def between(self, x):
        copied = x.clone()
        half = copied[:, :3]
        half.mul_(0.5).add_(self.late())
        return copied + half.repeat(1, 2)

    return late_net(between)


@mislead
def chunks_that_change_each_other():
    def between(self, x):
        copied = x.clone()
        copied[:, :2] += copied[:, 2:4]
        copied[:, 2:4] -= copied[:, :2]
        return copied

    return net(between)


@mislead
def rows_of_an_unfolded_tensor():
    def between(self, x):
        with torch.no_grad():
            copied = x.detach().clone()
            windows = copied.unfold(1, 2, 2)
            windows[..., 0] = 0
        return x + copied

    return net(between)


@mislead
def a_strided_view_changed_in_place():
    def between(self, x):
        with torch.no_grad():
            copied = x.detach().clone().contiguous()
            copied.diagonal().fill_(2.0)
            copied.as_strided((3,), (2,)).mul_(3)
        return x * copied

    return net(between)


@mislead
def a_swap_by_copies():
    def between(self, x):
        copied = x.clone()
        kept = copied[:, :3].clone()
        copied[:, :3].copy_(copied[:, 3:])
        copied[:, 3:].copy_(kept)
        return copied + kept.repeat(1, 2)

    return net(between)


@mislead
def detached_memory_changed_in_place():
    def between(self, x):
        copied = x.detach().clone()
        copied.detach().add_(1)
        return x * copied

    return net(between)


@mislead
def real_numbers_of_a_complex_tensor():
    def between(self, x):
        with torch.no_grad():
            spectrum = torch.fft.rfft(x.detach(), dim=1)
            torch.view_as_real(spectrum)[..., 1].zero_()
        return x + torch.fft.irfft(spectrum, n=6, dim=1)

    return net(between)


@mislead
def a_constant_gradient_changed_by_a_callback():
    """The gradient of this loss is the same in every step; who has changed it, has his own."""
    from easyclf import LambdaCallback

    def spoil(state):
        for parameter in state.module.parameters():
            parameter.grad.mul_(3)

    def loss(out, y):
        return out.mean() ** 1

    return run(net(lambda self, x: x), loss=loss, callbacks=[LambdaCallback(on_epoch_end=spoil)])


@mislead
def gradients_clipped_in_a_list():
    from easyclf import LambdaCallback

    def spoil(state):
        nn.utils.clip_grad_value_(state.module.parameters(), 1e-3)

    def loss(out, y):
        return out[:, 0].sum() / 8

    return run(net(lambda self, x: x), loss=loss, callbacks=[LambdaCallback(on_epoch_end=spoil)])


# Honest: memory is changed, and every replay does the same.


@play
def sums_that_keep_their_dimension():
    return net(lambda self, x: x + x.sum(0, keepdim=True).view(6) / 8)


@play
def a_mean_of_the_rows_taken_away():
    return net(lambda self, x: x - x.mean(0, keepdim=True))


@play
def a_bias_that_is_broadcast():
    return net(lambda self, x: x + self.bias, bias=nn.Parameter(torch.zeros(1, 6)))


@play
def activations_in_place():
    return net(
        lambda self, x: F.relu_(2 * x) + F.dropout(x.clone(), 0.1, self.training, inplace=True)
    )


@play
def columns_written_in_place():
    def between(self, x):
        copied = x.clone()
        copied[:, 0] = 1.0
        copied[:, 1:3] += copied[:, 3:5]
        return copied

    return net(between)


@play
def running_averages_in_a_buffer():
    def between(self, x):
        if self.training:
            self.seen.mul_(0.9).add_(0.1 * x.detach().mean(0))
        return x - self.seen

    made = net(between)
    made.register_buffer("seen", torch.zeros(6))
    return made


@play
def a_counter_in_a_buffer():
    def between(self, x):
        if self.training:
            self.steps.add_(1)
        return x * (self.steps / 100).clamp(max=1)

    made = net(between)
    made.register_buffer("steps", torch.zeros(()))
    return made


@play
def a_literal_that_is_scaled():
    def between(self, x):
        scale = torch.tensor(2.0)
        scale *= 0.5
        return x * scale

    return net(between)


@play
def views_and_transposes():
    return net(lambda self, x: x.view(2, -1, 6).transpose(1, 2).reshape(2, -1).view(-1, 6) + x)


@play
def recurrent_cells():
    class Steps(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell, self.last = nn.GRUCell(4, 4), nn.Linear(4, 3)

        def forward(self, x):
            hidden = x.new_zeros(len(x), 4)
            for step in range(x.shape[1]):
                hidden = self.cell(x[:, step], hidden)
            return self.last(hidden)

    return run(Steps(), STEPS)
