"""One slice as a picture: colours, marks and lines where they were asked for."""

from __future__ import annotations

import numpy as np
import pytest

from helpers.figures.slices import PREDICTION_COLOUR, REFERENCE_COLOUR, trace_outline
from helpers.figures.style import DIVERGING
from helpers.widgets.pictures import (
    BACKGROUND,
    CROSS_COLOUR,
    PICTURE_PIXELS,
    SECOND_COLOUR,
    SliceView,
    draw_slice,
    draw_text,
)


def read_colour(text):
    return np.array([int(text[place : place + 2], 16) for place in (1, 3, 5)])


def find(picture, colour):
    return np.nonzero((np.abs(picture.astype(int) - read_colour(colour)) <= 1).all(axis=2))


def make_view(**changes):
    """A square of 10 × 20 pixels (20 × 20 mm) in a slice of 20 × 40 pixels (40 × 40 mm)."""
    reference = np.zeros((20, 40), bool)
    reference[5:15, 10:30] = True
    values = {
        "plane": "axial", "grey": None, "reference": reference, "predictions": (), "step_v_mm": 2.0, "step_h_mm": 1.0,
        "cross": (10, 20),
    }  # fmt: skip
    return SliceView(**(values | changes))


def draw(view, errors, limit_mm=5.0, opacity=1.0):
    outline = trace_outline(view.reference, view.step_v_mm, view.step_h_mm)
    values = np.broadcast_to(np.asarray(errors(outline[0]) if callable(errors) else errors, float), outline[0].shape)
    return draw_slice(view, outline, values, limit_mm, scale=PICTURE_PIXELS / 40, opacity=opacity)


def test_millimetres_are_square():
    picture = draw(make_view(), 5.0)
    assert picture.shape == (PICTURE_PIXELS, PICTURE_PIXELS, 3)
    rows, columns = find(picture, DIVERGING[-1][1])
    scale = PICTURE_PIXELS / 40
    assert (rows.min(), rows.max()) == pytest.approx((10 * scale, 30 * scale), abs=3)
    assert (columns.min(), columns.max()) == pytest.approx((10 * scale, 30 * scale), abs=3)


@pytest.mark.parametrize(
    ("error", "colour"),
    [(-5.0, DIVERGING[0][1]), (-50.0, DIVERGING[0][1]), (0.0, DIVERGING[2][1]), (5.0, DIVERGING[-1][1])],
)
def test_outline_lies_on_a_band_of_the_error_s_colour(error, colour):
    picture = draw(make_view(), error)
    assert len(find(picture, colour)[0]) > 1000 and len(find(picture, REFERENCE_COLOUR)[0]) > 1000


def test_outlines_are_as_opaque_as_wished():
    full, half, none = (draw(make_view(), 5.0, opacity=opacity).astype(int) for opacity in (1.0, 0.5, 0.0))
    rows, columns = find(full, DIVERGING[-1][1])
    assert np.abs(2 * half - full - none)[rows, columns].max() <= 2
    assert (none[rows, columns] == BACKGROUND).mean() > 0.95, "but for the letters and the crosshair"


def test_another_model_has_a_colour_of_its_own():
    masks = tuple((np.pad(np.ones((14, 30), bool), ((3, 3), (5, 5))), colour) for colour in ("#D55E00", SECOND_COLOUR))
    assert len(find(draw(make_view(predictions=masks[1:]), 0.0), SECOND_COLOUR)[0]) > 300
    assert len(find(draw(make_view(predictions=masks[:1]), 0.0), SECOND_COLOUR)[0]) == 0


def test_outline_without_an_error_is_green():
    picture = draw(make_view(), np.nan)
    assert len(find(picture, REFERENCE_COLOUR)[0]) > 1000
    assert len(find(picture, DIVERGING[2][1])[0]) < 20, "nothing but the letters' edges"


def test_colour_changes_along_the_outline():
    picture = draw(make_view(), lambda across: np.where(across < 20, -5.0, 5.0))
    assert find(picture, DIVERGING[0][1])[1].max() < 252 and find(picture, DIVERGING[-1][1])[1].min() > 228


def test_prediction_is_dashed():
    view = make_view(predictions=((np.pad(np.ones((14, 30), bool), ((3, 3), (5, 5))), PREDICTION_COLOUR),))
    rows, columns = find(draw(view, 0.0), PREDICTION_COLOUR)
    upper = np.unique(columns[rows < 84])
    assert 0.3 < len(upper) / 360 < 0.7, "about half of the upper side is drawn"
    empty = make_view(predictions=((np.zeros((20, 40), bool), PREDICTION_COLOUR),))
    assert not len(find(draw(empty, 0.0), PREDICTION_COLOUR)[0])


def test_dotted_lines_run_where_the_other_slices_are():
    picture = draw(make_view(cross=(2, 35)), 0.0)
    rows, columns = np.nonzero((picture == np.array(CROSS_COLOUR)).all(axis=2))
    scale = PICTURE_PIXELS / 40
    assert set(np.unique(rows[columns < 360])) == {int(2.5 * 2 * scale)}
    assert int(35.5 * scale) in np.unique(columns[rows > 100])


def test_image_is_shown_in_grey():
    grey = np.full((20, 40), 180, np.uint8)
    picture = draw(make_view(grey=grey), 0.0)
    assert tuple(picture[60, 60]) == (180, 180, 180)


def test_text_is_written_in_lines():
    picture = draw_text("scan 001 cannot be read: see 01_cohort for the reason, and then once more from the start")
    assert picture.max() == 255 and picture.shape == (120, PICTURE_PIXELS, 3)
    assert (picture[:, -4:] == picture[0, 0]).all(), "no line runs out of the picture"
