"""The figure of all error maps: what is drawn, said and offered is what the tables say."""

from __future__ import annotations

import base64
import json
import re

import numpy as np
import pandas as pd
import pytest
from plotly.basedatatypes import BaseFigure

from helpers.figures.spatial import plot_error_maps
from helpers.figures.style import DIVERGING
from helpers.spatial import describe_places
from helpers.spatial.surfaces import measure_vertex_areas

EVIL = "<a href='http://evil'>x</a>"


class Octahedron:
    """A template whose vertices are its L, R, P, A, S and I ends."""

    vertices_mm = 20.0 * np.array([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]])
    faces = np.array([[0, 2, 4], [2, 1, 4], [1, 3, 4], [3, 0, 4], [2, 0, 5], [1, 2, 5], [3, 1, 5], [0, 3, 5]])
    areas_mm2 = measure_vertex_areas(vertices_mm, faces)


TEMPLATES = {"liver": Octahedron(), "spleen": Octahedron()}
GROUPS = pd.DataFrame(
    {
        "model": "sam", "organ": "liver", "attribute": "sex", "group": ["female", "male"], "n": [21, 33],
        "suppressed": False,
    }
)  # fmt: skip


def make_maps(**changes):
    """Women's livers 1.8 mm too small on the left, significantly; no value at the upper end."""
    table = pd.DataFrame(
        {
            "model": "sam", "organ": "liver", "attribute": "sex", "vertex": range(6),
            "error_female": [-1.8, 0, 0, 0, np.nan, 0.5], "error_male": [0.0, 0, 0, 0, np.nan, 0.5],
            "error_young": np.nan, "group_a": "female", "group_b": "male",
            "difference": [-1.8, 0, 0, 0, np.nan, 0], "p_fwer": [0.01, 0.3, 0.4, 0.5, np.nan, 1.0],
        }
    )  # fmt: skip
    return table.assign(**changes)


def make_slopes():
    return pd.DataFrame(
        {
            "model": "sam", "organ": "liver", "attribute": "age", "vertex": range(6), "step": 10.0, "unit": "years",
            "slope": [0.4, 0, 0, 0, 0, 0], "p_fwer": [0.04, 1, 1, 1, 1, 1],
        }
    )  # fmt: skip


def show(figure: BaseFigure, name: str | None = None):
    """Return traces and layout as plotly shows them: at the start, or once the frame `name` was
    asked for."""
    value = decode(json.loads(figure.to_json()))
    traces, layout = value["data"], value["layout"]
    frames = {frame["name"]: frame for frame in value["frames"]}
    chain = []
    while name is not None:
        chain.insert(0, frames[name])
        name = frames[name].get("baseframe")
    for frame in chain:
        for place, trace in zip(frame["traces"], frame["data"], strict=True):
            traces[place] = merge(traces[place], trace)
        layout = merge(layout, {key: part for key, part in frame.get("layout", {}).items() if key != "updatemenus"})
        for place, menu in enumerate(frame.get("layout", {}).get("updatemenus", ())):
            layout["updatemenus"] = list(layout["updatemenus"])
            layout["updatemenus"][place] = {**layout["updatemenus"][place], **menu}
    return traces, layout


def decode(value):
    """Return a figure's JSON value with typed arrays as arrays, as plotly.js reads them."""
    if isinstance(value, dict) and "bdata" in value:
        array = np.frombuffer(base64.b64decode(value["bdata"]), value["dtype"])
        return array.reshape([int(size) for size in value.get("shape", str(len(array))).split(",")])
    if isinstance(value, dict):
        return {key: decode(part) for key, part in value.items()}
    return [decode(part) for part in value] if isinstance(value, list) else value


def merge(under, over):
    merged = dict(under)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def offers(layout, noun):
    """Return label → frame of the menu whose entries begin with `noun`."""
    for menu in layout["updatemenus"]:
        if menu["buttons"][0]["label"].startswith(f"{noun}: "):
            return {button["label"].removeprefix(f"{noun}: "): button["args"][0][0] for button in menu["buttons"]}
    raise AssertionError(f"no menu of {noun}")


