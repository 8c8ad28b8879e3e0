"""The overview figures of 03_performance: every verdict in words, every mark where the table says."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from helpers.errors import SegfairError
from helpers.figures.fairness_overview import (
    VERDICT_LOOKS,
    plot_accuracy_fairness,
    plot_model_gaps,
    plot_verdicts,
)
from helpers.figures.style import METRIC_LABELS
from helpers.figures.tables import style_table

MODELS, ORGANS, ATTRIBUTES = ("m", "long_model_name"), ("liver", "kidney_left", "all"), ("sex", "bmi", "site")
VERDICTS = ("disparity", "negligible", "equivalent", "inconclusive")


def make_disparity(metrics=("dice", "boundary_error_mm")) -> pd.DataFrame:
    """Return a disparity table in which `site` cannot be compared and each verdict occurs."""
    rows = []
    for place, (model, organ, metric, attribute) in enumerate(
        (m, o, e, a) for m in MODELS for o in ORGANS for e in metrics for a in ATTRIBUTES
    ):
        head = {"model": model, "organ": organ, "metric": metric, "attribute": attribute, "verdict": ""}
        if attribute == "site":
            rows.append(head | {"n": 0, "note": "nothing to compare", "worst_group": "", "best_group": ""})
            continue
        gap = 0.01 + 0.002 * place
        verdict = {"verdict": VERDICTS[place % 4], "p_adjusted": 0.04, "margin": 0.02, "detectable": 0.05, "note": ""}
        groups = {"worst_group": "a", "best_group": "b", "n": 24}
        size = {"expected_gap": gap / 2, "excess_gap": gap / 2, "excess_low": gap / 4, "excess_high": gap}
        adjusted = {"adjusted_gap": gap / 3, "adjusted_low": -gap, "adjusted_high": gap, "adjusted_n": 22}
        rows.append(
            head | {"gap": gap, "gap_low": gap - 0.01, "gap_high": gap + 0.02} | groups | verdict | size | adjusted
        )
    return pd.DataFrame(rows)


def make_groups(disparity: pd.DataFrame) -> pd.DataFrame:
    """Return a groups table: 10 people with a mean of 0.8, 30 with 0.9, and one suppressed group."""
    keys = disparity[["model", "organ", "metric", "attribute"]]
    parts = [
        keys.assign(group=group, n=n, mean=mean, ci_low=mean - 0.01, ci_high=mean + 0.01)
        for group, n, mean in (("a", 10, 0.8), ("b", 30, 0.9), ("c", 2, np.nan))
    ]
    return pd.concat(parts, ignore_index=True)


def make_model_gaps() -> pd.DataFrame:
    keys = pd.DataFrame(
        [(o, "dice", a) for o in ORGANS for a in ("sex", "bmi")], columns=["organ", "metric", "attribute"]
    )
    return keys.assign(
        model_a="m", model_b="long_model_name", n=24, gap_a=0.01, gap_b=0.03, difference=-0.02,
        low=-0.03, high=-0.01, p=0.01, p_adjusted=0.06,
    )  # fmt: skip


def list_texts(figure) -> str:
    return " | ".join(annotation.text or "" for annotation in figure.layout.annotations)


def find_heatmaps(figure, *, visible=True):
    return [trace for trace in figure.data if trace.type == "heatmap" and (trace.visible is not False) == visible]


def test_every_cell_holds_its_verdict_in_words_and_the_gap():
    disparity = make_disparity()
    figure = plot_verdicts(disparity, "dice")
    maps = find_heatmaps(figure)
    assert len(maps) == len(MODELS)
    for model, trace in zip(MODELS, maps, strict=True):
        for line, organ in zip(trace.text, ORGANS, strict=True):
            for text, attribute in zip(line, ATTRIBUTES, strict=True):
                row = disparity[
                    (disparity[["model", "organ", "metric", "attribute"]] == [model, organ, "dice", attribute]).all(
                        axis=1
                    )
                ].iloc[0]
                look = VERDICT_LOOKS[row["verdict"]]
                assert text.startswith(f"{look.sign} {look.word}")
                assert text.endswith(f"· {row['gap']:.3f}") or attribute == "site"


def test_colours_of_cells_are_those_of_the_key():
    figure = plot_verdicts(make_disparity(), "dice")
    trace = find_heatmaps(figure)[0]
    key = [item for item in figure.data if item.type == "scatter" and item.visible is not False]
    assert [item.marker.color for item in key] == [look.colour for look in VERDICT_LOOKS.values()]
    scale, verdicts = trace.colorscale, list(VERDICT_LOOKS)
    for line, texts in zip(trace.z, trace.text, strict=True):
        for z, text in zip(line, texts, strict=True):
            share = (z - trace.zmin) / (trace.zmax - trace.zmin)
            colour = next(c for (low, c), (high, _) in zip(scale[::2], scale[1::2], strict=True) if low <= share < high)
            assert colour == VERDICT_LOOKS[verdicts[int(z)]].colour
            assert VERDICT_LOOKS[verdicts[int(z)]].word in text


def test_a_sign_is_used_once_and_text_stands_out():
    looks = list(VERDICT_LOOKS.values())
    assert len({look.sign for look in looks}) == len({look.word for look in looks}) == len(looks)
    for look in looks:
        parts = [int(look.colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        luminance = float(np.dot(linear, (0.2126, 0.7152, 0.0722)))
        assert (luminance + 0.05) / (0.016 + 0.05) > 7, "dark text (#222222) on it: WCAG AAA"


def test_pointing_at_a_verdict_tells_interval_margin_and_what_could_be_found():
    figure = plot_verdicts(make_disparity(("hd95_mm",)), "hd95_mm")
    told = find_heatmaps(figure)[0].customdata[0][0]
    for part in (
        "gap 0.01 mm",
        "0.00 to 0.03 mm",
        "margin 0.02 mm",
        "0.05 mm or more",
        "corrected p = 0.040",
        "n = 24",
    ):
        assert part in told, told
    assert "nothing to compare" in find_heatmaps(figure)[0].customdata[0][2]
    assert not figure.layout.updatemenus, "one metric: no menu"


def test_a_menu_offers_every_metric_the_chosen_one_first():
    figure = plot_verdicts(make_disparity(), "boundary_error_mm")
    (menu,) = figure.layout.updatemenus
    assert [button.label for button in menu.buttons] == ["Boundary error", "Dice"]
    assert "boundary error" in figure.layout.title.text
    for button in menu.buttons:
        shown, changes = button.args
        assert len(shown["visible"]) == len(figure.data) and sum(shown["visible"]) == len(figure.data) / 2
        assert button.label.lower() in changes["title.text"].lower()
    assert [trace.visible is not False for trace in figure.data] == list(menu.buttons[0].args[0]["visible"])


def test_a_gap_without_a_margin_is_not_called_uncompared():
    disparity = make_disparity(("dice",)).assign(verdict="", margin=np.nan)
    texts = [text for trace in find_heatmaps(plot_verdicts(disparity)) for line in trace.text for text in line]
    assert texts[0] == "– no margin · 0.010" and texts[2] == "– not compared"


def test_a_missing_verdict_is_none():
    disparity = make_disparity(("dice",))
    disparity["verdict"] = disparity["verdict"].where(disparity["verdict"] != "", np.nan)
    assert find_heatmaps(plot_verdicts(disparity))[0].text[0][2] == "– not compared"


def test_no_verdicts_is_said():
    assert "Nothing was compared" in list_texts(plot_verdicts(make_disparity().iloc[:0]))
    assert "Nothing was compared" in list_texts(plot_verdicts(make_disparity(), "nsd"))


def test_accuracy_is_the_mean_over_people_of_the_groups_shown():
    disparity = make_disparity(("dice",))
    figure = plot_accuracy_fairness(make_groups(disparity), disparity, "dice")
    points = next(trace for trace in figure.data if trace.visible is not False)
    assert points.x == pytest.approx([0.875] * 3), "(10 · 0.8 + 30 · 0.9) / 40"
    row = disparity[(disparity["model"] == "m") & (disparity["attribute"] == "sex")]
    assert points.y == pytest.approx(row["gap"].to_numpy())
    assert points.y + np.asarray(points.error_y.array) == pytest.approx(row["gap_high"].to_numpy())
    assert len(set(points.marker.symbol)) == len(ORGANS)
    assert {"better: to the right, and near zero", "less fair ↑"} <= set(list_texts(figure).split(" | "))
    assert [button.label for button in figure.layout.updatemenus[0].buttons] == ["sex", "BMI"], "site has no gap"


def test_better_lies_left_where_lower_is_better():
    disparity = make_disparity(("hd95_mm",))
    figure = plot_accuracy_fairness(make_groups(disparity), disparity, "hd95_mm", "bmi")
    assert "better: to the left, and near zero" in list_texts(figure)
    assert figure.layout.yaxis.title.text == "gap in 95 % Hausdorff distance (mm)"
    assert figure.layout.xaxis.title.text.endswith("(mm, lower is better)")


def test_model_gaps_are_drawn_with_intervals():
    table = make_model_gaps()
    figure = plot_model_gaps(table, "dice")
    assert len(figure.data) == 2, "one pair, two attributes"
    trace = figure.data[0]
    assert trace.name == "m − long_model_name"
    assert trace.x == pytest.approx([-0.02] * 3)
    assert trace.x - np.asarray(trace.error_x.arrayminus) == pytest.approx([-0.03] * 3)
    assert "first model fairer" in figure.layout.xaxis2.title.text
    assert "No" not in list_texts(figure)
    assert "corrected p = 0.060" in trace.customdata[0]


def test_model_gaps_that_are_missing_are_named():
    table = make_model_gaps()
    table.loc[table["attribute"].eq("bmi") & table["organ"].eq("liver"), ["difference", "low", "high"]] = np.nan
    texts = list_texts(plot_model_gaps(table, "dice"))
    assert "Not compared, too few people: BMI (m and long_model_name on liver)" in texts
    assert "There are not two models" in list_texts(plot_model_gaps(table, "nsd"))


def test_no_text_is_smaller_than_eleven_points():
    disparity = make_disparity()
    for figure in (
        plot_verdicts(disparity),
        plot_accuracy_fairness(make_groups(disparity), disparity, "dice"),
        plot_model_gaps(make_model_gaps(), "dice"),
    ):
        assert figure.layout.font.size >= 11
        for annotation in figure.layout.annotations:
            assert annotation.font.size is None or annotation.font.size >= 11
        json.loads(figure.to_json())


def test_table_for_reading_joins_intervals_words_verdicts_and_keeps_units():
    table = make_disparity(("hd95_mm",)).iloc[[0, 2]].assign(p=[0.0000004, np.nan])
    page = style_table(table, ["organ", "metric", "attribute", "gap", "gap_low", "gap_high", "p", "verdict"]).to_html()
    page = page.replace("\u00a0", " ")
    assert "0.01 mm (0.00 to 0.03 mm)" in page
    assert "&lt; 0.001" in page and "gap low" not in page
    assert "▲ disparity" in page and VERDICT_LOOKS["disparity"].colour in page
    assert "– not compared" in page
    assert METRIC_LABELS["hd95_mm"].split(" (")[0] in page


def test_table_for_reading_knows_ranks_from_millimetres():
    table = pd.DataFrame(
        {
            "metric": "hd95_mm",
            "test": ["Games–Howell", "Dunn"],
            "difference": [-1.5, -20.8],
            "low": [-2.0, np.nan],
            "high": [-1.0, np.nan],
        }
    )
    page = style_table(table).to_html().replace("\u00a0", " ")
    assert "−1.50 mm (−2.00 to −1.00 mm)" in page and "−20.8 ranks" in page


def test_table_for_reading_is_the_same_every_time_and_escapes_names():
    table = make_disparity(("dice",)).assign(worst_group="<script>x</script>")
    first, second = (style_table(table, ["worst_group", "n"], caption="who").to_html() for _ in range(2))
    assert first == second and "<script>" not in first and "who" in first
    with pytest.raises(SegfairError, match="nonsense"):
        style_table(table, ["nonsense"])


def test_an_empty_table_for_reading_has_its_head():
    page = style_table(make_disparity().iloc[:0], ["organ", "verdict", "gap"]).to_html()
    assert "verdict" in page and "<td" not in page
