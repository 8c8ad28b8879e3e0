"""Figures on agreement: every number of the table is in the figure, with its group, organ and n."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from helpers.figures.fairness_agreement import plot_against_annotators, plot_agreement

ORGANS = ("kidney_left", "kidney_right")


def make_groups(kind: str, models: tuple[str, ...]) -> pd.DataFrame:
    rows = []
    for place, (model, organ) in enumerate((model, organ) for model in models for organ in ORGANS):
        for attribute, names in (("sex", ("female", "male")), ("age", ("young", "old"))):
            for number, name in enumerate(names):
                mean = 0.9 + 0.01 * place + 0.001 * number
                hidden = name == "old"
                rows.append(
                    {
                        "kind": kind,
                        "model": model,
                        "organ": organ,
                        "metric": "dice",
                        "attribute": attribute,
                        "group": name,
                    }
                    | {"n": 3 if hidden else 20, "mean": float("nan") if hidden else mean, "suppressed": hidden}
                    | {"ci_low": mean - 0.02, "ci_high": mean + 0.02}
                )
    return pd.DataFrame(rows)


def make_against() -> pd.DataFrame:
    rows = []
    for place, (model, organ) in enumerate((model, organ) for model in ("a", "b") for organ in ORGANS):
        gap = 0.02 + 0.01 * place
        rows.append(
            {"model": model, "organ": organ, "metric": "dice", "attribute": "sex", "n": 40, "best_group": "male"}
            | {"worst_group": "female", "gap": gap, "gap_low": gap - 0.01, "gap_high": gap + 0.01}
            | {"annotators_gap": -0.01, "annotators_low": -0.02, "annotators_high": 0.0}
            | {"difference": gap + 0.01, "low": gap, "high": gap + 0.02, "p": 0.01, "p_adjusted": 0.04}
        )
    return pd.DataFrame(rows)


def list_marks(figure, name: str) -> list[tuple[float, str]]:
    """Return (x, row's label) of the marks of one name."""
    labels = figure.layout.yaxis.ticktext
    return [
        (x, labels[round(y)])
        for trace in figure.data
        if trace.name.startswith(name)
        for x, y in zip(trace.x, trace.y, strict=True)
    ]


def test_agreement_shows_every_group_and_names_what_is_too_small():
    figure = plot_agreement(make_groups("annotators", ("between annotators",)), "annotators")
    assert list_marks(figure, "sex: female") == [
        (pytest.approx(0.90), "left kidney"),
        (pytest.approx(0.91), "right kidney"),
    ]
    assert list_marks(figure, "age: old") == [] and list_marks(figure, "age: young")
    assert "age old" in figure.layout.annotations[-1].text
    assert "n = 20" in figure.data[0].customdata[0] and figure.data[0].name == "sex: female, n = 20"
    json.loads(figure.to_json())


def test_models_are_named_where_there_are_several():
    figure = plot_agreement(make_groups("prompts", ("sam", "medsam")), "prompts")
    assert [row for _, row in list_marks(figure, "sex: male")] == [
        "left kidney<br>sam",
        "right kidney<br>sam",
        "left kidney<br>medsam",
        "right kidney<br>medsam",
    ]


def test_what_is_absent_is_said():
    groups = make_groups("annotators", ("between annotators",))
    assert "drawn once" in plot_agreement(groups, "prompts").layout.annotations[0].text
    assert "annotator: true" in plot_agreement(groups.iloc[:0], "annotators").layout.annotations[0].text
    assert "needs a reference" in plot_agreement(groups, "annotators", "precision").layout.annotations[0].text
    hidden = groups.assign(mean=float("nan"))
    assert "large enough" in plot_agreement(hidden, "annotators").layout.annotations[0].text
    assert "annotator: true" in plot_against_annotators(make_against().iloc[:0], "dice").layout.annotations[0].text
    assert "large enough" in plot_against_annotators(make_against(), "nsd").layout.annotations[0].text


def test_models_gaps_stand_beside_the_annotators():
    figure = plot_against_annotators(make_against(), "dice")
    assert [x for x, _ in list_marks(figure, "the model's gap")] == pytest.approx([0.02, 0.03, 0.04, 0.05])
    assert [x for x, _ in list_marks(figure, "the annotators' gap, same two groups")] == pytest.approx([-0.01] * 4)
    assert figure.layout.annotations[0].text == "sex, n = 40"
    first = next(trace for trace in figure.data if trace.name == "the model's gap")
    assert list(first.error_x.array) == pytest.approx([0.01] * 4)
    assert "best: male, worst: female" in first.customdata[0] and "adjusted p = 0.040" in first.customdata[0]
    assert "−0.010" in first.customdata[0], "a minus sign, not a hyphen"
