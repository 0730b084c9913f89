"""Health probe of a node: `healthy.py PORT/PATH…`, exit code 0 if each answers 200. Standard library only.

Kubernetes' own HTTP probes cannot send the cluster's token from a secret; this one does.
"""

import os
import sys
import urllib.error
import urllib.request

TIMEOUT_S = 5


def main(*endpoints: str) -> int:
    """0 if every http://127.0.0.1:PORT/PATH answers 200, 1 if one does not, or none is named."""
    return 0 if endpoints and all(map(is_healthy, endpoints)) else 1


def is_healthy(endpoint: str) -> bool:
    """Whether PORT/PATH answers 200; an error is printed to stderr."""
    headers = {"Authorization": f"Bearer {os.environ.get('RAY_AUTH_TOKEN', '')}"}
    request = urllib.request.Request(f"http://127.0.0.1:{endpoint}", headers=headers)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxy
    try:
        with opener.open(request, timeout=TIMEOUT_S) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError) as error:
        print(f"{endpoint}: {error}", file=sys.stderr)
        return False


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
