"""The rows of metrics.jsonl and the pictures of a run as an event file, for TensorBoard.

Nothing stands in an event file that metrics.jsonl and figures/ lack.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aejax import extras
from aejax.runner.options import Launch


def check(launch: Launch) -> None:
    """Refuses `--tensorboard` where the package that writes event files is missing."""
    if launch.tensorboard:
        extras.need("--tensorboard", "tensorboardX", extra="runner")


class EventFile:
    """The one event file of a run. It says what metrics.jsonl says, and replaces whatever was logged before.

    Older files are removed when the new one holds all rows so far, so that no event is there twice. A TensorBoard that
    has read them is told to forget them. Every row is one event, on the disk when `add_row` returns: a run that is
    killed leaves whole rows.

    Args:
      folder: for the file; made where it is missing.
      rows: those so far.
    """

    def __init__(self, folder: Path, rows: Sequence[dict[str, float]]):
        from tensorboardX.event_file_writer import EventsWriter  # SummaryWriter loses what its queue holds at a kill
        from tensorboardX.proto.event_pb2 import SessionLog

        folder.mkdir(exist_ok=True)
        older = set(folder.glob("events.out.tfevents.*"))
        self._writer = EventsWriter(str(folder / "events"), f".{time.time_ns()}")
        self._write(step=0, session_log=SessionLog(status=SessionLog.START))  # purges what was read, from step 0 on
        for row in rows:
            self._add_row(row)
        self._writer.flush()
        for file in older:
            file.unlink()

    def add_row(self, row: dict[str, float]) -> None:
        """Logs a row of metrics.jsonl, at its step."""
        self._add_row(row)
        self._writer.flush()

    def add_pictures(self, files: Sequence[Path], step: int) -> None:
        """Logs PNG files by their names, as they are."""
        from PIL import Image
        from tensorboardX.proto.summary_pb2 import Summary

        for file in files:
            with Image.open(file) as picture:
                width, height, channels = *picture.size, len(picture.getbands())
            image = Summary.Image(
                width=width, height=height, colorspace=channels, encoded_image_string=file.read_bytes()
            )
            self._write(step=step, summary=Summary(value=[Summary.Value(tag=file.stem, image=image)]))
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()

    def _add_row(self, row: dict[str, float]) -> None:
        from tensorboardX.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=name, simple_value=value) for name, value in row.items() if name != "step"]
        self._write(step=int(row["step"]), summary=Summary(value=values))

    def _write(self, **content: Any) -> None:
        from tensorboardX.proto.event_pb2 import Event

        self._writer.write_event(Event(wall_time=time.time(), **content))
