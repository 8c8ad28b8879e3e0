"""A study in the browser: copies of the notebooks that nothing overwrites; a page by token, for
this machine alone."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import contextmanager

import nbformat
import pytest
import yaml

from helpers import provenance
from helpers.errors import StageError
from helpers.notebook import open_study
from helpers.serving import fill_notebooks
from helpers.serving.copies import NOTEBOOKS
from helpers.study import find_newest, find_study, list_measured, load_study
from tests import lab
from tests.test_parameters import SMALL


@pytest.fixture
def study(tmp_path):
    path = tmp_path / "params" / "small.yaml"
    path.parent.mkdir()
    path.write_text(yaml.safe_dump(SMALL), encoding="utf-8")
    return load_study(path)


def read(path):
    return nbformat.read(path, as_version=4)


def test_copies_hold_the_parameters_and_leave_the_notebooks_alone(study, repository):
    before = {path: path.read_bytes() for path in (repository / "notebooks").glob("*.ipynb")}
    folder = fill_notebooks(study, {"fairness.alpha": 0.01})
    assert folder == study.folder / "lab"
    assert sorted(path.stem for path in folder.glob("*.ipynb")) == sorted(NOTEBOOKS)
    for path in folder.glob("*.ipynb"):
        nbformat.validate(read(path))
        cell = next(cell for cell in read(path).cells if "parameters" in cell.metadata.get("tags", []))
        assert cell.source == f"params = {str(study.source)!r}\noverrides = {{'fairness.alpha': 0.01}}"
    assert {path: path.read_bytes() for path in before} == before


def test_what_was_done_in_a_copy_stays_until_its_notebook_or_parameters_change(study):
    copy = fill_notebooks(study, {}) / "01_cohort.ipynb"
    notebook = read(copy)
    notebook.cells.append(nbformat.v4.new_code_cell("mine = 1"))
    nbformat.write(notebook, copy)
    fill_notebooks(study, {})
    assert read(copy).cells[-1].source == "mine = 1"
    fill_notebooks(study, {"seed": 7})
    assert read(copy).cells[-1].source != "mine = 1"
    assert read(copy.with_name("01_cohort.former.ipynb")).cells[-1].source == "mine = 1"


def test_a_study_is_found_by_its_file_and_by_its_folder(study, tmp_path):
    provenance.write_snapshot(study)
    by_folder = find_study(study.folder)
    assert (by_folder.folder, by_folder.parameters) == (
        study.folder, study.parameters.model_copy(update={"outputs": str(tmp_path / "outputs")}),
    )  # fmt: skip
    assert find_study(study.source).folder == study.folder
    with pytest.raises(StageError, match=r"is not the output folder of a study \(it has no study\.yaml\)"):
        find_study(tmp_path / "outputs")
    with pytest.raises(StageError, match=r"nowhere: no such folder: run the study first, or correct the path"):
        find_study(tmp_path / "nowhere")


def test_the_newest_measured_study_is_taken_where_none_is_named(study, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("helpers.study.REPOSITORY", tmp_path)
    with pytest.raises(StageError, match=r"^No study has been run yet: run one by `segfair run params/demo\.yaml`"):
        open_study("")
    for place, name in enumerate(("older", "newer", "unmeasured", "broken")):
        other = load_study(study.source, {"name": name})
        provenance.write_snapshot(other)
        if name != "unmeasured":
            for table in ("cohort", "metrics"):
                other.path(table).write_bytes(b"")
                os.utime(other.path(table), (1e9 + place, 1e9 + place))
    (tmp_path / "outputs" / "broken" / "study.yaml").write_text("name: [", encoding="utf-8")
    assert [one.name for one in list_measured(tmp_path / "outputs")] == ["newer", "older"]
    assert find_newest().name == open_study("").name == "newer"


@contextmanager
def serve(place, cwd, log):
    """Run `segfair view` and yield its address."""
    code = "from helpers.cli import main; main()"
    with log.open("w") as errors:
        server = subprocess.Popen(
            [sys.executable, "-c", code, "view", str(place), "--no-browser"],
            cwd=cwd, stdout=subprocess.PIPE, stderr=errors, encoding="utf-8",
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
            # Tests that run in the background are deaf to an interrupt, and so would it be.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )  # fmt: skip
        try:
            line = server.stdout.readline()
            assert "http://127.0.0.1:" in line, line + log.read_text(encoding="utf-8")
            yield next(word for word in line.split() if word.startswith("http://"))
        finally:
            server.send_signal(signal.SIGINT)
            assert server.wait(timeout=60) == 0
            server.stdout.close()


def ask(address, **headers):
    """Return the status of an answer and where it leads."""
    try:
        request = urllib.request.Request(address, headers=headers)
        with urllib.request.build_opener(StayHere).open(request, timeout=60) as answer:
            return answer.status, ""
    except urllib.error.HTTPError as error:
        return error.code, error.headers.get("Location", "")


class StayHere(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_, **__):
        return None


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_the_page_is_for_this_machine_and_its_token_alone(tmp_path, browser):
    from helpers import performance

    study = lab.write_project(tmp_path)
    performance.measure_performance(study)
    performance.write_audit(study)
    with serve(study.folder, tmp_path, tmp_path / "view.log") as address:
        bare = address.partition("?")[0]
        port = int(bare.rsplit(":", 1)[1].strip("/"))
        status, leads = ask(bare)
        assert status == 302 and "/login" in leads, "without the token nothing is shown"
        assert ask(f"{bare}?token=wrong")[0] == 302
        for path in ("api/kernels/00000000-0000-0000-0000-000000000000", "voila/files/study.ipynb"):
            assert ask(f"{bare}{path}")[0] in (302, 403)
        assert ask(address, Host="elsewhere.example")[0] == 403, "another name that leads here is not answered"
        for other in {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None)} - {"127.0.0.1"}:
            with pytest.raises(OSError), socket.create_connection((other, port), timeout=5):
                pass
        context = browser.new_context(viewport={"width": 1366, "height": 900})
        page, asked, complaints = context.new_page(), [], []
        page.set_default_timeout(180_000)
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(address)
        page.locator(".js-plotly-plot .point").first.wait_for()
        page.get_by_text("people selected").wait_for()
        output = page.locator("output", has_text="axial: slice").first
        before = output.text_content()
        picture = page.locator("img[alt^='axial: slice']")
        picture.scroll_into_view_if_needed()
        picture.click(position={"x": 20, "y": 20})
        page.mouse.wheel(0, 100)
        page.wait_for_function(
            "([output, before]) => output.textContent !== before", arg=[output.element_handle(), before]
        )
        assert "explore_study" not in page.locator("body").inner_text(), "no code in sight"
        widths = page.evaluate(
            "() => [...document.querySelectorAll(\"img[alt*=': slice']\")].map((one) => one.getBoundingClientRect())"
            ".map((box) => [box.left, box.right, box.width])"
        )
        assert len(widths) == 3 and all(left >= 0 and right <= 1366 for left, right, _ in widths), "nothing is cut"
        context.close()
        own = f"http://127.0.0.1:{port}/"
        assert [url for url in asked if not url.startswith((own, "data:", "blob:"))] == []
        assert complaints == []