def test_menu_offers_difference_significance_and_groups_with_their_numbers():
    traces, layout = show(plot_error_maps(make_maps(), TEMPLATES, groups=GROUPS))
    assert list(offers(layout, "map")) == [
        "difference: “female” minus “male”",
        "side by side: “female” and “male”",
        "significance: “female” minus “male”",
        "“female” (n = 21)",
        "“male” (n = 33)",
    ], "a group without values has no entry"
    assert layout["title"]["text"].startswith("Liver, drawn by sam, by sex<br>")
    assert "“female” (n = 21) minus “male” (n = 33), mean signed error" in layout["title"]["text"]
    assert [trace["type"] for trace in traces] == 2 * ["mesh3d", "mesh3d", "scatter3d", "scatter3d"]


def test_two_groups_stand_side_by_side_seen_from_the_same_side():
    figure = plot_error_maps(make_maps(), TEMPLATES, first=("sam", "liver", "sex", "side by side"))
    traces, layout = show(figure)
    women, men = traces[0], traces[4]
    np.testing.assert_allclose(women["intensity"], [-1.8, 0, 0, 0, 0, 0.5], atol=1e-6)
    np.testing.assert_allclose(men["intensity"], [0, 0, 0, 0, 0, 0.5], atol=1e-6)
    assert (men["scene"], men["cmax"], men["showscale"]) == ("scene2", women["cmax"], False)
    assert layout["scene"]["camera"] == layout["scene2"]["camera"]
    assert layout["scene"]["domain"]["x"][1] < layout["scene2"]["domain"]["x"][0]
    assert [note["text"] for note in layout["annotations"] if note["visible"]] == ["<b>female</b>", "<b>male</b>"]
    traces, layout = show(figure, offers(layout, "map")["difference: “female” minus “male”"])
    assert all(trace["visible"] is False for trace in traces[4:]), "one body alone"
    assert not any(note["visible"] for note in layout["annotations"])
    button = figure.layout.updatemenus[4].buttons[0]
    assert set(button.args[0]) == {"scene.camera", "scene2.camera"}


def test_a_body_without_significance_says_so():
    figure = plot_error_maps(make_maps(p_fwer=[0.3, 0.3, 0.4, 0.5, np.nan, 1.0]), TEMPLATES)
    layout = show(figure, offers(show(figure)[1], "map")["significance: “female” minus “male”"])[1]
    assert [note["text"] for note in layout["annotations"] if note["visible"]] == ["<b>nothing significant</b>"]


def test_surface_carries_the_values_on_a_scale_symmetrical_about_zero():
    surface = show(plot_error_maps(make_maps(), TEMPLATES))[0][0]
    np.testing.assert_allclose(surface["intensity"], [-1.8, 0, 0, 0, 0, 0], atol=1e-6)
    assert (surface["cmin"], surface["cmax"]) == (-2.0, 2.0), "1.8 rounded up"
    assert [list(step) for step in surface["colorscale"]] == DIVERGING
    assert surface["colorbar"]["title"]["text"] == "mm: + larger in “female”, − larger in “male”"
    assert surface["colorbar"]["ticksuffix"] == " mm"


def test_triangles_without_a_value_are_grey():
    surface, missing = show(plot_error_maps(make_maps(), TEMPLATES))[0][:2]
    corners = np.stack([surface[key] for key in "ijk"], axis=1)
    np.testing.assert_array_equal(corners, Octahedron.faces[4:]), "the lower half"
    assert missing["visible"] and len(missing["i"]) == 4
    whole = show(plot_error_maps(make_maps(difference=1.0), TEMPLATES))[0]
    assert len(whole[0]["i"]) == 8 and whole[1]["visible"] is False


