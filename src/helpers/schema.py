"""The tables are the interface: one record per table and per stage; the rest derives.

Paths, column types, what a stage reads and writes, which part of the parameter file and of the code
its results depend on, and docs/TABLES.md are all taken from here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from helpers.vocabulary.measures import MEASURES, list_symmetric
from helpers.vocabulary.verdicts import Verdict
from helpers.vocabulary.words import ALL_MODELS

Kind = Literal["text", "number", "count", "flag"]


@dataclass(frozen=True)
class Column:
    """One column, or a family of them."""

    name: str  # ``<attribute>``, ``<group>`` and ``<organ>`` stand for the study's own names
    # Text is empty, never missing, where nothing was said; numbers are float64; counts are int64
    # where all are known; flags are True or False.
    kind: Kind
    meaning: str

    def holds(self, name: str) -> bool:
        """Tell whether a column of a file is this one."""
        pattern = re.sub(r"<\w+>", ".+", self.name)
        return self.name == name or (pattern != self.name and re.fullmatch(pattern, name) is not None)


@dataclass(frozen=True)
class Table:
    """One table that a stage writes."""

    key: str  # its short name: ``study.read(key)``
    path: str  # under the study's folder; ``<model>`` and ``<organ>`` stand for one file each
    made_by: str  # the stage that writes it
    rows: str  # what one row is
    columns: tuple[Column, ...]  # in the order of the file
    identifying: tuple[str, ...] = ()  # columns that can name a person or a place: no report holds them
    always: bool = True  # whether the stage writes it in every study

    @property
    def names(self) -> list[str]:
        """The columns' names."""
        return [column.name for column in self.columns]

    @property
    def dtypes(self) -> dict[str, str]:
        """The columns' pandas types in memory; counts may be missing."""
        types = {"text": "str", "number": "float64", "count": "Int64", "flag": "bool"}
        return {column.name: types[column.kind] for column in self.columns}

    def find_kind(self, name: str) -> Kind:
        """Return the kind of a file's column; a column that we do not know is taken as text."""
        # Whole names before patterns, narrow patterns before wide ones.
        holding = [column for column in self.columns if column.holds(name)]
        return max(holding, key=lambda column: (column.name == name, len(column.name))).kind if holding else "text"


@dataclass(frozen=True)
class Stage:
    """One stage of the pipeline: a notebook and what its results depend on."""

    name: str  # the notebook's
    after: tuple[str, ...]  # the stages whose results it works on
    needs: tuple[str, ...]  # tables without which it can do nothing
    sections: tuple[str, ...]  # the parts of the parameter file that its results depend on
    code: tuple[str, ...]  # the rooms that make its results; what they import counts with them
    needs_masks: bool = False  # whether every model must have gone over the cohort
    of_masks: bool = False  # whether it has nothing to do in a study of ready-made scores
    files: tuple[str, ...] = ()  # what it writes besides tables
    patterns: tuple[str, ...] = ()  # what else it writes, where there is any of it


STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        Stage(
            "01_cohort",
            (),
            (),
            ("name", "seed", "cohort"),
            ("cohort", "demo.phantoms"),
            patterns=("references/**/*.nii.gz",),
        ),
        Stage(
            "02_inference", ("01_cohort",), ("cohort",), ("models", "windows"), ("inference", "models"), of_masks=True
        ),
        Stage(
            "03_performance",
            ("02_inference",),
            ("cohort",),
            ("metrics", "fairness"),
            ("performance",),
            needs_masks=True,
            files=("fairness/paper_table.tex",),
            patterns=("fairness/notes.json",),
        ),
        Stage(
            "04_spatial",
            ("02_inference",),
            ("cohort",),
            ("spatial", "fairness", "metrics"),
            ("spatial",),
            needs_masks=True,
            of_masks=True,
            patterns=("spatial/notes.json", "spatial/*/template.npz", "spatial/*/volumes/**/*.nii.gz"),
        ),
        Stage(
            "05_report",
            ("03_performance", "04_spatial"),
            ("cohort", "metrics", "disparity"),
            ("title", "report"),
            ("report",),
            files=("report.html",),
            patterns=("results.json", "cards/*"),
        ),
    )
}

