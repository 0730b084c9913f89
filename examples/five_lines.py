"""Find photos of a folder by a sketch and a text, with a checkpoint.

python examples/five_lines.py CHECKPOINT PHOTOS GALLERY SKETCH TEXT
"""

import sys

import stbir


def main(checkpoint: str, photos: str, gallery_uri: str, sketch: str, text: str) -> None:
    model = stbir.load(checkpoint)
    gallery = stbir.index(photos, model, gallery_uri)  # the same again updates the gallery
    hits = gallery.search(sketch=sketch, text=text, k=10)
    print(hits)
    hits.show().save("hits.png")


if __name__ == "__main__":
    main(*sys.argv[1:])
