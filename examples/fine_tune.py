"""Fine-tune CLIP on SHARDS of your own photos, sketches and captions, and evaluate before and after.

python examples/fine_tune.py ViT-B-32 laion2b_s34b_b79k SHARDS OUT
"""

import sys

import stbir


def main(name: str, pretrained: str, shards: str, out: str) -> None:
    clip = stbir.from_clip(name, pretrained)
    before = clip.evaluate(shards).results
    clip.save(f"{out}/clip")
    # Runs on Ray: in processes of this machine, or on the cluster of RAY_ADDRESS.
    stbir.train("finetune", shards, f"{out}/checkpoint", init_from=f"{out}/clip")
    after = stbir.load(f"{out}/checkpoint").evaluate(shards).results
    for kind in before:
        print(f"{kind}: Acc@1 {before[kind]['acc@1']} before, {after[kind]['acc@1']} after")


if __name__ == "__main__":
    main(*sys.argv[1:])
