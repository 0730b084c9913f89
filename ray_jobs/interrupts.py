"""Interrupts: SIGINT (Ctrl-C) and SIGTERM end a command with one line and exit code 128 + signal number.

A command installs the handlers before its other imports, so this module imports the standard library only.
"""

import atexit
import os
import signal
import sys
import threading
import time
from types import FrameType

# Time to release locks and to end Ray's processes. `ray job stop` and Kubernetes allow longer.
GRACE_S = 4.0
SIGNALS = (signal.SIGINT, signal.SIGTERM)
_received: list[int] = []  # the first signal


def handle_interrupts() -> None:
    """End this process on the first SIGINT or SIGTERM.

    The handler raises SystemExit in the main thread, so that `finally` blocks run. After GRACE_S the process
    ends in any case. A signal that is ignored now stays ignored, as in a job that
    a shell has put in the background.
    """
    interrupt = _Interrupt(os.path.basename(sys.argv[0]))
    handled = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    for number in handled:
        signal.signal(number, interrupt.exit)
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=interrupt.watch, args=(reader,), daemon=True).start()
    atexit.register(_exit_as_interrupted)  # the first one registered runs last, after Ray's


def _exit_as_interrupted() -> None:
    """Keep the exit code of the signal: Ray's own exit during a call gives 1, maybe before the thread has
    read the signal. It has when Ray's processes have ended."""
    if _received:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(128 + _received[0])


def exit_code(error: BaseException) -> int | None:
    """The exit code if a signal has ended the command; None if it has not.

    `error` may differ from what the handler raises: libraries replace it by an exception of their own.
    """
    if _received:
        return 128 + _received[0]
    if isinstance(error, KeyboardInterrupt):
        return 128 + signal.SIGINT
    # While Ray starts, its own handler of SIGTERM is in force, which exits with the number of the signal.
    is_sigterm = isinstance(error, SystemExit) and error.code == signal.SIGTERM
    return 128 + signal.SIGTERM if is_sigterm else None


class _Interrupt:
    """The reaction to the first signal: of its handler, and of a thread that reads the wakeup pipe.

    The thread also sees a signal that arrives while the main thread is in a C function, when no handler runs.
    """

    def __init__(self, command: str) -> None:
        self._command = command
        self._is_received = threading.Lock()
        self._is_raised = False

    def exit(self, number: int, _frame: FrameType | None) -> None:
        """The handler. Ignores a second signal: a wrapper may forward one that the terminal sends too."""
        self._record(number)
        if not self._is_raised:
            self._is_raised = True
            sys.exit(128 + number)

    def watch(self, reader: int) -> None:
        """Wait for the first signal, and end the process if it still runs GRACE_S later."""
        while (number := os.read(reader, 1)[0]) not in SIGNALS:
            continue
        self._record(number)
        time.sleep(GRACE_S)
        os._exit(128 + number)

    def _record(self, number: int) -> None:
        if self._is_received.acquire(blocking=False):
            _received.append(number)
            name = signal.Signals(number).name
            line = f"{self._command}: interrupted ({name}); run the same command again to continue\n"
            os.write(2, line.encode())  # `print` is not reentrant
