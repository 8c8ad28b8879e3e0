"""The overview figures of 03_performance: every mark where the table says, tables as a reader
wants."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from helpers.errors import SegfairError
from helpers.figures.fairness_gaps import plot_model_gaps
from helpers.figures.fairness_overview import plot_gap_over_mean
from helpers.figures.tables import style_table
from helpers.vocabulary.verdicts import Verdict

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
    """Return a groups table: 10 people with a mean of 0.8, 30 with 0.9, and one suppressed
    group."""
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


def test_accuracy_is_the_mean_over_people_of_the_groups_shown():
    disparity = make_disparity(("dice",))
    figure = plot_gap_over_mean(make_groups(disparity), disparity, "dice")
    points = next(trace for trace in figure.data if trace.visible is not False)
    assert points.x == pytest.approx([0.875] * 3), "(10 · 0.8 + 30 · 0.9) / 40"
    row = disparity[(disparity["model"] == "m") & (disparity["attribute"] == "sex")]
    assert points.y == pytest.approx(row["gap"].to_numpy())
    assert points.y + np.asarray(points.error_y.array) == pytest.approx(row["gap_high"].to_numpy())
    assert len(set(points.marker.symbol)) == len(ORGANS)
    assert {"better: to the right, and near zero", "larger gap ↑"} <= set(list_texts(figure).split(" | "))
    assert [button.label for button in figure.layout.updatemenus[0].buttons] == ["sex", "BMI"], "site has no gap"


def test_better_lies_left_where_lower_is_better():
    disparity = make_disparity(("hd95_mm",))
    figure = plot_gap_over_mean(make_groups(disparity), disparity, "hd95_mm")
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
    assert "smaller gap: first model" in figure.layout.xaxis2.title.text
    assert "No" not in list_texts(figure)
    assert "adjusted p = 0.060" in trace.customdata[0]


def test_model_gaps_that_are_missing_are_named():
    table = make_model_gaps()
    table.loc[table["attribute"].eq("bmi") & table["organ"].eq("liver"), ["difference", "low", "high"]] = np.nan
    texts = list_texts(plot_model_gaps(table, "dice"))
    assert "Not compared, too few people: BMI (m and long_model_name on liver)" in texts
    assert "There are not two models" in list_texts(plot_model_gaps(table, "nsd"))


def test_no_text_is_smaller_than_eleven_points():
    disparity = make_disparity()
    for figure in (
        plot_gap_over_mean(make_groups(disparity), disparity, "dice"),
        plot_model_gaps(make_model_gaps(), "dice"),
    ):
        assert figure.layout.font.size >= 11
        for annotation in figure.layout.annotations:
            assert annotation.font.size is None or annotation.font.size >= 11
        json.loads(figure.to_json())


def test_table_for_reading_joins_intervals_words_verdicts_and_keeps_units():
    table = make_disparity(("hd95_mm",)).iloc[[0, 2]].assign(p=[0.0000004, np.nan])
    page = style_table(
        table, ["organ", "metric", "attribute", "gap", "gap_low", "gap_high", "p", "verdict"], alpha=0.05
    ).to_html()
    page = page.replace("\u00a0", " ")
    assert "0.01 mm (0.00 to 0.03 mm)" in page
    assert "&lt; 0.001" in page and "gap low" not in page
    assert "▲ disparity" in page and Verdict.DISPARITY.colour in page
    assert "– not compared" in page
    assert "95 % Hausdorff distance" in page


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
    first, second = (style_table(table, ["worst_group", "n"]).to_html() for _ in range(2))
    assert first == second and "<script>" not in first
    with pytest.raises(SegfairError, match="nonsense"):
        style_table(table, ["nonsense"])
    with pytest.raises(SegfairError, match="alpha"):
        style_table(table, ["verdict"])


def test_an_empty_table_for_reading_is_a_sentence():
    page = style_table(make_disparity().iloc[:0], ["organ", "verdict", "gap"], alpha=0.05)._repr_html_()
    assert page == "<p>There is nothing to list here.</p>"