# Every column that stands in more than one table, or needs no other word there than here.
_COLUMNS: dict[str, tuple[Kind, str]] = {
    "number": ("count", "the scan's number within the study"),
    "subject": ("text", "the person, as recorded"),
    "scan": ("text", "the scan, as recorded"),
    "sex": ("text", "as recorded"),
    "age": ("number", "years"),
    "bmi": ("number", "kg/m²"),
    "modality": ("text", "CT or MR"),
    "reference": ("text", "path of the expert's mask"),
    "image": ("text", "path of the image, if there is one"),
    "<attribute>": ("text", "any other attribute or confounder, as declared"),
    "included": ("flag", "whether the scan is studied"),
    "reason": ("text", "why not"),
    "note": ("text", "what was assumed, or why a value is missing"),
    "group_<attribute>": ("text", "the group, by the parameter file's categories or bins (categorical)"),
    "model": ("text", f"the model's name in the parameter file; `{ALL_MODELS}` averages them per person"),
    "organ": ("text", "the organ's name in the parameter file; `all` pools them"),
    "metric": ("text", "the measure, by its column in metrics.parquet"),
    "attribute": ("text", "the attribute whose groups are compared"),
    "group": ("text", "the group's name"),
    "group_a": ("text", "the first group compared"),
    "group_b": ("text", "the second group compared"),
    "model_a": ("text", "the first model compared"),
    "model_b": ("text", "the second model compared"),
    "annotator_a": ("text", "the first annotator"),
    "annotator_b": ("text", "the second annotator"),
    "kind": ("text", "`annotators`: between two people; `prompts`: between repeated random prompts of one model"),
    "status": ("text", "outcome; `ok` where nothing went wrong"),
    "error": ("text", "a sentence where something is missing, else empty"),
    "n": ("count", "people"),
    "lacking": (
        "count",
        "people without a value although the reference shows the organ: the model missed it, or the scan failed",
    ),
    "n_a": ("count", "people in the first group"),
    "n_b": ("count", "people in the second group"),
    "n_rest": ("count", "people in all other groups"),
    "n_tested": ("count", "people who took part in the test"),
    "n_pairs": ("count", "matched pairs"),
    "n_lost": ("count", "people of the smaller group without a partner"),
    "n_missing": ("count", "people left out because a covariate is missing"),
    "n_rare": ("count", "people left out because few share their level of a covariate"),
    "groups": ("count", "groups compared"),
    "mean": ("number", "mean over people"),
    "sd": ("number", "SD over people"),
    "median": ("number", "median over people"),
    "q1": ("number", "25th percentile"),
    "q3": ("number", "75th percentile"),
    "ci_low": ("number", "95 % confidence interval of the mean"),
    "ci_high": ("number", "its upper end"),
    "low": ("number", "95 % confidence interval of the preceding value"),
    "high": ("number", "its upper end"),
    "suppressed": ("flag", "whether the group has fewer than `fairness.min_group` people"),
    "worst_group": ("text", "the group with the worst mean"),
    "best_group": ("text", "the group with the best mean"),
    "gap": ("number", "how much worse the worst group's mean is than the best one's"),
    "gap_low": ("number", "its 95 % confidence interval"),
    "gap_high": ("number", "its upper end"),
    "es": ("number", "equity-scaled value (FairSeg); `_low`, `_high`: its 95 % confidence interval"),
    "ser": ("number", "skewed error ratio; `_low`, `_high`: its 95 % confidence interval"),
    "es_fairmedfm": ("number", "equity-scaled value (FairMedFM); `_low`, `_high`: its 95 % confidence interval"),
    "sd_groups": ("number", "SD of the groups' means; `_low`, `_high`: its 95 % confidence interval"),
    "test": ("text", "the test's name"),
    "statistic": ("number", "the test's statistic"),
    "p": ("number", "p-value, not adjusted"),
    "p_adjusted": ("number", "p-value adjusted for all tests of the family"),
    "family": ("text", "the set of comparisons adjusted together"),
    "ordered_step": ("number", "mean change of the measure from one ordered group to the next"),
    "p_ordered": ("number", "p-value of that trend over ordered groups"),
    "p_ordered_adjusted": ("number", "adjusted for all such trends of the family"),
    "anova_p": ("number", "p-value of the one-way ANOVA, as in Li et al., not adjusted"),
    "effect": ("text", "the effect size's name"),
    "effect_size": ("number", "its value; `effect_low`, `effect_high`: its 95 % confidence interval"),
    "adjusted_gap": (
        "number",
        "the gap adjusted for confounders; `adjusted_low`, `adjusted_high`: its interval",
    ),
    "direct_gap": (
        "number",
        "the gap adjusted for mediators as well; `direct_low`, `direct_high`: its interval",
    ),
    "adjusted_p": ("number", "p-value of the adjusted gap"),
    "adjusted_n": ("count", "people in that estimate"),
    "expected_gap": ("number", "the part of a Dice gap explained by organ size alone"),
    "excess_gap": ("number", "the rest; `excess_low`, `excess_high`: its 95 % confidence interval"),
    "excess_p": ("number", "p-value of the excess gap"),
    "excess_p_adjusted": ("number", "adjusted for all of them in the family"),
    "margin": ("number", "the largest gap considered unimportant, in the measure's unit"),
    "incomplete": (
        "text",
        "people without a value, of all people, by group (organ missed or scan failed); empty where there are none",
    ),
    "detectable": (
        "number",
        "minimum detectable difference at `fairness.power`; missing where so few people can show none, however large",
    ),
    "verdict": ("text", ", ".join(verdict.value for verdict in Verdict)),
    "unseen_share": (
        "number",
        "where only failures that were not observed prevent equivalence: the largest share of a group they could be",
    ),
    "difference": ("number", "first − second"),
    "told_gap": (
        "number",
        "the gap corrected for its selection as significant; `told_low`, `told_high`: its 95 % confidence interval",
    ),
    "gap_a": ("number", "the first model's gap"),
    "gap_b": ("number", "the second model's gap"),
    "covariates": ("text", "what was adjusted for, separated by `; `"),
    "dropped": ("text", "covariates that could not be used, and why"),
    "warnings": ("text", "why the adjusted gap is uncertain"),
    "covariate": ("text", "the covariate"),
    "level": ("text", "its level, where it is categorical"),
    "mean_a": ("number", "mean (share of a level) in the first group"),
    "mean_b": ("number", "mean (share of a level) in the second group"),
    "mean_a_after": ("number", "the same among matched pairs"),
    "mean_b_after": ("number", "the same among matched pairs"),
    "smd_before": ("number", "standardised mean difference before matching"),
    "smd_after": ("number", "after matching"),
    "variance_ratio_before": ("number", "ratio of variances before matching"),
    "variance_ratio_after": ("number", "after matching"),
    "value": ("number", "the attribute's value"),
    "estimate": ("number", "the measure at that value, adjusted for covariates"),
    "band_low": ("number", "95 % simultaneous band of the whole curve"),
    "band_high": ("number", "its upper end"),
    "nearby": ("count", "people near the value; missing where fewer than `fairness.min_group`"),
    "slope": ("number", "change of the measure per step of the attribute"),
    "slope_low": ("number", "its 95 % confidence interval"),
    "slope_high": ("number", "its upper end"),
    "step": ("number", "the attribute's step"),
    "unit": ("text", "the step's unit"),
    "p_trend": ("number", "p-value of the linear trend"),
    "p_trend_adjusted": ("number", "adjusted for all such trends of the family (Holm's method for max-T)"),
    "p_nonlinear": ("number", "p-value of the departure from a straight line"),
    "additive": ("number", "the cell's mean if the attributes' effects only added up"),
    "pooled": ("number", "the cell's mean, shrunk towards the additive one; `low`, `high`: its interval"),
    "weight": ("number", "weight of the cell's own mean in it, 0 to 1"),
    "cells": ("count", "cells with people"),
    "empty_cells": ("count", "cells without"),
    "suppressed_cells": ("count", "cells with too few people"),
    "between_variance": ("number", "variance between cells beyond the main effects; `_null`: with no main effects"),
    "within_variance": ("number", "variance within cells"),
    "vpc": ("number", "share of the variance that lies between cells; `vpc_null`: with no main effects"),
    "unexplained_share": ("number", "share of the variance between cells that main effects leave"),
    "f": ("number", "F statistic"),
    "df_cells": ("number", "its degrees of freedom"),
    "df_within": ("number", "its degrees of freedom"),
    "p_interaction": ("number", "p-value of the interaction"),
    "annotators_gap": ("number", "the annotators' gap between the same groups; `_low`, `_high`: its interval"),
    "people": ("count", "people with a proxy, with or without an expert's mask"),
    "masks": ("count", "those with an expert's mask"),
    "mean_masked": ("number", "mean over people with masks alone"),
    "gap_masked": ("number", "the same gap from people with masks alone; `_low`, `_high`: Welch's interval"),
    "correlation": ("number", "of proxy and Dice within groups"),
    "worth": ("number", "number of masks that would be as informative without a proxy"),
    "scans": ("count", "scans"),
    "share": ("number", "share of the model's scans with this organ"),
    "meaning": ("text", "what the status means"),
    "measures": ("text", "the measures that still have a value, and which value"),
    "seconds": ("number", "wall-clock time; `read_`, `encode_`, `decode_`, `write_`: of each step"),
    "device": ("text", "where the model ran"),
    "batch": ("count", "slices per batch"),
    "slices": ("count", "slices of the image"),
    "prompts": ("count", "prompts given"),
    "checkpoint_sha256": ("text", "SHA-256 of the weights"),
    "fingerprint": ("text", "hash of everything the mask depends on"),
    "reused": ("flag", "whether the mask is from an earlier run"),
    "agreement": ("number", "mean Dice between the masks of repeated draws of the prompts"),
    "vertex": ("count", "the template's vertex"),
    "x": ("number", "mm, + is left"),
    "y": ("number", "mm, + is posterior"),
    "z": ("number", "mm, + is superior"),
    "t": ("number", "t statistic, with a variance per group"),
    "p_fwer": ("number", "adjusted over the surface by max-T"),
    "p_tfce": ("number", "adjusted over the surface by threshold-free cluster enhancement"),
    "p_fdr": ("number", "Benjamini-Hochberg over the surface"),
    "f_p_fwer": ("number", "the same over all groups together"),
    "miss_p_fwer": ("number", "the same for the misses"),
    "absolute_p_fwer": ("number", "the same for the absolute error"),
    "error_<group>": ("number", "mean signed error (mm, + is over-segmented)"),
    "absolute_<group>": ("number", "mean absolute error (mm)"),
    "miss_<group>": ("number", "share of people whose error exceeds the tolerance"),
    "adjusted_difference": ("number", "the difference adjusted for covariates (mm)"),
    "absolute_difference": ("number", "difference of the absolute errors (mm)"),
    "miss_difference": ("number", "difference of the misses"),
    "absolute_slope": ("number", "slope of the absolute error (mm per step)"),
    "vertices": ("count", "vertices with a value"),
    "significant_fraction": ("number", "share of the surface with `p_fwer` ≤ α; `_tfce` (told in words), `_fdr`"),
    "min_p_fwer": ("number", "smallest p on the surface; also `_tfce`, `_fdr`"),
    "absolute_significant_fraction": ("number", "the same for the absolute error"),
    "min_absolute_p_fwer": ("number", "the same for the absolute error"),
    "miss_significant_fraction": ("number", "the same for the misses"),
    "min_miss_p_fwer": ("number", "the same for the misses"),
    "f_significant_fraction": ("number", "the same over all groups together"),
    "min_f_p_fwer": ("number", "the same over all groups together"),
    "median_difference_mm": ("number", "the median difference in the region, by area (mm)"),
    "median_slope_mm": ("number", "the median slope in the region, by area (mm per step)"),
    "peak_difference_mm": ("number", "the largest difference in the region (95th percentile, mm)"),
    "peak_slope_mm": ("number", "the largest slope in the region (95th percentile, mm per step)"),
    "peak_x": ("number", "where it lies (mm; also `peak_y`, `peak_z`)"),
    "region": ("text", "`significant` (`p_tfce` ≤ α), or `surface` where nothing is"),
    "location": ("text", "where it lies, in words"),
    "permutations": ("count", "permutations behind the p-values"),
    "left_out": ("count", "people left out of the test"),
    "prediction_empty": ("count", "people with at least one scan in which the organ was missed"),
    "error_mm": ("number", "mean signed error over the surface"),
    "absolute_mm": ("number", "mean absolute error over the surface"),
    "miss_fraction": ("number", "share of the surface where the error exceeds the tolerance"),
    "distance_mm": ("number", "mean distance of the registered shape from the template"),
    "prediction_missing": ("text", "models without a mask of the scan"),
    "affine_distance_mm": ("number", "the same after the affine step"),
    "jacobian_min": ("number", "smallest Jacobian determinant of the deformation"),
    "in_view": ("number", "share of the template's surface that the scan shows"),
    "cut": ("flag", "whether the scan's edge cuts the organ"),
    "file": ("text", "the NIfTI file"),
}
_AFTER = re.compile(r"_(low|high|null|tfce|fdr)$|^(read|encode|decode|write)_")


