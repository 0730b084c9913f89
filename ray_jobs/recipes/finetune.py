"""Short recipes that continue a trained model: that of `train.py --init-from`, or else CLIP ViT-B/32."""

from dataclasses import replace

from ray_jobs.recipes.reference import CLIP
from ray_jobs.recipes.stages import (
    PHOTO_TO_TEXT,
    TEXT,
    TEXT_TO_PHOTO,
    joint,
    with_epochs,
    with_optimizer,
    with_text_queries,
)
from stbir.config import (
    Augmentation,
    ImageEncoderConfig,
    ModelConfig,
    Objective,
    OptimizerConfig,
    Recipe,
    Stage,
    TextEncoderConfig,
)

EPOCHS = 4
MULTILINGUAL = "sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2"  # 50 languages, 384 dimensions
PROJECTION_LR = 1e-3  # of a new projection, as in `chairs_cpu`
# A tenth of the rate that trains a new encoder: more would overwrite the pretraining.
OPTIMIZER = OptimizerConfig(lr=1e-5, warmup_ratio=0.1, final_lr_ratio=0.1)


def finetune() -> Recipe:
    """All encoders together, on photos with sketches and captions."""
    image = ImageEncoderConfig("open_clip", "ViT-B-32", CLIP, weights="openai")
    return Recipe(
        name="finetune",
        model=ModelConfig(512, image, TextEncoderConfig("ViT-B-32", weights="openai")),
        stages=with_optimizer(OPTIMIZER, with_text_queries((joint(EPOCHS),))),
        batch_size=32,
        augmentation=Augmentation(),
    )


def finetune_text() -> Recipe:
    """The text encoder only, on photos with captions; they need no sketches.

    The photo encoder stays as it is (as in Zhai et al., LiT, arXiv 2111.07991, with the roles exchanged), so
    sketches still find their photos. Photos are encoded once.
    """
    stage = Stage("text", TEXT, Objective((PHOTO_TO_TEXT, TEXT_TO_PHOTO)), EPOCHS, optimizer=OPTIMIZER)
    return replace(finetune(), name="finetune_text", stages=(stage,), augmentation=None)


def multilingual() -> Recipe:
    """CLIP's image encoder and a frozen multilingual sentence encoder: queries in languages without captions.

    The sentence encoder has near vectors for translations (Reimers and Gurevych, EMNLP 2020, arXiv
    2004.09813). Of the text encoder only the projection trains, so captions of one language suffice: first
    alone, since it is new, then with sketches and photos. Continues no checkpoint.
    """
    text = TextEncoderConfig(MULTILINGUAL, library="hf", frozen=("trunk",))
    [first] = with_optimizer(replace(OPTIMIZER, lr=PROJECTION_LR), finetune_text().stages)
    parent = finetune()
    return replace(
        parent,
        name="multilingual",
        model=replace(parent.model, text=text),
        stages=(with_epochs(first, 2 * EPOCHS), *parent.stages),
    )


def with_model(recipe: Recipe, model: ModelConfig) -> Recipe:
    """The recipe for the encoders of a trained model, without its fusion gate and hubness correction.

    Both were fitted to the features that training changes.
    """
    return replace(recipe, model=replace(model.without_hubness(), gate=0))
