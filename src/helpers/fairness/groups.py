"""People in groups: one row per subject, one value per group."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import pandas as pd

from helpers.errors import SegfairError
from helpers.parameters import RESERVED_ORGAN
from helpers.vocabulary.words import ALL_MODELS, count

POOLED = RESERVED_ORGAN  # the organ's name in rows that pool a subject's organs
EXPECTED = "dice_expected"
_SUMMED = ("mean", "mean_masked", "sd", "ci_low", "ci_high")  # a group's numbers that tell a sum over its people


def average_groups(groups: pd.DataFrame) -> pd.DataFrame:
    """Return the means over people that rows of groups.csv make up, of the groups that are shown.

    One row per model, organ, metric and attribute: ``n`` people and their mean, ``overall``.
    """
    keys = ["model", "organ", "metric", "attribute"]
    shown = groups[groups["mean"].notna()]
    shown = shown.assign(total=shown["mean"] * shown["n"])
    sums = shown.groupby(keys, as_index=False, sort=False)[["total", "n"]].sum()
    return sums.assign(overall=sums["total"] / sums["n"]).drop(columns="total")


def average_subjects(
    metrics: pd.DataFrame,
    cohort: pd.DataFrame,
    attributes: Sequence[str],
    names: Sequence[str],
    *,
    pooled_models: Collection[str] = (),
) -> tuple[pd.DataFrame, list[str]]:
    """Average every subject's scans, attach the groups, and pool over organs, and over models.

    A SegfairError where a column is missing; a scan of `metrics` is not in `cohort`, or twice
    there; ids are numbers in one table and text in the other.

    Parameters
    ----------
    metrics : DataFrame
        One row per scan, model and organ: subject, scan, model, organ and the columns in `names`.
    cohort : DataFrame
        One row per scan: subject, scan, number and ``group_<attribute>`` (categories; missing is
        NA).
    attributes, names : sequence of str
        Attributes and metrics to keep. ``dice_expected`` and ``boundary_error_mm`` are kept when
        there.
    pooled_models : collection of str
        Where two or more of them are there, rows of the model :data:`ALL_MODELS` come first: each
        subject's mean over those that have any value of the organ and metric (two at least), for
        the subjects who have a value of every one of them.

    Returns
    -------
    people : DataFrame
        One row per model, organ and subject: model, organ, subject, number (of the first scan),
        scans, organs_measured (organs with a value of any metric), the metrics,
        ``group_<attribute>``. ``volume_error_ml`` is the mean *absolute* error: over- and
        under-segmentation are both errors. Where there are several organs, rows with organ
        ``"all"`` hold their mean (see Notes).
    notes : list of str
        What had to be decided, in sentences.

    Notes
    -----
    How organs are pooled: docs/METHODS.md, section 4. With one missing, the subject is not favoured
    or punished for lacking a hard or an easy organ.
    """
    names = list(dict.fromkeys(names))
    groups = [f"group_{attribute}" for attribute in attributes]
    _check_columns(metrics, ["subject", "scan", "model", "organ", *names], "metrics")
    _check_columns(cohort, ["subject", "scan", "number", *groups], "cohort")
    kept = list(dict.fromkeys([*names, *(name for name in (EXPECTED, "boundary_error_mm") if name in metrics)]))
    check_keys(metrics, cohort)
    scored, infinite = drop_infinite(metrics[["subject", "scan", "model", "organ", *kept]].copy(), kept)
    if "volume_error_ml" in kept:
        scored["volume_error_ml"] = scored["volume_error_ml"].abs()
    known = cohort[["subject", "scan"]]
    joined = scored.merge(known, on=["subject", "scan"], how="left", validate="many_to_one", indicator=True)
    lost = joined.loc[joined["_merge"] != "both", "scan"].nunique()
    if lost:
        raise SegfairError(f"metrics has {lost} scans that the cohort does not have: run 03_performance again")
    subjects, notes = group_subjects(cohort, attributes)
    notes = [*infinite, *notes]
    keys = ["model", "organ", "subject"]
    # Order of models and organs as first met, so that tables and figures keep the parameter file's.
    models, organs = (list(scored[name].unique()) for name in ("model", "organ"))
    people = scored.groupby(keys, as_index=False, observed=True)[kept].mean()
    if len(set(pooled_models) & set(models)) > 1:
        pooled, incomplete = _pool_models(people[people["model"].isin(pooled_models)], kept)
        if incomplete:
            notes.append(
                f'{incomplete} subjects lack a value of some model; rows of "{ALL_MODELS}" are of those who have a '
                "value of every model that has any, organ by organ and metric by metric"
            )
        people, models = pd.concat([pooled, people], ignore_index=True), [ALL_MODELS, *models]
    people["organs_measured"] = people[names].notna().any(axis=1).astype(int)
    if len(organs) > 1:
        pooled, incomplete = _pool_organs(people, kept)
        people = pd.concat([people, pooled], ignore_index=True)
        if incomplete:
            notes.append(
                f'{incomplete} subjects lack a value for at least one organ; their "{POOLED}" value is the mean over '
                "the organs they have, after allowing for each organ's own mean"
            )
    people = people.merge(subjects, on="subject", how="left", validate="many_to_one")
    order = {name: place for place, name in enumerate([*organs, POOLED])}
    places = pd.DataFrame(
        {
            "model": people["model"].map({name: place for place, name in enumerate(models)}),
            "organ": people["organ"].map(order),
            "number": people["number"],
        }
    )
    people = people.loc[places.sort_values(["model", "organ", "number"], kind="stable").index].reset_index(drop=True)
    return people[["model", "organ", "subject", "number", "scans", "organs_measured", *kept, *groups]], notes


def read_covariates(cohort: pd.DataFrame, subjects: Sequence[str] | np.ndarray, names: Sequence[str]) -> pd.DataFrame:
    """Return what is known of every subject, (subjects, names), from the first scan that has it.

    `cohort` has one row per scan: subject, number and the columns in `names`; a SegfairError where
    one is missing. Indexed by subject; missing where unknown.
    """
    names = list(dict.fromkeys(names))
    _check_columns(cohort, ["subject", "number", *names], "cohort")
    ordered = cohort.sort_values("number", kind="stable")
    ordered = ordered.assign(subject=ordered["subject"].astype(str))
    first = {
        name: ordered.loc[ordered[name].notna(), ["subject", name]]
        .drop_duplicates("subject")
        .set_index("subject")[name]
        for name in names
    }
    index = pd.Index(subjects, name="subject")
    return pd.DataFrame({name: column.reindex(index) for name, column in first.items()}, index=index)


def hide_small_groups(people: pd.DataFrame, metric: str, attribute: str, min_group: int) -> pd.DataFrame:
    """Return people without the label of their group where too few of it were measured.

    In each model and organ of `people` (:func:`average_subjects`), groups with fewer than
    `min_group` values of the metric lose their name. So do all others where those are together
    fewer: another attribute shows everybody, and who is lacking here would be known to be of a
    small group. Rows stay, and the order of categories, so that absent groups can be named.
    """
    column = f"group_{attribute}"
    place, labels = [people["model"], people["organ"]], people[column].astype(object)
    measured = people[metric].notna()
    small = measured.groupby([*place, labels]).transform("sum") < min_group
    hidden = (measured & small & people[column].notna()).groupby(place).transform("sum")
    return people.assign(**{column: people[column].mask(small | hidden.between(1, min_group - 1))})


def hide_remainders(table: pd.DataFrame, keys: Sequence[str], min_group: int) -> pd.DataFrame:
    """Empty means from which that of a hidden group would follow.

    The sum over everybody follows from an attribute whose groups are all shown; less those of the
    groups shown here, it would be that of fewer than `min_group` people. What compares groups, and
    medians, stay.

    `table` is groups.csv or one like it: ``n`` people, ``suppressed``, and numbers of a group;
    `keys` are the columns that name a comparison.
    """
    people = table["n"].fillna(0).where(table["suppressed"].fillna(False).astype(bool), 0)
    hidden = people.groupby([table[key] for key in keys], dropna=False, sort=False).transform("sum")
    beside = hidden.between(1, min_group - 1)
    return table.assign(**{name: table[name].mask(beside) for name in _SUMMED if name in table})


def list_groups(column: pd.Series) -> list[str]:
    """Return a column's groups in their order: the categories, or the sorted values."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        return [str(name) for name in column.cat.categories]
    return sorted(str(name) for name in column.dropna().unique())


