"""The repository keeps its own promises: one set of pins, no outputs, no machine's traces."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from helpers.models.registry import NNUNET_DEMO

TEXT = (".py", ".ipynb", ".md", ".yaml", ".yml", ".toml", ".txt", ".j2", ".css", "Makefile", "run")


@pytest.fixture(scope="module")
def project(repository):
    return tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture(scope="module")
def pins(repository):
    lines = (repository / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def list_tracked(repository) -> list[str]:
    if not (repository / ".git").exists():
        pytest.skip("not a git checkout")
    return subprocess.run(
        ["git", "ls-files"], cwd=repository, capture_output=True, check=True, encoding="utf-8"
    ).stdout.splitlines()


def test_every_constraint_is_one_exact_version(pins):
    assert all(re.fullmatch(r"==[^,*]+", str(pin.specifier)) for pin in pins)
    names = [canonicalize_name(pin.name) for pin in pins]
    assert len(names) == len(set(names))


def test_every_dependency_is_pinned(project, pins):
    pinned = {canonicalize_name(pin.name) for pin in pins}
    wanted = project["dependencies"] + project["optional-dependencies"]["test"]
    assert {canonicalize_name(Requirement(text).name) for text in wanted} <= pinned
    assert "torch==2.13.0" in [str(pin) for pin in pins]


def test_conda_users_get_the_same_packages_from_the_same_pins(repository):
    environment = yaml.safe_load((repository / "environment.yml").read_text(encoding="utf-8"))
    (pip,) = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    assert pip == ["-c constraints.txt", "-e .[test]"]
    makefile = (repository / "Makefile").read_text(encoding="utf-8")
    assert "pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'" in makefile
    conda = [entry for entry in environment["dependencies"] if isinstance(entry, str)]
    assert conda == ["python=3.11", "pip"], "conda itself installs nothing that pip pins"


def test_installed_versions_are_the_pinned_ones(pins):
    from importlib.metadata import PackageNotFoundError, version

    differing = {}
    for pin in pins:
        try:
            found = version(pin.name)
        except PackageNotFoundError:
            continue
        if found.split("+")[0] not in pin.specifier:
            differing[pin.name] = found
    if differing:
        pytest.skip(f"this environment was not made from constraints.txt: {differing}")


def test_outputs_hold_only_the_placeholder(repository):
    assert [name for name in list_tracked(repository) if name.startswith("outputs/")] == ["outputs/.gitkeep"]


def test_tracked_text_names_no_machine(repository):
    traces = re.compile(r"/(work|home|root|Users|tmp)/[a-z]|/opt/(wheels|pypi)")
    in_tests = re.compile(r"/work/|/opt/(wheels|pypi)")  # tests plant other paths on purpose
    for name in list_tracked(repository):
        if name == "tests/test_repository.py" or not name.endswith(TEXT):
            continue
        found = (in_tests if name.startswith("tests/") else traces).search((repository / name).read_text("utf-8"))
        assert not found, f"{name} names a folder of some machine: {found.group()}"


def test_no_image_data_and_no_weights_but_those_that_ship_are_committed(repository):
    kinds = (".nii", ".nii.gz", ".dcm", ".mha", ".nrrd", ".pth")
    assert [name for name in list_tracked(repository) if name.endswith(kinds)] == [
        NNUNET_DEMO.relative_to(repository).as_posix()
    ]


def find_locale_text(path):
    """Return the line of every call that reads or writes text in the machine's own encoding, which
    need not be UTF-8."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        given = {keyword.arg for keyword in node.keywords}
        on_path = node.func.attr in ("read_text", "write_text") and getattr(node.func.value, "id", "") != "storage"
        if on_path and len(node.args) > (node.func.attr == "write_text"):
            continue
        as_text = node.func.attr in ("run", "Popen", "check_output") and given & {"text", "universal_newlines"}
        if (on_path or as_text) and "encoding" not in given:
            yield f"{path.name}:{node.lineno}"


def test_text_is_utf_8_whatever_the_machine_speaks(repository):
    # What ruff's PLW1514 does not see: paths whose type it cannot infer, and the pipes of
    # subprocess.
    sources = [repository / name for name in list_tracked(repository) if name.endswith(".py")]
    assert len(sources) > 200
    assert not [where for path in sources for where in find_locale_text(path)]


def test_names_say_which(repository):
    """No two classes of the package share a name, and no function that of a module beside it."""
    package = repository / "src" / "helpers"
    classes: dict[str, list[str]] = {}
    for path in sorted(package.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                classes.setdefault(node.name, []).append(path.relative_to(package).as_posix())
    assert not {name: places for name, places in classes.items() if len(places) > 1}
    for init in package.rglob("__init__.py"):
        beside = {path.stem for path in init.parent.glob("*.py")} | {path.name for path in init.parent.glob("*/")}
        exported = {
            alias.asname or alias.name
            for node in ast.walk(ast.parse(init.read_text(encoding="utf-8")))
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }
        assert not beside & exported, init


def test_help_lists_the_commands_of_the_readme(repository):
    shown = subprocess.run(["make", "help"], cwd=repository, capture_output=True, check=True, encoding="utf-8").stdout
    for command in ("make demo", "make test", "make lab", "make lint"):
        assert command in shown
    assert subprocess.run(["make"], cwd=repository, capture_output=True, check=True, encoding="utf-8").stdout == shown
