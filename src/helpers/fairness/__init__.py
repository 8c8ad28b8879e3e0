"""Groups of people and their scores → how far apart the groups are, and how surely.

Knows nothing of images, models or files: tables in, tables out. The *subject* is the statistical unit
throughout: several scans of one person are averaged first, and subjects are what is resampled.
"""

from helpers.fairness.agreement import ANNOTATORS, Agreement, audit_agreement
from helpers.fairness.audit import Audit, audit
from helpers.fairness.disparity import (
    HIGHER_IS_BETTER,
    UNIT_INTERVAL_METRICS,
    measure_equity_scaled,
    measure_skewed_error_ratio,
)
from helpers.fairness.groups import POOLED, average_subjects, hide_small_groups

__all__ = [
    "ANNOTATORS",
    "HIGHER_IS_BETTER",
    "POOLED",
    "UNIT_INTERVAL_METRICS",
    "Agreement",
    "Audit",
    "audit",
    "audit_agreement",
    "average_subjects",
    "hide_small_groups",
    "measure_equity_scaled",
    "measure_skewed_error_ratio",
]
