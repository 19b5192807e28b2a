"""A module that was trained elsewhere, before and after it is shown rows."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import torch
from torch import nn

from easyclf.data import InputFormat, Reader, Rows
from easyclf.device import HOST, resolve_device, to_device
from easyclf.engine.fitted import Fitted, repeated
from easyclf.engine.fitting import Settings
from easyclf.engine.given import Given
from easyclf.engine.probing import ProbedModule, probe_module
from easyclf.heads import Head, build_head
from easyclf.history import History
from easyclf.mlp import MLP
from easyclf.modules import freeze
from easyclf.nested import Tensors, apply
from easyclf.optimizers import build_optimizer
from easyclf.output_choice import OutputChoice
from easyclf.precision import resolve_precision
from easyclf.randomness import isolated
from easyclf.reordering import in_order_of_classes
from easyclf.snapshots import copied_to_host
from easyclf.targets import Labels, TargetEncoder

# Rows that are passed through the module: one alone is too few for batch normalization.
_SHOWN_ROWS = 3


@dataclass(frozen=True, eq=False)
class Unseen:
    """A trained module of which no rows were seen: what is known before `Fitted`.

    Attributes
    ----------
    module : nn.Module
        The module, of the estimator's own, in evaluation mode.
    encoder : TargetEncoder
        The classes.
    given : Given
        The module, as the user gave it.
    device : torch.device
        Where the module is.
    seed : int
        The seed of the training that may follow.
    history : History
        No epochs.
    optimizer, class_names : None
        There are none yet.
    n_iter : int
        No epochs.
    """

    module: nn.Module
    encoder: TargetEncoder
    given: Given
    device: torch.device
    seed: int
    history: History = field(default_factory=History)
    optimizer: None = None
    class_names: None = None
    n_iter: int = 0

    @property
    def classes(self) -> Labels:
        """The sorted classes."""
        return self.encoder.classes_

    def on_host(self) -> Unseen:
        """Copy it to the host, to be read on a machine without this device."""
        if self.device.type == HOST.type:
            return self
        return Unseen(copied_to_host(self.module), self.encoder, self.given, HOST, self.seed)

    def shown(self, settings: Settings, rows: Rows, reader: Reader) -> Fitted:
        """Find out with a few rows how the module wants them, and what it answers.

        Parameters
        ----------
        settings : Settings
            What the user asked for.
        rows : Rows
            Without labels.
        reader : Reader
            What read them.

        Raises
        ------
        ValueError, TypeError, RuntimeError
            If the module does not take the rows, or its outputs are not those of the classes.
        """
        assert reader.schema is not None
        device = resolve_device(settings.device)
        precision = resolve_precision(settings.precision, device)
        precision.choice = OutputChoice(settings.output)
        # Another thread may be reading this one.
        module = copy.deepcopy(self.module).to(device, precision.dtype)
        thawed = _thawed(module)
        with isolated(self.seed, device), torch.enable_grad():
            probed = probe_module(
                module,
                apply(lambda x: to_device(x, device), _some(rows, len(self.classes))),
                InputFormat.of_transforms(
                    device, precision.dtype, preprocess=settings.preprocess, augment=None
                ),
                rows.training_batch_size(settings.batch_size),
                precision.choice,
            )
            head = self._head(probed, settings).to(device, precision.dtype)
            frozen = freeze(module, settings.freeze)
            optimizer = build_optimizer(
                settings.optimizer, module, settings.lr, settings.optimizer_keywords
            )
        for weight in thawed:
            weight.requires_grad_(False)
        fitted = Fitted(
            module.eval(),
            optimizer,
            History(),
            head,
            self.encoder,
            precision,
            probed.input_format.without_augment(),
            reader.schema,
            probed.row_numbers,
            frozen,
            self.seed,
            self.given,
        )
        return fitted.centred_by(module) if isinstance(module, MLP) else fitted

    def _head(self, probed: ProbedModule, settings: Settings) -> Head:
        """Read what the outputs mean, as many as there are classes."""
        output, n_classes = probed.outputs.in_evaluation, len(self.classes)
        if isinstance(output, torch.Tensor) and output.ndim:
            n_outputs = output[0].numel() if len(output) == probed.outputs.n_rows else n_classes
            if n_outputs != n_classes and (n_outputs, n_classes) != (1, 2):
                raise ValueError(
                    f"`module` {probed.outputs.module_name} has {n_outputs} output(s), but "
                    f"`classes` names {n_classes}; name the class of each output, in their order."
                )
        head = build_head(
            probed.outputs,
            self.classes,
            is_multilabel=False,
            loss=settings.loss,
            keywords=settings.loss_keywords,
            class_weight=None,
            is_weighted=False,
        )
        return in_order_of_classes(head, self.encoder)


def _some(rows: Rows, n_classes: int) -> Tensors:
    """The first rows, of shape (n_shown, ...), repeated where there are too few.

    Were there as many rows as columns, an output might have them the wrong way round.
    """
    n_shown = _SHOWN_ROWS + 1 if n_classes == _SHOWN_ROWS else _SHOWN_ROWS
    return repeated(rows.first(n_shown), n_shown)


def _thawed(module: nn.Module) -> list[nn.Parameter]:
    """Let the weights of a module be trained, of which none are; give them.

    What the outputs are is read from their graph.
    """
    weights = list(module.parameters())
    if any(weight.requires_grad for weight in weights):
        return []
    thawed = [weight for weight in weights if weight.is_floating_point()]
    for weight in thawed:
        weight.requires_grad_(True)
    return thawed
