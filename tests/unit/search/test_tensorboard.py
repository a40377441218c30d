import struct
from collections import defaultdict

import pytest
from tensorboardX.crc32c import crc32c
from tensorboardX.proto.event_pb2 import Event, SessionLog

from ichtune.search.cluster import Cluster
from ichtune.search.ledger import FINISHED, INTERRUPTED
from ichtune.search.telemetry import TrialEvent
from ichtune.search.tensorboard import TensorBoardLog

CLUSTER = Cluster("", "", 2, 0, joined=False)
PARAMETERS = {"lr": 1e-3, "windows": [[40, 80], [80, 200]], "optimizer": "sgd"}


def epoch(trial, number, loss, **figures):
    return TrialEvent("epoch", trial, "net", number, 4, loss, train_loss=loss + 0.1, lr=1e-3, seconds=2.0, **figures)


def end(trial, number, loss, kind="finished"):
    return TrialEvent(kind, trial, "net", number, 4, loss, parameters=PARAMETERS)


def masked_crc(data):
    crc = crc32c(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def events_of(path):
    """Read a file of TensorFlow records, checksums included."""
    content, place = path.read_bytes(), 0
    while place < len(content):
        header = content[place : place + 8]
        (length,) = struct.unpack("<Q", header)
        data = content[place + 12 : place + 12 + length]
        assert struct.unpack("<I", content[place + 8 : place + 12])[0] == masked_crc(header)
        assert struct.unpack("<I", content[place + 12 + length : place + 16 + length])[0] == masked_crc(data)
        yield Event.FromString(data)
        place += 16 + length


def shown(folder, trial):
    """What TensorBoard shows of a trial: a file that starts a session purges its steps from the files before."""
    curves = defaultdict(list)
    for path in sorted((folder / "tensorboard" / f"trial_{trial:04d}").iterdir(), key=lambda p: p.stat().st_mtime_ns):
        for event in events_of(path):
            if event.session_log.status == SessionLog.START:
                for tag, points in curves.items():
                    curves[tag] = [point for point in points if point[0] < event.step]
            for value in event.summary.value:
                curves[value.tag].append((event.step, pytest.approx(value.simple_value)))
    return curves


def log(folder, records, *events):
    watcher = TensorBoardLog(folder)
    watcher.started("s", CLUSTER, records)
    for event in events:
        watcher.event(event)
    watcher.ended()


def test_a_trial_s_curve_and_parameters_are_written(tmp_path):
    log(tmp_path, [], epoch(3, 1, 0.4, rung=0, rung_loss=0.35), epoch(3, 2, 0.3), end(3, 2, 0.3))

    curves = shown(tmp_path, 3)

    assert curves["loss/validation"] == [(1, 0.4), (2, 0.3)]
    assert curves["loss/training"] == [(1, 0.5), (2, 0.4)]
    assert curves["loss/rung"] == [(1, 0.35)]
    assert curves["learning_rate"] == [(1, 1e-3), (2, 1e-3)]
    assert curves["speed/seconds_per_epoch"] == [(1, 2.0), (2, 2.0)]
    assert "_hparams_/session_start_info" in curves


def test_hyperparameters_are_plain_values(tmp_path):
    from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData

    log(tmp_path, [], epoch(0, 1, 0.4), end(0, 1, 0.4))

    (path,) = (tmp_path / "tensorboard" / "trial_0000").iterdir()
    (told,) = [
        HParamsPluginData.FromString(value.metadata.plugin_data.content).session_start_info.hparams
        for event in events_of(path)
        for value in event.summary.value
        if value.tag == "_hparams_/session_start_info"
    ]
    assert told["lr"].number_value == 1e-3
    assert told["windows"].string_value == "[[40, 80], [80, 200]]"
    assert told["optimizer"].string_value == "sgd"


def test_a_continued_trial_shows_each_epoch_once_even_one_that_a_kill_kept_from_the_file(tmp_path, record):
    log(tmp_path, [], epoch(0, 1, 0.4), epoch(0, 2, 0.35))

    log(tmp_path, [record(0, [0.4, 0.35, 0.3], INTERRUPTED)], epoch(0, 4, 0.25), end(0, 4, 0.25))

    assert shown(tmp_path, 0)["loss/validation"] == [(1, 0.4), (2, 0.35), (3, 0.3), (4, 0.25)]


def test_a_stopped_trial_that_is_promoted_goes_on(tmp_path):
    log(tmp_path, [], epoch(0, 1, 0.4), end(0, 1, 0.4, "stopped"), epoch(0, 2, 0.3), end(0, 2, 0.3))

    assert shown(tmp_path, 0)["loss/validation"] == [(1, 0.4), (2, 0.3)]


def test_trials_that_ended_before_tensorboard_was_asked_for_are_written_once(tmp_path, record):
    records = [record(0, [0.4, 0.3], FINISHED), record(1, [], FINISHED)]
    log(tmp_path, records)
    log(tmp_path, records)

    assert shown(tmp_path, 0)["loss/validation"] == [(1, 0.4), (2, 0.3)]
    assert "_hparams_/session_start_info" in shown(tmp_path, 0)
    assert [path.name for path in (tmp_path / "tensorboard").iterdir()] == ["trial_0000"]


def test_a_trial_that_failed_before_its_first_epoch_leaves_nothing(tmp_path):
    log(tmp_path, [], TrialEvent("start", 0, "net", 0, 4, None), TrialEvent("failed", 0, "net", 0, 4, None, "OSError"))

    assert not (tmp_path / "tensorboard").exists()


def test_what_is_written_can_be_read_at_once(tmp_path):
    watcher = TensorBoardLog(tmp_path)
    watcher.event(epoch(0, 1, 0.4))

    assert shown(tmp_path, 0)["loss/validation"] == [(1, 0.4)]
    watcher.ended()
