"""Serves on the cluster of RAY_ADDRESS: `python -m tests.cluster.serving PORT CHECKPOINT GALLERY CONFIG`."""

import os
import sys
import time

import ray
from ray import serve

from serve.wiring import build_application

if __name__ == "__main__":
    port, checkpoint, gallery, config = sys.argv[1:]
    ray.init(address=os.environ["RAY_ADDRESS"], log_to_driver=False, logging_level="error")
    serve.start(http_options={"host": "127.0.0.1", "port": int(port)})
    serve.run(build_application({"checkpoint": checkpoint, "gallery": gallery, "config": config}))
    while True:
        time.sleep(1)
