"""The case browser without a browser: what is shown for which choices."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
import SimpleITK as sitk

from helpers import storage
from helpers.errors import StageError
from helpers.figures.slices import PREDICTION_COLOUR, REFERENCE_COLOUR
from helpers.figures.style import DIVERGING
from helpers.widgets import browse_cases
from helpers.widgets.browser import EVERYONE, CaseBrowser
from helpers.widgets.pictures import SECOND_COLOUR
from tests.browsed_study import RADII_MM, write_metrics, write_study
from tests.spatial_cohort import draw_ellipsoid, write_prediction


def read_colour(text):
    return tuple(int(text[place : place + 2], 16) for place in (1, 3, 5))


GREEN, ORANGE, RED = read_colour(REFERENCE_COLOUR), read_colour(PREDICTION_COLOUR), read_colour(DIVERGING[-1][1])


def find_colour(picture, colour):
    """Return where a colour is, as (rows, columns)."""
    return np.nonzero((np.abs(picture.astype(int) - np.array(colour)) <= 2).all(axis=2))


@pytest.fixture
def study(tmp_path):
    return write_study(tmp_path)


def test_scans_come_worst_first_with_unknown_ones_last(study):
    write_metrics(study)
    browser = CaseBrowser(study)
    assert [number for _, number in browser.view.scans] == [2, 4, 1, 3]
    assert [label for label, _ in browser.view.scans] == [
        "scan 002, Dice 0.500", "scan 004, Dice 0.700", "scan 001, Dice 0.900", "scan 003",
    ]  # fmt: skip
    assert browser.view.number == 2 and browser.view.score == 0.5


def test_any_metric_can_order_the_scans(study):
    write_metrics(study)
    browser = CaseBrowser(study)
    assert browser.orders == ["dice", "hd95_mm"]
    view = browser.show(sort_by="hd95_mm")
    assert [number for _, number in view.scans] == [4, 3, 2, 1], "a large distance is worst"
    assert view.scans[0][0] == "scan 004, 95 % Hausdorff distance 4.00 mm"
    assert view.number == 2, "the scan that is shown stays"


def test_a_missed_organ_is_the_worst_although_it_has_no_distance(study):
    write_metrics(study, status=["ok", "ok", "prediction_empty", "ok"] * 2, hd95_mm=[1.0, 5.0, np.nan, 2.0] * 2)
    assert [number for _, number in CaseBrowser(study).show(sort_by="hd95_mm").scans] == [3, 2, 4, 1]


def test_without_metrics_scans_come_by_number(study):
    browser = CaseBrowser(study)
    assert [number for _, number in browser.view.scans] == [1, 2, 3, 4]
    assert np.isnan(browser.view.score) and browser.orders == ["number"]


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


def test_all_three_slices_start_at_the_organ_s_middle_and_stay_in_the_scan(study):
    browser = CaseBrowser(study)
    assert browser.view.shape == (19, 25, 30)  # 76 mm in 4, 3 and 2.5 mm
    assert browser.view.position == (9, 12, 14)
    assert browser.show(axial=400, sagittal=-3).position == (18, 12, 0)
    assert browser.show(coronal=3).position == (18, 3, 0)
    assert browser.show(model="exact").position == (18, 3, 0), "another model, the same place"
    assert browser.show(number=2).position == (9, 12, 14), "another scan, its own middle"


@pytest.mark.parametrize(
    ("plane", "position"), [("axial", (9, 22, 3)), ("coronal", (1, 12, 3)), ("sagittal", (1, 2, 14))]
)
def test_a_place_of_a_picture_moves_the_other_two_slices(study, plane, position):
    """A tenth from the left (the person's right, in front) and nine tenths down (the back, the
    feet)."""
    browser = CaseBrowser(study)
    browser.show(zoom=False)
    assert browser.show_place(plane, 0.1, 0.9).position == position
    assert browser.show_place(plane, 1.0, 0.0).position != position, "the very edge is still inside"


def test_another_model_is_drawn_beside_the_first(study):
    write_prediction(study, "exact", 1, draw_ellipsoid(RADII_MM))
    browser = CaseBrowser(study)
    alone = browser.draw("axial")
    assert not len(find_colour(alone, read_colour(SECOND_COLOUR))[0])
    browser.show(second="exact")
    assert len(find_colour(browser.draw("axial"), read_colour(SECOND_COLOUR))[0])
    assert len(find_colour(browser.draw("axial"), ORANGE)[0])
    browser.show(second="eroded")
    np.testing.assert_array_equal(browser.draw("axial"), alone)


def test_window_says_which_intensities_are_black_and_white(study):
    browser = CaseBrowser(study)
    low, high = browser.view.levels
    before = browser.draw("axial")[200, 205]
    assert browser.show(levels=(low + 5000, high + 5000)).levels == (low + 5000, high + 5000)
    assert browser.draw("axial")[200, 205].tolist() == [0, 0, 0] != before.tolist()
    assert browser.show(number=4).levels == (low, high), "another scan has its own"
    assert browser.show(number=2).levels is None, "there is no image"


def test_the_browser_opens_on_what_the_report_names_first(study):
    write_metrics(study)
    gap = {"metric": "dice", "attribute": "sex", "worst_group": "male", "best_group": "female", "verdict": "disparity"}
    rows = [gap | {"model": "eroded", "organ": "organ", "gap": 0.03, "p_adjusted": 0.002}]
    rows += [gap | {"model": "exact", "organ": "organ", "gap": 0.05, "p_adjusted": 0.02}]
    table = pd.DataFrame(rows)
    storage.write_table(table, study.path("disparity"))
    view = CaseBrowser(study).view
    assert (view.model, view.organ, view.attribute, view.group, view.number) == ("exact", "organ", "sex", "male", 2)
    storage.write_table(table.assign(verdict="inconclusive"), study.path("disparity"))
    assert CaseBrowser(study).view.attribute == EVERYONE, "no gap was found"


def test_choices_are_resolved_without_reading(study):
    browser = CaseBrowser(study)
    choice = browser.resolve(number=4)
    assert choice.number == 4 and not browser.is_prepared(choice)
    browser.prepare(choice)
    assert browser.is_prepared(choice) and browser.view.number == 1


def test_next_scan_and_other_models_are_likely(study):
    write_metrics(study)
    likely = [(choice.number, choice.model) for choice in CaseBrowser(study).list_likely()]
    assert likely == [(4, "eroded"), (2, "exact")]


def test_stored_axis_order_does_not_change_the_view(study):
    browser = CaseBrowser(study)
    first = [browser.draw(plane) for plane in ("axial", "coronal", "sagittal")]
    browser.show(number=4)
    for plane, picture in zip(("axial", "coronal", "sagittal"), first, strict=True):
        np.testing.assert_array_equal(picture, browser.draw(plane))


def test_outline_of_a_prediction_that_is_too_large_is_red_and_to_scale(study):
    browser = CaseBrowser(study)
    browser.show(zoom=False)
    assert browser.view.limit_mm >= 4.0
    picture = browser.draw("axial")
    assert picture.dtype == np.uint8 and picture.shape == (474, 474, 3)
    scale = 480 / 76.0  # pixels per mm, of all three pictures: 76 mm in z is the longest side
    assert browser.draw("coronal").shape == browser.draw("sagittal").shape == (480, 474, 3)
    reddish = picture[..., 0].astype(int) - picture[..., 2] > 25
    orange = np.zeros(reddish.shape, bool)
    orange[find_colour(picture, ORANGE)] = True
    columns = np.nonzero(reddish & ~orange)[1]
    assert np.ptp(columns) == pytest.approx(2 * RADII_MM[0] * scale, abs=2.5 * scale + 4)
    assert np.ptp(find_colour(picture, ORANGE)[1]) > np.ptp(columns) + 4 * scale, (
        "the prediction is 4 mm larger on each side"
    )
    grey = picture[200, 205]
    assert grey[0] == grey[1] == grey[2] > picture[4, 4, 0], "the organ is brighter than its surroundings"


def test_outline_where_both_agree_has_the_scale_s_middle(study):
    write_prediction(study, "exact", 1, draw_ellipsoid(RADII_MM))
    browser = CaseBrowser(study)
    view = browser.show(model="exact", number=1)
    assert view.limit_mm == 0.25 and "largest error" in view.message
    assert len(find_colour(browser.draw("axial"), read_colour(DIVERGING[2][1]))[0]) > 200


def test_masks_alone_are_drawn_when_there_is_no_image(study):
    browser = CaseBrowser(study)
    view = browser.show(number=2)
    assert "masks only, no image" in view.message
    assert len(find_colour(browser.draw("axial"), ORANGE)[0])


def test_missing_prediction_is_said_and_the_reference_drawn_in_green(study):
    browser = CaseBrowser(study)
    view = browser.show(number=3)
    assert view.message == "scan 003: eroded has no prediction; masks only, no image"
    for plane in ("axial", "coronal", "sagittal"):
        picture = browser.draw(plane)
        assert len(find_colour(picture, GREEN)[0]) and not len(find_colour(picture, ORANGE)[0])
    assert np.isnan(browser.surface.errors_mm).all() and len(browser.surface.faces)


def test_empty_prediction_is_said(study):
    write_prediction(study, "eroded", 1, draw_ellipsoid(RADII_MM) * 0)
    browser = CaseBrowser(study)
    assert "eroded found no organ" in browser.show(number=1).message
    assert len(find_colour(browser.draw("axial"), GREEN)[0])


def keep_upper_half(image):
    array = sitk.GetArrayFromImage(image)
    array[: len(array) // 2] = 0
    half = sitk.GetImageFromArray(array)
    half.CopyInformation(image)
    return half


@pytest.mark.parametrize("plane", ["coronal", "sagittal"])
def test_pictures_have_the_head_up(study, plane):
    write_prediction(study, "exact", 1, keep_upper_half(draw_ellipsoid(RADII_MM)))
    browser = CaseBrowser(study)
    browser.show(number=1, model="exact", zoom=False)
    picture = browser.draw(plane)
    assert find_colour(picture, ORANGE)[0].mean() < len(picture) / 2
    lower = picture[3 * len(picture) // 4 :]
    assert (lower[..., 2].astype(int) - lower[..., 0] > 25).any(), "the missed lower half is blue: too small"


def test_surface_carries_the_error_of_its_place(study):
    write_prediction(study, "exact", 1, keep_upper_half(draw_ellipsoid(RADII_MM)))
    browser = CaseBrowser(study)
    browser.show(number=1, model="exact")
    surface = browser.surface
    height = surface.vertices_mm[:, 2] - surface.vertices_mm[:, 2].mean()
    assert surface.errors_mm[height > 8].max() == 0.0 == surface.errors_mm[height > 8].min()
    assert surface.errors_mm[height < -15].max() < -8.0
    centre = surface.vertices_mm.mean(axis=0)
    assert np.ptp(surface.vertices_mm - centre, axis=0) == pytest.approx(2 * np.array(RADII_MM), abs=4.0)


def test_worst_place_moves_all_three_slices(study):
    write_prediction(study, "exact", 1, keep_upper_half(draw_ellipsoid(RADII_MM)))
    browser = CaseBrowser(study)
    browser.show(number=1, model="exact")
    view = browser.show_worst_place()
    assert view.position[0] <= 4, "at the missed lower end"
    assert "mm too small" in view.message
    browser.show(number=3, model="eroded")
    before = browser.view
    assert browser.show_worst_place() == before, "no error is known there"


def test_zoom_cuts_to_the_organ(study):
    browser = CaseBrowser(study)
    wide = np.ptp(find_colour(browser.draw("axial"), ORANGE)[1])
    browser.show(zoom=False)
    assert np.ptp(find_colour(browser.draw("axial"), ORANGE)[1]) <= wide


def test_unreadable_scan_is_told_without_its_name(study):
    cohort = pd.read_parquet(study.path("cohort"))
    Path(cohort["reference"][0]).write_bytes(b"broken")
    browser = CaseBrowser(study)
    assert browser.show(number=1).message == "scan 001 cannot be read: see 01_cohort for the reason"
    assert browser.surface is None and browser.draw("axial").shape == (120, 480, 3)


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
    assert figure.layout.title.text == "scan 002: organ, eroded, Dice 0.500"
    assert {trace.name for trace in figure.data} == {"reference", "prediction", "error"}
    browser = CaseBrowser(study)
    assert sum(isinstance(trace, go.Heatmap) for trace in browser.figure().data) == 0
    browser.show(number=1)
    assert sum(isinstance(trace, go.Heatmap) for trace in browser.figure().data) == 3
    browser.show(number=3)
    assert {trace.name for trace in browser.figure().data} == {"reference"}


def test_wrong_choices_are_refused(study):
    browser = CaseBrowser(study)
    with pytest.raises(ValueError, match="plane must be one of axial, coronal, sagittal; got 'oblique'"):
        browser.draw("oblique")
    with pytest.raises(ValueError, match="number must be one of 1, 2, 3, 4; got 9"):
        browser.show(number=9)
    with pytest.raises(ValueError, match="sort_by must be one of number; got 'dice'"):
        browser.show(sort_by="dice")
    assert browser.view.number == 1


def test_study_without_included_scans_is_refused(study):
    cohort = pd.read_parquet(study.path("cohort"))
    cohort["included"] = False
    cohort.to_parquet(study.path("cohort"))
    with pytest.raises(StageError, match="excluded"):
        browse_cases(study)
