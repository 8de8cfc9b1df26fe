"""The snapshot as JSON: what scripts and the programs that draw it rely on."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from kq.values import snapshot
from kq.values.snapshot import QueueRow, RunningRow, Snapshot, WorkerRow

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "schema" / f"snapshot-{snapshot.SCHEMA}.json").read_text())
BUSY = Snapshot(
    at=1000.0,
    queues=(QueueRow(name="mail", ready=3, oldest=12.5, drain=4.0),),
    workers=(
        WorkerRow(
            name="w",
            state="late",
            beat_age=6.0,
            lease=15.0,
            lease_left=9.0,
            running=(RunningRow(id="1", type="send", queue="mail", seconds=2.0),),
        ),
    ),
)


@pytest.mark.parametrize("shot", [Snapshot(at=0.0), BUSY], ids=["empty", "busy"])
def test_a_snapshot_fits_its_schema_and_comes_back_as_it_was(shot: Snapshot) -> None:
    written = snapshot.encode(shot)
    jsonschema.Draft202012Validator(SCHEMA).validate(json.loads(written))
    assert snapshot.decode(written) == shot


def test_durations_are_named_by_their_unit() -> None:
    written = json.loads(snapshot.encode(BUSY))
    assert written["queues"][0]["oldest_s"] == 12.5
    assert written["workers"][0]["lease_left_s"] == 9.0
    assert written["workers"][0]["running"][0]["seconds"] == 2.0


def test_the_names_that_scripts_rely_on_are_there() -> None:
    written = json.loads(snapshot.encode(BUSY))
    assert {"schema", "queues", "workers", "failures"} <= written.keys()
    assert {"name", "ready", "delayed", "running", "buried", "oldest_s"} <= written["queues"][0].keys()


def test_a_reader_passes_over_what_later_versions_add() -> None:
    written = json.loads(snapshot.encode(BUSY)) | {"flows": [{"id": "f"}]}
    assert snapshot.decode(json.dumps(written)) == BUSY
