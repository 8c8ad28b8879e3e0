"""Real scores, labels permuted: how often an interval leaves out 0 where groups cannot differ.

    python -m tests.calibration.real_scores [--permutations 40]

Takes the published scores of `params/touchstone.yaml` (19 models, 9 organs), as skewed and as full
of failures as real ones are, and deals the people's labels out anew. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from helpers import cohort, performance
from helpers.fairness import average_subjects
from helpers.fairness.group_comparison import compare_attribute
from helpers.fairness.score_matrix import AttributeScores, Scores
from helpers.statistics.bootstrap import make_generator
from helpers.study import load_study

LIMIT, DRAWS, LEAST = 0.06, 500, 20


def load_people(folder: Path) -> tuple[pd.DataFrame, Scores, list[str]]:
    """Read the scores, a row per person, model and organ, with the person's groups."""
    study = load_study("params/touchstone.yaml", {"outputs": str(folder), "fairness.min_group": LEAST})
    cohort.build_cohort(study)
    performance.measure_performance(study)
    attributes = list(study.parameters.cohort.attributes)
    people, _ = average_subjects(study.read("metrics"), study.read_included(), attributes, ["dice"])
    return people, Scores.spread(people, ["dice"]), attributes


def count_misses(
    people: pd.DataFrame, scores: Scores, attribute: str, permutations: int, seed: int
) -> tuple[int, int, np.ndarray]:
    """Return intervals that leave out 0, intervals, and the share of each permutation."""
    settings = load_study("params/touchstone.yaml").parameters.fairness.model_copy(update={"bootstrap": DRAWS})
    first = people.drop_duplicates("subject")
    column, generator = f"group_{attribute}", make_generator(seed, attribute)
    shares, missed, made = [], 0, 0
    for number in range(permutations):
        dealt = dict(zip(first["subject"], generator.permutation(first[column].to_numpy()), strict=True))
        labels = pd.Categorical(people["subject"].map(dealt), first[column].cat.categories)
        groups = AttributeScores.read(people.assign(**{column: labels}), attribute, scores, LEAST)
        gap = compare_attribute(groups, settings, number).gap
        known = np.isfinite(gap.low) & np.isfinite(gap.high)
        out = known & ((gap.low > 0) | (gap.high < 0))
        missed, made = missed + int(out.sum()), made + int(known.sum())
        shares.append(out.sum() / max(known.sum(), 1))
    return missed, made, np.array(shares)


def main() -> int:
    """Print the table; 1 where a limit is broken beyond chance."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--permutations", type=int, default=40)
    parser.add_argument("--seed", type=int, default=20240618)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        people, scores, attributes = load_people(Path(folder))
    print("| attribute | intervals | leave out 0 | Monte-Carlo s.e. | limit |\n|---|---:|---:|---:|---|")
    broken = False
    for attribute in attributes:
        _, made, shares = count_misses(people, scores, attribute, chosen.permutations, chosen.seed)
        # Rows of one permutation share their people: only permutations are independent.
        error = shares.std(ddof=1) / np.sqrt(len(shares))
        broken |= bool(shares.mean() > LIMIT + 2.6 * error)
        found = f"{100 * shares.mean():.1f} % | {100 * error:.1f} | at most {100 * LIMIT:.0f} %"
        print(f"| {attribute} | {made} | {found} |", flush=True)
    return int(broken)


if __name__ == "__main__":
    sys.exit(main())
