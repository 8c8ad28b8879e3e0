"""Frames and menus: two models and two organs, one of which only one model has."""

from __future__ import annotations

from helpers.figures.framed import Frames, StillFigure, dress_menus, list_menus

LABELS = {
    ("sam", "liver", "a"): ("SAM", "liver", "map a"),
    ("sam", "liver", "b"): ("SAM", "liver", "map b"),
    ("medsam", "liver", "b"): ("MedSAM", "liver", "map b"),
    ("sam", "spleen", "b"): ("SAM", "spleen", "map b"),
}
NOUNS = ("model", "organ", "map")


def lead(place):
    """Return, for each menu of a view, label → the view it leads to, and the active label."""
    frames = Frames(("scatter",))
    names = {frames.name(key): key for key in LABELS}
    menus = list_menus(place, LABELS, NOUNS, frames)
    return [{button["label"]: names[button["args"][0][0]] for button in menu["buttons"]} for menu in menus], [
        menu["buttons"][menu["active"]]["label"] for menu in menus
    ]


def test_a_choice_keeps_the_others_where_it_can():
    menus, active = lead(("sam", "liver", "b"))
    assert menus[0] == {"model: SAM": ("sam", "liver", "b"), "model: MedSAM": ("medsam", "liver", "b")}
    assert menus[1] == {"organ: liver": ("sam", "liver", "b"), "organ: spleen": ("sam", "spleen", "b")}
    assert menus[2] == {"map: map a": ("sam", "liver", "a"), "map: map b": ("sam", "liver", "b")}
    assert active == ["model: SAM", "organ: liver", "map: map b"]


def test_what_is_not_there_gives_way():
    menus, _ = lead(("medsam", "liver", "b"))
    assert menus[1]["organ: spleen"] == ("sam", "spleen", "b"), "medsam has no spleen"
    assert menus[2] == {"map: map b": ("medsam", "liver", "b")}, "only its own maps"
    menus, _ = lead(("sam", "liver", "a"))
    assert menus[0]["model: MedSAM"] == ("medsam", "liver", "b"), "medsam has no map a"


def test_labels_are_text():
    frames = Frames(("scatter",))
    menu = list_menus(("<b>", "x"), {("<b>", "x"): ("<b>", "x")}, ("model", "organ"), frames)[0]
    assert menu["buttons"][0]["label"] == "model: &lt;b&gt;"


def test_frames_rest_on_frames():
    frames = Frames(("scatter", "bar"))
    base = frames.add(
        "base", {0: {"line": {"width": 2, "color": "red"}}, 1: {"x": [1]}}, layout={"title": {"text": "base"}}
    )
    top = frames.add("top", {0: {"line": {"color": "blue"}}}, base=base, layout={"height": 3})
    traces, layout = frames.compose(top)
    assert traces == {0: {"type": "scatter", "line": {"width": 2, "color": "blue"}}, 1: {"type": "bar", "x": [1]}}
    assert layout == {"title": {"text": "base"}, "height": 3}
    assert frames.find("base") == base and frames.find("other") is None
    frames.name("other")
    assert frames.find("other") is None, "named, not yet made"


def test_figure_starts_with_a_frame_and_carries_all():
    frames = Frames(("scatter",))
    base = frames.add("base", {0: {"x": [1, 2]}})
    top = frames.add("top", {0: {"y": [3, 4]}}, base=base, layout={"title": {"text": "t"}})
    figure, layout = frames.draw(top)
    assert isinstance(figure, StillFigure) and layout["title"]["text"] == "t"
    assert (figure.data[0].x, figure.data[0].y) == ((1, 2), (3, 4))
    assert [(frame.name, frame.baseframe) for frame in figure.frames] == [(base, None), (top, base)]


def test_menus_stand_two_to_a_row():
    menus = dress_menus([{"buttons": []}] * 3, (1.2, 1.1))
    assert [(menu["x"], menu["y"]) for menu in menus] == [(0.0, 1.2), (0.5, 1.2), (0.0, 1.1)]
