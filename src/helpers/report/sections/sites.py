"""Where people come in clusters: what sites have in common, and what scores vary by."""

from __future__ import annotations

import pandas as pd

from helpers.report.blocks import Block, Heading, ReportTable, Text
from helpers.report.outputs import Outputs
from helpers.report.sentences.gaps import name_best, name_worst
from helpers.vocabulary.measures import find_measure
from helpers.vocabulary.words import (
    compare_p,
    count,
    format_estimate,
    format_interval,
    format_number,
    format_share,
    is_known,
    name_for_people,
    name_organ,
)

_KEY = ["model", "organ", "metric", "attribute"]
_MOST_OPEN = 12
_SHARES = {"sites_share": "Between sites", "people_share": "Between people of a site", "models_share": "Between models"}


def compose_sites(outputs: Outputs) -> list[Block]:
    """Compose each comparison over sites and the shares of variance; nothing without clusters."""
    site, metric, summary = outputs.parameters.cohort.cluster, outputs.main_metric, outputs.site_summary
    if site is None or outputs.disparity is None:
        return []
    blocks = [*_share_variance(outputs.variance, metric)]
    if summary is not None and len(summary):
        rows = summary[summary["metric"] == metric].merge(outputs.disparity[[*_KEY, "best_group", "worst_group"]])
        blocks = [*_summarise(rows, metric, outputs.parameters.fairness.alpha), *blocks]
    why = (
        f"People come from several sites (“{name_for_people(site)}”), and those of one site are alike: the errors of "
        "all gaps allow for it."
    )
    return [Heading("Does it hold at every site?"), Text(why), *blocks]


def _summarise(rows: pd.DataFrame, metric: str, alpha: float) -> list[Block]:
    if rows.empty:
        return [Text("No comparison has enough people of both groups at three sites or more.")]
    differ = int((rows["p_heterogeneity"] <= alpha).sum())
    said = (
        f"Of {count(len(rows), 'comparison')} with enough people of both groups at three sites or more, sites differ "
        f"in their gap beyond chance in {differ or 'none'} (Cochran’s Q, p at most {alpha:g}, not adjusted for the "
        "number of comparisons)."
    )
    table = pd.DataFrame(
        {
            "Model": row["model"],
            "Organ": name_organ(row["organ"]),
            "By": name_for_people(str(row["attribute"])),
            "Worse for": f"{name_worst(row)} than {name_best(row)}",
            "Sites": row["sites"],
            "Mean gap over sites (95 % CI)": format_estimate(row["gap"], row["low"], row["high"], metric),
            "At another site (95 %)": format_interval(row["new_low"], row["new_high"], metric),
            "SD between sites": format_number(row["between_sd"], metric),
            "p, sites alike": compare_p(row["p_heterogeneity"]),
        }
        for row in rows.sort_values("p_heterogeneity", kind="stable").to_dict("records")
    )
    caption = (
        f"Gap in {find_measure(metric).name} over sites: the random-effects mean of the sites’ own gaps, and the range "
        "in which the gap of another site is likely to lie"
    )
    return [Text(said), ReportTable(caption, table, numeric=tuple(table)[4:], folded=len(table) > _MOST_OPEN)]


def _share_variance(variance: pd.DataFrame | None, metric: str) -> list[Block]:
    """Return what scores vary by, where sites have a share."""
    if variance is None or variance.empty:
        return []
    rows = variance[(variance["metric"] == metric) & variance["sites_share"].map(is_known)]
    if rows.empty:
        return []
    table = pd.DataFrame(
        {"Organ": name_organ(row["organ"]), "People": row["n"]}
        | {title: format_share(round(row[name], 3)) for name, title in _SHARES.items()}
        | {"Rest": format_share(round(row["rest_share"], 3))}
        for row in rows.to_dict("records")
    )
    caption = f"What the {find_measure(metric).name} of a model on a person varies by: shares of the variance"
    return [ReportTable(caption, table, numeric=tuple(table)[1:])]
