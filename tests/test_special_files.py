"""What is no ordinary file (a pipe, a device, a socket, a folder) at every door: never waited for,
never read without end, told in a sentence."""

from __future__ import annotations

import os
import socket
import tempfile
from pathlib import Path

import numpy as np
import pytest

from tests import dicom_files, fuzzing
from tests import hostile_inputs as hostile

pytestmark = pytest.mark.skipif(os.name != "posix", reason="pipes and devices are POSIX's")

READY = '{name: ours, kind: precomputed, path: "ours/{scan}.nii.gz"}'
PEOPLE = "subject,scan,sex,age,bmi,modality,reference,image\n"


def make_pipe(path):
    os.mkfifo(path)


def link_endless(path):
    path.symlink_to("/dev/zero")


def make_folder(path):
    path.mkdir()


def make_socket(path):
    """Bind a socket and close it: its file stays. Its path may not be longer than 107 bytes."""
    with tempfile.TemporaryDirectory() as short, socket.socket(socket.AF_UNIX) as bound:
        bound.bind(f"{short}/s")
        Path(short, "s").rename(path)


def write_study(folder, reference="masks/a.nii.gz", image="", labels="[1]", model=READY):
    """Write two people, the first with these files, and the parameter file; return the command."""
    (folder / "ours").mkdir(exist_ok=True)
    rows = [f"p1,s1,female,50,22,CT,{reference},{image}", "p2,s2,male,51,23,CT,masks/b.nii.gz,"]
    if not os.path.lexists(folder / "people.csv"):
        (folder / "people.csv").write_text(PEOPLE + "\n".join(rows) + "\n", encoding="utf-8")
    text = fuzzing.STUDY.format(table="people.csv").replace(READY, model).replace("[1]", labels)
    (folder / "study.yaml").write_text(text, encoding="utf-8")
    return ["check", "study.yaml", "-o", "compute.workers=0"]


def at_image(folder, put):
    put(folder / "image.nii.gz")
    return write_study(folder, image="image.nii.gz")


def at_reference(folder, put):
    put(folder / "reference.nii.gz")
    return write_study(folder, reference="reference.nii.gz")


def at_prediction(folder, put):
    (folder / "ours").mkdir()
    put(folder / "ours" / "s1.nii.gz")
    return write_study(folder)


def at_every_prediction(folder, put):
    (folder / "ours").mkdir()
    put(folder / "ours" / "s1_any.nii.gz")
    return write_study(folder, model=READY.replace(".nii", "_*.nii"))


def at_voxels_of_a_header(folder, put):
    header = bytearray(hostile.GOOD[:348])
    header[344:348] = b"ni1\0"
    (folder / "pair.hdr").write_bytes(header)
    put(folder / "pair.img")
    return write_study(folder, reference="pair.hdr")


def at_voxels_of_nrrd(folder, put):
    (folder / "x.nhdr").write_text(f"{hostile.NRRD}data file: x.raw\n\n", encoding="ascii")
    put(folder / "x.raw")
    return write_study(folder, reference="x.nhdr")


def at_a_series(folder, put):
    (folder / "series").mkdir()
    put(folder / "series" / "1.dcm")
    return write_study(folder, image="series", reference="series/1.dcm")


def at_a_png(folder, put):
    dicom_files.save_series(
        dicom_files.make_series(np.zeros((3, 6, 5), np.int16), dicom_files.make_person()), folder / "DICOM_anon"
    )
    (folder / "Ground").mkdir()
    for number in range(3):
        put(folder / "Ground" / f"{number}.png")
    return write_study(folder, reference="Ground")


def at_a_lookup_table(folder, put):
    put(folder / "masks" / "dseg.tsv")
    os.link(folder / "masks" / "a.nii.gz", folder / "masks" / "sub-1_dseg.nii.gz")
    return write_study(folder, reference="masks/sub-1_dseg.nii.gz", labels="[Liver]")


def at_the_table(folder, put):
    put(folder / "people.csv")
    return write_study(folder)


def at_the_parameters(folder, put):
    put(folder / "study.yaml")
    return ["check", "study.yaml"]


def at_a_checkpoint(folder, put):
    put(folder / "sam.pth")
    return write_study(folder, model="{name: ours, kind: sam, checkpoint: sam.pth}")


def at_verify(folder, put):
    put(folder / "sam.pth")
    return ["checkpoints", "verify", "sam.pth"]


def at_a_model_folder(folder, put):
    (folder / "net" / "fold_0").mkdir(parents=True)
    for name in ("dataset.json", "plans.json", "fold_0/checkpoint_final.pth"):
        put(folder / "net" / name)
    return write_study(folder, model="{name: ours, kind: nnunet, folder: net}")


def at_what_a_model_was_trained_on(folder, put):
    put(folder / "listed.txt")
    return write_study(folder, model=f"{READY[:-1]}, trained_on_scans: listed.txt}}")


def at_a_tree_of_dicom(folder, put):
    for name in ("tree", "ours"):
        (folder / name).mkdir()
    put(folder / "tree" / "1.dcm")
    (folder / "study.yaml").write_text(fuzzing.DICOM_STUDY, encoding="utf-8")
    return ["check", "study.yaml", "-o", "compute.workers=0"]


def at_scores(folder, put):
    put(folder / "scores.csv")
    return ["audit", "scores.csv", "--people", "scores.csv", "--attributes", "sex"]


def at_init(folder, put):
    for name in ("images", "masks"):
        (folder / "data" / name).mkdir(parents=True)
        put(folder / "data" / name / "p1.nii.gz")
        (folder / "data" / name / "p2.nii.gz").write_bytes((folder / "masks" / "a.nii.gz").read_bytes())
    put(folder / "data" / "masks" / "dataset.json")
    (folder / "data" / "people.csv").write_text("subject,sex,age\np1,F,50\np2,M,51\n", encoding="utf-8")
    return ["init", "data/people.csv", "--output", "outputs/init.yaml"]


DOORS = [door for name, door in list(globals().items()) if name.startswith("at_")]


@pytest.mark.parametrize("put", [make_pipe, link_endless, make_folder, make_socket])
def test_what_is_no_file_is_told_at_every_door(warm_place, put):
    cases = [(f"{door.__name__}, {put.__name__}", lambda folder, door=door: door(folder, put)) for door in DOORS]
    faults = [fault for case in cases for fault in fuzzing.run_apart([case], warm_place, seconds=2)]
    assert not faults, "\n".join(faults)
