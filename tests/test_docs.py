"""Every Python block of the documentation runs, and prints what the page says."""

import io
import re
from contextlib import redirect_stdout
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest
import sklearn

import easyclf
import easyclf.callbacks
from easyclf.state import TrainingState

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
README = ROOT / "README.md"
PAGES = [
    README,
    *(DOCS / f"{name}.md" for name in ("index", "tour", "performance", "lines", "faq")),
    *sorted(DOCS.glob("coming-from-*.md")),
    *sorted(DOCS.glob("guide/*.md")),
]
# A `python` block, and the `text` block right below it, which is what it prints.
BLOCK = re.compile(
    r"^```python\n(?P<code>.*?)^```$(\s*^```text\n(?P<printed>.*?)^```$)?",
    re.MULTILINE | re.DOTALL,
)
NUMBER = re.compile(r"-?(\d+\.?\d*(e[+-]?\d+)?%?|\b(nan|inf)\b)")


def read(page):
    return page.read_text(encoding="utf-8")


def words(printed):
    """What was printed without its numbers, which differ a little between machines.

    Nor does it matter how many lines differ in their numbers only: epochs before an early stop.
    """
    lines = [" ".join(line.split()) for line in NUMBER.sub("#", printed).splitlines()]
    return " ".join(dict.fromkeys(lines)).split()


CODE_PAGES = [page for page in PAGES if BLOCK.search(read(page))]


@pytest.fixture
def _scratch(tmp_path, monkeypatch):
    """A temporary working directory, figures that nobody sees, and scikit-learn's settings kept."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    mpl.use("Agg")
    with sklearn.config_context():
        yield
    plt.close("all")


@pytest.mark.parametrize("page", CODE_PAGES, ids=lambda page: str(page.relative_to(ROOT)))
@pytest.mark.usefixtures("_scratch")
def test_page_runs_as_it_stands(page):
    """The blocks of a page run in order in one namespace, and print what is below them."""
    namespace = {"__name__": "page"}
    text = read(page)
    for block in BLOCK.finditer(text):
        line = text.count("\n", 0, block.start("code"))
        printed = io.StringIO()
        with redirect_stdout(printed):
            # The blank lines make the line numbers of a traceback those of the page.
            exec(compile("\n" * line + block["code"], str(page), "exec"), namespace)
        if block["printed"] is not None:
            assert printed.getvalue(), f"nothing is printed at line {line} of {page}"
            assert words(printed.getvalue()) == words(block["printed"]), f"line {line} of {page}"


@pytest.mark.usefixtures("_scratch")
def test_the_lines_for_shap_run_where_it_is_installed():
    pytest.importorskip("shap")
    text = read(DOCS / "guide" / "explaining.md")
    first = BLOCK.search(text)["code"]
    (lines,) = re.findall(r"^```py\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)

    namespace = {}
    exec(f"{first}\n{lines}", namespace)

    assert namespace["explanation"].shape == (5, 6)


def test_pages_with_code_are_found():
    """The README, the first page, the tour and most of the guide have code to run."""
    assert {README, DOCS / "index.md", DOCS / "tour.md"} <= set(CODE_PAGES)
    assert len(CODE_PAGES) >= 12


def test_set_up_is_two_commands():
    """The README's bash blocks are the two commands that do all the set-up."""
    commands = re.findall(r"^```bash\n(.*?)^```$", read(README), re.MULTILINE | re.DOTALL)

    assert commands == [
        'pip install -e ".[plot]" && python examples/quickstart.py\n',
        'pip install -e ".[test]" && python -m pytest -n 2 && python -m pytest -n 2 tests/device\n',
    ]


@pytest.mark.parametrize("package", [easyclf, easyclf.callbacks])
def test_reference_has_every_public_name(package):
    """What a package exports has its entry in the reference, at one of its addresses."""
    entries = re.findall(r"^ +[\w.]*\.(\w+)$", read(DOCS / "api.md"), re.MULTILINE)

    assert set(package.__all__) <= set(entries)


def test_guide_lists_all_of_its_pages():
    """A page of the guide is in the table and in the contents of the guide's first page."""
    front = read(DOCS / "guide" / "index.md")
    pages = {page.stem for page in DOCS.glob("guide/*.md")} - {"index"}

    assert {page for page in pages if f"({page}.md)" in front and f"\n{page}\n" in front} == pages


def test_guide_lists_the_fields_of_the_state():
    """The page on callbacks has every field of the state that hooks are given."""
    fields = re.findall(r"^ *(\w+) : ", TrainingState.__doc__, re.MULTILINE)

    assert set(fields) <= set(re.findall(r"`(\w+)`", read(DOCS / "guide" / "callbacks.md")))


def test_architecture_names_every_file():
    """The tree has every file of the package but those of `data/`, which the guide describes."""
    package = Path(easyclf.__file__).parent
    files = {path.name for path in package.rglob("*.py") if path.parent.name != "data"}
    tree = read(DOCS / "architecture.md").split("```")[1]

    assert files - {"__init__.py"} <= set(re.findall(r"[\w.]+\.py", tree))
    assert all(f"{folder}/" in tree for folder in ("callbacks", "data", "engine", "tape"))


def test_the_guide_has_every_parameter_of_the_estimator():
    guide = "\n".join(read(page) for page in DOCS.glob("guide/*.md"))

    names = easyclf.Estimator().get_params()
    assert [name for name in names if not re.search(rf"(`{name}`|\b{name}=)", guide)] == []