def test_hover_tells_millimetres_and_p():
    surface = show(plot_error_maps(make_maps(), TEMPLATES))[0][0]
    assert surface["hovertemplate"] == (
        "%{customdata[0]:+.2f} mm<br>p = %{customdata[1]:.3f}, adjusted for the whole surface<extra></extra>"
    )
    np.testing.assert_allclose(surface["customdata"][0], [-1.8, 0.01], atol=1e-6)
    untested = show(plot_error_maps(make_maps().drop(columns="p_fwer"), TEMPLATES))
    assert untested[0][0]["hovertemplate"] == "%{customdata[0]:+.2f} mm<extra></extra>"
    assert not any("significance" in label for label in offers(untested[1], "map"))


def test_significant_places_are_outlined():
    line = show(plot_error_maps(make_maps(), TEMPLATES))[0][2]
    assert line["visible"] and line["mode"] == "lines"
    x = np.asarray(line["x"], float)
    assert np.nanmin(x) > 0 and np.isnan(x[-1]), "around the left end, closed"
    assert len(x) == 6
    nothing = show(plot_error_maps(make_maps(p_fwer=0.2), TEMPLATES))[0][2]
    assert nothing["visible"] is False
    stricter = show(plot_error_maps(make_maps(), TEMPLATES, alpha=0.005))[0][2]
    assert stricter["visible"] is False


def test_no_line_surrounds_the_rest_of_a_surface_that_is_significant_all_over(monkeypatch):
    """It would read as if the rest were what is significant."""
    maps = make_maps(p_fwer=[0.01, 0.01, 0.01, 0.01, np.nan, 0.3])
    assert show(plot_error_maps(maps, TEMPLATES))[0][2]["visible"]
    monkeypatch.setattr("helpers.figures.spatial.WHOLE_SURFACE", 0.7)  # four of five places with a value
    assert show(plot_error_maps(maps, TEMPLATES))[0][2]["visible"] is False


def test_menu_leads_to_the_other_maps():
    figure = plot_error_maps(make_maps(), TEMPLATES, groups=GROUPS)
    maps = offers(show(figure)[1], "map")
    traces, layout = show(figure, maps["“male” (n = 33)"])
    np.testing.assert_allclose(traces[0]["intensity"], [0, 0, 0, 0, 0, 0.5])
    assert traces[0]["hovertemplate"] == "%{intensity:+.2f} mm<extra></extra>"
    assert traces[0]["colorbar"]["title"]["text"] == "mm: + too large, − too small"
    assert traces[2]["visible"], "the groups' maps show where they differ"
    assert "“male” (n = 33): mean signed error" in layout["title"]["text"]
    active = layout["updatemenus"][3]
    assert active["buttons"][active["active"]]["label"] == "map: “male” (n = 33)"


def test_significance_leaves_only_what_is_significant():
    maps = make_maps(difference=[-1.8, 0.9, 0, 0, np.nan, 0.3])
    figure = plot_error_maps(maps, TEMPLATES)
    traces, layout = show(figure, offers(show(figure)[1], "map")["significance: “female” minus “male”"])
    np.testing.assert_allclose(traces[0]["intensity"], [-1.8, 0, 0, 0, 0, 0], atol=1e-6)
    np.testing.assert_allclose([row[0] for row in traces[0]["customdata"]], [-1.8, 0.9, 0, 0, 0, 0.3], atol=1e-6)
    assert "where it is significant (p ≤ 0.05" in layout["title"]["text"].replace("<br>", " ")
    none = plot_error_maps(make_maps(p_fwer=0.2), TEMPLATES)
    layout = show(none, offers(show(none)[1], "map")["significance: “female” minus “male”"])[1]
    assert "no place is significant" in layout["title"]["text"]


