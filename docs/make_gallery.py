"""The gallery: a page for every example, with its picture and with what it prints.

`python docs/make_gallery.py [NAME ...]` runs examples, all if none is named, on the data that
EASYCLF_DATA has, and keeps pictures and outputs in `docs/gallery/`. Run it when an example is new
or has changed. The build of the documentation makes pages of what is kept, and runs nothing.
"""

import ast
import contextlib
import io
import os
import runpy
import shutil
import sys
import tempfile
from pathlib import Path

DOCS = Path(__file__).parent
EXAMPLES = DOCS.parent / "examples"
GALLERY = DOCS / "gallery"
# What makes an example short enough to be run here.
OPTIONS = {
    "mnist": ["--epochs", "2"],
    "names_rnn": ["--epochs", "3"],
    "frames": ["--epochs", "5"],
    "out_of_core": ["--gigabytes", "0.1", "--epochs", "4"],
}
# Lines of what an example prints that a page shows.
MOST_LINES = 40


def names():
    """The examples: all files but the helper that finds their data."""
    return sorted(path.stem for path in EXAMPLES.glob("*.py") if path.stem != "example_data")


def words(name):
    """The first line of an example's docstring, and the rest."""
    text = ast.get_docstring(ast.parse((EXAMPLES / f"{name}.py").read_text(encoding="utf-8")))
    title, _, rest = text.partition("\n")
    return title.rstrip("."), rest.strip()


def draw(name):
    """Run an example; keep the picture that it saves, or the curves of its last training."""
    printed, picture = io.StringIO(), GALLERY / "pictures" / f"{name}.png"
    path = EXAMPLES / f"{name}.py"
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        sys.argv, before = [str(path), *OPTIONS.get(name, [])], sys.argv
        sys.path.insert(0, str(EXAMPLES))
        with contextlib.redirect_stdout(printed):
            namespace = runpy.run_path(str(path), run_name="__main__")
        sys.argv = before
        sys.path.remove(str(EXAMPLES))
        if Path(f"{name}.png").exists():
            shutil.copy(f"{name}.png", picture)
        else:
            draw_last_training(namespace, picture)
    lines = printed.getvalue().splitlines()
    if len(lines) > MOST_LINES:
        lines = [*lines[: MOST_LINES // 2], "...", *lines[-MOST_LINES // 2 :]]
    (GALLERY / "outputs" / f"{name}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def draw_last_training(namespace, picture):
    """Draw the curves of the last fitted estimator, or pipeline, that an example leaves."""
    from sklearn.exceptions import NotFittedError

    from easyclf import TrainingDisplay

    for value in reversed(list(namespace.values())):
        if hasattr(value, "fit") and not isinstance(value, type):
            with contextlib.suppress(NotFittedError, TypeError):
                TrainingDisplay.from_estimator(value).figure_.savefig(picture)
                return


def page(name):
    """The page of an example, in MyST Markdown."""
    title, rest = words(name)
    parts = [f"# {title}", rest]
    if (GALLERY / "pictures" / f"{name}.png").exists():
        parts.append(f"![{title}](pictures/{name}.png)")
    parts.append(f"```{{literalinclude}} ../../examples/{name}.py\n:language: python\n```")
    if (GALLERY / "outputs" / f"{name}.txt").exists():
        parts.append(
            f"It prints:\n\n```{{literalinclude}} outputs/{name}.txt\n:language: text\n```"
        )
    parts.append(f"This is `examples/{name}.py`.")
    return "\n\n".join(filter(None, parts)) + "\n"


def front():
    """The first page of the gallery: a card with its picture for every example."""
    cards = []
    for name in names():
        title, _ = words(name)
        image = f":img-top: pictures/{name}.png\n"
        has_picture = (GALLERY / "pictures" / f"{name}.png").exists()
        cards.append(
            f":::{{grid-item-card}} {name}\n:link: {name}\n:link-type: doc\n"
            f"{image if has_picture else ''}\n{title}.\n:::\n"
        )
    text = "# Gallery\n\nEvery example runs as it is: `python examples/quickstart.py`.\n\n"
    text += "::::{grid} 1 2 3 3\n:gutter: 3\n\n" + "\n".join(cards) + "::::\n\n"
    contents = "\n".join(f"{name} <{name}>" for name in names())
    return f"{text}```{{toctree}}\n:hidden:\n\n{contents}\n```\n"


def write_pages(*_):
    """Write all pages, which Sphinx then reads; those of examples that are gone go too."""
    pages = {"index": front(), **{name: page(name) for name in names()}}
    for path in GALLERY.glob("*.md"):
        if path.stem not in pages:
            path.unlink()
    for name, text in pages.items():
        path = GALLERY / f"{name}.md"
        # What is new makes Sphinx read the page again.
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    os.environ["MPLBACKEND"] = "Agg"
    for folder in ("pictures", "outputs"):
        (GALLERY / folder).mkdir(parents=True, exist_ok=True)
    for chosen in sys.argv[1:] or names():
        print(chosen, flush=True)
        draw(chosen)
