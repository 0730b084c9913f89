"""TensorBoard event files, built in memory because object stores cannot append to a file."""

import io
import time
from collections.abc import Iterable, Mapping

from tensorboard.compat.proto.event_pb2 import Event  # type: ignore[import-untyped]
from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[import-untyped]
from tensorboard.summary.writer.record_writer import RecordWriter  # type: ignore[import-untyped]


def event_file(scalars_by_step: Iterable[tuple[int, Mapping[str, float]]]) -> bytes:
    """(step, scalar by tag), … → an event file. TensorBoard joins the files of a folder in name order."""
    file, now = io.BytesIO(), time.time()
    writer = RecordWriter(file)
    writer.write(Event(wall_time=now, file_version="brain.Event:2").SerializeToString())
    for step, scalars in scalars_by_step:
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in scalars.items()]
        event = Event(wall_time=now, step=step, summary=Summary(value=values))
        writer.write(event.SerializeToString())
    return file.getvalue()
