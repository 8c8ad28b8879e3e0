"""A cohort's masks → metrics.parquet, the fairness tables and those of agreement."""

from helpers.performance.agreement import write_agreement
from helpers.performance.comparison import compare_folders
from helpers.performance.effort import write_effort
from helpers.performance.losses import load_failures, load_missing, load_volumes
from helpers.performance.paper import write_paper
from helpers.performance.stage import (
    AUDIT_TABLES,
    add_expected_dice,
    count_statuses,
    label_audit,
    list_failures,
    load_people,
    measure_performance,
    write_audit,
)

__all__ = [
    "AUDIT_TABLES",
    "add_expected_dice",
    "compare_folders",
    "count_statuses",
    "label_audit",
    "list_failures",
    "load_failures",
    "load_missing",
    "load_people",
    "load_volumes",
    "measure_performance",
    "write_agreement",
    "write_audit",
    "write_effort",
    "write_paper",
]
