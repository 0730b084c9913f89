"""Steer a search: more like the best hit, nothing of what TEXT_WITHOUT says, near-duplicates as one hit.

python examples/steering.py CHECKPOINT PHOTOS GALLERY TEXT TEXT_WITHOUT
"""

import sys

import stbir


def main(checkpoint: str, photos: str, gallery_uri: str, text: str, text_without: str) -> None:
    gallery = stbir.index(photos, stbir.load(checkpoint), gallery_uri)
    best = gallery.search(text=text, k=1)[0]
    print(f"like {best.photo_id}:")
    without = [stbir.Negative(text_without, weight=0.5)]  # from 0, which has no effect, to 1
    for hit in gallery.search(text=text, like=[best.photo_id], without=without, group=True, k=5):
        print(f"{hit.score:.3f}  {hit.photo_id}  {hit.count} photos")


if __name__ == "__main__":
    main(*sys.argv[1:])
