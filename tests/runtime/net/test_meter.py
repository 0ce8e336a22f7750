"""What Prometheus is given is what the hall knows, in the format that Prometheus reads."""

import socket
from contextlib import closing
from pathlib import Path
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

from fedloom.core.errors import ConfigError
from fedloom.core.task import Evaluate, Fault, Member, Reply, Task
from fedloom.runtime.net.hall import Hall
from fedloom.runtime.net.meter import Meter
from fedloom.runtime.net.spool import Spool


@pytest.fixture
def hall(tmp_path):
    hall = Hall("run-1")
    for name in ("north", 'so"uth\n'):
        seat = hall.take_seat(name, (Member(name, 10),), lambda: Spool(tmp_path / "in", 1000))
        seat.bytes_in, seat.bytes_out = 100, 200
    return hall


def read(meter):
    """Return what is given, read by Prometheus' own parser: (name, labels) -> value."""
    with (
        closing(meter.serve("127.0.0.1", 0)) as port,
        urlopen(f"http://127.0.0.1:{port.number}/metrics", timeout=10) as answer,
    ):
        text = answer.read().decode()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {(sample.name, tuple(sorted(sample.labels.items()))): sample.value for sample in samples}


def site(name):
    return (("site", name),)


def test_sites_are_told_with_their_traffic_whatever_they_are_called(hall):
    seen = read(Meter(hall))
    for name in ("north", 'so"uth\n'):
        assert seen["fedloom_bytes_in_total", site(name)] == 100
        assert seen["fedloom_bytes_out_total", site(name)] == 200
        assert seen["fedloom_site_connected", site(name)] == 0
    assert seen["fedloom_sites_connected", ()] == 0


def test_tasks_are_counted_while_they_are_awaited_and_faults_by_class_for_ever(hall):
    meter, body = Meter(hall), Evaluate([])
    hall.send([Task(1, "north", body), Task(2, 'so"uth\n', body)])
    assert read(meter)["fedloom_tasks_awaited", ()] == 2
    for _ in range(7):
        ask = hall.send([Task(1, "north", body)])
        seat = hall.seats["north"]
        (given,) = [each for each in seat.given.values() if each.ask == ask.id]
        with hall.changed:
            hall._answer(seat, [given], Reply((1,), ("north",), Fault("north", "evaluate", "OSError", "no")))
    seen = read(meter)
    assert seen["fedloom_faults_total", (("error", "OSError"), ("site", "north"))] == 7
    assert seen["fedloom_answers_total", site("north")] == 7
    assert seen["fedloom_tasks_awaited", ()] == 2


def test_a_deadline_that_a_site_missed_is_counted_when_its_round_is_closed_and_an_answer_once(hall, caplog):
    meter, said = Meter(hall), Fault("north", "train", "OSError", "no")
    ask = hall.send([Task(1, "north", Evaluate([]))])
    (given,) = hall.seats["north"].given.values()
    with hall.changed:
        hall._answer(hall.seats["north"], [given], Reply((1,), ("north",), said))
    received = hall.receive(ask, 0.0).body
    late = [Fault(name, "wait", "Deadline", "no reply in 2 s") for name in ("north", 'so"uth\n', "gone")]
    hall.close(1, [received, *late])
    hall.close(2, late[:1])
    told = {labels: value for (name, labels), value in read(meter).items() if name == "fedloom_faults_total"}
    assert told == {
        (("error", "OSError"), ("site", "north")): 1,
        (("error", "Deadline"), ("site", "north")): 2,
        (("error", "Deadline"), ("site", 'so"uth\n')): 1,
    }
    assert [(r.site, r.error) for r in caplog.records if r.msg == "fault"] == [
        ("north", "OSError"),
        ("north", "Deadline"),
        ('so"uth\n', "Deadline"),
        ("north", "Deadline"),
    ]


def test_closed_rounds_are_told_with_their_seconds_and_the_last_figures(hall):
    meter = Meter(hall)
    meter.closed(1, 2.0, {"loss": 0.5})
    meter.closed(2, 4.0)
    meter.closed(3, 6.0, {"loss": 0.25, "auc": 0.875})
    seen = read(meter)
    assert seen["fedloom_round", ()] == 3
    assert (seen["fedloom_round_seconds_count", ()], seen["fedloom_round_seconds_sum", ()]) == (3, 12)
    assert (seen["fedloom_figure", (("figure", "loss"),)], seen["fedloom_figure", (("figure", "auc"),)]) == (
        0.25,
        0.875,
    )


def test_a_port_that_is_taken_is_refused_in_a_sentence(hall):
    with (
        closing(socket.create_server(("127.0.0.1", 0))) as taken,
        pytest.raises(ConfigError, match=r"cannot give figures on 127\.0\.0\.1:.*another --metrics"),
    ):
        Meter(hall).serve("127.0.0.1", taken.getsockname()[1])


def test_the_page_tells_every_name(hall):
    page = (Path(__file__).parents[3] / "docs" / "network.md").read_text()
    meter = Meter(hall)
    meter.closed(1, 1.0, {"loss": 1.0})
    names = {family.name for family in meter.registry.collect()}
    assert len(names) >= 9
    assert not [name for name in names if name not in page]


def test_two_coordinators_in_one_process_do_not_share_figures(hall):
    one, other = Meter(hall), Meter(hall)
    one.closed(5, 1.0)
    assert read(other)["fedloom_round", ()] == 0


def test_figures_that_were_not_measured_last_are_shown_no_more(hall):
    """Their names come from sites, which could add some in every round."""
    meter = Meter(hall)
    meter.closed(1, 0.1, {"loss": 0.5, "mine": 1.0})
    meter.closed(2, 0.1)  # not measured
    assert read(meter)["fedloom_figure", (("figure", "mine"),)] == 1.0
    meter.closed(3, 0.1, {"loss": 0.25, "other": 2.0})
    seen = {labels[0][1]: value for (name, labels), value in read(meter).items() if name == "fedloom_figure"}
    assert seen == {"loss": 0.25, "other": 2.0}
