import numpy as np
import pytest

from ichtune.report.reliability import N_BINS, reliability


def test_bins_hold_every_slice_once_and_their_means():
    p = np.array([0.0, 0.05, 0.1, 0.55, 0.59, 1.0])
    y = np.array([0.0, 1.0, 0.0, 1.0, 0.0, 1.0])
    points = reliability(y, p, np.arange(6))
    assert [point["n"] for point in points] == [2, 1, 2, 1]
    assert points[0]["predicted"] == pytest.approx(0.025)
    assert [point["observed"] for point in points] == [0.5, 0.0, 0.5, 1.0]


def test_a_calibrated_prediction_lies_inside_its_interval():
    rng = np.random.default_rng(0)
    p = rng.random(4000)
    y = (rng.random(4000) < p).astype(float)
    points = reliability(y, p, np.repeat(np.arange(400), 10))
    assert len(points) == N_BINS
    inside = [point["low"] <= point["predicted"] <= point["high"] for point in points]
    assert sum(inside) >= N_BINS - 2


def test_patients_are_resampled_not_slices():
    rng = np.random.default_rng(1)
    y = np.repeat((rng.random(20) < 0.5).astype(float), 50)  # all slices of a patient agree
    p = np.full(len(y), 0.55)
    by_patient = reliability(y, p, np.repeat(np.arange(20), 50))[0]
    by_slice = reliability(y, p, np.arange(len(y)))[0]
    assert by_patient["high"] - by_patient["low"] > 4 * (by_slice["high"] - by_slice["low"])


def test_the_same_slices_give_the_same_intervals():
    y, p, patients = np.array([0.0, 1.0, 1.0]), np.array([0.2, 0.21, 0.9]), np.array(["a", "b", "b"])
    assert reliability(y, p, patients) == reliability(y, p, patients)
