"""The ``segfair`` command."""

from __future__ import annotations

import io
import json
import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from helpers import __version__
from helpers.errors import SegfairError, StageError

if TYPE_CHECKING:  # importing it takes a second, which `segfair --help` can do without
    from helpers.study import Study

app = typer.Typer(
    help="For whom, by how much, where in the organ and how surely a segmentation model fails.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
checkpoints_app = typer.Typer(help="Published weights: list, fetch, verify. For SAT: embed.")
app.add_typer(checkpoints_app, name="checkpoints")

Params = Annotated[
    Path, typer.Argument(help="The study's parameter file, such as params/demo.yaml.", show_default=False)
]
Place = Annotated[Path, typer.Argument(help="The parameter file, or a study's output folder.", show_default=False)]
Override = Annotated[
    list[str] | None,
    typer.Option(
        "-o",
        "--override",
        help="A value laid over the file, by dotted key: -o fairness.alpha=0.01.",
        show_default=False,
    ),
]


Json = Annotated[bool, typer.Option("--json", help="Print the outcome as JSON alone; all else goes to stderr.")]


class FailOn(StrEnum):
    """What can make a run fail that has reached its end."""

    DISPARITY = "disparity"


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"segfair {__version__}")
        raise typer.Exit


@app.callback()
def start(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Take what stands before a command."""


@app.command()
def run(
    params: Params,
    first: Annotated[str | None, typer.Option("--from", help="The first stage to run: 01 to 05.")] = None,
    last: Annotated[str | None, typer.Option("--until", help="The last stage to run.")] = None,
    only: Annotated[str | None, typer.Option("--only", help="The one stage to run.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Run stages that are up to date as well.")] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read every file again: size and times are not believed.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would run and why; nothing is run or written.")
    ] = False,
    fail_on: Annotated[
        FailOn | None, typer.Option("--fail-on", help="End with exit status 4 where a disparity is found.")
    ] = None,
    as_json: Json = False,
    override: Override = None,
) -> None:
    """Run a study from cohort to report; what is up to date is skipped.

    Exit status: 0 done; 1 a stage stopped; 2 the command or the parameter file cannot be used; 3
    done, and a model failed on scans; 4 done, and a disparity was found (with --fail-on disparity).
    """
    from helpers.parameters import parse_override
    from helpers.pipeline import plan_run, select_stages
    from helpers.study import load_study

    stages = select_stages(first=first, last=last, only=only)
    overrides = dict(parse_override(text) for text in override or [])
    study = load_study(params, overrides)
    if not dry_run:
        _run(study, overrides, stages, force=force, verify=verify, as_json=as_json, fail_on=fail_on)
        return
    planned = dict(plan_run(study, stages, force=force))
    if as_json:
        typer.echo(json.dumps({"study": study.name, "would_run": planned}, indent=2))
        return
    for stage, why in planned.items():
        typer.echo(f"{stage}: would run: {why}" if why else study.say_idle(stage) or f"{stage}: up to date")


@app.command()
def status(
    place: Place,
    as_json: Json = False,
) -> None:
    """Say what of a study is done, at work, failed and left; nothing is written."""
    from helpers.status import describe_status, find_folder, read_status

    found = read_status(find_folder(place))
    if as_json:
        typer.echo(json.dumps(found.to_json(), indent=2))
        return
    for line in (*describe_status(found), *found.failed):
        typer.echo(line)


@app.command()
def check(params: Params, override: Override = None) -> None:
    """Check parameters, table, files and models, as the stages will use them; nothing is written.

    Exit status: 0 no problem found; 1 problems, which are listed; 2 the parameter file cannot be
    used.
    """
    from helpers.checking import check_study, load_checked
    from helpers.parameters import parse_override
    from helpers.vocabulary.words import count

    study = load_checked(params, dict(parse_override(text) for text in override or []))
    found = check_study(study)
    for organ in found.organs:
        typer.echo(f"  {organ}")
    for problem in found.problems:
        typer.echo(f"- {problem}")
    for remark in found.remarks:
        typer.echo(f"  worth knowing: {remark}")
    if found.problems:
        typer.echo(f"{count(len(found.problems), 'problem')} found in {_relative(study.source)}", err=True)
        raise typer.Exit(1)
    typer.echo(f"{_relative(study.source)}: no problem found")


@app.command()
def init(
    table: Annotated[
        Path, typer.Argument(help="Your table of people: .csv, .tsv, .xlsx or .parquet.", show_default=False)
    ],
    images: Annotated[
        Path | None, typer.Option("--images", help="Where the scans lie, if not below the table's folder.")
    ] = None,
    masks: Annotated[
        Path | None, typer.Option("--masks", help="Where the experts' masks lie, if not below the table's folder.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The parameter file to write.", show_default=False)
    ] = None,
) -> None:
    """Write a parameter file for a table of people and the scans beside it, all guesses marked."""
    from helpers.cohort import write_study_file

    started = write_study_file(table, output, folder=Path.cwd(), images=images, masks=masks)
    for line in started.summary:
        typer.echo(f"  {line}")
    if started.table is not None:
        typer.echo(f"scans: {_relative(started.table)}")
    to_check = f" ({started.to_check} marked TO CHECK)" if started.to_check else ""
    typer.echo(f"parameters: {_relative(started.path)}; its guesses say what they rest on{to_check}")
    typer.echo(f"next: segfair check {_relative(started.path)}")


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
    place: Place,
    pdf: Annotated[
        bool, typer.Option("--pdf", help="Print it to report.pdf too, by a Chromium on this machine.")
    ] = False,
    pages: Annotated[
        Literal["whole", "short"], typer.Argument(help="What --pdf prints: --pdf short prints the answers alone.")
    ] = "whole",
) -> None:
    """Write report.html again from what lies in an output folder."""
    from helpers.report import build_report, print_report
    from helpers.study import find_study

    page = build_report(find_study(place).folder)
    typer.echo(f"report: {_relative(page)}")
    if pdf:
        typer.echo(f"printed: {_relative(print_report(page, short=pages == 'short'))}")


@app.command()
def lab(
    params: Params,
    options: Annotated[
        list[str] | None, typer.Argument(help="After --: options of JupyterLab's own.", show_default=False)
    ] = None,
    override: Override = None,
) -> None:
    """Open JupyterLab on copies of the notebooks, in outputs/<study>/lab, with these parameters."""
    from helpers.parameters import parse_override
    from helpers.serving import fill_notebooks, start_lab
    from helpers.study import load_study

    overrides = dict(parse_override(text) for text in override or [])
    study = load_study(params, overrides)
    folder = fill_notebooks(study, overrides)
    typer.echo(f"notebooks: {_relative(folder)}")
    start_lab(study, folder, options or [])


@app.command()
def view(
    place: Place,
    port: Annotated[int, typer.Option("--port", help="By default any that is free.", show_default=False)] = 0,
    browser: Annotated[bool, typer.Option(help="Open it in the browser.")] = True,
    override: Override = None,
) -> None:
    """Serve a study's people and scans as a page: for this machine alone, by a token."""
    from helpers.notebook import open_study
    from helpers.parameters import parse_override
    from helpers.serving import show_page

    overrides = dict(parse_override(text) for text in override or [])
    study = open_study(str(place), overrides, needs=("cohort", "metrics"))
    show_page(study, port=port, browser=browser, say=typer.echo)


@app.command()
def compare(
    before: Annotated[
        Path, typer.Argument(help="A study's output folder or parameter file: the former models.", show_default=False)
    ],
    after: Annotated[
        Path, typer.Argument(help="The same people under the later models, likewise.", show_default=False)
    ],
    pair: Annotated[
        list[str] | None,
        typer.Option(
            "--pair", help="Models of other names: --pair old=new. By default equal names.", show_default=False
        ),
    ] = None,
) -> None:
    """Compare two studies of the same people, before and after. Exit code 4: a new disparity."""
    from helpers.performance import compare_folders

    found, sentences, folder = compare_folders(before, after, pair or [])
    for sentence in sentences:
        typer.echo(sentence)
    typer.echo(f"tables: {_relative(folder)}")
    if (found.gaps["change"] == "new").any():
        raise typer.Exit(4)


@app.command()
def plan(
    pilot: Annotated[
        Path | None,
        typer.Argument(help="A pilot study's output folder or parameter file, its stage 03 run.", show_default=False),
    ] = None,
    sd: Annotated[
        float | None, typer.Option("--sd", help="Without a pilot: the spread within a group.", show_default=False)
    ] = None,
    margin: Annotated[
        float | None, typer.Option("--margin", help="By default the study's, else the measure's.", show_default=False)
    ] = None,
    metric: Annotated[str, typer.Option("--metric", help="A measure, such as dice.")] = "dice",
    power: Annotated[float, typer.Option("--power", help="The chance to get the answer.")] = 0.8,
    alpha: Annotated[float, typer.Option("--alpha", help="The level of each test.")] = 0.05,
    tests: Annotated[int, typer.Option("--tests", help="How many differences are tested together.")] = 1,
    proxy: Annotated[
        float | None,
        typer.Option("--proxy", help="Correlation of a proxy with the score, for few masks.", show_default=False),
    ] = None,
) -> None:
    """Say how many people per group, and how many masks, a margin needs."""
    from helpers.planning import Wanted, write_plan

    sentences, folder = write_plan(pilot, sd, Wanted(metric, margin, alpha, power, tests, proxy))
    for sentence in sentences:
        typer.echo(sentence)
    typer.echo(f"tables and curve: {_relative(folder)}")


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
    if sys.getfilesystemencoding() != "utf-8":
        _restart_in_utf8()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # what a terminal cannot show is no reason to stop
    try:
        app()
    except SegfairError as error:
        typer.echo(f"segfair: {error}", err=True)
        sys.exit(2)


def _restart_in_utf8() -> None:
    """Run the same command in Python's UTF-8 mode, by which files are named and texts are read.

    Other packages would take the terminal's encoding for both. The terminal keeps its own.
    """
    os.environ.setdefault("PYTHONIOENCODING", f"{sys.stdout.encoding}:replace")
    os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])


