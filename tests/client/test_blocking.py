"""The blocking client and the thread it runs on."""

import asyncio
import concurrent.futures
import signal
import subprocess
import sys
import threading
import time

import pytest

from stbir_client import Client
from stbir_client.loop import Loop
from tests.client.conftest import Service, slow, takes


def test_threads_share_a_client(service: Service) -> None:
    with Client(service.url) as client, concurrent.futures.ThreadPoolExecutor(8) as pool:
        texts = [f"red {place}" for place in range(40)]
        answers = list(pool.map(lambda text: client.search(text=text), texts))
    assert len({answer.request_id for answer in answers}) == len(service.seen) == 40


def test_the_blocking_client_works_where_a_loop_runs_already(service: Service) -> None:
    async def notebook() -> int:
        with Client(service.url) as client:
            return len(client.search(text="red").hits)

    assert asyncio.run(notebook()) == 2


def test_closing_ends_the_calls_of_other_threads(service: Service) -> None:
    service.replies.append(slow)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        client = Client(service.url)
        call = pool.submit(client.search, text="red")
        while not service.seen:
            time.sleep(0.01)
        with takes(0, 4):
            client.close()
            with pytest.raises(concurrent.futures.CancelledError):
                call.result()


def test_an_interrupt_of_the_caller_ends_the_call() -> None:
    """As Ctrl-C does; by another signal, which pytest leaves alone."""
    begun, cancelled, loop = threading.Event(), threading.Event(), Loop()

    async def call() -> None:
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            cancelled.set()

    def interrupt() -> None:
        begun.wait(10)
        main = threading.main_thread().ident or 0
        while sys._current_frames()[main].f_code.co_filename != threading.__file__:  # until it waits
            time.sleep(0.01)
        signal.pthread_kill(main, signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, signal.default_int_handler)
    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            loop.wait(call())
        assert cancelled.wait(10)
    finally:
        thread.join()
        signal.signal(signal.SIGUSR1, before)
        loop.close(lambda: asyncio.sleep(0))


def test_a_closed_client_says_so() -> None:
    before = threading.active_count()
    client = Client("http://127.0.0.1:9")
    client.close()
    client.close()
    with pytest.raises(RuntimeError, match="closed"):
        client.info()
    assert threading.active_count() == before


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


def test_a_forked_process_is_told_to_make_its_own() -> None:
    done = subprocess.run([sys.executable, "-c", FORK], timeout=30, check=False)
    assert done.returncode == 7
