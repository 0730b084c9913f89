"""The probe of a node: `healthy.py PORT/PATH`, exit code 0 where that answers 200. Standard library alone.

A probe of Kubernetes itself cannot send the cluster's token; this one does.
"""

import os
import sys
import urllib.error
import urllib.request

TIMEOUT_S = 5


def main(where: str) -> int:
    """0 where http://127.0.0.1:PORT/PATH answers 200, 1 where it does not."""
    headers = {"Authorization": f"Bearer {os.environ.get('RAY_AUTH_TOKEN', '')}"}
    request = urllib.request.Request(f"http://127.0.0.1:{where}", headers=headers)
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(request, timeout=TIMEOUT_S) as answer:
            return 0 if answer.status == 200 else 1
    except (urllib.error.URLError, OSError) as error:
        print(f"{where}: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
