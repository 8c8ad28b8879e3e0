"""What is read once and kept, and how an organ is measured."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
import SimpleITK as sitk

from helpers.spatial.boundary import MaskBoundary
from helpers.widgets.scans import ScanStore, _Cache, _enclose
from tests.browsed_study import write_study


@pytest.fixture
def study(tmp_path):
    return write_study(tmp_path)


@pytest.fixture
def store(study):
    return ScanStore(study, study.read_included().set_index("number", drop=False))


def test_scan_is_read_once(store):
    assert store.load_scan(1) is store.load_scan(1)
    assert store.load_scan(1).labels.shape == (19, 25, 30)
    part = (slice(0, 2), 3)
    assert store.load_scan(1).window(part).dtype == np.uint8 and store.load_scan(1).window(part).shape == (2, 30)
    assert store.load_scan(2).image is None and store.load_scan(2).window(part) is None


def test_organ_is_measured_in_place(store):
    case = store.measure_organ("eroded", "organ", 1)
    scan = store.load_scan(1)
    assert case.in_reference and case.in_prediction and case.has_prediction
    assert all(part.start <= place < part.stop for part, place in zip(case.box, case.middle, strict=True))
    boundary = MaskBoundary(scan.labels == 1, scan.spacing_mm)
    errors = case.measure(boundary.points_mm, scan.spacing_mm)
    assert np.median(errors) == pytest.approx(4.0, abs=1.3), "the prediction is 4 mm larger; voxels are up to 4 mm"
    assert case.largest_mm > 0
    assert not store.is_measured("exact", "organ", 1) and store.is_measured("eroded", "organ", 1)


def test_without_a_prediction_no_error_is_known(store):
    case = store.measure_organ("eroded", "organ", 3)
    assert not case.has_prediction and case.worst is None and np.isnan(case.largest_mm)
    assert np.isnan(case.measure(np.zeros((2, 3)), (1.0, 1.0, 1.0))).all()


def test_box_has_a_margin_and_stays_in_the_scan():
    box = (slice(10, 20), slice(40, 50), slice(95, 100))
    assert _enclose([box], (60, 100, 100), (5.0, 5.0, 25.0)) == (slice(5, 25), slice(35, 55), slice(94, 100))
    other = (slice(30, 31), slice(0, 1), slice(0, 1))
    assert _enclose([box, other], (60, 100, 100), (5.0, 5.0, 25.0)) == (slice(5, 36), slice(0, 55), slice(0, 100))
    assert _enclose([], (3, 4, 5), (1.0, 1.0, 1.0)) == (slice(0, 3), slice(0, 4), slice(0, 5))


def test_cache_forgets_the_oldest():
    cache, made = _Cache(2), []
    for key in (1, 2, 1, 3, 1, 2):
        cache.find(key, lambda key=key: made.append(key) or key)
    assert made == [1, 2, 3, 2], "2 was forgotten for 3; 1 had been used since"


def test_what_two_threads_ask_for_is_made_once():
    cache, made, found = _Cache(2), [], []

    def make():
        made.append(1)
        time.sleep(0.1)
        return "made"

    threads = [threading.Thread(target=lambda: found.append(cache.find("key", make))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [1] and found == ["made"] * 4


def test_a_failure_is_not_kept():
    cache = _Cache(2)

    def fail():
        raise OSError("no")

    with pytest.raises(OSError, match="no"):
        cache.find("key", fail)
    assert cache.find("key", lambda: 5) == 5


def test_nothing_of_another_grid_is_shown_though_its_shape_fits(study):
    cohort = study.read_included().set_index("number", drop=False)
    for path in (cohort.loc[1, "image"], study.prediction_path("eroded", cohort.loc[1, "scan"])):
        image = sitk.ReadImage(str(path))
        image.SetOrigin([place + 10.0 for place in image.GetOrigin()])
        sitk.WriteImage(image, str(path))
    store = ScanStore(study, cohort)
    assert store.load_scan(1).image is None
    assert store.load_prediction("eroded", 1) is None and store.load_prediction("eroded", 2) is not None
