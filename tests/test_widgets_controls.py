"""The browser's controls: they and the pictures follow each other, also while a scan is being
read."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import re
import threading
import time

import numpy as np
import plotly.graph_objects as go
import pytest
from PIL import Image

from helpers.widgets import EVERYONE, browse_cases, controls, link_scans
from tests.browsed_study import write_metrics, write_study
from tests.spatial_cohort import draw_ellipsoid, make_study, write_cohort, write_prediction


@pytest.fixture
def study(tmp_path):
    study = write_study(tmp_path)
    write_metrics(study)
    return study


def decode(png):
    return np.asarray(Image.open(io.BytesIO(png)))


def wish(widget, plane, **wishes):
    """Tell a pane what its page tells it."""
    widget.panes[plane]._handle_custom_msg(wishes, [])


def read_array(packed):
    """Return an array of plotly's JSON."""
    return np.frombuffer(base64.b64decode(packed["bdata"]), packed["dtype"])


def wait_until(holds, *, seconds=20.0):
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.01)


def test_controls_and_pictures_follow_each_other(study):
    widget = browse_cases(study)
    assert widget.number.value == 2 and widget.number.options[0] == ("scan 002, Dice 0.500", 2)
    before = {plane: pane.picture for plane, pane in widget.panes.items()}
    wish(widget, "axial", slice=4)
    assert widget.browser.view.position == (4, 12, 14)
    assert all(widget.panes[plane].picture != before[plane] for plane in before), "the others show where it runs"
    widget.attribute.value = "sex"
    assert widget.group.options == (EVERYONE, "female", "male")
    widget.group.value = "female"
    wait_until(lambda: widget.number.value == 1)
    assert [number for _, number in widget.number.options] == [1, 3]
    assert [pane.count for pane in widget.panes.values()] == [19, 25, 30]
    widget.zoom.value = False
    for plane, pane in widget.panes.items():
        np.testing.assert_array_equal(decode(pane.picture), widget.browser.draw(plane))


def test_wishes_are_met_and_answered(study):
    widget = browse_cases(study)
    widget.number.value = 1
    wait_until(lambda: widget.browser.view.number == 1)
    axial = widget.panes["axial"]
    answered = axial.answered
    wish(widget, "axial", step=-3)
    assert widget.browser.view.position == (6, 12, 14) and (axial.place, axial.count) == (6, 19)
    wish(widget, "axial", step=-30)
    assert axial.place == 0, "there is no slice before the first"
    wish(widget, "coronal", at=[0.5, 0.5], step=1)
    assert widget.browser.view.position == (9, 13, 15)
    low, high = widget.browser.view.levels
    wish(widget, "axial", window=[0, 200])
    assert widget.browser.view.levels == pytest.approx((low + (high - low) / 2, high + (high - low) / 2))
    assert widget.levels.value == pytest.approx(widget.browser.view.levels)
    wish(widget, "axial", window=[200, 0])
    assert np.ptp(widget.browser.view.levels) == pytest.approx(1.5 * (high - low))
    assert axial.answered == answered + 4, "else the page would wait for ever"


def test_two_models_are_compared_and_swapped(study):
    widget = browse_cases(study)
    widget.second.value = "exact"
    assert "exact" in widget.legend.value
    widget.swap.click()
    wait_until(lambda: widget.browser.view.model == "exact")
    assert (widget.model.value, widget.second.value, widget.browser.second) == ("exact", "eroded", "eroded")


def test_all_planes_have_one_scale(study):
    """Columns are as wide as what they show, so a picture that fills its column has the others'
    scale."""
    widget = browse_cases(study)
    axial, _, coronal, sagittal = widget.grid.children
    assert [pane.name for pane in (axial, coronal, sagittal)] == ["axial", "coronal", "sagittal"]
    wide, deep = (float(part) for part in re.findall(r"minmax\(0, (\d+)fr\)", widget.grid.layout.grid_template_columns))
    shapes = {pane.name: decode(pane.picture).shape for pane in (axial, coronal, sagittal)}
    assert shapes["axial"][1] == shapes["coronal"][1]
    assert shapes["sagittal"][1] / shapes["axial"][1] == pytest.approx(deep / wide, rel=0.02)
    assert shapes["sagittal"][0] == shapes["coronal"][0]


