"""The ``segfair`` command."""

from __future__ import annotations

import io
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from helpers import __version__
from helpers.errors import SegfairError, StageError

if TYPE_CHECKING:  # importing it takes a second, which `segfair --help` can do without
    from helpers.study import Study

app = typer.Typer(
    help="Find out for whom a segmentation model fails, by how much, where in the organ, and how certain that is.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
checkpoints_app = typer.Typer(help="List, fetch and verify published weights; make the word vectors that SAT needs.")
app.add_typer(checkpoints_app, name="checkpoints")

Params = Annotated[Path, typer.Argument(help="The study's parameter file, such as params/demo.yaml.")]
Place = Annotated[Path, typer.Argument(help="The parameter file, or a study's output folder.")]
Override = Annotated[
    list[str] | None,
    typer.Option("-o", "--override", help="Replace a value of the file: -o fairness.alpha=0.01. May be repeated."),
]


Json = Annotated[bool, typer.Option("--json", help="Print the outcome as JSON; everything else goes to stderr.")]


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
    """Take the options before a command."""


@app.command()
def run(
    params: Params,
    first: Annotated[str | None, typer.Option("--from", help="The first stage to run: 01 to 05.")] = None,
    last: Annotated[str | None, typer.Option("--until", help="The last stage to run.")] = None,
    only: Annotated[str | None, typer.Option("--only", help="The one stage to run.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Run stages that are up to date, too.")] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read every file again, instead of trusting size and time.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would run and why, without running it.")] = False,
    fail_on: Annotated[
        Literal["disparity"] | None, typer.Option("--fail-on", help="End with exit status 4 if a disparity is found.")
    ] = None,
    as_json: Json = False,
    override: Override = None,
) -> None:
    """Run a study, from cohort to report. Stages that are up to date are skipped.

    Exit status: 0 done; 1 a stage stopped; 2 the command or the parameter file cannot be used; 3
    done, but a model failed on some scans; 4 done, and a disparity was found (with --fail-on).
    """
    from helpers.pipeline import plan_run, select_stages
    from helpers.study import load_study

    stages = select_stages(first=first, last=last, only=only)
    overrides = _read_overrides(override)
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
    """Say what is done, running, failed and still to do."""
    from helpers.status import describe_status, find_folder, read_status

    found = read_status(find_folder(place))
    if as_json:
        typer.echo(json.dumps(asdict(found), indent=2))
        return
    for line in (*describe_status(found), *found.failed):
        typer.echo(line)


@app.command()
def check(params: Params, override: Override = None) -> None:
    """Check the parameters, the table, every file and every model before a run; write nothing.

    Exit status: 0 no problem found; 1 problems, which are listed; 2 the parameter file cannot be
    used.
    """
    from helpers.checking import check_study, load_checked
    from helpers.vocabulary.words import count

    study = load_checked(params, _read_overrides(override))
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
    table: Annotated[Path, typer.Argument(help="Your table of people: .csv, .tsv, .xlsx or .parquet.")],
    images: Annotated[
        Path | None, typer.Option("--images", help="The folder of the scans, if it is not below the table's folder.")
    ] = None,
    masks: Annotated[Path | None, typer.Option("--masks", help="The folder of the experts' masks, likewise.")] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="The parameter file to write.")] = None,
) -> None:
    """Write a parameter file from a table of people and the files beside it; guesses are marked."""
    from helpers.cohort import write_study_file

    started = write_study_file(table, output, folder=Path.cwd(), images=images, masks=masks)
    for line in started.summary:
        typer.echo(f"  {line}")
    if started.table is not None:
        typer.echo(f"scans: {_relative(started.table)}")
    to_check = f" ({started.to_check} marked TO CHECK)" if started.to_check else ""
    typer.echo(f"parameters: {_relative(started.path)}; each guess says what it rests on{to_check}")
    typer.echo(f"next: segfair check {_relative(started.path)}")


@app.command()
def audit(
    scores: Annotated[
        str,
        typer.Argument(help="A table of scores, or several: 'scores/{model}/{metric}.csv'."),
    ],
    people: Annotated[Path, typer.Option("--people", help="The table of people.")],
    attributes: Annotated[
        str, typer.Option("--attributes", help="The columns of that table whose groups are compared.")
    ] = "sex,age",
    name: Annotated[str | None, typer.Option("--name", help="The study's name.")] = None,
    override: Override = None,
) -> None:
    """Audit ready-made scores, without masks: write a parameter file here and run it."""
    from helpers.cohort import write_audit_file
    from helpers.pipeline import select_stages
    from helpers.study import load_study

    wanted = [one.strip() for one in attributes.split(",") if one.strip()]
    path = write_audit_file(scores, people, wanted, folder=Path.cwd(), name=name)
    typer.echo(f"parameters: {_relative(path)} (edit it to change groups, margins or names)")
    overrides = _read_overrides(override)
    study = load_study(path, overrides)
    _run(study, overrides, select_stages())


@app.command()
def report(
    place: Place,
    pdf: Annotated[
        bool, typer.Option("--pdf", help="Print it to report.pdf as well, with a Chromium on this machine.")
    ] = False,
    pages: Annotated[
        Literal["whole", "short"], typer.Argument(help="What --pdf prints; short: the answers alone.")
    ] = "whole",
) -> None:
    """Write report.html again from what a study has found."""
    from helpers.provenance import note_outputs
    from helpers.report import build_report, print_report
    from helpers.study import find_study

    study = find_study(place)
    page = build_report(study.folder)
    note_outputs(study, "05_report")
    typer.echo(f"report: {_relative(page)}")
    if pdf or pages == "short":
        typer.echo(f"printed: {_relative(print_report(page, short=pages == 'short'))}")


