"""The case browser without a browser: what is shown for which state."""

from __future__ import annotations

import io
import time

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
import SimpleITK as sitk
from PIL import Image

from helpers import volumes
from helpers.errors import StageError
from helpers.figures.spatial import PREDICTION_COLOUR, REFERENCE_COLOUR
from helpers.widgets import EVERYONE, CaseBrowser, browse_cases
from tests.spatial_cohort import draw_ellipsoid, make_study, write_cohort, write_prediction

GREEN = tuple(int(REFERENCE_COLOUR[place : place + 2], 16) for place in (1, 3, 5))
ORANGE = tuple(int(PREDICTION_COLOUR[place : place + 2], 16) for place in (1, 3, 5))
DICE = {1: 0.9, 2: 0.5, 3: np.nan, 4: 0.7}


def draw_image():
    image = sitk.Cast(draw_ellipsoid((20.0, 15.0, 24.0)), sitk.sitkFloat32) * 100.0 - 50.0
    return sitk.Cast(image, sitk.sitkInt16)


def find_colour(picture, colour):
    """Return where a colour is, as (rows, columns)."""
    return np.nonzero((picture == np.array(colour, np.uint8)).all(axis=2))


@pytest.fixture
def study(tmp_path):
    study = make_study(tmp_path)
    organ = draw_ellipsoid((20.0, 15.0, 24.0))
    rows = [
        {"subject": f"p{k}", "sex": sex, "reference": sitk.DICOMOrient(organ, code), "image": sitk.DICOMOrient(image, code) if image else None}
        for k, (sex, image, code) in enumerate(
            [("female", draw_image(), "LPS"), ("male", None, "PIR"), ("female", None, "LPS"), ("male", draw_image(), "PIR")]
        )
    ]  # fmt: skip
    write_cohort(study, rows)
    for number, row in enumerate(rows, start=1):
        grid = volumes.grid_of_image(row["reference"])
        bigger = draw_ellipsoid((20.0, 15.0, 24.0), margin_mm=4.0)
        if number != 3:
            write_prediction(study, "eroded", number, volumes.from_axial(bigger, grid))
    return study


def write_metrics(study):
    rows = [
        {"number": number, "model": model, "organ": "organ", "dice": dice if model == "eroded" else 1.0, "status": "ok"}
        for model in ("eroded", "exact")
        for number, dice in DICE.items()
    ]
    pd.DataFrame(rows).to_parquet(study.path("metrics"))


def test_scans_come_worst_first_with_unknown_ones_last(study):
    write_metrics(study)
    browser = CaseBrowser(study)
    assert [number for _, number in browser.view.scans] == [2, 4, 1, 3]
    assert [label for label, _ in browser.view.scans] == [
        "scan 002, Dice 0.500", "scan 004, Dice 0.700", "scan 001, Dice 0.900", "scan 003",
    ]  # fmt: skip
    assert browser.view.number == 2 and browser.view.dice == 0.5


def test_without_metrics_scans_come_by_number(study):
    browser = CaseBrowser(study)
    assert [number for _, number in browser.view.scans] == [1, 2, 3, 4]
    assert np.isnan(browser.view.dice)


def test_group_narrows_the_scans_and_keeps_the_scan_where_it_can(study):
    write_metrics(study)
    browser = CaseBrowser(study)
    assert browser.list_groups("sex") == [EVERYONE, "female", "male"]
    assert browser.list_groups("age") == [EVERYONE, "18 to 50"], "empty groups are not offered"
    women = browser.show(attribute="sex", group="female")
    assert [number for _, number in women.scans] == [1, 3] and women.number == 1
    men = browser.show(group="male")
    assert [number for _, number in men.scans] == [2, 4] and men.number == 2
    again = browser.show(attribute="age")
    assert again.group == EVERYONE and len(again.scans) == 4 and again.number == 2


def test_slice_starts_at_the_organ_s_middle_and_stays_in_the_scan(study):
    browser = CaseBrowser(study)
    assert (browser.view.slice_index, browser.view.slice_count) == (9, 19)  # 76 mm in slices of 4 mm
    assert browser.show(slice_index=400).slice_index == 18
    assert browser.show(slice_index=3).slice_index == 3
    coronal = browser.show(plane="coronal")
    assert (coronal.slice_index, coronal.slice_count) == (12, 25)
    assert browser.show(plane="sagittal").slice_count == 30
    assert browser.show(model="exact").slice_index == browser.view.slice_index, "another model, the same place"


def test_stored_axis_order_does_not_change_the_view(study):
    browser = CaseBrowser(study)
    first = browser.draw()
    browser.show(number=4)
    np.testing.assert_array_equal(first, browser.draw())


def test_picture_shows_image_and_both_outlines_to_scale(study):
    browser = CaseBrowser(study)
    browser.show(zoom=False)
    picture = browser.draw()
    assert picture.dtype == np.uint8 and picture.shape == (520, 520, 3)
    rows, columns = find_colour(picture, GREEN)
    scale = 520 / 75.0  # pixels per mm: 30 voxels of 2.5 mm
    assert np.ptp(columns) == pytest.approx(2 * 20.0 * scale, abs=2.5 * scale + 3)
    assert np.ptp(rows) == pytest.approx(2 * 15.0 * scale, abs=3.0 * scale + 3)
    outer = find_colour(picture, ORANGE)
    assert np.ptp(outer[1]) > np.ptp(columns) + 4 * scale, "the prediction is 4 mm larger on each side"
    grey = picture[260, 260]
    assert grey[0] == grey[1] == grey[2] > picture[4, 4, 0], "the organ is brighter than its surroundings"


