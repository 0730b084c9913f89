"""Identity of a process, and whether it still runs. Reads /proc (Linux)."""

import os
import socket
from dataclasses import dataclass


@dataclass(frozen=True)
class Process:
    """A process id, with what makes it unique.

    `host` is the host name and the boot id. `namespace` is the PID namespace, since containers of one host
    share host name and boot id but number their processes separately; empty if unknown. `started` is the
    start time in clock ticks since boot, since process ids are reused.
    """

    host: str
    pid: int
    namespace: str = ""
    started: int = 0

    @classmethod
    def current(cls) -> "Process":
        """This process."""
        pid = os.getpid()
        return cls(_host(), pid, _namespace(), _start_time(pid) or 0)

    def is_running(self) -> bool | None:
        """Whether the process runs; None if this process cannot know, e.g. from another container."""
        if not self.namespace or (self.host, self.namespace) != (_host(), _namespace()):
            return None
        started = _start_time(self.pid)
        if started is None and _is_hidden(self.pid):
            return None
        return started == self.started


def _host() -> str:
    return f"{socket.gethostname()} {_read('/proc/sys/kernel/random/boot_id').strip()}"


def _namespace() -> str:
    """The PID namespace of this process; empty if /proc does not show the processes of that namespace."""
    try:
        return os.readlink("/proc/self/ns/pid") if os.readlink("/proc/self") == str(os.getpid()) else ""
    except OSError:
        return ""


def _start_time(pid: int) -> int | None:
    """The start time of a process; None if it has ended, which includes a zombie."""
    state, *fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split() or [""]
    return int(fields[18]) if state not in ("", "Z", "X") else None  # fields 3 and 22 of proc_pid_stat(5)


def _is_hidden(pid: int) -> bool:
    """Whether a process exists that /proc does not show, as the mount option `hidepid` arranges."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return not os.path.exists(f"/proc/{pid}")


def _read(path: str) -> str:
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""
