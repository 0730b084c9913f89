"""Forwards the spot notice of AWS or Google Cloud to Ray: `spot_notice.py HEAD:PORT [gcp]`, on each worker.

AWS announces the interruption of a spot machine two minutes ahead, Google Cloud 30 seconds, on the machine
itself. Ray then schedules nothing more on this node, and training saves and leaves it. (On Kubernetes SIGTERM
has the same effect.)
"""

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime
from http.client import HTTPException

METADATA = "http://169.254.169.254/latest"
GCP_METADATA = "http://metadata.google.internal/computeMetadata/v1"
GCP_NOTICE_S = 30.0
POLL_S, TIMEOUT_S = 5.0, 2.0


def seconds_left(metadata: str = METADATA) -> float | None:
    """Seconds until this machine is interrupted; None without a notice, or if it is no spot machine.

    Raises HTTPError for any answer of the metadata service but 200 and 404.
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
    end = datetime.fromisoformat(json.loads(notice)["time"])
    return (end - datetime.now(UTC)).total_seconds()


def gcp_seconds_left(metadata: str = GCP_METADATA) -> float | None:
    """The same on Google Cloud. Raises HTTPError for any answer but 200."""
    request = urllib.request.Request(f"{metadata}/instance/preempted", headers={"Metadata-Flavor": "Google"})
    return GCP_NOTICE_S if _read(request) == "TRUE" else None


def _read(request: urllib.request.Request) -> str:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxy
    with opener.open(request, timeout=TIMEOUT_S) as response:
        return str(response.read().decode())


def wait_for_notice(
    metadata: str = METADATA,
    poll_s: float = POLL_S,
    read: Callable[[str], float | None] = seconds_left,
) -> float:
    """Poll until `read` finds a notice; the seconds left. A repeated error is logged once."""
    logged = ""
    while True:
        try:
            if (left := read(metadata)) is not None:
                return left
        except (OSError, HTTPException) as error:
            if str(error) != logged:
                print(f"{metadata}: {error}; polling again", flush=True)
            logged = str(error)
        time.sleep(poll_s)


def drain(address: str, seconds: float) -> None:
    """Drain this node with `ray drain-node`, as Ray's autoscaler does."""
    import ray

    ray.init(address=address, log_to_driver=False)
    node = ray.get_runtime_context().get_node_id()
    reason = ["--reason=DRAIN_NODE_REASON_PREEMPTION", "--reason-message=spot notice", f"--node-id={node}"]
    deadline = f"--deadline-remaining-seconds={max(0, int(seconds))}"
    subprocess.run(["ray", "drain-node", f"--address={address}", *reason, deadline], check=True)


def main(address: str, cloud: str = "aws") -> None:
    """Wait for the notice and drain this node."""
    left = wait_for_notice(GCP_METADATA, read=gcp_seconds_left) if cloud == "gcp" else wait_for_notice()
    print(f"this machine is interrupted in {left:.0f} s", flush=True)
    drain(address, left)


if __name__ == "__main__":
    main(*sys.argv[1:])
