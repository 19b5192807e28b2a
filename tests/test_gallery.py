"""The gallery of the documentation: a page for every example, made of what is kept."""

import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture
def gallery(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(DOCS)
    import make_gallery

    monkeypatch.setattr(make_gallery, "GALLERY", tmp_path)
    return make_gallery


def test_every_example_has_a_page_and_a_card(gallery, tmp_path):
    gallery.write_pages()

    front = (tmp_path / "index.md").read_text()
    for name in gallery.names():
        assert f":link: {name}\n" in front
        assert f"examples/{name}.py" in (tmp_path / f"{name}.md").read_text()


def test_every_example_is_in_the_list_of_examples(gallery):
    listed = (gallery.EXAMPLES / "README.md").read_text()

    assert [name for name in gallery.names() if f"`{name}.py`" not in listed] == []


def test_pages_of_examples_that_are_gone_go(gallery, tmp_path):
    (tmp_path / "gone.md").touch()

    gallery.write_pages()

    assert not (tmp_path / "gone.md").exists()


def test_a_picture_is_what_the_example_saves_or_its_last_training(gallery, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    fit = "from easyclf import Estimator\nclf = Estimator(epochs=2).fit([[0.0], [1.0]], [0, 1])\n"
    save = "clf.history_.plot()[0].figure.savefig('saves.png', dpi=10)\n"
    (tmp_path / "saves.py").write_text(f'"""Saves one."""\n{fit}{save}print(1)')
    (tmp_path / "trains.py").write_text(f'"""Trains."""\n{fit}print(2)')
    for folder in ("pictures", "outputs"):
        (tmp_path / folder).mkdir()
    monkeypatch.setattr(gallery, "EXAMPLES", tmp_path)
    before = list(sys.path)

    for name in ("saves", "trains"):
        gallery.draw(name)

    sizes = {path.stem: path.stat().st_size for path in (tmp_path / "pictures").iterdir()}
    assert 0 < sizes["saves"] < sizes["trains"]
    assert (tmp_path / "outputs" / "trains.txt").read_text() == "2\n"
    assert "![Trains](pictures/trains.png)" in gallery.page("trains")
    assert sys.path == before
