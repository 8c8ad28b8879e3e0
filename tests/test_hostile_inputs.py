"""A thousand hostile inputs, each ends in a sentence: no traceback, no flood, no hang, nothing run
and nothing written (tests/fuzzing.py; `make fuzz` takes any seed)."""

from __future__ import annotations

import os
from itertools import islice

import numpy as np
import pytest

from tests import fuzzing, hostile_dicom
from tests import hostile_inputs as hostile

pytestmark = pytest.mark.skipif(os.name != "posix", reason="limits of a process are POSIX's")


@pytest.mark.parametrize("kind", ["images", "table", "parameters", "weights", "dicom"])
def test_each_hostile_input_ends_in_a_sentence(warm_place, kind):
    cases = [case for case in fuzzing.list_cases(20261130, 1000, together=20) if case[0].startswith(kind)]
    assert len(cases) > 20
    faults = fuzzing.run_apart(cases, warm_place)
    assert not faults, "\n".join(faults)


def test_a_study_with_hostile_images_is_done(tmp_path, warm_place):
    os.chdir(tmp_path)  # `warm_place` comes back from it
    assert fuzzing.run_study(20261130, 40, tmp_path) == []


def test_a_study_with_hostile_dicom_files_is_done(tmp_path, warm_place):
    os.chdir(tmp_path)
    assert fuzzing.run_dicom_study(20261130, 40, tmp_path) == []


def test_a_seed_draws_the_same_inputs_again():
    def draw():
        rng = np.random.default_rng(5)
        kinds = (hostile.draw_images, hostile.draw_tables, hostile.draw_weights, hostile_dicom.draw_people)
        return [list(islice(kind(rng), 40)) for kind in kinds]

    assert draw() == draw()


@pytest.mark.parametrize(
    ("code", "said", "fault"),
    [
        (98, "", "it ended with 98"), (2, " ", "it said nothing"), (1, "x" * 30_000, "30000 letters"),
        (2, "Traceback (most recent call last)\n", "a traceback"),
        (1, "[Errno 36] too long", "words of Python's: Errno"),
        (2, "ValueError: month", "words of Python's: ValueError"), (1, "1 problem found", ""),
    ],
)  # fmt: skip
def test_the_judge_sees_each_fault(code, said, fault):
    assert fuzzing.judge(code, said) == fault


def test_what_hangs_eats_memory_or_writes_is_told(tmp_path):
    def write(folder):
        (folder / "before").touch()
        return ["models"]

    def hang(folder):
        while True:
            pass

    def eat(folder):
        return [bytearray(6 * 2**30)]

    assert fuzzing.run_apart([("good", write)], tmp_path) == []
    assert "hung" in fuzzing.run_apart([("bad", hang)], tmp_path, seconds=0.1)[0]
    assert "MemoryError" in fuzzing.run_apart([("bad", eat)], tmp_path)[0]
