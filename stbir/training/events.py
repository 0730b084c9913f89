"""Figures over steps as a TensorBoard event file, made whole in memory: object stores cannot append."""

import io
import time
from collections.abc import Iterable, Mapping

from tensorboard.compat.proto.event_pb2 import Event  # type: ignore[import-untyped]
from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[import-untyped]
from tensorboard.summary.writer.record_writer import RecordWriter  # type: ignore[import-untyped]


def event_file(figures: Iterable[tuple[int, Mapping[str, float]]]) -> bytes:
    """(step, figure by name), … → the bytes of an event file. TensorBoard joins a folder's files by name."""
    file, now = io.BytesIO(), time.time()
    writer = RecordWriter(file)
    writer.write(Event(wall_time=now, file_version="brain.Event:2").SerializeToString())
    for step, named in figures:
        values = [Summary.Value(tag=name, simple_value=value) for name, value in named.items()]
        event = Event(wall_time=now, step=step, summary=Summary(value=values))
        writer.write(event.SerializeToString())
    return file.getvalue()
