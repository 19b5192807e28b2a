"""A fitted classifier as a file that other programs run: ONNX, and torch's own format."""

from __future__ import annotations

import io
import json
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import replace
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import nn

from easyclf.checks import first_line_of, import_optional
from easyclf.data import InputFormat, Rows
from easyclf.device import HOST
from easyclf.engine import Fitted
from easyclf.files import PathLike, check_path, check_target, replacing
from easyclf.mlp import MLP
from easyclf.nested import Tensors, apply, like, named_tensors, tensors_of
from easyclf.precision import FullPrecision
from easyclf.randomness import isolated

# Rows that the file answers before it is trusted; one of them alone, too.
_TRIED_ROWS = 16
# How far probabilities may differ by rounding.
_TOLERANCES = {torch.float32: 1e-4, torch.float64: 1e-9}
# The longest ONNX file: protocol buffers count bytes in 31 bits.
_MOST_BYTES = 2**31 - 1
# Rows that a file takes at once. Without a bound torch 2.6 does not follow recurrent layers.
_MOST_ROWS = 2**31 - 1
_OUTPUT = "probabilities"

Metadata: TypeAlias = Mapping[str, object]
# A message of protocol buffers, which have no types here.
OnnxModel: TypeAlias = Any


def export(
    fitted: Fitted,
    path: PathLike,
    rows: Rows | None,
    feature_names: Sequence[str] | None,
) -> None:
    """Write a file that computes the probabilities of rows, as `predict_proba` does.

    Parameters
    ----------
    fitted : Fitted
        What a fit left. It stays as it is.
    path : str or path
        Its suffix is that of the format, ".onnx" or ".pt2".
    rows : Rows or None
        Examples to follow and to try; None makes some up.
    feature_names : sequence of str or None
        Names of the columns of X.

    Raises
    ------
    ValueError
        If the suffix is unknown, the rows do not say how the inputs look, torch cannot follow the
        module, or the file answers otherwise than the module.
    ImportError
        If ONNX is wanted and not installed.
    TypeError
        If it is no path.
    OSError
        If the file cannot be written. An older file of that name is left as it was.
    """
    check_path(path, "model.onnx")
    file_format = _format_of(Path(path))
    check_target(path)
    if fitted.schema.frame_encoder is not None:
        raise ValueError(
            "`export` writes what computes with numbers, but `fit` was given a frame with "
            "categories or gaps, which became numbers outside of the module; encode them in a "
            "pipeline, `make_pipeline(make_column_transformer(...), Estimator(...))`, and export "
            "its last step."
        )
    fitted = fitted.on_host()
    with isolated(fitted.seed, HOST, waits=False), torch.no_grad():
        deployed = Deployed(fitted)
        inputs = deployed.typed(_made_up(fitted) if rows is None else rows.first(_TRIED_ROWS))
        content = file_format.write(
            _traced(deployed, inputs), inputs, _metadata(fitted, feature_names)
        )
        _check_answers(file_format, content, deployed, fitted, inputs)
    with replacing(path) as file:
        file.write(content)


