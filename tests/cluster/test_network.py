"""Hosts of a test network: addresses of their own, a loopback each, and latency where netem exists."""

import socket
import subprocess
import sys
import time

import pytest

from tests.cluster.network import DELAY_MS, missing, open_network

CONNECT = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)"
LISTEN = "import socket, time; s = socket.create_server(('', 7000)); print('up', flush=True); time.sleep(60)"


def is_reached(address: str) -> bool:
    """Whether port 7000 of an address answers a process of the current host."""
    command = [sys.executable, "-c", CONNECT, address, "7000"]
    return subprocess.run(command, stderr=subprocess.DEVNULL, check=False).returncode == 0


@pytest.mark.skipif("hosts" in missing(), reason=missing().get("hosts", ""))
def test_hosts_reach_each_other_and_have_a_loopback_each() -> None:
    with open_network() as network:
        here = network.attach()
        with network.new_host() as server:
            listening = subprocess.Popen([sys.executable, "-c", LISTEN], stdout=subprocess.PIPE, text=True)
        try:
            assert listening.stdout is not None
            assert listening.stdout.readline() == "up\n"
            with network.new_host() as other:
                assert len({here, server, other}) == 3
                assert socket.gethostbyname(socket.gethostname()) == other
                assert is_reached(server)
                assert not is_reached("127.0.0.1")
            start = time.monotonic()
            assert is_reached(server)
            took_ms = 1000 * (time.monotonic() - start)
            assert "netem" in missing() or took_ms > 2 * DELAY_MS  # there and back
        finally:
            listening.kill()
            listening.communicate()


@pytest.mark.skipif("hosts" in missing(), reason=missing().get("hosts", ""))
def test_links_of_two_networks_differ() -> None:
    with open_network() as first, open_network() as second:  # a closed one lives on for a moment
        first.attach()
        second.attach()