def _find(name: str) -> Column:
    if name in MEASURES:
        measure = MEASURES[name]
        return Column(name, "number", f"{measure.name}, {measure.scale}")
    if name in _COLUMNS:
        return Column(name, *_COLUMNS[name])
    if _AFTER.search(name) or name in ("peak_y", "peak_z"):
        return Column(name, "number", "")
    raise KeyError(f"column {name!r} has no meaning in helpers.schema")


def _describe(key: str, path: str, made_by: str, rows: str, *columns: str | Column, **others: Any) -> Table:
    """Return a table; a string among its columns names one or several, separated by spaces."""
    found: list[Column] = []
    for column in columns:
        found += [column] if isinstance(column, Column) else [_find(name) for name in column.split()]
    return Table(key, path, made_by, rows, tuple(found), **others)


_KEY = "model organ metric attribute"
_GROUPS = f"{_KEY} group n lacking mean sd median q1 q3 ci_low ci_high suppressed"
_GAPS = f"{_KEY} n groups worst_group best_group gap gap_low gap_high"
_SPREAD = (
    "es es_low es_high ser ser_low ser_high es_fairmedfm es_fairmedfm_low es_fairmedfm_high "
    "sd_groups sd_groups_low sd_groups_high"
)
_TESTED = (
    "test family p p_adjusted told_gap told_low told_high ordered_step p_ordered p_ordered_adjusted anova_p "
    "effect effect_size effect_low effect_high "
    "adjusted_gap adjusted_low adjusted_high adjusted_p adjusted_n direct_gap direct_low direct_high"
)
_SIZE = "expected_gap excess_gap excess_low excess_high excess_p excess_p_adjusted"
_JUDGED = "margin detectable verdict incomplete unseen_share note"
_SURFACE = "model organ attribute vertex x y z"
_SURFACE_TEST = "t p p_fwer p_tfce p_fdr n"
_SURFACE_FOUND = (
    "significant_fraction significant_fraction_tfce significant_fraction_fdr min_p_fwer min_p_tfce min_p_fdr p_adjusted"
)
_SURFACE_PLACE = "peak_x peak_y peak_z region location absolute_significant_fraction min_absolute_p_fwer"
_SURFACE_MADE = "permutations covariates left_out note"
_PEOPLE = ("subject", "scan")
_COVARIATE_TEXT = "covariates dropped"

