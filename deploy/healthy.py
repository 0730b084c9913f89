"""The probe of a node: `healthy.py PORT/PATH…`, exit code 0 where each answers 200. Standard library alone.

A probe of Kubernetes itself cannot send the cluster's token; this one does.
"""

import os
import sys
import urllib.error
import urllib.request

TIMEOUT_S = 5


def main(first: str, *more: str) -> int:
    """0 where each http://127.0.0.1:PORT/PATH answers 200, 1 where one does not."""
    return 0 if all(map(answers, (first, *more))) else 1


def answers(where: str) -> bool:
    """Whether the answer is 200; why it is none goes to stderr."""
    headers = {"Authorization": f"Bearer {os.environ.get('RAY_AUTH_TOKEN', '')}"}
    request = urllib.request.Request(f"http://127.0.0.1:{where}", headers=headers)
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(request, timeout=TIMEOUT_S) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError) as error:
        print(f"{where}: {error}", file=sys.stderr)
        return False


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
