"""Find photos by a text with CLIP as it is, without training or a checkpoint.

python examples/zero_shot.py ViT-B-32 laion2b_s34b_b79k PHOTOS GALLERY TEXT
"""

import sys

import stbir


def main(name: str, pretrained: str, photos: str, gallery_uri: str, text: str) -> None:
    model = stbir.from_clip(name, pretrained)  # a tag of open_clip, or a weights file
    gallery = stbir.index(photos, model, gallery_uri)
    for hit in gallery.search(text=text, k=5):
        print(f"{hit.score:.3f}  {hit.uri}")


if __name__ == "__main__":
    main(*sys.argv[1:])