def test_adjusted_difference_is_what_is_drawn_where_it_was_tested():
    maps = make_maps(adjusted_difference=[-1.5, 0, 0, 0, np.nan, 0])
    traces, layout = show(plot_error_maps(maps, TEMPLATES))
    assert traces[0]["intensity"][0] == pytest.approx(-1.5)
    assert "adjusted for other characteristics" in layout["title"]["text"]
    same = show(plot_error_maps(make_maps(adjusted_difference=make_maps()["difference"]), TEMPLATES))[1]
    assert "adjusted for" not in same["title"]["text"]


def test_size_and_misses_are_shown_where_asked_for():
    further = {
        "absolute_female": [1.9, 0.2, 0, 0, np.nan, 0.5], "absolute_male": [0.4, 0.2, 0, 0, np.nan, 0.5],
        "absolute_difference": [1.5, 0, 0, 0, np.nan, 0], "absolute_p_fwer": [0.02, 1, 1, 1, np.nan, 1],
        "miss_female": [0.4, 0, 0, 0, np.nan, 0], "miss_male": [0.1, 0, 0, 0, np.nan, 0],
        "miss_difference": [0.3, 0, 0, 0, np.nan, 0], "miss_p_fwer": [0.2, 1, 1, 1, np.nan, 1],
    }  # fmt: skip
    maps = make_maps(**further)
    few = offers(show(plot_error_maps(maps, TEMPLATES, groups=GROUPS))[1], "map")
    figure = plot_error_maps(maps, TEMPLATES, groups=GROUPS, every_measure=True)
    every = offers(show(figure)[1], "map")
    assert list(every)[: len(few)] == list(few)
    assert list(every)[len(few) :] == [
        "size of the error, “female” (n = 21)",
        "size of the error, “male” (n = 33)",
        "size of the error, difference: “female” minus “male”",
        "misses, “female” (n = 21)",
        "misses, “male” (n = 33)",
        "misses, difference: “female” minus “male”",
    ]
    traces, layout = show(figure, every["misses, difference: “female” minus “male”"])
    np.testing.assert_allclose(traces[0]["intensity"], [30, 0, 0, 0, 0, 0], atol=1e-4)
    assert (traces[0]["cmin"], traces[0]["cmax"]) == (-28, 28), "where nearly all places end, rounded up"
    assert traces[0]["colorbar"]["ticksuffix"] == " %"
    assert traces[0]["hovertemplate"].startswith("%{customdata[0]:+.0f} %<br>p = ")
    assert traces[2]["visible"] is False and "beyond the tolerance" in layout["title"]["text"].replace("<br>", " ")
    traces, layout = show(figure, every["size of the error, difference: “female” minus “male”"])
    np.testing.assert_allclose(traces[0]["intensity"], [1.5, 0, 0, 0, 0, 0], atol=1e-4)
    assert traces[2]["visible"], "its own test"
    assert traces[0]["colorbar"]["title"]["text"] == "mm: + further off in “female”, − in “male”"


def test_slopes_are_maps_too():
    figure = plot_error_maps(make_maps(), TEMPLATES, slopes=make_slopes())
    age = offers(show(figure)[1], "attribute")["age"]
    traces, layout = show(figure, age)
    assert list(offers(layout, "map")) == ["slope: per 10 years"]
    assert traces[0]["intensity"][0] == pytest.approx(0.4) and traces[0]["cmax"] == 0.5
    assert traces[0]["hovertemplate"].startswith("%{customdata[0]:+.2f} mm per 10 years<br>p = ")
    assert "change of the signed error with every 10 years of age" in layout["title"]["text"]
    assert traces[2]["visible"]