def test_sorting_changes_the_list_and_keeps_the_scan(study):
    widget = browse_cases(study)
    assert widget.sort_by.options == (("Dice", "dice"), ("95 % Hausdorff distance", "hd95_mm"))
    widget.sort_by.value = "hd95_mm"
    assert [number for _, number in widget.number.options] == [4, 3, 2, 1] and widget.number.value == 2


def test_surface_is_coloured_by_the_scan_s_error(study):
    widget = browse_cases(study)
    mesh, marks = json.loads(widget.surface.figure)["data"]
    expected = widget.browser.surface
    np.testing.assert_allclose(read_array(mesh["intensity"]), expected.errors_mm, atol=0.006)
    assert len(read_array(mesh["i"])) == len(expected.faces) and (mesh["cmin"], mesh["cmax"]) == (
        -widget.browser.view.limit_mm,
        widget.browser.view.limit_mm,
    )
    assert {text[3:-4] for text in marks["text"]} == set("RLAPIS")
    widget.number.value = 3  # without a prediction
    wait_until(lambda: "no prediction" in widget.message.value)
    mesh = json.loads(widget.surface.figure)["data"][0]
    assert mesh["hovertemplate"].startswith("error unknown")
    assert {colour for _, colour in mesh["colorscale"]} == {"#8C8C8C"}


def test_surface_is_seen_from_the_side_that_is_chosen(study):
    widget = browse_cases(study)
    before = json.loads(widget.surface.figure)["layout"]
    widget.side.value = "Posterior"
    after = json.loads(widget.surface.figure)["layout"]
    assert before["scene"]["camera"]["eye"]["y"] == -after["scene"]["camera"]["eye"]["y"] != 0
    assert before["uirevision"] != after["uirevision"], "else plotly keeps the former view"


def test_surface_offers_no_upload(study):
    assert browse_cases(study).surface.config["showSendToCloud"] is False


def test_worst_place_moves_the_sliders(study):
    widget = browse_cases(study)
    widget.worst_place.click()
    assert tuple(pane.place for pane in widget.panes.values()) == widget.browser.view.position
    assert widget.browser.view.position != (9, 12, 14)


def hold_reading(widget):
    """Make the browser wait before it reads, until the returned event is set."""
    released, prepare = threading.Event(), widget.browser.prepare

    def prepare_slowly(choice):
        assert released.wait(20.0)
        prepare(choice)

    widget.browser.prepare = prepare_slowly
    return released


def test_a_scan_that_takes_long_is_read_aside(study, monkeypatch):
    monkeypatch.setattr(controls, "PATIENCE_SECONDS", 0.02)
    widget = browse_cases(study)
    released = hold_reading(widget)
    picture = widget.panes["axial"].picture
    widget.number.value = 1
    assert widget.message.value == "scan 001: reading …" and widget.browser.view.number == 2
    wish(widget, "axial", slice=5)  # the shown scan still answers
    assert widget.browser.view.position[0] == 5 and widget.panes["axial"].picture != picture
    released.set()
    wait_until(lambda: widget.browser.view.number == 1 and widget.message.value.startswith("scan 001: Dice"))
    np.testing.assert_array_equal(decode(widget.panes["axial"].picture), widget.browser.draw("axial"))


def test_only_the_last_choice_arrives(study, monkeypatch):
    monkeypatch.setattr(controls, "PATIENCE_SECONDS", 0.02)
    widget = browse_cases(study)
    released, arrived = hold_reading(widget), []
    show = widget.browser.show
    widget.browser.show = lambda **choices: (arrived.append(choices["number"]), show(**choices))[1]
    widget.number.value = 1
    widget.number.value = 4
    released.set()
    wait_until(lambda: widget.browser.view.number == 4)
    assert arrived == [4]


