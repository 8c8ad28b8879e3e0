"""A real SLURM of one node on this machine, loopback only, for whoever runs the tests."""

from __future__ import annotations

import getpass
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel")  # Debian: slurm-wlm, munge
PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
CONFIGURATION = """
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CryptoType=crypto/munge
StateSaveLocation={folder}
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
ReturnToService=2
KillWait=5
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES OverSubscribe=FORCE:2 MaxTime=INFINITE State=UP
"""


def say_missing() -> str:
    """Return why there can be no SLURM here; empty where there can."""
    missing = [name for name in PROGRAMS if shutil.which(name, path=PATH) is None]
    if missing:
        return f"no SLURM on this machine ({', '.join(missing)}): install slurm-wlm and munge"
    return "" if len(os.sched_getaffinity(0)) >= 2 else "SLURM's node needs two cores"


@contextmanager
def start_slurm() -> Iterator[dict[str, str]]:
    """Start munged, slurmctld and slurmd; yield what their clients need in the environment."""
    folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o600)
    (folder / "spool").mkdir()
    settings = CONFIGURATION.format(
        host=socket.gethostname().partition(".")[0], user=getpass.getuser(), folder=folder, ports=find_ports(2)
    )
    (folder / "slurm.conf").write_text(settings, encoding="utf-8")
    environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": PATH}
    files = {"key-file": "munge.key", "socket": "munge.socket", "pid-file": "munged.pid", "log-file": "munged.log"}
    files["seed-file"] = "munge.seed"
    try:
        munged = ["munged", "--force", *(f"--{name}={folder}/{file}" for name, file in files.items())]
        for command in (munged, ["slurmctld"], ["slurmd"]):
            subprocess.run(command, env=environment, check=True, capture_output=True, timeout=30)
        for _ in range(300):
            asked = subprocess.run(["sinfo", "-h", "-o", "%T"], env=environment, capture_output=True, encoding="utf-8")
            if "idle" in asked.stdout:
                break
            time.sleep(0.1)
        else:
            raise RuntimeError("\n".join(path.read_text("utf-8", "replace")[-2000:] for path in folder.glob("*.log")))
        yield {"SLURM_CONF": environment["SLURM_CONF"], "PATH": PATH}
    finally:
        subprocess.run(["scancel", "--user", getpass.getuser()], env=environment, capture_output=True, timeout=30)
        for name in ("slurmd", "slurmctld", "munged"):
            with suppress(OSError, ValueError):  # gone, or never started
                process = int((folder / f"{name}.pid").read_text("utf-8"))
                os.kill(process, signal.SIGTERM)
                for _ in range(100):  # until it is gone, and writes no state any more
                    os.kill(process, 0)
                    time.sleep(0.1)
        shutil.rmtree(folder, ignore_errors=True)


def find_ports(number: int) -> list[int]:
    probes = [socket.socket() for _ in range(number)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def list_jobs() -> list[str]:
    """Return the ids of the jobs that wait or run."""
    asked = subprocess.run(["squeue", "-h", "-o", "%i"], capture_output=True, check=True, encoding="utf-8", timeout=30)
    return asked.stdout.split()


def wait_until(found, seconds: float = 60.0):
    """Wait until a function returns something true, and return it."""
    end = time.monotonic() + seconds
    while not (result := found()):
        assert time.monotonic() < end, f"waited {seconds:.0f} s in vain"
        time.sleep(0.1)
    return result


def work(case: tuple[int, Path]) -> tuple[int, str, int]:
    """Leave a trace, so that the test knows who works on what now.

    It stands here because workers import its module, and tests import far more.
    """
    number, folder = case
    trace = folder / f"{number}-{os.environ['SLURM_JOB_ID']}-{os.getpid()}"
    trace.touch()
    time.sleep(0.5)
    trace.unlink()
    return number, os.environ["SLURM_JOB_ID"], os.getpid()


def linger(number: int) -> tuple[int, int]:
    time.sleep(0.1)  # long enough for every worker to get some
    return number, os.getpid()
