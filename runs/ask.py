"""Ask a running endpoint one query of a split, print its hits, and draw them: what a first user would do."""

import argparse
import base64
import io
import json
import sys
import time
import urllib.error
import urllib.request
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from stbir.data.schema import Row
from stbir.data.shards import open_shards

SIDE, GAP, RIGHT = 160, 12, (46, 160, 67)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser("ask.py", description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--shards", required=True)
    parser.add_argument("--split", default="test")
    parser.add_argument("--number", type=int, default=0, help="which photo of the split to ask for")
    parser.add_argument("--picture", metavar="PNG", help="draw the query and its hits into this file")
    args = parser.parse_args()
    wait_until_ready(args.url)
    rows = list(open_shards(args.shards).rows(args.split))
    wanted = rows[args.number % len(rows)]
    answer = search(args.url, wanted)
    print_hits(wanted, answer)
    if args.picture:
        draw(args.url, wanted, answer["hits"]).save(args.picture)
        print(f"drawn into {args.picture}")


def wait_until_ready(url: str, seconds: float = 180) -> None:
    """Poll /readyz; the first answer may take as long as the towers take to load."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            urllib.request.urlopen(f"{url}/readyz", timeout=5).close()
            return
        except (urllib.error.URLError, OSError) as error:
            if time.monotonic() > deadline:
                sys.exit(f"ask.py: {url}/readyz is not ready after {seconds:.0f} s ({error})")
            time.sleep(1)


def search(url: str, wanted: Row, k: int = 5) -> dict[str, Any]:
    """POST /v1/search with the photo's first sketch and its caption."""
    sketch = base64.b64encode(wanted["sketches"][0]).decode()
    body = json.dumps({"sketch": sketch, "text": wanted["text"], "k": k}).encode()
    request = urllib.request.Request(f"{url}/v1/search", body, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as response:
        answer: dict[str, Any] = json.load(response)
    return answer


def print_hits(wanted: Row, answer: dict[str, Any]) -> None:
    """A line a hit; the photo the sketch was drawn of is marked."""
    print(f'POST /v1/search  a sketch + "{wanted["text"]}"')
    for place, hit in enumerate(answer["hits"], 1):
        mark = "  <- the photo that was sketched" if hit["photo_id"] == wanted["photo_id"] else ""
        print(f"  {place}. {hit['photo_id']:<24} {hit['score']:.3f}{mark}")


def draw(url: str, wanted: Row, hits: list[dict[str, Any]]) -> Image.Image:
    """The query on the left, hits beside it, the right one framed."""
    tiles = [Image.open(io.BytesIO(wanted["sketches"][0]))] + [thumbnail(url, hit["uri"]) for hit in hits]
    width = len(tiles) * (SIDE + GAP) + 2 * GAP
    canvas = Image.new("RGB", (width, SIDE + 4 * GAP), "white")
    pen = ImageDraw.Draw(canvas)
    for number, tile in enumerate(tiles):
        x = GAP + number * (SIDE + GAP) + (GAP if number else 0)
        canvas.paste(tile.convert("RGB").resize((SIDE, SIDE)), (x, GAP))
        if number and hits[number - 1]["photo_id"] == wanted["photo_id"]:
            pen.rectangle((x - 3, GAP - 3, x + SIDE + 2, GAP + SIDE + 2), outline=RIGHT, width=3)
    pen.line((SIDE + 2 * GAP, GAP, SIDE + 2 * GAP, GAP + SIDE), fill="silver")
    pen.text((GAP, SIDE + GAP + 8), f'+ "{wanted["text"]}"', fill="black", font=ImageFont.load_default(16))
    return canvas


def thumbnail(url: str, uri: str) -> Image.Image:
    """The picture behind a hit."""
    with urllib.request.urlopen(f"{url}{uri}", timeout=30) as response:
        return Image.open(io.BytesIO(response.read()))


if __name__ == "__main__":
    main()