def test_a_choice_made_while_reading_adds_to_the_one_before(study, monkeypatch):
    monkeypatch.setattr(controls, "PATIENCE_SECONDS", 0.02)
    widget = browse_cases(study)
    released = hold_reading(widget)
    widget.model.value = "exact"
    widget.number.value = 4
    released.set()
    wait_until(lambda: widget.browser.view.number == 4)
    assert widget.browser.view.model == "exact" == widget.model.value


def test_in_a_kernel_the_scan_arrives_on_its_loop(study, monkeypatch):
    monkeypatch.setattr(controls, "PATIENCE_SECONDS", 0.02)

    async def run():
        widget = browse_cases(study)
        threads = []
        arrive = widget._arrive
        widget._arrive = lambda *args: (threads.append(threading.current_thread()), arrive(*args))[1]
        released = hold_reading(widget)
        widget.number.value = 1
        released.set()
        for _ in range(2000):
            await asyncio.sleep(0.01)
            if widget.browser.view.number == 1:
                return threads
        return []

    assert asyncio.run(run()) == [threading.main_thread()]


def test_after_a_change_the_next_scan_is_read_ahead(study):
    widget = browse_cases(study)
    widget.number.value = 4
    wait_until(lambda: widget.browser.view.number == 4)
    wait_until(lambda: all(widget.browser.is_prepared(choice) for choice in widget.browser.list_likely()))
    assert {(choice.number, choice.model) for choice in widget.browser.list_likely()} == {(1, "eroded"), (4, "exact")}


def test_a_failure_is_told(study, monkeypatch):
    monkeypatch.setattr(controls, "PATIENCE_SECONDS", 0.02)
    widget = browse_cases(study)

    def fail(choice):
        time.sleep(0.1)
        raise MemoryError

    widget.browser.prepare = fail
    widget.number.value = 1
    wait_until(lambda: widget.message.value == "scan 001 cannot be shown: MemoryError")
    assert widget.browser.view.number == 2


def test_a_change_of_slice_feels_live_on_a_large_scan(tmp_path):
    study = make_study(tmp_path)
    large = draw_ellipsoid((100.0, 80.0, 100.0), size_mm=360.0, spacing_xyz_mm=(0.75, 0.75, 3.0))
    write_cohort(study, [{"subject": "p", "sex": "male", "reference": large}])
    write_prediction(study, "eroded", 1, large)
    widget = browse_cases(study)
    assert widget.browser.view.shape == (120, 480, 480)
    seconds = []
    for plane, place in (("axial", 30), ("coronal", 200), ("sagittal", 260), ("axial", 70)):
        started = time.process_time()  # on a machine that others use too, the clock tells of them
        wish(widget, plane, slice=place)
        seconds.append(time.process_time() - started)
    assert np.median(seconds) < 0.2


def test_a_dot_of_any_figure_leads_to_its_scan(study):
    figure = go.Figure(go.Scatter(x=[1, 2], y=[1, 2], text=["scan 004", "scan 001"]))
    linked = link_scans(figure, study, model="exact", organ="organ")
    assert linked.cases is None, "nothing is read before anybody asks"
    linked.plot._handle_custom_msg({"brushed": [4]}, [])
    wait_until(lambda: linked.cases.browser.view.number == 4)
    assert linked.cases.browser.view.model == "exact"
    linked.plot._handle_custom_msg({"brushed": []}, [])
    linked.plot._handle_custom_msg({"brushed": [99]}, [])
    assert linked.cases.browser.view.number == 4, "who is not in the study cannot be shown"
    shared = linked._repr_mimebundle_()
    assert shared["application/vnd.plotly.v1+json"]["data"][0]["text"] == ["scan 004", "scan 001"]
    assert "application/vnd.jupyter.widget-view+json" in shared


def test_all_figures_share_one_library(study):
    first, second = browse_cases(study).surface, browse_cases(study).surface
    assert first.library is second.library and len(first.library.source) > 1e6
    assert "library" in first.get_state() and len(first.get_state()["library"]) < 100