def test_menus_keep_what_they_can_when_one_is_changed():
    other = make_maps(model="medsam", p_fwer=0.2)
    spleen = make_maps(organ="spleen", error_male=np.nan, group_b=None, difference=np.nan, p_fwer=np.nan)
    figure = plot_error_maps(pd.concat([make_maps(), other, spleen]), TEMPLATES)
    start = show(figure)[1]
    assert start["title"]["text"].startswith("Liver, drawn by sam"), "where something is significant"
    male = show(figure, offers(start, "map")["“male”"])[1]
    medsam = show(figure, offers(male, "model")["medsam"])[1]
    assert medsam["title"]["text"].startswith("Liver, drawn by medsam") and "“male”" in medsam["title"]["text"]
    # medsam has no spleen: sam's is shown, and of it the only map there is.
    last = show(figure, offers(medsam, "organ")["spleen"])[1]
    assert last["title"]["text"].startswith("Spleen, drawn by sam")
    assert list(offers(last, "map")) == ["“female”"]
    assert set(offers(last, "organ")) == {"liver", "spleen"} and set(offers(last, "model")) == {"sam", "medsam"}


def test_start_can_be_chosen():
    figure = plot_error_maps(
        pd.concat([make_maps(), make_maps(model="medsam")]), TEMPLATES, first=("medsam", "liver", "sex")
    )
    assert show(figure)[1]["title"]["text"].startswith("Liver, drawn by medsam")


def test_it_starts_looking_at_what_is_significant():
    start = plot_error_maps(make_maps(), TEMPLATES).layout.scene.camera.eye
    assert (start.x, start.y, start.z) == (2.0, 0.0, 0.0), "from the left"
    assert [button.label for button in plot_error_maps(make_maps(), TEMPLATES).layout.updatemenus[4].buttons] == [
        "Anterior", "Posterior", "Right", "Left", "Superior", "Inferior",
    ]  # fmt: skip


def test_sentence_stands_below_the_title():
    places = describe_places(make_maps(), TEMPLATES, groups=GROUPS)
    title = show(plot_error_maps(make_maps(), TEMPLATES, places=places))[1]["title"]["text"]
    words = re.sub(r"<[^>]+>", " ", title)
    assert "under-segmented in women" in words and "in the left lobe" in words and "p = 0.010" in words


def test_frames_share_the_organ_and_stay_small():
    three = [make_maps(), make_maps(model="medsam"), make_maps(model="sat")]
    figure = plot_error_maps(pd.concat(three), TEMPLATES)
    frames = figure.to_plotly_json()["frames"]
    assert sum(frame["data"][0]["type"] == "mesh3d" and "x" in frame["data"][0] for frame in frames) == 1
    views = [frame for frame in frames if "title" in frame.get("layout", {})]
    assert len(views) == 15
    assert all(
        set(view["data"][0]) <= {"type", "intensity", "customdata", "cmin", "cmax", "colorbar", "hovertemplate"}
        for view in views
    )


def test_frames_are_not_played_by_themselves():
    assert "Plotly.animate" not in plot_error_maps(make_maps(), TEMPLATES).to_html(include_plotlyjs=False)


def test_figure_is_json_without_nan():
    text = plot_error_maps(make_maps(), TEMPLATES, slopes=make_slopes(), groups=GROUPS).to_json()
    json.loads(text, parse_constant=lambda constant: pytest.fail(f"{constant} in the figure"))


def test_maps_without_values_say_so():
    nothing = make_maps(error_female=np.nan, error_male=np.nan, difference=np.nan)
    for maps, templates in ((nothing, TEMPLATES), (nothing.iloc[:0], TEMPLATES), (make_maps(), {})):
        assert "No map" in plot_error_maps(maps, templates).layout.annotations[0].text


def test_maps_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="maps of sam, liver, sex have 5 vertices, the template has 6"):
        plot_error_maps(make_maps().iloc[:5], TEMPLATES)


def test_names_from_data_are_text():
    maps = make_maps(model=EVIL, group_a=EVIL).rename(columns={"error_female": f"error_{EVIL}"})
    slopes = make_slopes().assign(unit=EVIL)
    text = plot_error_maps(maps, TEMPLATES, slopes=slopes).to_json()
    assert "<a " not in text and "&lt;a href" in text
