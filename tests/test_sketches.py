"""Small pictures as SVG: whole, readable and harmless."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from easyclf.sketches import Mark, draw_curves

EPOCHS = np.arange(1.0, 4.0)


def drawn(curves, mark=None):
    return ElementTree.fromstring(draw_curves(EPOCHS, curves, mark))


def words(svg):
    return [text.text for text in svg.iter("text")]


def heights_in(svg):
    points = next(svg.iter("polyline")).get("points").split()
    return {float(point.split(",")[1]) for point in points}


def test_a_picture_has_curves_ends_of_axes_and_a_legend():
    curves = {"loss": np.array([3.0, 2.0, 1.0]), "val_loss": np.array([3.0, 2.5, 2.75])}

    svg = drawn(curves, Mark(2.0, 2.5, "lowest: epoch 2"))

    assert words(svg) == ["3", "1", "1", "epoch", "3", "loss", "val_loss", "lowest: epoch 2"]
    dashes = [line.get("stroke-dasharray") for line in svg.iter("polyline")]
    assert dashes == ["", "5 3"]


def test_a_point_without_neighbours_is_seen():
    svg = drawn({"loss": np.array([3.0, 2.0, 1.0]), "val_loss": np.array([np.nan, 2.0, np.nan])})

    (point,) = svg.iter("circle")
    _, validation = (line.get("points") for line in svg.iter("polyline"))
    assert f"{point.get('cx')},{point.get('cy')}" == validation


def test_all_is_within_the_picture():
    svg = drawn({"loss": np.array([1e9, -1e9, 0.0])}, Mark(1.0, 1e9, "highest"))

    width, height = map(float, svg.get("viewBox").split()[2:])
    for line in svg.iter("polyline"):
        for point in line.get("points").split():
            x, y = map(float, point.split(","))
            assert 0 < x < width
            assert 0 < y < height


def test_words_take_the_colour_of_the_page():
    svg = drawn({"loss": np.array([1.0, 2.0, 3.0])})

    assert svg.get("fill") == "currentColor"
    assert not any(text.get("fill") for text in svg.iter("text"))


def test_what_is_not_finite_is_left_out():
    svg = draw_curves(EPOCHS, {"loss": np.array([1.0, np.nan, np.inf])})

    (points,) = re.findall(r'points="([^"]*)"', svg)
    assert len(points.split()) == 1
    assert "nan" not in svg
    assert "inf" not in svg


def test_what_is_constant_lies_in_the_middle_and_has_one_number():
    svg = drawn({"loss": np.full(3, 2.0)})

    assert words(svg) == ["2", "1", "epoch", "3", "loss"]
    ends = heights_in(drawn({"loss": np.array([1.0, 2.0, 1.0])}))
    assert heights_in(svg) == {sum(ends) / 2}


@pytest.mark.parametrize("values", [[np.nan] * 3, []])
def test_nothing_is_drawn_of_nothing(values):
    assert draw_curves(EPOCHS[: len(values)], {"loss": np.array(values)}) == ""


def test_names_are_words_and_no_elements():
    svg = draw_curves(EPOCHS, {"<script>": np.ones(3)}, Mark(1.0, 1.0, "<b>"))

    assert "<script" not in svg
    assert "<b>" not in svg