def number_groups(column: pd.Series) -> tuple[list[str], np.ndarray]:
    """Return a column's groups, and each row's place among them, int64; −1 where unknown."""
    names = list_groups(column)
    places = {name: place for place, name in enumerate(names)}
    return names, np.array([-1 if pd.isna(name) else places[str(name)] for name in column], np.int64)


def summarise_group(values: np.ndarray) -> dict[str, np.ndarray]:
    """Summarise one group's subjects, (subjects, columns), NaN where a subject has no value.

    n (subjects with a value), mean, sd (n − 1), median, q1, q3 (linear interpolation), (columns,)
    each; NaN where there are too few values.
    """
    counts = np.isfinite(values).sum(axis=0)
    result = {"n": counts}
    for name in ("mean", "sd", "median", "q1", "q3"):
        result[name] = np.full(values.shape[1], np.nan)
    some, several = counts > 0, counts > 1
    if some.any():
        part = values[:, some]
        result["mean"][some] = np.nanmean(part, axis=0)
        for name, quantile in zip(("q1", "median", "q3"), np.nanquantile(part, [0.25, 0.5, 0.75], axis=0), strict=True):
            result[name][some] = quantile
    if several.any():
        result["sd"][several] = np.nanstd(values[:, several], axis=0, ddof=1)
    return result


