"""A study runs wherever it lies and whatever the machine's other programs are set to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import yaml

from helpers import cohort, kernel, storage
from helpers.errors import SegfairError
from helpers.inference import run_inference
from helpers.models import list_templates
from helpers.study import choose_checkpoints_folder, load_study
from helpers.volumes import read_volume
from tests.test_cohort import save
from tests.test_dicom import write_series
from tests.test_parameters import SMALL
from tests.test_pipeline import write_notebook

# What a notebook of these tests does beside its stage: work in another process, and say where its
# code came from.
BODY = """
import helpers, os, random
from helpers.compute import close_client, map_cases
from helpers.parameters import Compute
print(*map_cases(os.path.basename, ["a/ü"], ids=["ü"], compute=Compute(workers=0), label="naming"))
print("package", helpers.__file__)
"""
ON_WORKERS = "import torch" + BODY.replace('["a/ü"], ids=["ü"]', '["a/ü", "b"], ids="üb"').replace("s=0", "s=1")


def make_study(folder, body: str = BODY):
    (folder / "params").mkdir(parents=True)
    (folder / "params" / "small.yaml").write_text(yaml.safe_dump(SMALL), encoding="utf-8")
    write_notebook(folder / "notebooks" / "01_cohort.ipynb", "01_cohort", body)
    return folder


def run(study, *, unset=(), **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run the command as one that is installed does: nothing says where its package lies but
    itself."""
    variables = {name: value for name, value in os.environ.items() if name not in (*unset, "PYTHONPATH", "PYTHONUTF8")}
    source = str(Path(storage.__file__).resolve().parents[1])
    code = f"import sys; sys.path.insert(0, {source!r}); from helpers.cli import main; main()"
    parameters = str(study / "params" / "small.yaml")
    return subprocess.run(
        [sys.executable, "-P", "-c", code, "run", parameters, "--only", "01"],
        env=variables | environment,
        cwd=study,
        capture_output=True,
        timeout=120,
        check=False,
    )


@pytest.mark.slow
def test_a_hostile_place(tmp_path):
    """Everything at once: each of these alone stopped a run, or let other code in."""
    home, study = tmp_path / "home", make_study(tmp_path / '{params} {x} #1 %20 it\'s "größe"\n体', ON_WORKERS)
    for name in ("helpers", "torch", "pandas", "random", "json"):
        (study / f"{name}.py").write_text("raise SystemExit('a module of the user')\n", encoding="utf-8")
    temporary = tmp_path / ("t" * (110 - len(str(tmp_path))))
    temporary.mkdir()
    files = {
        ".local/share/jupyter/kernels/python3/kernel.json": json.dumps(
            {"argv": ["/removed/python", "-f", "{connection_file}"], "display_name": "x", "language": "python"}
        ),
        ".local/share/jupyter/nbconvert/templates/lab/conf.json": "{",
        ".jupyter/jupyter_config.json": '{"KernelManager": {"transport": "tcp"}, "NotebookClient": {"timeout": 1}}',
        ".ipython/profile_default/ipython_config.py": "raise ValueError('broken')\n",
        ".ipython/profile_default/startup/00.py": "import os; os._exit(3)\n",
        ".config/dask/site.yaml": yaml.safe_dump(
            {
                "distributed": {
                    "comm": {"require-encryption": True, "default-scheme": "tls", "tls": {"ca-file": "/none.pem"}},
                    "worker": {"preload": ["no_such_module"], "memory": {"terminate": 0.01, "pause": 0.01}},
                    "scheduler": {"preload": ["no_such_module"]},
                    "nanny": {"preload": ["no_such_module"], "pre-spawn-environ": {"PYTHONPATH": str(study)}},
                },
                "temporary-directory": "/proc/none",
            }
        ),
    }
    for name, text in files.items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(text, encoding="utf-8")
    done = run(
        study,
        HOME=str(home),
        TMPDIR=str(temporary),
        LC_ALL="C",
        PYTHONUTF8="0",
        PYTHONCOERCECLOCALE="0",
        PYTHONIOENCODING="ascii",
        JUPYTER_PREFER_ENV_PATH="0",
        JUPYTER_PATH=str(home / ".local/share/jupyter"),
        JUPYTER_RUNTIME_DIR="/proc/none",
        DASK_DISTRIBUTED__NANNY__PRELOAD="[no_such_module]",
    )
    shown = done.stdout.decode("ascii")
    assert done.returncode == 0, shown + done.stderr.decode("utf-8", "replace")
    assert "? b" in shown.splitlines(), "what the terminal cannot show is replaced, not left out"
    assert f"package {Path(kernel.__file__).parent}" in shown
    assert (study / "outputs" / "small" / "notebooks" / "01_cohort.html").exists()
    assert not list(temporary.glob("segfair-*")), "sockets lie where their path is short enough"


def test_a_user_without_name_or_home(tmp_path):
    """As in a container under a number that no list of users holds."""
    study = make_study(tmp_path / "study")
    (tmp_path / "sitecustomize.py").write_text(
        "import pwd\ndef refuse(*_):\n    raise KeyError('no such user')\npwd.getpwuid = pwd.getpwnam = refuse\n",
        encoding="utf-8",
    )
    unset = ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME", "JUPYTER_DATA_DIR")
    done = run(study, unset=unset, PYTHONPATH=str(tmp_path))
    assert done.returncode == 0, (done.stdout + done.stderr).decode("utf-8", "replace")


