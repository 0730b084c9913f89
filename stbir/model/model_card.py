"""The model card of a checkpoint (Mitchell et al., arXiv 1810.03993), made from its facts."""

from typing import Any

from torch import nn

from stbir.config import (
    MODALITIES,
    Modality,
    ModelConfig,
    Recipe,
    Stage,
    TextEncoderConfig,
)
from stbir.model.retriever import Retriever

MODEL_CARD_FILE = "MODEL_CARD.md"
_FRONT_MATTER = "---\nlibrary_name: stbir\ntags: [image-retrieval, sketch]\n---"
_USE = """## Use

```python
import stbir

model = stbir.load("URI of this folder")
gallery = stbir.index("photos/", model, "gallery/")
hits = gallery.search(sketch="chair.png", text="red leather seat", k=10)
```

## Limits

- Scores are cosines: they rank photos and are no probabilities.
- Accuracy holds for data like those of the training. Measure it on your own photos:
  `ray_jobs/evaluate.py`.
- Pretrained weights keep the licence and the biases of their source."""


def model_card(
    retriever: Retriever, recipe: Recipe, digest: str, counts: dict[str, int], details: dict[str, Any]
) -> str:
    """Markdown: encoders, training, use and limits. `counts` and `details` are those of the manifest."""
    gate = f", fusion gate of {recipe.model.gate} units" if recipe.model.gate else ""
    hubness = ", hubness correction" if recipe.model.hubness else ""
    sections = [
        f"{_FRONT_MATTER}\n\n# {recipe.name}",
        "Finds photos by a sketch of their shape, a text about their appearance, or both"
        " ([STBIR](https://arxiv.org/abs/2604.15735)).",
        f"Embedding: {retriever.dim} dimensions{gate}{hubness}. Digest: `{digest}`.",
        _encoder_table(retriever, recipe.model),
        f"## Training\n\n{_training(recipe, counts, details)}",
        _USE,
    ]
    return "\n\n".join(sections) + "\n"


def _encoder_table(retriever: Retriever, model: ModelConfig) -> str:
    rows = (_encoder_row(retriever.encoder(modality), model, modality) for modality in MODALITIES)
    header = "| encoder | model | pretrained weights | input | parameters |\n|---|---|---|---|---|"
    return "\n".join([header, *(f"| {' | '.join(row)} |" for row in rows)])


def _encoder_row(encoder: nn.Module, model: ModelConfig, modality: Modality) -> list[str]:
    config = model.encoders[modality]
    if isinstance(config, TextEncoderConfig):
        size = f"{config.options.get('context_length', 77)} tokens"
    else:
        size = f"{config.preprocess.size} x {config.preprocess.size} pixels"
    num_parameters = sum(parameter.numel() for parameter in encoder.parameters())
    return [
        modality,
        model.names[modality],
        str(config.weights or "none"),
        size,
        f"{num_parameters / 1e6:.1f} M",
    ]


def _training(recipe: Recipe, counts: dict[str, int], details: dict[str, Any]) -> str:
    steps = counts.get("steps", 0)
    if not steps:
        return "This checkpoint has not been trained: its encoders are those of the table above."
    stages = [
        f"- stage {stage.name}: {', '.join(_parts(stage))}, {stage.epochs} epochs" for stage in recipe.stages
    ]
    facts = [f"- {steps} of {counts.get('total', '?')} steps, batch {recipe.batch_size}, seed {recipe.seed}"]
    facts += [f"- {counts['photos']} photos"] if "photos" in counts else []
    facts += [f"- data: `{digest}`" for digest in details.get("data", ())]
    facts += [f"- started from checkpoint `{details['init_from']}`"] if details.get("init_from") else []
    calibration = ["- hubness correction measured after the validation"] if "calibrated" in details else []
    return "\n".join([*facts, *stages, *_validation(details.get("validation")), *calibration])


def _parts(stage: Stage) -> list[str]:
    return [*stage.trainable.encoders, *(["gate"] if stage.trainable.gate else [])]


def _validation(scores: dict[str, Any] | None) -> list[str]:
    if not scores:
        return ["- not validated"]
    accuracy = ", ".join(f"{kind} {value:.1f}" for kind, value in scores["acc@1"].items())
    return [f"- validation on {scores['photos']}, Acc@1 in percent: {accuracy or 'no queries'}"]
