"""Hosts for the nodes of a cluster: network namespaces at one switch, with latency and loss by netem.

`missing` says what this machine lacks for them. The namespaces have no names: they end with their processes
and this one, however it ends.
"""

import ctypes
import functools
import itertools
import os
import random
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

DELAY_MS = 20
NETEM = f"netem delay {DELAY_MS}ms loss 1%"  # of what each host sends
_CLONE_NEWNET, _CLONE_NEWUTS = 0x40000000, 0x04000000
_LIBC = ctypes.CDLL(None, use_errno=True)
_LINKS = itertools.count(1)  # of all networks: the kernel removes those of a closed one some time later


@functools.cache
def missing() -> dict[str, str]:
    """What tests of several hosts do without on this machine (`hosts` or `netem`), and why."""
    if shutil.which("ip") is None or shutil.which("tc") is None:
        return {"hosts": "iproute2 is not installed"}
    try:
        namespace = _new_namespace()
    except PermissionError:
        return {"hosts": "network namespaces need root"}
    with _inside(namespace, closes=True):
        command = ["tc", "qdisc", "add", "dev", "lo", "root", *NETEM.split()]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    return {"netem": done.stderr.strip()} if done.returncode else {}


class Network:
    """A switch with hosts, each in a network namespace, which the calling process may join."""

    def __init__(self) -> None:
        self._subnet = f"198.18.{random.randrange(256)}"  # reserved for tests of networks (RFC 2544)
        self._numbers = itertools.count(1)
        self._switch = _new_namespace()
        with _inside(self._switch):
            _run("ip link add switch type bridge")
            _run("ip link set switch up")

    def attach(self) -> str:
        """Connect the current namespace to the switch; its address there."""
        number = next(self._numbers)
        host, port, address = f"host{next(_LINKS)}-{os.getpid()}", f"port{number}", f"{self._subnet}.{number}"
        _run(f"ip link add {host} type veth peer name {port} netns /proc/{os.getpid()}/fd/{self._switch}")
        _run(f"ip address add {address}/24 dev {host}")
        _run(f"ip link set {host} up")
        if not missing():
            _run(f"tc qdisc add dev {host} root {NETEM}")
        with _inside(self._switch):
            _run(f"ip link set {port} master switch up")
        return address

    @contextmanager
    def new_host(self) -> Iterator[str]:
        """Processes started in the block run on a new host; its address."""
        with _inside(_new_namespace(), closes=True):
            address = self.attach()
            with _named(address):
                yield address

    def close(self) -> None:
        """Remove the switch with the links to it."""
        os.close(self._switch)


class OneHost:
    """As `Network`, if this machine cannot have one: all nodes run on this host."""

    def attach(self) -> str:
        return "127.0.0.1"

    @contextmanager
    def new_host(self) -> Iterator[str]:
        yield self.attach()


@contextmanager
def open_network() -> Iterator[Network | OneHost]:
    """A network for the nodes of a cluster, removed at the end."""
    if "hosts" in missing():
        yield OneHost()
        return
    network = Network()
    try:
        yield network
    finally:
        network.close()


def _new_namespace() -> int:
    """A file descriptor of a new network namespace, whose loopback is up."""
    with _inside(_current_namespace(), closes=True):
        _call("unshare", _CLONE_NEWNET)
        _run("ip link set lo up")
        return _current_namespace()


def _current_namespace() -> int:
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY)


@contextmanager
def _inside(namespace: int, closes: bool = False) -> Iterator[None]:
    """The calling thread, and processes that it starts, are in a network namespace within the block."""
    outside = _current_namespace()
    try:
        _call("setns", namespace, _CLONE_NEWNET)
        yield
    finally:
        _call("setns", outside, _CLONE_NEWNET)
        os.close(outside)
        if closes:
            os.close(namespace)


@contextmanager
def _named(name: str) -> Iterator[None]:
    """As `_inside`, with a host name of its own: gloo listens at the address of the host name."""
    outside = os.open("/proc/thread-self/ns/uts", os.O_RDONLY)
    try:
        _call("unshare", _CLONE_NEWUTS)
        socket.sethostname(name)
        yield
    finally:
        _call("setns", outside, _CLONE_NEWUTS)
        os.close(outside)


def _call(function: str, *arguments: int) -> None:
    if getattr(_LIBC, function)(*arguments) != 0:
        raise OSError(ctypes.get_errno(), f"{function}: {os.strerror(ctypes.get_errno())}")


def _run(command: str) -> None:
    subprocess.run(command.split(), check=True)