def test_no_place_for_sockets_is_a_sentence_that_names_the_setting(tmp_path, monkeypatch):
    monkeypatch.setattr(kernel.tempfile, "gettempdir", lambda: "/" + "t" * 95)
    monkeypatch.setattr(kernel, "_PLACES", ("/proc/none",))
    told = r"^TMPDIR \(/t+\) is too long .*: set TMPDIR to a folder whose path"
    with pytest.raises(SegfairError, match=told), kernel.open_private_folder():
        pass


def test_settings_of_dask_that_cannot_be_read_are_a_sentence(tmp_path):
    (tmp_path / "dask").mkdir()
    (tmp_path / "dask" / "site.yaml").write_text("a: [1\n", encoding="utf-8")
    code = (
        "from helpers.compute import map_cases; from helpers.parameters import Compute;"
        "map_cases(abs, [1, 2], ids='ab', compute=Compute(workers=1), label='x')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"DASK_CONFIG": str(tmp_path / "dask")}, capture_output=True,
        check=False, encoding="utf-8",
    )  # fmt: skip
    assert "SegfairError: the settings of Dask cannot be read (A dask config file at" in done.stderr
    assert "site.yaml" in done.stderr and "correct that file" in done.stderr


def test_a_folder_whose_name_is_no_text_is_a_sentence(tmp_path):
    done = run(make_study(tmp_path / os.fsdecode(b"gr\xf6\xdfe")))
    assert done.returncode == 2
    assert "the names in this path are not UTF-8 text: rename the folder" in done.stderr.decode("utf-8", "replace")


def test_a_tilde_is_the_home_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert storage.expand_home(Path("~/a")) == tmp_path / "a"
    assert storage.expand_home(Path("~draft.nii.gz")) == Path("~draft.nii.gz")
    monkeypatch.delenv("HOME")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("SEGFAIR_CHECKPOINTS", raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda number: {}[number])
    assert storage.expand_home(Path("~/a")) == Path("~/a")
    assert choose_checkpoints_folder() == Path("/.cache/segfair/checkpoints")


def store(folder) -> None:
    """Move every file into a store under names that say nothing, as git-annex does, and link it
    back."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    for number, file in enumerate(files):
        key = folder / ".git" / "annex" / "objects" / f"{number:02d}" / f"MD5-s9--{number:032x}"
        key.parent.mkdir(parents=True)
        file.rename(key)
        file.symlink_to(os.path.relpath(key, file.parent))


def test_links_into_a_store_are_called_by_their_own_names(tmp_path):
    """Table, parameters, images, label maps, folders of masks, pairs of files, predictions, DICOM
    slices."""
    data = tmp_path / "store #1 {scan} 100%" / "data"
    mask = np.zeros((7, 8, 9), np.uint8)
    mask[2:5, 2:6, 2:5] = 1
    greys = np.where(mask > 0, 50, -1000).astype(np.int16)
    save(mask, data / "masks" / "a.nii.gz")
    save(greys, data / "images" / "a.nhdr")
    save(mask, data / "masks" / "b" / "liver.nii")
    save(greys, data / "images" / "b.mha")
    scan = sitk.GetImageFromArray(greys)
    scan.SetSpacing((0.8, 0.9, 2.5))
    write_series(scan, data / "images" / "c")
    sitk.WriteImage(scan > 0, str(data / "masks" / "c.hdr"))
    (data / "theirs").mkdir()
    for name, file in (("a", "a.nii.gz"), ("b", "b/liver.nii"), ("c", "c.hdr")):
        sitk.WriteImage(sitk.ReadImage(str(data / "masks" / file)), str(data / "theirs" / f"{name}.nii.gz"))
    (data / "people.csv").write_text(
        "subject,sex,modality,image,reference\na,female,CT,images/a.nhdr,masks/a.nii.gz\n"
        "b,male,CT,images/b.mha,masks/b\nc,male,CT,images/c,masks/c.hdr\n",
        encoding="utf-8",
    )
    parameters = {
        "name": "stored",
        "cohort": {
            "source": "table", "path": "people.csv", "organs": {"liver": {"labels": [1], "files": ["liver"]}},
            "attributes": {"sex": None},
        },
        "models": [
            {"name": "box", "kind": "prompt_only"},
            {"name": "theirs", "kind": "precomputed", "path": "theirs/{scan}.nii.gz"},
        ],
        "compute": {"workers": 0},
    }  # fmt: skip
    (data / "stored.yaml").write_text(yaml.safe_dump(parameters), encoding="utf-8")
    store(data)
    for key in (data / ".git").rglob("MD5*"):  # not fetched yet
        key.rename(key.with_suffix(".away"))
    with pytest.raises(SegfairError, match=r"^a\.nii\.gz: no such file: it is a link of git-annex: fetch it"):
        read_volume(data / "masks" / "a.nii.gz")
    for key in (data / ".git").rglob("MD5*"):
        key.rename(key.with_suffix(""))
    study = load_study(data / "stored.yaml")
    assert cohort.check_cohort(study, list_templates(study)).problems == []
    table = cohort.build_cohort(study).table
    assert table["included"].all(), table["reason"].tolist()
    done = run_inference(study)
    assert done["status"].tolist() == ["ok"] * 6, done["error"].tolist()