TABLES: dict[str, Table] = {
    table.key: table
    for table in (
        _describe(
            "cohort",
            "cohort.parquet",
            "01_cohort",
            "scan",
            "number subject scan sex age bmi modality reference image <attribute> included reason note",
            Column(
                "resampled",
                "flag",
                "whether the reference was resampled to its image's grid, if the parameters allow it",
            ),
            Column("reference_recorded", "text", "the original path of such a reference, or of a DICOM one"),
            "group_<attribute>",
            identifying=("subject", "scan", "reference", "image", "reference_recorded"),
        ),
        _describe(
            "exclusions",
            "exclusions.csv",
            "01_cohort",
            "scan left out",
            "number scan subject reason",
            Column("kind", "text", "the kind of each reason, without the person's value"),
            identifying=_PEOPLE,
        ),
        _describe(
            "inference",
            "predictions/<model>/inference.parquet",
            "02_inference",
            "scan",
            "model scan status error seconds read_seconds encode_seconds decode_seconds write_seconds device",
            Column("precision", "text", "the model's floating-point precision"),
            "batch slices prompts",
            Column("remark", "text", "how the model deviated from its settings, for example smaller tiles"),
            Column("dropped", "count", "components too small for a prompt"),
            Column(
                "resampled", "flag", "whether the model's mask was on another grid and was resampled to the reference's"
            ),
            "checkpoint_sha256 fingerprint reused",
            identifying=("scan",),
        ),
        _describe(
            "organs",
            "predictions/<model>/organs.parquet",
            "02_inference",
            "scan × organ",
            "model scan organ prompts",
            Column("drawn", "count", "prompts that a person would have drawn; a 3D box counts once"),
            Column("dropped", "count", "components too small for a prompt"),
            "dice agreement",
            Column("not_drawn", "text", "why the model did not segment the organ; empty where it did"),
            identifying=("scan",),
        ),
        _describe(
            "metrics",
            "metrics.parquet",
            "03_performance",
            "scan × model × organ",
            "subject scan number model organ",
            *MEASURES,
            Column("dice_expected", "number", "Dice under the cohort's mean boundary error"),
            Column("extent_mm", "number", "the scan's diagonal, the upper bound of a missed organ's distance"),
            "status error",
            identifying=_PEOPLE,
        ),
        _describe(
            "groups", "fairness/groups.csv", "03_performance", "model × organ × metric × attribute × group", _GROUPS
        ),
        _describe(
            "disparity",
            "fairness/disparity.csv",
            "03_performance",
            "model × organ × metric × attribute",
            _GAPS,
            _SPREAD,
            _TESTED,
            _SIZE,
            _JUDGED,
        ),
        _describe(
            "sites",
            "fairness/sites.csv",
            "03_performance",
            "comparison × site, where people come in clusters",
            _KEY,
            Column(
                "site", "text", "the cluster (`cohort.cluster`), if it has `fairness.min_group` people of both groups"
            ),
            "best_group worst_group n",
            Column("gap", "number", "best − worst group of the whole study, at this site"),
            "low high",
            always=False,
        ),
        _describe(
            "site_summary",
            "fairness/site_summary.csv",
            "03_performance",
            "comparison with three such sites",
            _KEY,
            Column("sites", "count", "sites with a gap of their own"),
            Column("gap", "number", "random-effects mean of the sites' gaps"),
            "low high",
            Column("between_sd", "number", "SD of the true gaps between sites (DerSimonian & Laird)"),
            Column("i2", "number", "share of the gaps' spread that is not chance"),
            Column("p_heterogeneity", "number", "p-value of Cochran's Q: do sites differ in their gap?"),
            Column("new_low", "number", "95 % prediction interval of a new site's gap"),
            Column("new_high", "number", "its upper end"),
            always=False,
        ),
        _describe(
            "variance",
            "fairness/variance.csv",
            "03_performance",
            "organ × metric",
            "organ metric n",
            Column(
                "total_variance",
                "number",
                "variance of the score of one model on one person, in the measure's squared unit",
            ),
            Column("sites_share", "number", "share between sites (`cohort.cluster`); missing without"),
            Column("people_share", "number", "share between people (of one site)"),
            Column("models_share", "number", "share between models"),
            Column("rest_share", "number", "the remaining share"),
        ),
        _describe(
            "ranking",
            "fairness/attribute_ranking.csv",
            "03_performance",
            "metric × attribute",
            "metric attribute",
            Column("comparisons", "count", "of single models and organs, all organs pooled included"),
            Column("disparities", "count", "number of disparities among them"),
            Column("differences", "count", "differences of uncertain size"),
            Column("negligible", "count", "differences within the margin"),
            Column("equivalent", "count", "equivalent: the whole interval within the margin"),
            Column("inconclusive", "count", "none of these"),
            Column("share", "number", "share that is a disparity or a difference"),
            Column("largest_gap_sd", "number", "the largest gap, in SD of people within groups"),
            Column("model", "text", "the gap's"),
            Column("organ", "text", "the gap's"),
        ),
        _describe("tests", "fairness/tests.csv", "03_performance", "comparison × test", _KEY, "test statistic p"),
        _describe(
            "pairs",
            "fairness/pairs.csv",
            "03_performance",
            "comparison × two groups",
            _KEY,
            "group_a group_b test difference low high p",
        ),
        _describe(
            "contrasts",
            "fairness/contrasts.csv",
            "03_performance",
            "comparison × group against the rest",
            _KEY,
            "group n n_rest difference low high",
        ),
        _describe(
            "adjusted_means",
            "fairness/adjusted.csv",
            "03_performance",
            "comparison × group",
            _KEY,
            "group n",
            Column("mean", "number", "mean adjusted for covariates"),
            "low high",
        ),
        _describe(
            "adjusted_notes",
            "fairness/adjusted_notes.csv",
            "03_performance",
            "comparison",
            _KEY,
            _COVARIATE_TEXT,
            "n_missing n_rare warnings note",
            Column("mediators", "text", "the mediators that the direct gap is adjusted for as well"),
            Column("direct_warnings", "text", "why the direct gap is uncertain"),
            Column("direct_note", "text", "why there is no direct gap"),
        ),
        _describe(
            "matching",
            "fairness/matching.csv",
            "03_performance",
            "comparison × two groups",
            _KEY,
            "group_a group_b n_pairs n_lost gap low high p note",
        ),
        _describe(
            "balance",
            "fairness/balance.csv",
            "03_performance",
            "two groups × covariate × level",
            "attribute group_a group_b covariate level mean_a mean_b mean_a_after mean_b_after smd_before smd_after"
            " variance_ratio_before variance_ratio_after suppressed",
        ),
        _describe(
            "trends",
            "fairness/trends.csv",
            "03_performance",
            "comparison × value of the attribute",
            _KEY,
            "value estimate low high band_low band_high nearby",
        ),
        _describe(
            "trend_tests",
            "fairness/trend_tests.csv",
            "03_performance",
            "comparison with a numeric attribute",
            _KEY,
            "n slope slope_low slope_high unit p_trend p_trend_adjusted p_nonlinear",
            _COVARIATE_TEXT,
            "note",
        ),
        _describe(
            "intersections",
            "fairness/intersections.csv",
            "03_performance",
            "model × organ × metric × cell",
            "model organ metric <attribute>",
            Column("n", "text", "people; `< 10` and the like where there are few"),
            "mean additive pooled low high weight suppressed",
        ),
        _describe(
            "intersection_variance",
            "fairness/intersection_variance.csv",
            "03_performance",
            "model × organ × metric",
            "model organ metric n cells empty_cells suppressed_cells between_variance between_variance_null"
            " within_variance vpc vpc_null unexplained_share f df_cells df_within p_interaction note",
        ),
        _describe(
            "model_gaps",
            "fairness/model_gaps.csv",
            "03_performance",
            "organ × metric × attribute × two models",
            "organ metric attribute model_a model_b n gap_a gap_b difference low high p p_adjusted note",
        ),
        _describe(
            "few_masks",
            "fairness/few_masks.csv",
            "03_performance",
            "model × organ × metric × attribute × group",
            f"{_KEY} group people masks mean_masked",
            Column("mean", "number", "mean by prediction-powered inference, from masks and proxies"),
            "ci_low ci_high worth suppressed",
            always=False,
        ),
        _describe(
            "few_masks_gaps",
            "fairness/few_masks_gaps.csv",
            "03_performance",
            "model × organ × metric × attribute",
            f"{_KEY} people masks worst_group best_group gap gap_low gap_high p p_adjusted margin verdict gap_masked "
            "gap_masked_low gap_masked_high correlation worth note",
            always=False,
        ),
        _describe(
            "few_masks_check",
            "fairness/few_masks_check.csv",
            "03_performance",
            "model × organ × metric × attribute × group",
            f"{_KEY} group masks people",
            Column("mean_masked", "number", "mean proxy of people with masks"),
            Column("mean_others", "number", "mean proxy of the others"),
            "p p_adjusted",
            always=False,
        ),
        _describe(
            "effort",
            "fairness/effort.csv",
            "03_performance",
            "model × metric × attribute",
            "model metric attribute",
            Column("drawn", "number", "mean number of prompts that a person would have drawn per scan"),
            "n mean gap gap_low gap_high margin verdict",
        ),
        _describe(
            "statuses",
            "fairness/statuses.csv",
            "03_performance",
            "model × organ × status",
            "model organ status scans share meaning measures",
        ),
        _describe(
            "missing",
            "fairness/missing.csv",
            "03_performance",
            "model × organ × attribute × group, where a model lacks results",
            "model organ attribute group n",
            Column("missing", "count", "people without the expected result"),
            Column("share", "number", "of the group's people"),
            "p p_adjusted suppressed",
        ),
        _describe(
            "absent",
            "fairness/absent.csv",
            "03_performance",
            "organ × attribute × group, where organs are not in the reference",
            "organ attribute group n",
            Column("missing", "count", "people whose reference masks all lack the organ"),
            Column("share", "number", "of the group's people"),
            "p p_adjusted suppressed",
        ),
        _describe(
            "missing_bounds",
            "fairness/missing_bounds.csv",
            "03_performance",
            "comparison, where a model lacks results",
            _KEY,
            "worst_group best_group",
            Column("gap", "number", "as in disparity.csv, from the available results"),
            Column("gap_failed", "number", "between the same groups if missing results counted as the worst value"),
            Column("worst_failed", "text", "the worst group in that case"),
            Column("lowest", "number", "the smallest possible gap between them, whatever the missing results are"),
            Column("highest", "number", "the largest possible one"),
        ),
        _describe(
            "failures",
            "fairness/failures.csv",
            "03_performance",
            "model × organ × kind of failure × attribute × group",
            "model organ",
            Column("metric", "text", "the measure; `missed`: the model segmented nothing of an organ that is there"),
            Column("threshold", "number", "the value beyond which a person's mean is a failure; none for `missed`"),
            "attribute group n",
            Column("failed", "count", "people with a failure; for organ `all`, in any organ"),
            Column("share", "number", "of the group's people"),
            Column("low", "number", "its 95 % confidence interval (Wilson)"),
            "high",
            Column("worst_5", "number", "mean of the metric over the worst 5 % of the group's people (at least one)"),
            Column(
                "worst_group", "text", "the group with the largest share; this and the next columns compare all groups"
            ),
            Column("best_group", "text", "the group with the smallest share"),
            Column("gap", "number", "share of the worst group − share of the best"),
            Column("gap_low", "number", "its 95 % confidence interval (Newcombe)"),
            "gap_high",
            Column("p", "number", "p-value of Fisher's exact test, of Freeman and Halton's for more than two groups"),
            Column("p_adjusted", "number", "adjusted over all failures that are compared by this attribute"),
            Column("margin", "number", "`fairness.failure_margin`"),
            "verdict suppressed",
        ),
        _describe(
            "volumes",
            "fairness/volumes.csv",
            "03_performance",
            "model × organ × attribute",
            "model organ attribute n",
            Column("larger_group", "text", "the group in which the experts' masks are largest"),
            Column("smaller_group", "text", "the group in which they are smallest"),
            Column("reference_gap", "number", "the difference, ml; `_low`, `_high`: its 95 % confidence interval"),
            "reference_gap_low reference_gap_high",
            Column("model_gap", "number", "the same for the model's masks; `_low`, `_high`: its interval"),
            "model_gap_low model_gap_high",
            Column("difference", "number", "model − reference, ml"),
            "low high p",
            Column("p_adjusted", "number", "p of the difference, adjusted for all of them"),
        ),
        _describe(
            "annotators",
            "annotators.parquet",
            "03_performance",
            "scan × organ × two annotators",
            "subject scan number organ annotator_a annotator_b",
            *list_symmetric(),
            "status error",
            identifying=_PEOPLE,
            always=False,
        ),
        _describe(
            "agreement",
            "fairness/agreement.csv",
            "03_performance",
            "kind × comparison",
            "kind",
            _GAPS,
            _SPREAD,
            _TESTED,
            _JUDGED,
        ),
        _describe(
            "agreement_groups",
            "fairness/agreement_groups.csv",
            "03_performance",
            "kind × comparison × group",
            "kind",
            _GROUPS,
        ),
        _describe(
            "against_agreement",
            "fairness/against_agreement.csv",
            "03_performance",
            "comparison",
            _KEY,
            "n best_group worst_group gap gap_low gap_high annotators_gap annotators_low annotators_high difference low"
            " high p p_adjusted",
        ),
        _describe(
            "paper",
            "fairness/paper.csv",
            "03_performance",
            "modality × measure × organ × model × attribute × group",
            "modality",
            Column("metric", "text", "Dice, HD95, or `volume_error_relative`: |error| ÷ reference volume"),
            "organ model",
            Column("attribute", "text", "empty in the rows of everyone"),
            Column("group", "text", "empty in the rows that compare an attribute's groups"),
            "n mean sd median q1 q3",
            Column("worst", "number", "mean of the worst 5 % of people (at least one)"),
            Column("sd_organs", "number", "for all organs: SD of the single organs' means"),
            "anova_p",
            Column("organs", "count", "for all organs: single organs with an ANOVA"),
            Column("not_significant", "number", "share of them with p above `fairness.alpha`"),
            Column("equivalent", "number", "share of them in which every difference is equivalent"),
            "suppressed",
        ),
        _describe(
            "paper_table",
            "fairness/paper_table.csv",
            "03_performance",
            "modality × measure × organ × model, as printed",
            "modality",
            Column("measure", "text", "with its unit; `people` counts them"),
            Column("organ", "text", "the organ, or the name of a summary over organs; empty for people"),
            "model",
            Column("everyone", "text", "mean ± SD of the modality's people; median (quartiles) if a group is hidden"),
            Column("worst 5 %", "text", "mean of the worst 5 % of people"),
            Column("<attribute>: <group>", "text", "mean ± SD of the group"),
            Column("<attribute>: ANOVA p", "text", "p-value of the one-way ANOVA, not adjusted"),
        ),
        _describe(
            "maps",
            "spatial/maps.parquet",
            "04_spatial",
            "model × organ × attribute × vertex",
            _SURFACE,
            "error_<group> absolute_<group> miss_<group> group_a group_b difference adjusted_difference",
            _SURFACE_TEST,
            "absolute_difference absolute_p_fwer miss_difference miss_p_fwer f f_p_fwer",
        ),
        _describe(
            "slopes",
            "spatial/slopes.parquet",
            "04_spatial",
            "model × organ × numeric attribute × vertex",
            _SURFACE,
            "step unit slope",
            _SURFACE_TEST,
            "absolute_slope absolute_p_fwer",
        ),
        _describe(
            "spatial_summary",
            "spatial/summary.csv",
            "04_spatial",
            "model × organ × attribute",
            "model organ attribute group_a group_b n n_a n_b n_tested vertices",
            _SURFACE_FOUND,
            "median_difference_mm peak_difference_mm",
            _SURFACE_PLACE,
            "miss_significant_fraction min_miss_p_fwer f_significant_fraction min_f_p_fwer",
            _SURFACE_MADE,
        ),
        _describe(
            "slope_summary",
            "spatial/slopes.csv",
            "04_spatial",
            "model × organ × numeric attribute",
            "model organ attribute step unit n vertices",
            _SURFACE_FOUND,
            "median_slope_mm peak_slope_mm",
            _SURFACE_PLACE,
            _SURFACE_MADE,
        ),
        _describe(
            "spatial_groups",
            "spatial/groups.csv",
            "04_spatial",
            "model × organ × attribute × group",
            "model organ attribute group n prediction_empty suppressed error_mm absolute_mm miss_fraction",
        ),
        _describe(
            "quality",
            "spatial/<organ>/quality.csv",
            "04_spatial",
            "scan",
            "number distance_mm status reason",
            Column("prediction_empty", "text", "models that missed the organ in this scan"),
            "prediction_missing affine_distance_mm jacobian_min in_view cut",
            always=False,
        ),
        _describe(
            "surface_errors",
            "spatial/<organ>/errors_<model>.parquet",
            "04_spatial",
            "scan × vertex",
            "number vertex",
            Column("error_mm", "number", "signed error; missing outside the field of view"),
            always=False,
        ),
        _describe(
            "spatial_volumes",
            "spatial/volumes.csv",
            "04_spatial",
            "NIfTI volume",
            "organ model attribute group",
            Column("kind", "text", "false positives, false negatives or their difference"),
            "n file",
        ),
    )
}


