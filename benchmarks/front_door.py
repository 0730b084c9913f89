"""Compares the way from a folder of photos to the first hit for a text with that of other libraries.

`python benchmarks/front_door.py --python ENV/bin/python [--photos N …] [--rounds N]` runs SCRIPTS, each in a
process of its own, with the same model: a small CLIP with random weights. ENV has the two other libraries:

    printf '%s\\n' open-clip-torch sentence-transformers huggingface-hub transformers 'setuptools<70' > newer
    uv venv ENV && uv pip install --compile-bytecode --python ENV/bin/python --overrides newer \\
        clip-retrieval==2.45.0 sentence-transformers==6.2.0 open-clip-torch==3.3.0 setuptools torch==2.15.0

(clip-retrieval pins older versions, and needs a part of setuptools that later versions lack.)
sentence-transformers reads that CLIP in the layout of Hugging Face: the same layers, other random weights. It
stores nothing; the others store what they have embedded. The sides alternate, and every run starts without a
cache of ours. The last line is JSON, for each number of photos and side: the medians of seconds and of CPU
seconds, which other work on the machine disturbs less; `statements` are those of the script, without imports.
"""

import argparse
import ast
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import open_clip
import torch
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer

from benchmarks.embed import make_photos
from ray_jobs.cli import run
from stbir.errors import InputError

NAME = "front-door"  # of the model in open_clip's registry
WIDTH, TEXT_WIDTH, LAYERS, PATCH, DIM, HEAD = 256, 128, 4, 32, 128, 64
SIZE = (640, 480)  # pixels of a photo
SCRIPTS = {
    "stbir": """
import stbir
model = stbir.from_clip(name, weights)
gallery = stbir.index(photos, model, out)
print(gallery.search(text=text)[0].uri)
""",
    "clip-retrieval": """
import json
from clip_retrieval import clip_index, clip_inference
from clip_retrieval.clip_back import ClipOptions, KnnService, load_clip_indices
model = f"open_clip:{name}/{weights}"
clip_inference(photos, f"{out}/embeddings", enable_text=False, clip_model=model)
clip_index(f"{out}/embeddings", f"{out}/index")
json.dump({"photos": f"{out}/index"}, open(f"{out}/indices.json", "w"))
options = ClipOptions("", model, False, False, ["image_path"], *[False] * 7)
service = KnnService(clip_resources=load_clip_indices(f"{out}/indices.json", options))
print(service.query(text_input=text, num_images=10)[0]["image_path"])
""",
    "sentence-transformers": """
from glob import glob
from sentence_transformers import SentenceTransformer, util
model = SentenceTransformer(weights)
paths = sorted(glob(f"{photos}/**/*.jpg", recursive=True))
vectors = model.encode(paths)
[hits] = util.semantic_search(model.encode(text), vectors, top_k=10)
print(paths[hits[0]["corpus_id"]])
""",
}
OURS = "stbir"
# Model names of real weights are known to open_clip; this one is not.
REGISTER = "import open_clip\nopen_clip.add_model_config(config)\n"
ARGUMENTS = "import sys\nconfig, name, weights, photos, out, text = sys.argv[1:]\n"


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Make the models, then measure each number of photos."""
    if not Path(args.python).exists():
        raise InputError(f"--python: no {args.python}; the help says how to make that environment")
    with tempfile.TemporaryDirectory() as scratch:
        make_models(Path(scratch))
        return {
            "statements": {side: count_statements(script) for side, script in SCRIPTS.items()},
            **{str(count): measure(Path(scratch), count, args) for count in args.photos},
        }


def make_models(folder: Path) -> None:
    """Write the CLIP: `NAME.json` and `clip.pt` for open_clip, `hf/` in the layout of Hugging Face."""
    torch.manual_seed(0)
    vision = {"image_size": 224, "patch_size": PATCH, "layers": LAYERS, "width": WIDTH, "head_width": HEAD}
    text = {"context_length": 77, "vocab_size": 49408, "width": TEXT_WIDTH, "heads": 2, "layers": LAYERS}
    config = {"embed_dim": DIM, "vision_cfg": vision, "text_cfg": text}
    (folder / f"{NAME}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder / f"{NAME}.json")
    torch.save(open_clip.create_model(NAME).state_dict(), folder / "clip.pt")
    shared = {"num_hidden_layers": LAYERS, "projection_dim": DIM, "hidden_act": "gelu"}
    hf_config = CLIPConfig(
        vision_config={
            **shared,
            "hidden_size": WIDTH,
            "intermediate_size": 4 * WIDTH,
            "num_attention_heads": WIDTH // HEAD,
            "patch_size": PATCH,
        },
        text_config={
            **shared,
            "hidden_size": TEXT_WIDTH,
            "intermediate_size": 4 * TEXT_WIDTH,
            "num_attention_heads": TEXT_WIDTH // HEAD,
        },
        projection_dim=DIM,
    )
    CLIPModel(hf_config).save_pretrained(folder / "hf")
    processor = CLIPProcessor(CLIPImageProcessor(), _hf_tokenizer())  # type: ignore[no-untyped-call]
    processor.save_pretrained(folder / "hf")


def _hf_tokenizer() -> CLIPTokenizer:
    """The tokenizer of CLIP in the layout of Hugging Face, made from open_clip's."""
    tokenizer = open_clip.SimpleTokenizer()
    names = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    vocab = {names.get(token, token): number for token, number in tokenizer.encoder.items()}
    return CLIPTokenizer(vocab=vocab, merges=list(tokenizer.bpe_ranks), model_max_length=77)


