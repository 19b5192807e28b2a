"""Private names of torch and scikit-learn: which the package uses, where, and the package without.

A private name may be gone, or mean something else, in the next version. `ALLOWED` says who may use
one; each use has a way round it, and `tests/test_private_names.py` takes the names away in turn.
"""

import ast
import sys
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "easyclf"
# The file that tries what tapes need, behind the guarded door of their folder.
_TRIED = {"tape/torch_internals.py"}
# Each name, and the files that may use it.
ALLOWED = {
    # torch
    "_foreach_copy_": {"snapshots.py"},
    "_foreach_norm": {"snapshots.py"},
    "_forward_hooks": {"modules.py", *_TRIED},
    "_forward_pre_hooks": {"modules.py", *_TRIED},
    "_iterator": {"data/first_look.py", "data/workers.py"},
    "_shutdown_workers": {"data/workers.py"},
    "_version": {"engine/probing.py"},
    # scikit-learn, which documents the second; see test_sklearn_bridge.py too
    "_skl_callbacks": {"callbacks/sklearn_bridge.py"},
    "_init_callback_context": {"callbacks/sklearn_bridge.py"},
    # torch, for tapes
    **dict.fromkeys(
        (
            "_C",
            "_VariableFunctions",
            "_backward_hooks",
            "_backward_pre_hooks",
            "_buffers",
            "_call_impl",
            "_compiled_call_impl",
            "_foreach_add_",
            "_fused_adam_",
            "_fused_adamw_",
            "_fused_sgd_",
            "_global_backward_hooks",
            "_global_backward_pre_hooks",
            "_global_forward_hooks",
            "_global_forward_pre_hooks",
            "_global_optimizer_post_hooks",
            "_global_optimizer_pre_hooks",
            "_len_torch_dispatch_stack",
            "_len_torch_function_stack",
            "_linalg",
            "_linear_pointwise",
            "_log_softmax",
            "_log_softmax_backward_data",
            "_modules",
            "_nn",
            "_opt_called",
            "_optimizer_step_post_hooks",
            "_optimizer_step_pre_hooks",
            "_parameters",
            "_post_accumulate_grad_hooks",
            "_python_dispatch",
            "_schema",
            "_special",
        ),
        _TRIED,
    ),
    # With a default, where there is no such name.
    "_op": {"tape/compiler.py"},
    # Python: what has it is trusted, or not read; without it more is refused.
    "_abc_impl": {"tape/purity.py"},
    "_tuple_new": {"tape/trusted.py"},
}
# Documented in spite of the underscore: of named tuples, and of the interpreter.
_DOCUMENTED = {"_replace", "_fields", "_asdict", "_make", "_getframe"}
# The beginning of the names of registries, and the ending of names of opcodes.
_NO_NAMES = {"_global"}
# Attributes that the package sets on objects of others, by other names than `self`, and a key of
# its pickles.
_OWN = {"_constructor_calls", "_names_before_run", "_results"}


def is_private(name):
    return (
        name.startswith("_") and not name.startswith("__") and name.isidentifier() and name != "_"
    )


def home_of(path):
    """The file as `ALLOWED` calls it."""
    return path.relative_to(PACKAGE).as_posix()


def uses():
    """Every use of a private name that is not the package's own: name, home, line."""
    files = {
        path: [*ast.walk(ast.parse(path.read_text()))] for path in sorted(PACKAGE.rglob("*.py"))
    }
    own = {name for nodes in files.values() for name in _defined(nodes)}
    ignored = _DOCUMENTED | _NO_NAMES | _OWN | set(sys.stdlib_module_names)
    for path, nodes in files.items():
        for name, line, of_self in _used(nodes):
            # What the package defines is its own, but on others than `self` a name of the list
            # is theirs.
            is_own = name in own and (of_self or name not in ALLOWED)
            if name not in ignored and not is_own:
                yield name, home_of(path), f"{path.relative_to(PACKAGE)}:{line}"


def _defined(nodes):
    for node in nodes:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.arg):
            yield node.arg
        elif (
            isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and is_on_self(node)
        ):
            yield node.attr


def is_on_self(node):
    return isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")


def _used(nodes):
    """Private names in attributes, imports, and texts that are names, as `getattr` takes them."""
    formats = [node for node in nodes if isinstance(node, ast.JoinedStr)]
    parts = {id(part) for node in formats for part in node.values}
    for node in nodes:
        names = []
        if isinstance(node, ast.Attribute):
            names = [node.attr]
        elif isinstance(node, ast.ImportFrom):
            names = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [part for alias in node.names for part in alias.name.split(".")]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names = dotted(node.value) if id(node) not in parts else []
        of_self = isinstance(node, ast.Attribute) and is_on_self(node)
        yield from ((name, node.lineno, of_self) for name in names if is_private(name))


def dotted(text):
    """The parts of a text that is a name or several with dots between them; none of another."""
    names = text.split(".")
    return names if all(name.isidentifier() for name in names) else []
