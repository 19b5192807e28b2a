"""What the last operation of a module says that its outputs are."""

from __future__ import annotations

from typing import Any

import torch

_KINDS = {
    "SigmoidBackward": "sigmoid",
    "SoftmaxBackward": "softmax",
    "LogSoftmaxBackward": "log_softmax",
}


# Operations after which the values are still what they were: views, copies, casts, clamps.
_SEE_THROUGH = {
    "Alias",
    "Clamp",
    "ClampMax",
    "ClampMin",
    "Clone",
    "Expand",
    "Permute",
    "Reshape",
    "ReshapeAlias",
    "Select",
    "Slice",
    "Split",
    "Squeeze",
    "T",
    "ToCopy",
    "Transpose",
    "Unbind",
    "UnsafeView",
    "Unsqueeze",
    "View",
}


def output_kind(output: torch.Tensor) -> str:
    """What the last operation of a module was: "sigmoid", "softmax", "log_softmax" or "logits".

    The autograd graph says it, for functional and module forms alike.
    """
    node: Any = output.grad_fn
    takes_log = False
    while node is not None:
        operation = node.name().partition("Backward")[0]
        kind = _KINDS.get(f"{operation}Backward")
        if kind is not None and takes_log:
            return "log_softmax" if kind == "softmax" else "logits"
        if kind is not None:
            return kind
        if operation == "Log" and not takes_log:
            takes_log = True
        elif operation not in _SEE_THROUGH:
            break
        node = node.next_functions[0][0] if node.next_functions else None
    return "logits"
