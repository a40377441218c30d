import ray._raylet

from ichtune.search.nameplate import name_logs, name_process


def test_a_process_is_called_by_its_trial_as_ray_s_processes_are(monkeypatch):
    called = []
    monkeypatch.setattr(ray._raylet, "setproctitle", called.append)

    name_process("trial_0003|net")

    assert called == ["ray::trial_0003|net"]


def test_a_ray_that_names_no_processes_is_left_alone(monkeypatch):
    monkeypatch.delattr(ray._raylet, "setproctitle")

    name_process("trial_0003|net")


def test_both_logs_begin_a_part_with_the_line_that_ray_reads(capsys):
    from ray._private.ray_constants import LOG_PREFIX_ACTOR_NAME

    name_logs("trial_0003|net")

    line = f"{LOG_PREFIX_ACTOR_NAME}trial_0003|net\n"
    assert capsys.readouterr() == (line, line)
