"""Other programs: words, never a shell; ended with all they started; failures in a sentence."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from helpers import programs
from helpers.errors import SegfairError


def run(tmp_path: Path, *words: str, timeout_s: float = 30.0, **own: str) -> str:
    log = tmp_path / "logs" / "a.log"
    environment = programs.make_environment(own)
    programs.run_program(list(words), environment=environment, folder=tmp_path, log=log, timeout_s=timeout_s)
    return log.read_text(encoding="utf-8")


def test_a_filled_in_word_stays_one_word_and_no_shell_reads_it(tmp_path):
    words = programs.split_words(
        f"'{sys.executable}' -c 'import sys; print(sys.argv[1:])' --in={{image}} \"{{'a': 1}}\" $HOME"
    )
    assert programs.list_placeholders(words) == ["image"]
    filled = programs.fill_words(words, {"image": "a b; touch pwned {scan} $(touch pwned)"})
    said = run(tmp_path, *filled)
    assert said.strip() == repr(["--in=a b; touch pwned {scan} $(touch pwned)", "{'a': 1}", "$HOME"])
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(("command", "says"), [("a 'b", 'close the quotes; got "a \'b"'), ("  ", "is empty: name")])
def test_a_command_that_is_none_is_refused(command, says):
    with pytest.raises(SegfairError, match=says):
        programs.split_words(command)


def test_the_environment_is_clean(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    monkeypatch.setenv("VIRTUAL_ENV", "/somewhere")
    monkeypatch.setenv("A_TOKEN", "secret")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    said = run(tmp_path, "env", MINE="a b")
    lines = set(said.splitlines())
    assert {"MINE=a b", "CUDA_VISIBLE_DEVICES=1", f"PATH={os.environ['PATH']}"} <= lines
    assert not any(line.startswith(("PYTHONPATH", "VIRTUAL_ENV", "A_TOKEN", "OMP_")) for line in lines)


def test_a_program_gets_no_input_and_starts_in_the_folder(tmp_path):
    script = tmp_path / "tools" / "here.sh"
    script.parent.mkdir()
    script.write_text("#!/bin/sh\npwd; cat; echo done\n", encoding="utf-8")
    script.chmod(0o755)
    assert run(tmp_path, "tools/here.sh").splitlines() == [str(tmp_path), "done"]


@pytest.mark.parametrize(
    ("shell", "says"),
    [
        ("echo loading; echo; echo 'no weights' >&2; echo; exit 3", "sh ended with exit code 3: no weights"),
        ("exit 1", "sh ended with exit code 1: it said nothing"),
        ("kill -9 $$", r"sh was killed \(signal 9\), most likely because memory ran out: it said nothing"),
        ("exit 137", r"sh was killed \(signal 9\), most likely because memory ran out"),
        ("echo at 5; kill -SEGV $$", r"sh crashed or was ended \(SIGSEGV\): at 5"),
        (r"printf 'bar 1\rbar 2\r\033[31mred\033[0m\r\n'; exit 2", "sh ended with exit code 2: red$"),
        ("printf 'x%.0s' $(seq 500); exit 2", "exit code 2: x{199}…$"),
    ],
)
def test_a_failure_is_one_sentence_with_the_programs_last_words(tmp_path, shell, says):
    with pytest.raises(SegfairError, match=says):
        run(tmp_path, "sh", "-c", shell)


def test_a_program_that_cannot_be_started(tmp_path):
    with pytest.raises(SegfairError, match="there is no program 'nowhere' that can be started: install it or give"):
        run(tmp_path, "/opt/nowhere")
    script = tmp_path / "no_interpreter"
    script.write_text("print(1)\n", encoding="utf-8")
    with pytest.raises(SegfairError, match="there is no program 'no_interpreter' that can be started"):
        run(tmp_path, "./no_interpreter")  # not executable
    script.chmod(0o755)
    with pytest.raises(SegfairError, match=r"no_interpreter cannot be started \(Exec format error\): name the inter"):
        run(tmp_path, "./no_interpreter")


# A child and a grandchild; the grandchild takes no request to end.
FORKING = """
import os, signal, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", '''
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
open("grandchild", "w").write(str(os.getpid()))
time.sleep(600)
'''])
while not os.path.exists("grandchild"):
    time.sleep(0.01)
print("working", flush=True)
{then}
"""


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_a_time_out_ends_the_whole_group(tmp_path, monkeypatch):
    monkeypatch.setattr(programs, "_PATIENCE_S", 0.3)
    began = time.monotonic()
    with pytest.raises(SegfairError, match=r"was ended after 0\.05 minutes: .* \(its last words: working\)"):
        run(tmp_path, sys.executable, "-c", FORKING.format(then="time.sleep(600)"), timeout_s=3.0)
    assert time.monotonic() - began < 20
    assert not is_alive(int((tmp_path / "grandchild").read_text(encoding="utf-8")))


def test_what_a_program_leaves_behind_is_ended_too(tmp_path, monkeypatch):
    monkeypatch.setattr(programs, "_PATIENCE_S", 0.3)
    assert run(tmp_path, sys.executable, "-c", FORKING.format(then="")) == "working\n"
    assert not is_alive(int((tmp_path / "grandchild").read_text(encoding="utf-8")))


def test_an_interrupt_ends_the_program(tmp_path):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    former = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 1.0)
    try:
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, "sh", "-c", "echo $$ > pid; sleep 600")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)
    assert not is_alive(int((tmp_path / "pid").read_text(encoding="utf-8")))


def test_a_version_is_what_the_program_says(tmp_path):
    environment = programs.make_environment({})
    assert programs.ask_version(["sh", "-c", "echo tool; echo 2.1 >&2"], environment, tmp_path) == "tool\n2.1"
    with pytest.raises(SegfairError, match="sh ended with exit code 4: it said nothing"):
        programs.ask_version(["sh", "-c", "exit 4"], environment, tmp_path)