def test_masks_alone_are_drawn_when_there_is_no_image(study):
    browser = CaseBrowser(study)
    view = browser.show(number=2)
    assert "masks only, no image" in view.message
    picture = browser.draw()
    assert len(find_colour(picture, GREEN)[0]) and len(find_colour(picture, ORANGE)[0])


def test_missing_prediction_is_said_and_the_reference_drawn(study):
    browser = CaseBrowser(study)
    view = browser.show(number=3)
    assert view.message == "scan 003: eroded has no prediction; masks only, no image"
    assert len(find_colour(browser.draw(), GREEN)[0]) and not len(find_colour(browser.draw(), ORANGE)[0])


def test_empty_prediction_is_said(study):
    empty = draw_ellipsoid((20.0, 15.0, 24.0)) * 0
    write_prediction(study, "eroded", 1, empty)
    assert "eroded found no organ" in CaseBrowser(study).show(number=1).message


def test_coronal_picture_has_the_head_up(study):
    upper = draw_ellipsoid((20.0, 15.0, 24.0))
    array = sitk.GetArrayFromImage(upper)
    array[:11] = 0  # keep what is above the middle
    half = sitk.GetImageFromArray(array)
    half.CopyInformation(upper)
    write_prediction(study, "exact", 1, half)
    browser = CaseBrowser(study)
    browser.show(number=1, model="exact", plane="coronal", zoom=False)
    rows, _ = find_colour(browser.draw(), ORANGE)
    assert rows.mean() < browser.draw().shape[0] / 2


def test_zoom_cuts_to_the_organ(study):
    browser = CaseBrowser(study)
    wide = np.ptp(find_colour(browser.draw(), GREEN)[1])
    browser.show(zoom=False)
    assert browser.draw().shape == (520, 520, 3)
    assert np.ptp(find_colour(browser.draw(), GREEN)[1]) <= wide


def test_unreadable_scan_is_told_without_its_name(study):
    cohort = pd.read_parquet(study.path("cohort"))
    from pathlib import Path

    Path(cohort["reference"][0]).write_bytes(b"broken")
    view = CaseBrowser(study).show(number=1)
    assert view.message == "scan 001 cannot be read: see 01_cohort for the reason"


def test_nothing_shown_names_a_source_id(study):
    write_metrics(study)
    browser = CaseBrowser(study)
    figure = browser.figure()
    shown = repr(browser.view) + figure.to_json()
    assert "secret" not in shown and "scan 002" in figure.layout.title.text


def test_static_figure_shows_the_worst_case(study):
    write_metrics(study)
    figure = browse_cases(study).figure()
    assert isinstance(figure, go.Figure)
    assert figure.layout.title.text == "scan 002: organ, eroded, Dice 0.50"
    assert {trace.name for trace in figure.data} == {"reference", "prediction"}
    assert sum(isinstance(trace, go.Heatmap) for trace in CaseBrowser(study).figure().data) == 0
    browser = CaseBrowser(study)
    browser.show(number=1)
    assert sum(isinstance(trace, go.Heatmap) for trace in browser.figure().data) == 3


def test_wrong_choices_are_refused(study):
    browser = CaseBrowser(study)
    with pytest.raises(ValueError, match="plane must be one of axial, coronal, sagittal; got 'oblique'"):
        browser.show(plane="oblique")
    with pytest.raises(ValueError, match="number must be one of 1, 2, 3, 4; got 9"):
        browser.show(number=9)
    assert browser.view.plane == "axial"


def test_controls_and_picture_follow_each_other(study):
    write_metrics(study)
    widget = browse_cases(study)
    assert widget.number.value == 2 and widget.number.options[0] == ("scan 002, Dice 0.500", 2)
    before = widget.picture.value
    widget.slice_index.value = 4
    assert widget.browser.view.slice_index == 4 and widget.picture.value != before
    widget.attribute.value = "sex"
    assert widget.group.options == (EVERYONE, "female", "male")
    widget.group.value = "female"
    assert widget.number.value == 1 and [number for _, number in widget.number.options] == [1, 3]
    widget.plane.value = "coronal"
    assert widget.slice_index.max == 24 and widget.slice_index.value == 12
    widget.zoom.value = False
    picture = np.asarray(Image.open(io.BytesIO(widget.picture.value)))
    np.testing.assert_array_equal(picture, widget.browser.draw())


def test_group_without_scans_in_the_study_is_not_fatal(study):
    cohort = pd.read_parquet(study.path("cohort"))
    cohort["included"] = False
    cohort.to_parquet(study.path("cohort"))
    with pytest.raises(StageError, match="excluded"):
        browse_cases(study)


def test_a_change_of_slice_feels_live_on_a_large_scan(tmp_path):
    study = make_study(tmp_path)
    large = draw_ellipsoid((100.0, 80.0, 100.0), size_mm=360.0, spacing_xyz_mm=(0.75, 0.75, 3.0))
    write_cohort(study, [{"subject": "p", "sex": "male", "reference": large}])
    write_prediction(study, "eroded", 1, large)
    widget = browse_cases(study)
    assert widget.browser.view.slice_count == 120
    seconds = []
    for place in (30, 50, 70):
        started = time.perf_counter()
        widget.slice_index.value = place
        seconds.append(time.perf_counter() - started)
    assert min(seconds) < 0.3