@app.command()
def lab(
    params: Params,
    options: Annotated[list[str] | None, typer.Argument(help="Options for JupyterLab, after --.")] = None,
    override: Override = None,
) -> None:
    """Open JupyterLab on copies of the notebooks, kept in outputs/<study>/lab."""
    from helpers.serving import fill_notebooks, start_lab
    from helpers.study import load_study

    overrides = _read_overrides(override)
    study = load_study(params, overrides)
    folder = fill_notebooks(study, overrides)
    typer.echo(f"notebooks: {_relative(folder)}")
    start_lab(study, folder, options or [])


@app.command()
def view(
    place: Place,
    port: Annotated[int, typer.Option("--port", help="Default: any free port.", show_default=False)] = 0,
    browser: Annotated[bool, typer.Option(help="Open it in the browser.")] = True,
    override: Override = None,
) -> None:
    """Show a study's people and scans as a web page, on this machine alone."""
    from helpers.notebook import open_study
    from helpers.serving import show_page

    overrides = _read_overrides(override)
    study = open_study(str(place), overrides, needs=("cohort", "metrics"))
    show_page(study, port=port, browser=browser, say=typer.echo)


@app.command()
def compare(
    before: Annotated[Path, typer.Argument(help="The study of the old models: output folder or parameter file.")],
    after: Annotated[Path, typer.Argument(help="The study of the new models, with the same people.")],
    pair: Annotated[
        list[str] | None,
        typer.Option("--pair", help="Models whose names differ: --pair old=new. May be repeated."),
    ] = None,
) -> None:
    """Compare old and new models on the same people. Exit status 4: a new disparity."""
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
        typer.Argument(help="A pilot study that has run 03: output folder or parameter file."),
    ] = None,
    sd: Annotated[
        float | None, typer.Option("--sd", help="Instead of a pilot: the standard deviation within a group.")
    ] = None,
    margin: Annotated[
        float | None,
        typer.Option("--margin", help="The largest unimportant difference. Default: the study's or metric's own."),
    ] = None,
    metric: Annotated[str, typer.Option("--metric", help="The metric to plan for.")] = "dice",
    power: Annotated[float, typer.Option("--power", help="The chance of getting the answer.")] = 0.8,
    alpha: Annotated[float, typer.Option("--alpha", help="The significance level.")] = 0.05,
    tests: Annotated[int, typer.Option("--tests", help="The number of comparisons tested together.")] = 1,
    proxy: Annotated[
        float | None,
        typer.Option("--proxy", help="With few masks: the correlation of a proxy with the score."),
    ] = None,
) -> None:
    """Say how many people per group, and how many masks, a study needs."""
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
    """List the kinds of dataset a parameter file can name."""
    from helpers.cohort import SOURCES

    _list({name: source.description for name, source in SOURCES.items()})


@checkpoints_app.callback(invoke_without_command=True)
def checkpoints(context: typer.Context) -> None:
    """List the published checkpoints: size, licence, source, and whether they are here."""
    from helpers.models.checkpoints import summarise_checkpoints

    if context.invoked_subcommand is None:
        _list(summarise_checkpoints())


@checkpoints_app.command()
def fetch(
    name: Annotated[str, typer.Argument(help="A name of `segfair checkpoints`.")],
    url: Annotated[str | None, typer.Option("--url", help="Another source of the same file, such as a mirror.")] = None,
) -> None:
    """Download a checkpoint and verify it; an interrupted download continues."""
    from helpers.models.download import fetch_checkpoint

    typer.echo(f"{name}: {_relative(fetch_checkpoint(name, url=url))}")


@checkpoints_app.command()
def verify(
    name_or_path: Annotated[str, typer.Argument(help="A name of `segfair checkpoints`, or a file of weights.")],
) -> None:
    """Read a whole checkpoint and say what it is."""
    from helpers.models.loading import verify_checkpoint

    typer.echo(verify_checkpoint(name_or_path))


@checkpoints_app.command()
def embed(
    output: Annotated[Path, typer.Argument(help="The file to write, such as sat_words.npz.")],
    texts: Annotated[list[str], typer.Argument(help="The words to ask SAT for: liver spleen 'left kidney'.")],
    encoder: Annotated[Path, typer.Option("--encoder", help="The downloaded folder of BioLORD-2023-C.")],
    weights: Annotated[
        Path,
        typer.Option("--weights", help="The text encoder published with your SAT checkpoint."),
    ],
) -> None:
    """Turn words into the vectors that SAT needs, once."""
    from helpers.models.sat_text import embed_texts

    typer.echo(f"words: {_relative(embed_texts(texts, encoder, weights, output))}")


def main() -> None:
    """Run the command; a :class:`SegfairError` is printed, with exit status 2."""
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
    fail_on: str | None = None,
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


def _read_overrides(texts: list[str] | None) -> dict[str, Any]:
    """Return the values given by ``-o``, by dotted key."""
    from helpers.parameters import parse_override

    return dict(parse_override(text) for text in texts or [])


def _list(descriptions: dict[str, str]) -> None:
    width = max(len(name) for name in descriptions)
    for name, description in descriptions.items():
        typer.echo(f"{name:<{width}}  {description}")


def _relative(path: Path) -> str:
    """Return `path` as seen from the working directory where it lies below it."""
    path = path.resolve()
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
