"""A started worker gets to its first commit without importing what it does not need."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import sys
from contextlib import closing
from pathlib import Path
from features.stream.connect import open_stream
from features.worker.main import main
from features.events import ViewerEvent, encode
from features.stream import Record

event = ViewerEvent(id="e", kind="play", viewer_id="v", at=1e9, item_id="a")
url = "sqlite:///" + sys.argv[1] + "/stream.db"
with closing(open_stream(url, partitions=1)) as stream:
    stream.publish("viewer-events", [Record("v", encode(event))])
assert main(["--home", sys.argv[1], "--stream", url, "--until-idle", "0"]) == 0
assert list(Path(sys.argv[1]).rglob("*.parquet"))
print("pandas" in sys.modules)

import pyarrow as pa
print(pa.table({"a": [1, 2]}).to_pandas().shape)
"""


def test_a_worker_does_without_pandas_and_whoever_wants_it_has_it(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    child = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert child.returncode == 0, child.stderr
    assert child.stdout.splitlines()[-2:] == ["False", "(2, 1)"]