def list_outputs(stage: str, models: Sequence[str]) -> Iterator[str]:
    """Yield the paths of what a finished stage must have left under the study's folder."""
    for table in TABLES.values():
        if table.made_by == stage and table.always:
            per_model = "<model>" in table.path
            yield from (table.path.replace("<model>", model) for model in (models if per_model else [""]))
    yield from STAGES[stage].files


def list_written(stage: str, models: Sequence[str]) -> Iterator[str]:
    """Yield the patterns of all that a stage writes under the study's folder, in any study."""
    for table in TABLES.values():
        if table.made_by == stage:
            path = table.path.replace("<organ>", "*")
            yield from (path.replace("<model>", model) for model in (models if "<model>" in path else [""]))
    yield from (*STAGES[stage].files, *STAGES[stage].patterns)


def list_identifying() -> tuple[str, ...]:
    """Return every column that can name a person or a place."""
    return tuple(dict.fromkeys(name for table in TABLES.values() for name in table.identifying))


def write_reference() -> str:
    """Return docs/TABLES.md: what one row of each table is, then the columns of each."""
    lines = ["| file | one row per |", "|---|---|"]
    parts = [*lines, *(f"| `{table.path}` | {table.rows} |" for table in TABLES.values()), ""]
    for table in TABLES.values():
        parts += [f"## `{table.path}`", "", f"Made by {table.made_by}, one row per {table.rows}.", ""]
        parts += ["| column | type | meaning |", "|---|---|---|"]
        parts += [
            f"| `{column.name}` | {column.kind} | {column.meaning} |" for column in table.columns if column.meaning
        ]
        parts.append("")
    return "\n".join(parts)
