"""Real scores, labels dealt out anew: how often an interval leaves out 0 where groups cannot
differ."""

from __future__ import annotations

import tempfile
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from helpers import cohort, performance
from helpers.fairness import average_subjects
from helpers.fairness.group_comparison import compare_attribute, hold_zero
from helpers.fairness.score_matrix import AttributeScores, Scores
from helpers.parameters import Fairness
from helpers.statistics.bootstrap import make_generator
from helpers.statistics.permuted_means import permute_means
from helpers.study import load_study
from tests.calibration.questions import DRAWS, PERMUTATIONS, Check, Question, Seen

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data"
ATTRIBUTES = {
    "sex": {"categories": ["female", "male"]},
    "age": {"bins": [0, 50, 65, 80, 120], "unit": "years"},
    "diagnosis": {"categories": ["none", "tumour", "vascular", "trauma", "inflammation"]},
    "manufacturer": {"categories": ["siemens", "ge", "philips"]},
}
LEAST, DEALINGS = 20, 100


@lru_cache(maxsize=1)
def load_people() -> tuple[pd.DataFrame, Scores]:
    """Read the published scores of params/touchstone.yaml, a row per person, model and organ."""
    with tempfile.TemporaryDirectory() as folder:
        changes = {"outputs": folder, "cohort.attributes": ATTRIBUTES, "cohort.confounders": []}
        study = load_study(ROOT / "params" / "touchstone.yaml", changes | {"fairness.min_group": LEAST})
        cohort.build_cohort(study)
        performance.measure_performance(study)
        people, _ = average_subjects(study.read("metrics"), study.read_included(), list(ATTRIBUTES), ["dice"])
    return people, Scores.spread(people, ["dice"])


def see_dealt_labels(name: str, number: int, seed: int) -> list[Seen]:
    """Deal an attribute's labels out anew; it depends on the seed, the attribute and the number
    alone."""
    attribute, (people, scores) = name.removeprefix("real "), load_people()
    first, column = people.drop_duplicates("subject"), f"group_{attribute}"
    labels = make_generator(seed, f"{name} {number}").permutation(first[column].to_numpy())
    dealt = pd.Categorical(
        people["subject"].map(dict(zip(first["subject"], labels, strict=True))), first[column].cat.categories
    )
    groups = AttributeScores.read(people.assign(**{column: dealt}), attribute, scores, LEAST)
    settings = Fairness(metrics=["dice"], min_group=LEAST, bootstrap=DRAWS, margin={"dice": 0.02})
    tested = permute_means([groups.grouped], permutations=PERMUTATIONS, seed=number, smallest_group=LEAST)
    gap = hold_zero(compare_attribute(groups, settings, number), tested.differences.p[0]).gap
    known = np.isfinite(gap.low) & np.isfinite(gap.high)
    return [{"leaves out": float(((gap.low > 0) | (gap.high < 0))[known].mean())}]


def list_real_runs() -> dict[str, int]:
    """Return how often each attribute's labels are dealt out; none where the scores are not at
    hand."""
    present = (DATA / "touchstone_totalsegmentator").is_dir()
    return {f"real {attribute}": DEALINGS for attribute in ATTRIBUTES} if present else {}


def list_real_questions() -> list[Question]:
    """Return the question put to real scores, with its limits."""
    return [
        Question(
            "Real scores, labels dealt out anew",
            "The published Dice of 19 models and 9 organs on 743 people (params/touchstone.yaml), as skewed and as"
            f" full of failures as real ones are. A cohort is one dealing of the labels; groups of {LEAST} people and"
            " more are compared. Left out where the scores are not at hand.",
            [
                Check(f"real {attribute}", "leaves out", f"{attribute}: interval of the gap leaves out 0", high=0.06)
                for attribute in ATTRIBUTES
            ],
        )
    ]
