"""The documents say what the code does: examples are run, messages and links are looked up."""

from __future__ import annotations

import ast
import doctest
import re

import numpy as np
import pytest
import SimpleITK as sitk

from helpers import cohort
from helpers.cohort.reasons import SENTENCES
from helpers.models import check_model
from helpers.study import load_study

from .test_cohort import save
from .test_dicom import write_series

DOCUMENTS = (
    "README.md",
    "CONTRIBUTING.md",
    "docs/DESIGN.md",
    "docs/METHODS.md",
    "docs/YOUR_DATA.md",
    "docs/MESSAGES.md",
    "docs/MODELS.md",
    "docs/CLUSTER.md",
)


def list_blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def test_the_examples_of_methods_give_the_numbers_shown(repository):
    text = (repository / "docs" / "METHODS.md").read_text("utf-8")
    session = "\n".join(list_blocks(text, "python"))
    test = doctest.DocTestParser().get_doctest(session, {}, "METHODS.md", "docs/METHODS.md", 0)
    assert len(test.examples) > 20
    said: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    assert runner.run(test, out=said.append).failed == 0, "".join(said)


@pytest.mark.parametrize(("table", "image"), [(0, "images/{}.nii.gz"), (1, "dicom/{}")])
def test_the_walk_through_of_your_data(repository, tmp_path, table, image):
    """The page's table and parameters, with masks and scans where the table says, pass the
    check."""
    text = (repository / "docs" / "YOUR_DATA.md").read_text("utf-8")
    people = list_blocks(text, "csv")[table]
    parameters = list_blocks(text, "yaml")[0]
    assert parameters.count("/data/mine/participants.csv") == 1
    (tmp_path / "params").mkdir()
    (tmp_path / "params" / "mine.yaml").write_text(
        parameters.replace("/data/mine/participants.csv", str(tmp_path / "mine" / "participants.csv")),
        encoding="utf-8",
    )
    mask = np.zeros((5, 8, 9), np.uint8)
    mask[1:4, 2:6, 2:4], mask[1:4, 2:6, 6:8] = 1, 2
    greys = np.where(mask > 0, 50, -1000).astype(np.int16)
    for name in ("p001", "p002"):
        save(mask, tmp_path / "mine" / "masks" / f"{name}.nii.gz")
        if table == 0:
            save(greys, tmp_path / "mine" / image.format(name))
        else:
            scan = sitk.GetImageFromArray(greys)
            scan.SetSpacing((0.8, 0.9, 2.5))
            write_series(scan, tmp_path / "mine" / image.format(name))
            stored = sitk.GetImageFromArray(mask)
            stored.CopyInformation(scan)
            sitk.WriteImage(
                sitk.Flip(stored, [False, True, False]), str(tmp_path / "mine" / "masks" / f"{name}.nii.gz")
            )
    (tmp_path / "mine" / "participants.csv").write_text(people, encoding="utf-8")
    study = load_study(tmp_path / "params" / "mine.yaml", {"compute.workers": 0})
    found = cohort.check_cohort(study)
    assert found.problems == []
    assert len(found.remarks) == 3 and all("fewer than 10 people" in remark for remark in found.remarks)
    assert [problem for model in study.parameters.models for problem in check_model(model, study)] == []


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_somewhere(repository, name):
    path = repository / name
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text("utf-8")):
        assert target.startswith("https://") or (path.parent / target).exists(), f"{name} links {target}"


@pytest.mark.parametrize("name", DOCUMENTS)
def test_modules_commands_and_files_exist(repository, name):
    """`helpers.x.y` is importable by path, `make x` is a target, `params/x.yaml` is a file."""
    text = (repository / name).read_text("utf-8")
    for module in re.findall(r"`helpers\.([\w.]+)`", text):
        parts = module.split(".")
        places = [repository / "src" / "helpers" / "/".join(parts[: len(parts) - cut]) for cut in (0, 1)]
        assert any(place.is_dir() or place.with_suffix(".py").exists() for place in places), f"{name}: helpers.{module}"
    targets = set(re.findall(r"^([a-z-]+):", (repository / "Makefile").read_text("utf-8"), re.MULTILINE))
    for target in re.findall(r"`make ([a-z-]+)", text):
        assert target in targets, f"{name}: make {target}"
    for file in re.findall(r"`((?:params|docs|tests|notebooks)/[\w/.-]+\.\w+)`", text):
        assert (repository / file).exists() or "mine" in file, f"{name}: {file}"


