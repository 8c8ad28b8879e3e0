"""Put the report together: a module per part of the page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from helpers import __version__
from helpers.report.blocks import Report, ReportSection
from helpers.report.outputs import Outputs, read_outputs
from helpers.report.sections.answers import compose_answers
from helpers.report.sections.checklist import compose_checklist
from helpers.report.sections.glossary import compose_glossary
from helpers.report.sections.limits import compose_limits
from helpers.report.sections.losses import compose_losses
from helpers.report.sections.methods import compose_methods, read_date
from helpers.report.sections.people import compose_people
from helpers.report.sections.performance import compose_performance
from helpers.report.sections.spatial import compose_spatial
from helpers.report.sections.truth import compose_truth
from helpers.vocabulary.measures import use_measures
from helpers.vocabulary.words import name_for_people

# A composer of None has nothing to say of such a study.
_COMPOSERS: tuple[Callable[[Outputs], ReportSection | None], ...] = (
    compose_answers, compose_people, compose_losses, compose_performance, compose_spatial, compose_limits,
    compose_glossary, compose_methods, compose_checklist, compose_truth,
)  # fmt: skip


def compose_report(folder: Path) -> Report:
    """Put together the report of an output folder, from the tables in it.

    A stage that has not been run is said so in its section; StageError where it is no study's.
    """
    return compose_outputs(read_outputs(Path(folder)))


def compose_outputs(outputs: Outputs) -> Report:
    """Put together the report of what :func:`read_outputs` found."""
    parameters = outputs.parameters
    with use_measures(parameters.fairness.measures):
        sections = tuple(filter(None, (compose(outputs) for compose in _COMPOSERS)))
    return Report(
        title=parameters.title or name_for_people(parameters.name),
        subtitle=f"For whom do the segmentation models work worse? · {read_date(outputs)} · segfair {__version__}",
        date=read_date(outputs),
        sections=sections,
        measures=tuple(parameters.fairness.measures),
    )
