"""Groups of people and their scores → how far apart the groups are, and how surely.

Knows nothing of images, models or files: tables in, tables out. The *subject* is the statistical
unit throughout: several scans of one person are averaged first, and subjects are what is resampled.
"""

from helpers.fairness.agreement import ANNOTATORS, Agreement, audit_agreement
from helpers.fairness.audit import Audit, run_audit
from helpers.fairness.failures import compare_failures
from helpers.fairness.few_masks import compare_few_masks
from helpers.fairness.groups import POOLED, average_subjects, hide_remainders, hide_small_groups
from helpers.fairness.missing import bound_missing, compare_absent, compare_missing
from helpers.fairness.paper import tabulate_paper
from helpers.fairness.planning import plan_from_pilot, plan_groups, plan_masks
from helpers.fairness.studies_compared import StudiesCompared, compare_studies
from helpers.fairness.volumes import compare_volumes

__all__ = [
    "ANNOTATORS",
    "POOLED",
    "Agreement",
    "Audit",
    "StudiesCompared",
    "audit_agreement",
    "average_subjects",
    "bound_missing",
    "compare_absent",
    "compare_failures",
    "compare_few_masks",
    "compare_missing",
    "compare_studies",
    "compare_volumes",
    "hide_remainders",
    "hide_small_groups",
    "plan_from_pilot",
    "plan_groups",
    "plan_masks",
    "run_audit",
    "tabulate_paper",
]
