"""Ask a running endpoint over HTTP; needs httpx only. Start one with `serve run`, see docs/serve.md.

python examples/http_query.py http://127.0.0.1:8000 SKETCH TEXT
"""

import sys
from pathlib import Path

import httpx


def main(url: str, sketch: str, text: str) -> None:
    files = {"sketch": Path(sketch).read_bytes()}
    response = httpx.post(f"{url}/v1/search", files=files, data={"text": text, "k": "5"}, timeout=30)
    response.raise_for_status()
    for hit in response.json()["hits"]:
        print(f"{hit['score']:.3f}  {hit['photo_id']}")


if __name__ == "__main__":
    main(*sys.argv[1:])