@contextmanager
def _silenced() -> Iterator[None]:
    """Keep to ourselves what the exporters say of their own insides."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class Deployed(nn.Module):
    """Everything between rows and probabilities, as one module.

    Parameters
    ----------
    fitted : Fitted
        What a fit left, on the host.
    """

    def __init__(self, fitted: Fitted) -> None:
        super().__init__()
        input_format = fitted.input_format
        self._dtype, self._tokens = input_format.dtype, input_format.tokens
        self._keeps_dtype = input_format.preprocess is not None
        if input_format.centre is not None:
            self._dtype = torch.float64
        if input_format.preprocess is not None:
            # Weights that it may have are found here.
            self.preprocess = input_format.preprocess.transform
        self.module = fitted.module.eval()
        self._input_format, self._head = input_format, fitted.head
        self._precision = FullPrecision(fitted.precision.dtype)
        self._precision.choice = fitted.precision.choice

    def typed(self, x: Tensors) -> Tensors:
        """Give the rows of shape (n_rows, ...) the dtypes that the file will take.

        Those are the module's, float64 where rows are to be centred before they are rounded, and
        for `preprocess` those that the rows have.
        """
        if self._keeps_dtype:
            return x
        typed = [
            part.to(torch.int64 if name in self._tokens else self._dtype)
            for name, part in named_tensors(x)
        ]
        return like(x, typed)

    def forward(self, x: Tensors) -> torch.Tensor:
        """Compute probabilities of shape (n_rows, n_classes) of inputs of shape (n_rows, ...)."""
        input_format: InputFormat = self._input_format
        if input_format.copies:
            x = apply(torch.clone, x)
        if self._keeps_dtype:
            # The transform alone: a check that counts rows would fix their number.
            input_format = replace(input_format, preprocess=self.preprocess)  # type: ignore[arg-type]
        batch = input_format.batch(x, None, None, is_own=True)
        return self._head.probabilities(self._precision.run(self.module, batch.x))


class FileFormat(ABC):
    """A format of files, known by its suffix."""

    @abstractmethod
    def write(
        self, program: torch.export.ExportedProgram, inputs: Tensors, metadata: Metadata
    ) -> bytes:
        """Make the file of a program that takes `inputs`, of shape (n_rows, ...)."""

    @abstractmethod
    def run(self, content: bytes, inputs: Tensors) -> torch.Tensor:
        """Compute probabilities (n_rows, n_classes) of inputs of shape (n_rows, ...) by a file."""


class TorchFormat(FileFormat):
    """The format of `torch.export.save`, with the metadata in an extra file."""

    def write(
        self, program: torch.export.ExportedProgram, inputs: Tensors, metadata: Metadata
    ) -> bytes:
        written = io.BytesIO()
        torch.export.save(program, written, extra_files={"easyclf.json": json.dumps(metadata)})
        return written.getvalue()

    def run(self, content: bytes, inputs: Tensors) -> torch.Tensor:
        program = torch.export.load(io.BytesIO(content))
        probabilities: torch.Tensor = program.module()(inputs)
        return probabilities


class OnnxFormat(FileFormat):
    """ONNX, with the metadata in the properties of the model."""

    def __init__(self) -> None:
        for package in ("onnx", "onnxscript", "onnxruntime"):
            with _silenced():
                import_optional(package, needed_by="`export` to ONNX")

    def write(
        self, program: torch.export.ExportedProgram, inputs: Tensors, metadata: Metadata
    ) -> bytes:
        try:
            model = _converted(program, inputs)
        except Exception:
            # torch 2.6 knows the shapes of `addcmul` only in smaller operations.
            try:
                with _silenced():
                    smaller = program.run_decompositions()
                model = _converted(smaller, inputs)
            except Exception as error:
                raise ValueError(
                    "ONNX does not have what the module does, or not in these versions of torch "
                    f"and onnxscript; export to '.pt2', or see the cause: {first_line_of(error)}"
                ) from error
        for key, value in metadata.items():
            entry = model.metadata_props.add()
            entry.key, entry.value = key, value if isinstance(value, str) else json.dumps(value)
        if model.ByteSize() > _MOST_BYTES:
            raise ValueError(
                f"The model takes {model.ByteSize() / 1e9:.1f} GB, and a file of ONNX holds 2 GB; "
                "export to '.pt2'."
            )
        content: bytes = model.SerializeToString()
        return content

    def run(self, content: bytes, inputs: Tensors) -> torch.Tensor:
        runtime = import_optional("onnxruntime", needed_by="`export` to ONNX")
        options = runtime.SessionOptions()
        options.log_severity_level = 3  # its warnings are of the exporter's manner
        session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        arrays = [tensor.numpy() for tensor in tensors_of(inputs)]
        given = dict(zip(_input_names(inputs), arrays, strict=True))
        return torch.from_numpy(session.run([_OUTPUT], given)[0])


@_silenced()
def _converted(program: torch.export.ExportedProgram, inputs: Tensors) -> OnnxModel:
    """Make a model of ONNX of a program that takes `inputs`, of shape (n_rows, ...)."""
    converted = torch.onnx.export(
        program,
        dynamo=True,
        verbose=False,
        input_names=_input_names(inputs),
        output_names=[_OUTPUT],
    )
    assert converted is not None  # as it is where no file is named
    return converted.model_proto


_FORMATS: dict[str, type[FileFormat]] = {".onnx": OnnxFormat, ".pt2": TorchFormat}


def _format_of(path: Path) -> FileFormat:
    if path.suffix not in _FORMATS:
        raise ValueError(
            f"`path` is {str(path)!r}; expected a name that ends in {' or '.join(_FORMATS)}."
        )
    return _FORMATS[path.suffix]()


def _input_names(inputs: Tensors) -> list[str]:
    """Name the inputs of an ONNX file: "X", "X0" and "X1" by place, or as `forward` does."""
    if isinstance(inputs, dict):
        return list(inputs)
    return ["X"] if isinstance(inputs, torch.Tensor) else [f"X{i}" for i in range(len(inputs))]


def _metadata(fitted: Fitted, feature_names: Sequence[str] | None) -> Metadata:
    return {
        "easyclf": version("easyclf"),
        "target": "multilabel" if fitted.encoder.is_multilabel else "one class a row",
        "classes": [_plain(label) for label in fitted.classes.tolist()],
        "class_names": fitted.class_names,
        "feature_names": None if feature_names is None else list(feature_names),
    }


def _plain(label: object) -> object:
    """Make of a label something that JSON has."""
    if isinstance(label, bytes):
        return label.decode("latin-1")
    return label if isinstance(label, str | int | float) else str(label)


def _made_up(fitted: Fitted) -> Tensors:
    """Draw rows that look like those of `fit`, of shape (n_rows, ...).

    Raises
    ------
    ValueError
        If it is not known how those look.
    """
    input_format, schema = fitted.input_format, fitted.schema
    if input_format.preprocess is not None or not schema.is_fixed:
        reason = (
            "rows go through `preprocess`, whose inputs may have any dtype"
            if schema.is_fixed
            else "rows have no fixed shape"
        )
        raise ValueError(
            f"`export` has to know how rows look, but {reason}; give it some rows, "
            "`export(path, X=X[:10])`."
        )
    generator = torch.Generator().manual_seed(0)
    tables = [layer for layer in fitted.module.modules() if isinstance(layer, nn.Embedding)]
    vocabulary = min((table.num_embeddings for table in tables), default=2)

    def draw(name: str | int | None, shape: Sequence[int]) -> torch.Tensor:
        size = [_TRIED_ROWS, *shape]
        if name in input_format.tokens:
            return torch.randint(vocabulary, size, generator=generator)
        return torch.randn(size, generator=generator, dtype=torch.float64)

    rows = schema.made_up(draw)
    if isinstance(rows, torch.Tensor) and isinstance(fitted.module, MLP):
        return _spread(rows, fitted.module)
    return rows


def _spread(rows: torch.Tensor, module: MLP) -> torch.Tensor:
    """Make standard normal rows of shape (n_rows, ...) as wide, and as far from 0, as in `fit`."""
    wide = (rows.flatten(1) - module.shift) / module.inverse_scale
    return (wide + module.centre.double().sum(0)).reshape(rows.shape)


def _traced(deployed: Deployed, inputs: Tensors) -> torch.export.ExportedProgram:
    """Follow the module with inputs of shape (n_rows, ...), of which n_rows may be any number.

    Raises
    ------
    ValueError
        If torch cannot.
    """
    n_rows = torch.export.Dim("n_rows", max=_MOST_ROWS)
    try:
        # torch 2.15 prints the graph that it has so far when it fails.
        with _silenced(), redirect_stderr(io.StringIO()):
            return torch.export.export(
                deployed,
                (inputs,),
                dynamic_shapes=(apply(lambda x: {0: n_rows}, inputs),),
                strict=False,
            )
    except Exception as error:
        raise ValueError(
            f"torch.export cannot follow {type(deployed.module).__name__}, or its `preprocess`, "
            f"with any number of rows: {_told_by(error)}"
        ) from error


def _told_by(error: Exception) -> str:
    """Shorten an error of torch.export: the first line, a reason that follows, and the user's code.

    Its other lines are of torch's insides. Where these two are written otherwise they are left out.
    """
    lines = [line.strip() for line in str(error).strip().splitlines()]
    told = [first_line_of(error)]
    told += [line.removeprefix("- ") for line in lines[1:] if line.startswith("- ")][:1]
    told += [f"{at}: {code}" for at, code in pairwise(lines) if at.startswith("File ")][-1:]
    return " ".join(told)


def _check_answers(
    file_format: FileFormat, content: bytes, deployed: Deployed, fitted: Fitted, inputs: Tensors
) -> None:
    """Refuse a file that answers otherwise than `predict_proba`, on all rows or on one alone."""
    precision = FullPrecision(fitted.precision.dtype)
    precision.choice = fitted.precision.choice
    first_row: Tensors = apply(lambda x: x[:1], inputs)
    for rows in (inputs, first_row):
        x = fitted.input_format.batch(rows, None, None, is_own=False).x
        expected = fitted.head.probabilities(precision.run(deployed.module, x))
        try:
            with _silenced():
                answered = file_format.run(content, apply(torch.clone, rows))
        except Exception as error:
            raise ValueError(
                f"The file cannot be run on {len(expected)} row(s): {first_line_of(error)}; "
                "nothing was written."
            ) from error
        tolerance = _TOLERANCES[fitted.precision.dtype]
        if answered.shape != expected.shape or not torch.allclose(
            answered, expected, rtol=0, atol=tolerance
        ):
            raise ValueError(
                f"The file answers otherwise than `predict_proba`: it gives {_shown(answered)} "
                f"where {type(deployed.module).__name__} gives {_shown(expected)}; nothing was "
                "written. A module that draws random numbers, or keeps something of the batches "
                "before, cannot be exported."
            )


def _shown(probabilities: torch.Tensor) -> str:
    """Show probabilities of shape (n_rows, n_classes): the first row, or all of their shape."""
    if probabilities.ndim != 2 or not len(probabilities):
        return f"the shape {tuple(probabilities.shape)}"
    return f"{np.round(probabilities[0, :4].double().numpy(), 6).tolist()} first"