# Modules whose sentences a user meets on the way from files to a report, and calls in them that add
# a sentence.
USED = (
    "parameters/*.py",
    "programs.py",
    "study.py",
    "storage.py",
    "volumes/*.py",
    "dicom/*.py",
    "compute.py",
    "jobs.py",
    "kernel.py",
    "pipeline.py",
    "running.py",
    "cohort/*.py",
    "inference/*.py",
    "models/*.py",
    "performance/*.py",
)
# Sentences for whoever calls the functions from Python, and for training: no study ends in them.
NOT_MET = (
    "the reference of this scan has no ",  # a picture that the report leaves out, in words of its own
    "path must end in .parquet or .csv",
    "does not fit a grid of",
    "the mask does not fit the scan's grid",
    "step must lie below",
    "was made by another recipe",
    "only image and patch may differ",
    "the connection was closed early",
    "the answer does not continue",
    "more are missing",
    "more are unknown",
    "more are of another shape",
    " against ",
    "has no architecture in its metadata",
    "its tensors do not fit the architecture",
    "is moved",
    "variant must be one of",
)


def read_sentence(node: ast.expr) -> str:
    """Return a text or f-text with … for what differs."""
    if isinstance(node, ast.JoinedStr):
        return "".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def list_sentences(folder, patterns) -> list[str]:
    """Return every sentence that is raised as an error, or added to a list of reasons or
    problems."""
    found = []
    for path in sorted(path for pattern in patterns for path in folder.glob(pattern)):
        for call in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(call, ast.Call) and call.args:
                name = getattr(call.func, "id", getattr(call.func, "attr", ""))
                sentence = read_sentence(call.args[0])
                if (name.endswith("Error") or name == "append") and len(sentence) > 12:
                    found.append(sentence)
            elif isinstance(call, ast.Return | ast.AugAssign) and call.value is not None:
                # Lists of problems that are returned, or added to others.
                lists = [part for part in ast.walk(call.value) if isinstance(part, ast.List | ast.ListComp)]
                parts = [one for part in lists for one in (part.elts if isinstance(part, ast.List) else [part.elt])]
                told = [sentence for part in parts if ": " in (sentence := read_sentence(part))]
                found += [sentence for sentence in told if len(sentence.split()) > 4]
    return [sentence for sentence in found if not sentence.startswith("#")]  # those of a file that is written


def list_texts(folder) -> list[str]:
    texts = []
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if sentence := read_sentence(node):
                texts.append(plain(sentence))
    return texts


def plain(text: str) -> str:
    return " ".join(text.replace("`", "").split())


def quoted_messages(repository) -> list[str]:
    text = (repository / "docs" / "MESSAGES.md").read_text("utf-8")
    return [plain(row) for row in re.findall(r"^(?:\| (?=.* \|)|- )(`[^|\n]*`)(?= \||$)", text, re.MULTILINE)]


def pieces(sentence: str) -> list[str]:
    return [piece.strip() for piece in sentence.split("…") if len(piece.strip()) > 2]


def holds(text: str, sentence: str) -> bool:
    """Tell whether all fixed parts of a sentence stand in a text, in their order."""
    place = 0
    for piece in pieces(sentence):
        place = text.find(piece, place)
        if place < 0:
            return False
        place += len(piece)
    return True


def specific(message: str) -> bool:
    return sum(map(len, pieces(message))) >= 25


def test_every_quoted_message_is_in_the_code(repository):
    texts = list_texts(repository / "src" / "helpers")
    quoted = quoted_messages(repository)
    assert len(quoted) > 100 and len(quoted) == len(set(quoted))
    for message in quoted:
        assert any(holds(text, message) for text in texts), f"no sentence of the code reads: {message}"


