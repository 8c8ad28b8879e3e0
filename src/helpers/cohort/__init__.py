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
from helpers.cohort.proposal import write_audit_file
from helpers.cohort.scores import ScoreTable, match_scans, read_scores
from helpers.cohort.sources import SOURCES
from helpers.cohort.starting import write_study_file
