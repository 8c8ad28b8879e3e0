"""The ``segfair`` command."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from helpers.errors import SegfairError, StageError

if TYPE_CHECKING:  # importing it takes a second, which `segfair --help` can do without
    from helpers.study import Study

app = typer.Typer(
    help="For whom, by how much, where in the organ and how surely a segmentation model fails.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
checkpoints_app = typer.Typer(help="Published weights: list, fetch, verify. For SAT: embed.")
app.add_typer(checkpoints_app, name="checkpoints")

Params = Annotated[
    Path, typer.Argument(help="The study's parameter file, such as params/demo.yaml.", show_default=False)
]
Override = Annotated[
    list[str] | None,
    typer.Option(
        "-o",
        "--override",
        help="A value laid over the file, by dotted key: -o fairness.alpha=0.01.",
        show_default=False,
    ),
]


@app.command()
def run(
    params: Params,
    first: Annotated[str | None, typer.Option("--from", help="The first stage to run: 01 to 05.")] = None,
    last: Annotated[str | None, typer.Option("--until", help="The last stage to run.")] = None,
    only: Annotated[str | None, typer.Option("--only", help="The one stage to run.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Run stages that are up to date as well.")] = False,
    override: Override = None,
) -> None:
    """Run a study from cohort to report; what is up to date is skipped.

    Exit status: 0 done; 1 a stage stopped; 2 the command or the parameter file cannot be used; 3
    done, and a model failed on every scan.
    """
    from helpers.parameters import parse_override
    from helpers.pipeline import select_stages
    from helpers.study import load_study

    stages = select_stages(first=first, last=last, only=only)
    overrides = dict(parse_override(text) for text in override or [])
    study = load_study(params, overrides)
    _run(study, overrides, stages, force=force)


@app.command()
def check(params: Params, override: Override = None) -> None:
    """Check parameters, table, files and models, as the stages will use them; nothing is written.

    Exit status: 0 no problem found; 1 problems, which are listed; 2 the parameter file cannot be
    used.
    """
    from helpers.cohort import check_cohort
    from helpers.models import check_model, describe_model, list_overlaps, list_refused, list_templates, try_model
    from helpers.notebook import check_output_folder
    from helpers.study import load_study

    study = load_study(params, override or [])
    found = check_cohort(study, list_templates(study), list_refused(study))
    problems = list(found.problems)
    for model in study.parameters.models:
        faults = check_model(model, study) or try_model(model, study)
        problems += faults
        try:
            found.remarks.extend([] if faults else describe_model(model, study))
        except SegfairError as error:  # what only its set-up tells, such as a version command that fails
            problems.append(str(error))
    found.remarks.extend(list_overlaps(study.parameters.models, study.parameters.cohort))
    try:
        check_output_folder(study)
    except SegfairError as error:
        problems.append(str(error))
    for problem in problems:
        typer.echo(f"- {problem}")
    for remark in found.remarks:
        typer.echo(f"  worth knowing: {remark}")
    if problems:
        typer.echo(
            f"{len(problems)} problem{'s' if len(problems) > 1 else ''} found in {_relative(study.source)}", err=True
        )
        raise typer.Exit(1)
    typer.echo(f"{_relative(study.source)}: no problem found")


@app.command()
def audit(
    scores: Annotated[
        str,
        typer.Argument(
            help="A table of ready-made scores, or several: 'scores/{model}/{metric}.csv'.", show_default=False
        ),
    ],
    people: Annotated[Path, typer.Option("--people", help="The table of people.", show_default=False)],
    attributes: Annotated[
        str, typer.Option("--attributes", help="Whose groups are compared: columns of the table of people.")
    ] = "sex,age",
    name: Annotated[str | None, typer.Option("--name", help="The study's name.", show_default=False)] = None,
    override: Override = None,
) -> None:
    """Audit ready-made scores: write a parameter file for them here, and run it."""
    from helpers.cohort import write_audit_file
    from helpers.parameters import parse_override
    from helpers.pipeline import select_stages
    from helpers.study import load_study

    wanted = [one.strip() for one in attributes.split(",") if one.strip()]
    path = write_audit_file(scores, people, wanted, folder=Path.cwd(), name=name)
    typer.echo(f"parameters: {_relative(path)} (edit it to change groups, margins or names)")
    overrides = dict(parse_override(text) for text in override or [])
    study = load_study(path, overrides)
    _run(study, overrides, select_stages())


@app.command()
def report(
    output_dir: Annotated[
        Path, typer.Argument(help="A study's output folder, such as outputs/demo.", show_default=False)
    ],
    pdf: Annotated[
        bool, typer.Option("--pdf", help="Print it to report.pdf too, by a Chromium on this machine.")
    ] = False,
) -> None:
    """Write report.html again from what lies in an output folder."""
    from helpers.report import build_report, print_report

    page = build_report(output_dir)
    typer.echo(f"report: {_relative(page)}")
    if pdf:
        typer.echo(f"printed: {_relative(print_report(page))}")


@app.command()
def models() -> None:
    """List the kinds of model a parameter file can name."""
    from helpers.models.registry import KINDS

    _list({name: kind.description for name, kind in KINDS.items()})


@app.command()
def sources() -> None:
    """List the sources of scans a parameter file can name."""
    from helpers.cohort import SOURCES

    _list({name: source.description for name, source in SOURCES.items()})


@checkpoints_app.callback(invoke_without_command=True)
def checkpoints(context: typer.Context) -> None:
    """List the published checkpoints: size, licence, source and whether they are here."""
    from helpers.models.checkpoints import summarise_checkpoints

    if context.invoked_subcommand is None:
        _list(summarise_checkpoints())


@checkpoints_app.command()
def fetch(
    name: Annotated[str, typer.Argument(help="A name of `segfair checkpoints`.", show_default=False)],
    url: Annotated[
        str | None, typer.Option("--url", help="Another source of the same file, such as a mirror.", show_default=False)
    ] = None,
) -> None:
    """Download a checkpoint and verify it; an interrupted download goes on where it broke off."""
    from helpers.models.download import fetch_checkpoint

    typer.echo(f"{name}: {_relative(fetch_checkpoint(name, url=url))}")


@checkpoints_app.command()
def verify(
    name_or_path: Annotated[
        str, typer.Argument(help="A name of `segfair checkpoints`, or a file of weights.", show_default=False)
    ],
) -> None:
    """Read a checkpoint whole and say what it is."""
    from helpers.models.loading import verify_checkpoint

    typer.echo(verify_checkpoint(name_or_path))


@checkpoints_app.command()
def embed(
    output: Annotated[Path, typer.Argument(help="The file to write, such as sat_words.npz.", show_default=False)],
    texts: Annotated[
        list[str], typer.Argument(help="What SAT is to be asked for: liver spleen 'left kidney'.", show_default=False)
    ],
    encoder: Annotated[
        Path, typer.Option("--encoder", help="The downloaded folder of BioLORD-2023-C.", show_default=False)
    ],
    weights: Annotated[
        Path,
        typer.Option(
            "--weights", help="SAT's text encoder, the one published with your checkpoint.", show_default=False
        ),
    ],
) -> None:
    """Make the file of words' vectors that kind `sat` reads, once, from files on this machine."""
    from helpers.models.sat_text import embed_texts

    typer.echo(f"words: {_relative(embed_texts(texts, encoder, weights, output))}")