def find_changing(cohort: pd.DataFrame, attribute: str) -> list[str]:
    """Return the subjects whose scans are in several of an attribute's groups, sorted."""
    known = cohort.loc[cohort[f"group_{attribute}"].notna(), ["subject", f"group_{attribute}"]].drop_duplicates()
    return sorted(known.loc[known["subject"].duplicated(), "subject"].unique())


def average_worst(values: np.ndarray, sign: np.ndarray) -> np.ndarray:
    """Return the mean of the worst 5 % of people, rounded up to whole ones, of every column.

    `values` are float64, (subjects, columns), NaN where a subject has none; `sign`, (columns,), is
    +1 where higher is better, else −1. NaN without a value.
    """
    worst_first = np.sort(values * sign, axis=0)  # NaN last
    count = -(-np.isfinite(values).sum(axis=0) // 20)
    taken = np.arange(len(values))[:, None] < count
    with np.errstate(invalid="ignore"):
        return sign * np.where(taken, worst_first, 0.0).sum(axis=0) / np.where(count > 0, count, np.nan)


def group_subjects(cohort: pd.DataFrame, attributes: Sequence[str]) -> tuple[pd.DataFrame, list[str]]:
    """Return one row per subject: number of the first scan, and groups.

    Who has scans in several groups of an attribute belongs to none of them: which one they came to
    first says nothing of them.
    """
    ordered = cohort.sort_values("number", kind="stable")
    by_subject = ordered.groupby("subject", sort=False)
    subjects = by_subject.agg(number=("number", "first"), scans=("scan", "nunique")).reset_index()
    notes = []
    repeated = int((subjects["scans"] > 1).sum())
    if repeated:
        have = count(repeated, "subject has", "subjects have")
        notes.append(f"{have} several scans: each counts once, with the mean of their scans")
    for attribute in attributes:
        column = ordered[f"group_{attribute}"]
        known = ordered.loc[column.notna(), ["subject", f"group_{attribute}"]].drop_duplicates()
        changed = known.loc[known["subject"].duplicated(), "subject"].nunique()
        one = known[~known["subject"].duplicated(keep=False)]
        subjects = subjects.merge(one, on="subject", how="left", validate="one_to_one")
        if changed:
            notes.append(
                f"{changed} subjects have scans in several {attribute} groups and take no part in comparisons of "
                f"people by {attribute}"
            )
        missing = int(subjects[f"group_{attribute}"].isna().sum()) - changed
        if missing:
            notes.append(f"{missing} subjects have no known {attribute} group and take no part in its comparisons")
    return subjects, notes


def _pool_models(people: pd.DataFrame, names: list[str]) -> tuple[pd.DataFrame, int]:
    """Return rows that average each subject's models, and how many subjects lack one somewhere."""
    whole = people.groupby(["organ", "subject"], observed=True)[names]
    measured = people[names].notna().groupby([people["model"], people["organ"]], observed=True).any()
    models = measured.groupby("organ", observed=True).sum()
    counts, means = whole.count(), whole.mean()
    needed = models.reindex(counts.index.get_level_values("organ")).set_axis(counts.index)
    pooled = means.where((counts == needed) & (needed > 1)).dropna(how="all").reset_index()
    lacking = ((counts < needed) & (counts > 0)).any(axis=1)
    incomplete = lacking[lacking].index.get_level_values("subject").nunique()
    return pooled.assign(model=ALL_MODELS)[list(people)], int(incomplete)


def _pool_organs(people: pd.DataFrame, names: list[str]) -> tuple[pd.DataFrame, int]:
    """Return rows that pool each subject's organs, and how many subjects lack one."""
    organ_means = people.groupby(["model", "organ"], observed=True)[names].transform("mean")
    grand = people.groupby(["model", "organ"], observed=True)[names].mean().groupby("model").mean()
    centred = people[names] - organ_means
    pooled = centred.groupby([people["model"], people["subject"]], observed=True).mean().reset_index()
    pooled[names] += grand.reindex(pooled["model"])[names].to_numpy()
    measured = people.groupby(["model", "subject"], observed=True)["organs_measured"].sum()
    pooled["organs_measured"] = measured.reindex(pd.MultiIndex.from_frame(pooled[["model", "subject"]])).to_numpy()
    pooled["organ"] = POOLED
    organs = people["organ"].nunique()
    incomplete = pooled.loc[pooled["organs_measured"] < organs, "subject"].nunique()
    return pooled, int(incomplete)


def check_keys(metrics: pd.DataFrame, cohort: pd.DataFrame) -> None:
    """Refuse tables whose rows cannot be matched scan by scan.

    A SegfairError where ids are numbers in one table and text in the other, a scan has two rows in
    `cohort`, or an organ or a model has the name of the pooled rows.
    """
    for column in ("subject", "scan"):
        kinds = ["numbers" if pd.api.types.is_numeric_dtype(table[column]) else "text" for table in (metrics, cohort)]
        if kinds[0] != kinds[1]:
            raise SegfairError(
                f"{column} holds {kinds[0]} in metrics and {kinds[1]} in cohort: "
                "read it as text in both (dtype str), which keeps leading zeros"
            )
    _refuse_repeated(cohort, ["subject", "scan"], "cohort", "scan")
    if (metrics["organ"] == POOLED).any():
        raise SegfairError(f"metrics has an organ called {POOLED!r}, which names all organs pooled: call it otherwise")
    if (metrics["model"] == ALL_MODELS).any():
        raise SegfairError(
            f"metrics has a model called {ALL_MODELS!r}, which names all models pooled: call it otherwise"
        )


def refuse_repeated_scores(metrics: pd.DataFrame) -> None:
    """Refuse a table that scores a scan, model and organ twice: their mean is of no one thing."""
    _refuse_repeated(metrics, ["subject", "scan", "model", "organ"], "metrics", "scan, model and organ")


def drop_infinite(metrics: pd.DataFrame, names: Sequence[str]) -> tuple[pd.DataFrame, list[str]]:
    """Make infinite values missing: some programs write them for the distance to an empty mask.

    Returns the table, a copy where there were any in the columns `names`, and in sentences how many
    in each.
    """
    infinite = metrics[list(names)].isin([np.inf, -np.inf])
    counts = infinite.sum()
    notes = [
        f"{name}: {count} infinite value{'s count' if count > 1 else ' counts'} as missing"
        for name, count in counts[counts > 0].items()
    ]
    if not notes:
        return metrics, notes
    return metrics.assign(**{name: metrics[name].mask(infinite[name]) for name in names}), notes


def _refuse_repeated(table: pd.DataFrame, keys: list[str], name: str, what: str) -> None:
    again = table.duplicated(keys)
    if again.any():
        first = ", ".join(str(value) for value in table.loc[again, keys[1:]].iloc[0])
        raise SegfairError(
            f"{name} has more than one row for a {what} ({int(again.sum())} too many; the first: {first}): "
            "keep one row for each"
        )


def _check_columns(table: pd.DataFrame, columns: Sequence[str], name: str) -> None:
    missing = [column for column in columns if column not in table]
    if missing:
        raise SegfairError(
            f"{name} lacks {', '.join(missing)}: run the earlier stages again with the present parameter file"
        )