def count_statements(script: str) -> int:
    """The statements of a script, without imports."""
    return sum(not isinstance(node, ast.Import | ast.ImportFrom) for node in ast.parse(script).body)


def measure(scratch: Path, count: int, args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """The medians of each side over the rounds, in seconds."""
    make_photos(scratch / str(count), count, SIZE)
    times: dict[str, list[tuple[float, float]]] = {side: [] for side in SCRIPTS}
    for number in range(args.rounds):
        for side in SCRIPTS:
            times[side].append(run_script(scratch, side, count, args.python))
            print(count, "photos, round", number + 1, side, times[side][-1], file=sys.stderr, flush=True)
    return {
        side: {
            "seconds": round(statistics.median(seconds for seconds, _ in runs), 1),
            "cpu_seconds": round(statistics.median(cpu for _, cpu in runs), 1),
        }
        for side, runs in times.items()
    }


def run_script(scratch: Path, side: str, count: int, python: str) -> tuple[float, float]:
    """Seconds and CPU seconds of a script from the start of its process to its end, after the first hit."""
    weights = scratch / ("hf" if side == "sentence-transformers" else "clip.pt")
    code = ARGUMENTS + ("" if weights.is_dir() else REGISTER) + SCRIPTS[side]
    with tempfile.TemporaryDirectory() as out:
        arguments = [scratch / f"{NAME}.json", NAME, weights, scratch / str(count), out, "a red chair"]
        command = [sys.executable if side == OURS else python, "-c", code, *map(str, arguments)]
        start, cpu = time.perf_counter(), _cpu_seconds()
        done = subprocess.run(command, env={**os.environ, "HOME": out}, capture_output=True, text=True)
        seconds, cpu = time.perf_counter() - start, _cpu_seconds() - cpu
    if done.returncode or not done.stdout.rstrip().endswith(".jpg"):
        raise RuntimeError(f"{side}: {done.stdout[-1000:]}\n{done.stderr[-3000:]}")
    return round(seconds, 2), round(cpu, 2)


def _cpu_seconds() -> float:
    """Of all ended child processes, and of theirs."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser("front_door", description=__doc__)
    add = parser.add_argument
    add("--python", required=True, help="of an environment with clip-retrieval and sentence-transformers")
    add("--photos", type=int, nargs="+", default=[60, 1000, 10_000], help="default: %(default)s")
    add("--rounds", type=int, default=3, help="runs of each side (default: %(default)s)")
    return parser


if __name__ == "__main__":
    run(main, parser())
