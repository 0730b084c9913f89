"""The endpoint on a new Ray, on a port of 127.0.0.1."""

import argparse
import os
import time

from benchmarks.endpoint.sides import server_parser
from serve.environment import HAPROXY_VARIABLES


def main() -> None:
    """Serve until interrupted."""
    parser = server_parser(__doc__)
    parser.add_argument("--config", default="")
    parser.add_argument("--under-load", action="store_true", help="behind HAProxy")
    args = parser.parse_args()
    os.environ.update(HAPROXY_VARIABLES if args.under_load else {})
    _serve(args)


def _serve(args: argparse.Namespace) -> None:
    # Ray Serve reads the environment when it is imported.
    import ray
    from ray import serve

    from serve.app import build

    arguments = {"checkpoint": args.checkpoint, "gallery": args.gallery}
    application = build(
        {**arguments, "config": args.config} if args.config else arguments
    )  # before Ray starts
    ray.init(
        "local",
        _node_ip_address="127.0.0.1",  # replicas listen for HAProxy here
        object_store_memory=256 * 2**20,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="warning",
    )
    serve.start(http_options={"host": "127.0.0.1", "port": args.port})
    serve.run(application)
    while True:
        time.sleep(3600)


if __name__ == "__main__":
    main()