def main() -> None:
    """Run the command; a :class:`SegfairError` ends in its one sentence and exit status 2."""
    try:
        app()
    except SegfairError as error:
        typer.echo(f"segfair: {error}", err=True)
        sys.exit(2)


def _run(study: Study, overrides: dict[str, Any], stages: list[str], *, force: bool = False) -> None:
    """Run stages; end with status 1 where one stopped, 3 where a model has no mask of any scan."""
    from helpers.pipeline import list_failed_models, run_study

    try:
        report = run_study(study, overrides=overrides, stages=stages, force=force, say=typer.echo)
    except StageError as error:
        typer.echo(f"segfair: {error}", err=True)
        raise typer.Exit(1) from error
    typer.echo(f"report: {_relative(report)}" if report.exists() else f"outputs: {_relative(study.folder)}")
    failed = list_failed_models(study) if stages[-1] > "02" else []
    for told in failed:
        typer.echo(f"segfair: {told}", err=True)
    if failed:
        raise typer.Exit(3)


def _list(descriptions: dict[str, str]) -> None:
    width = max(len(name) for name in descriptions)
    for name, description in descriptions.items():
        typer.echo(f"{name:<{width}}  {description}")


def _relative(path: Path) -> str:
    """Return `path` as seen from the working directory where it lies below it."""
    path = path.resolve()
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
