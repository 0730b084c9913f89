"""Tells Ray of an AWS spot machine's notice: `spot_notice.py HEAD:PORT`, on each worker beside `ray start`.

AWS says two minutes ahead, on the machine alone, that it takes it away. Ray then places nothing more on this
node, and training saves and leaves it. (On Kubernetes the SIGTERM of a pod does the same.)
"""

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime
from http.client import HTTPException

METADATA = "http://169.254.169.254/latest"
EVERY_S, TIMEOUT_S = 5.0, 2.0


def seconds_left(metadata: str = METADATA) -> float | None:
    """Until this machine goes; None where no notice has been given, or this is no such machine.

    Raises HTTPError where the metadata service answers anything but yes or "there is none".
    """
    session = urllib.request.Request(
        f"{metadata}/api/token", method="PUT", headers={"X-aws-ec2-metadata-token-ttl-seconds": "60"}
    )
    try:
        headers = {"X-aws-ec2-metadata-token": _read(session)}
        notice = _read(urllib.request.Request(f"{metadata}/meta-data/spot/instance-action", headers=headers))
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise
    gone = datetime.fromisoformat(json.loads(notice)["time"])
    return (gone - datetime.now(UTC)).total_seconds()


def _read(request: urllib.request.Request) -> str:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(request, timeout=TIMEOUT_S) as answer:
        return str(answer.read().decode())


def await_notice(metadata: str = METADATA, every_s: float = EVERY_S) -> float:
    """Seconds left, once there is a notice. A question that fails is asked again; the log says so once."""
    told = ""
    while True:
        try:
            if (left := seconds_left(metadata)) is not None:
                return left
        except (OSError, HTTPException) as error:
            if str(error) != told:
                print(f"{metadata}: {error}; asking on", flush=True)
            told = str(error)
        time.sleep(every_s)


def drain(address: str, seconds: float) -> None:
    """Have this node drained: `ray drain-node`, as Ray's own autoscaler does it."""
    import ray

    ray.init(address=address, log_to_driver=False)
    node = ray.get_runtime_context().get_node_id()
    order = ["--reason=DRAIN_NODE_REASON_PREEMPTION", "--reason-message=spot notice", f"--node-id={node}"]
    deadline = f"--deadline-remaining-seconds={max(0, int(seconds))}"
    subprocess.run(["ray", "drain-node", f"--address={address}", *order, deadline], check=True)


def main(address: str) -> None:
    """Wait for the notice, pass it on, end."""
    left = await_notice()
    print(f"this machine goes in {left:.0f} s", flush=True)
    drain(address, left)


if __name__ == "__main__":
    main(sys.argv[1])