def test_every_message_a_user_meets_is_explained(repository):
    quoted = quoted_messages(repository)
    missing = []
    reasons = [re.sub(r"\{.*?\}", "…", sentence) for sentence in SENTENCES.values()]
    assert len([sentence for sentence in reasons if len(sentence) > 12]) > 15
    for sentence in [*list_sentences(repository / "src" / "helpers", USED), *reasons]:
        if any(part in sentence for part in NOT_MET) or not pieces(sentence):
            continue
        if not any(
            holds(message, plain(sentence)) or (specific(message) and holds(plain(sentence), message))
            for message in quoted
        ):
            missing.append(sentence)
    assert not missing, "docs/MESSAGES.md lacks:\n" + "\n".join(missing)


# Sentences that no test sees yet, by a part of each. A new one does not belong here: write a test.
UNSEEN = (
    "mr_percentiles must be two increasing numbers",
    ": correct them, or leave those cells empty",
    ": does not fit SAM 2.1:",
    ": its folds are of different networks (",
    ": keep one, or name the column that tells repeated runs apart under co",
    ": no scan has a usable value; there is no comparison by",
    ": no such table of scores: correct cohort.scores.path",
    ": the name is too long for a file here: give the scan a shorter one",
    ": the network has no classes: train it again",
    "cannot be removed, which holds masks of an earlier start: remove it yo",
    "ct must keep a window named",
    "every score of this scan is empty",
    "is a fusion itself: name its members instead",
    "is empty: it needs a header and one row per scan",
    "is no metric): name the metric under cohort.scores.values (metric:",
    "knows no ties: remove the key",
    "may all be the score: name its column under cohort.scores.columns (val",
    "members or more, since two cannot tell which of them errs",
    "must name one of",
    "range must be two increasing numbers, such as [0, 1]",
    "scan is missing",
    "scores is required when source is 'scores': give the tables under scor",
    "with models and without: leave one out",
)


RUN = 18  # letters that a test's text and a sentence must share, one after the other


def list_test_texts(folder) -> list[str]:
    """Return the texts of all tests, those of regular expressions without their backslashes."""
    texts = set()
    for path in folder.glob("test_*.py"):
        if path.name != "test_docs.py":
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                texts.add(plain(re.sub(r"\\(.)", r"\1", read_sentence(node))))
    parts = (part.strip(" ^$()") for text in texts for part in re.split(r"…|\.\*|\.\+|\[.*?\]|\n", text))
    return sorted({part for part in parts if len(part) >= 10})


def test_every_message_a_user_meets_is_seen_by_a_test(repository):
    """A test names a part of it; whether the test makes it appear is for its reader to see."""
    texts = list_test_texts(repository / "tests")
    said, short = "\n".join(texts), [text for text in texts if len(text) < RUN]
    reasons = [re.sub(r"\{.*?\}", "…", sentence) for sentence in SENTENCES.values()]
    unseen, used = [], set()
    for sentence in dict.fromkeys([*list_sentences(repository / "src" / "helpers", USED), *reasons]):
        # A test may leave out what joins a sentence to the name before it.
        parts = [part for piece in pieces(sentence) if len(part := plain(piece).strip(" :;,.()")) >= 8]
        if any(part in sentence for part in NOT_MET) or not parts:
            continue
        excused = [part for part in UNSEEN if part in plain(sentence)]
        runs = (part[start : start + RUN] for part in parts for start in range(max(len(part) - RUN, 0) + 1))
        if any(run in said for run in runs) or any(text in part for part in parts for text in short):
            continue
        used |= set(excused)
        if not excused:
            unseen.append(sentence)
    assert not unseen, "no test sees:\n" + "\n".join(unseen)
    assert len(used) > len(UNSEEN) // 2, "most of UNSEEN are seen by now: take them out"


def test_a_message_that_nobody_lists_or_tests_is_found(tmp_path):
    """The guards above can fail."""
    lines = [
        "def check(path):",
        "    if path:",
        '        raise SegfairError(f"{path}: a wholly new sentence of an error: do this")',
        "    problems = []",
        '    problems += [f"models.{path}: a wholly new sentence of a list: do that"]',
        '    return [f"{name}: a wholly new sentence that is returned: do it" for name in path]',
    ]
    (tmp_path / "new.py").write_text("\n".join(lines), encoding="utf-8")
    assert set(list_sentences(tmp_path, ["*.py"])) == {
        "…: a wholly new sentence of an error: do this",
        "models.…: a wholly new sentence of a list: do that",
        "…: a wholly new sentence that is returned: do it",
    }