def _run(
    study: Study,
    overrides: dict[str, Any],
    stages: list[str],
    *,
    force: bool = False,
    verify: bool = False,
    as_json: bool = False,
    fail_on: FailOn | None = None,
) -> None:
    """Run stages, say what failed and where to look; end with the exit status that `run` tells."""
    from helpers.pipeline import run_study
    from helpers.run_log import FILE
    from helpers.status import conclude_run

    def say(line: str) -> None:
        typer.echo(line, err=as_json)

    output = sys.stderr if as_json else None
    stopped = ""
    try:
        run_study(study, overrides=overrides, stages=stages, force=force, say=say, output=output, verify=verify)
    except StageError as error:
        stopped = str(error)
    end = conclude_run(study.folder, stages, stopped=stopped, fail_on=fail_on)
    report = study.folder / "report.html"
    if not end.stopped:
        say(f"report: {_relative(report)}" if report.exists() else f"outputs: {_relative(study.folder)}")
    say(f"log: {_relative(study.folder / FILE)}")
    for told in end.told:
        typer.echo(f"segfair: {told}", err=True)
    if as_json:
        typer.echo(json.dumps(end.to_json(), indent=2))
    if end.exit_code:
        raise typer.Exit(end.exit_code)


def _list(descriptions: dict[str, str]) -> None:
    width = max(len(name) for name in descriptions)
    for name, description in descriptions.items():
        typer.echo(f"{name:<{width}}  {description}")


def _relative(path: Path) -> str:
    """Return `path` as seen from the working directory where it lies below it."""
    path = path.resolve()
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
