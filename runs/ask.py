"""Sends one query of a split to a running endpoint, prints the hits and draws them."""

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

SIDE, GAP, GREEN = 160, 12, (46, 160, 67)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser("ask.py", description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--shards", required=True)
    parser.add_argument("--split", default="test")
    parser.add_argument("--number", type=int, default=0, help="position of the photo in the split")
    parser.add_argument("--image", metavar="PNG", help="draw the query and its hits into this file")
    args = parser.parse_args()
    wait_until_ready(args.url)
    rows = list(open_shards(args.shards).iter_rows(args.split))
    row = rows[args.number % len(rows)]
    response = search(args.url, row)
    print_hits(row, response)
    if args.image:
        draw(args.url, row, response["hits"]).save(args.image)
        print(f"drawn into {args.image}")


def wait_until_ready(url: str, seconds: float = 180) -> None:
    """Poll /readyz until the encoders are loaded."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            urllib.request.urlopen(f"{url}/readyz", timeout=5).close()
            return
        except (urllib.error.URLError, OSError) as error:
            if time.monotonic() > deadline:
                sys.exit(f"ask.py: {url}/readyz is not ready after {seconds:.0f} s ({error})")
            time.sleep(1)


def search(url: str, row: Row, k: int = 5) -> dict[str, Any]:
    """POST /v1/search with the photo's first sketch and its caption."""
    sketch = base64.b64encode(row["sketches"][0]).decode()
    body = json.dumps({"sketch": sketch, "text": row["text"], "k": k}).encode()
    request = urllib.request.Request(f"{url}/v1/search", body, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as response:
        result: dict[str, Any] = json.load(response)
    return result


def print_hits(row: Row, response: dict[str, Any]) -> None:
    """One line per hit; the ground truth is marked."""
    print(f'POST /v1/search  a sketch + "{row["text"]}"')
    for rank, hit in enumerate(response["hits"], 1):
        mark = "  <- ground truth" if hit["photo_id"] == row["photo_id"] else ""
        print(f"  {rank}. {hit['photo_id']:<24} {hit['score']:.3f}{mark}")


def draw(url: str, row: Row, hits: list[dict[str, Any]]) -> Image.Image:
    """The query on the left and its hits; the ground truth is framed."""
    tiles = [Image.open(io.BytesIO(row["sketches"][0]))] + [thumbnail(url, hit["uri"]) for hit in hits]
    width = len(tiles) * (SIDE + GAP) + 2 * GAP
    canvas = Image.new("RGB", (width, SIDE + 4 * GAP), "white")
    pen = ImageDraw.Draw(canvas)
    for number, tile in enumerate(tiles):
        x = GAP + number * (SIDE + GAP) + (GAP if number else 0)
        canvas.paste(tile.convert("RGB").resize((SIDE, SIDE)), (x, GAP))
        if number and hits[number - 1]["photo_id"] == row["photo_id"]:
            pen.rectangle((x - 3, GAP - 3, x + SIDE + 2, GAP + SIDE + 2), outline=GREEN, width=3)
    pen.line((SIDE + 2 * GAP, GAP, SIDE + 2 * GAP, GAP + SIDE), fill="silver")
    pen.text((GAP, SIDE + GAP + 8), f'+ "{row["text"]}"', fill="black", font=ImageFont.load_default(16))
    return canvas


def thumbnail(url: str, uri: str) -> Image.Image:
    """The thumbnail of a hit."""
    with urllib.request.urlopen(f"{url}{uri}", timeout=30) as response:
        return Image.open(io.BytesIO(response.read()))


if __name__ == "__main__":
    main()
