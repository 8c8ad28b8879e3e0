"""Who is studied: sources of scans, validation, grouping."""

from helpers.cohort.build import CohortCheck, StudyCohort, build_cohort, check_cohort
from helpers.cohort.description import (
    count_confounders,
    count_missing,
    count_overlaps,
    describe_cohort,
    hide_small,
    list_indistinguishable,
)
from helpers.cohort.grouping import group_attribute
from helpers.cohort.proposal import write_audit_file
from helpers.cohort.scores import ScoreTable, list_given_scores, match_scans, read_scores
from helpers.cohort.sources import SOURCES
from helpers.cohort.starting import StartedStudy, write_study_file

__all__ = [
    "SOURCES", "CohortCheck", "ScoreTable", "StartedStudy", "StudyCohort",
    "build_cohort", "check_cohort", "count_confounders", "count_missing",
    "count_overlaps", "describe_cohort", "group_attribute", "hide_small", "list_given_scores",
    "list_indistinguishable", "match_scans", "read_scores", "write_audit_file", "write_study_file",
]  # fmt: skip
