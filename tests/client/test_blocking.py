"""The blocking client and its background thread."""

import asyncio
import concurrent.futures
import subprocess
import sys
import threading
import time

import pytest

from stbir_client import Client
from tests.client.conftest import FakeServer, expect_duration, respond_slowly


def test_threads_share_a_client(server: FakeServer) -> None:
    with Client(server.url) as client, concurrent.futures.ThreadPoolExecutor(8) as pool:
        texts = [f"red {n}" for n in range(40)]
        answers = list(pool.map(lambda text: client.search(text=text), texts))
    assert len({answer.request_id for answer in answers}) == len(server.requests) == 40


def test_client_works_inside_a_running_loop(server: FakeServer) -> None:
    async def notebook() -> int:
        with Client(server.url) as client:
            return len(client.search(text="red").hits)

    assert asyncio.run(notebook()) == 2


def test_close_cancels_the_calls_of_other_threads(server: FakeServer) -> None:
    server.replies.append(respond_slowly)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        client = Client(server.url)
        call = pool.submit(client.search, text="red")
        while not server.requests:
            time.sleep(0.01)
        with expect_duration(0, 4):
            client.close()
            with pytest.raises(concurrent.futures.CancelledError):
                call.result()


INTERRUPTED = """
import asyncio, os, signal, threading
from stbir_client.blocking import BackgroundLoop
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job inherits an ignored SIGINT
cancelled = threading.Event()
async def call():
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    try:
        await asyncio.sleep(60)
    finally:
        cancelled.set()
try:
    BackgroundLoop().run(call())
except KeyboardInterrupt:
    print("interrupted, cancelled:", cancelled.wait(10))
"""


def test_interrupt_cancels_the_call() -> None:
    """In a process of its own: an interrupt at another moment would end the tests."""
    command = [sys.executable, "-c", INTERRUPTED]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=True)
    assert done.stdout == "interrupted, cancelled: True\n"


def test_closed_client_raises() -> None:
    thread_count = threading.active_count()
    client = Client("http://127.0.0.1:9")
    client.close()
    client.close()
    with pytest.raises(RuntimeError, match="closed"):
        client.info()
    assert threading.active_count() == thread_count


FORK = """
import os, sys
from stbir_client import Client
client = Client("http://127.0.0.1:9")
if os.fork() == 0:
    try:
        client.info()
    except RuntimeError as error:
        os._exit(7 if "fork" in str(error) else 1)
sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
"""


def test_client_raises_in_a_forked_process() -> None:
    process = subprocess.run([sys.executable, "-c", FORK], timeout=30, check=False)
    assert process.returncode == 7
