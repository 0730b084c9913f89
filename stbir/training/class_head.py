"""The start of the class head: class means (Snell et al., Prototypical Networks, arXiv 1703.05175)."""

import torch
import torch.nn.functional as F

from stbir.config import Recipe
from stbir.data.photo_index import PhotoIndex
from stbir.training.feature_cache import build_feature_cache
from stbir.training.stages import StageRun


@torch.no_grad()
def start_class_head(run: StageRun, recipe: Recipe, photos: PhotoIndex, device: torch.device) -> None:
    """Before the first stage with a class term, set the class weights (C, D) to class means.

    They are means of the features of the photo encoder, which at random weights would take most of a stage
    to reach. A class without photos keeps its random weights.
    """
    weight_CD = run.model.class_weight_CD
    first = next((stage for stage in recipe.stages if stage.objective.category > 0), None)
    if weight_CD is None or run.stage is not first or run.step > 0:
        return
    run.model.retriever.photo.eval()
    cache = build_feature_cache(("photo",), run.model.retriever, recipe, run.stage, photos, device)
    run.model.set_stage(run.stage)
    photo_rows = torch.from_numpy(cache.first_row["photo"]).to(device)
    label_P = torch.from_numpy(photos.label).to(device)
    used_P = (photo_rows >= 0) & (label_P >= 0)
    sum_CD = torch.zeros_like(weight_CD).index_add_(
        0, label_P[used_P], cache.features["photo"][photo_rows[used_P]].to(weight_CD.dtype)
    )
    has_photos_C1 = sum_CD.abs().sum(1, keepdim=True) > 0
    weight_CD.copy_(torch.where(has_photos_C1, F.normalize(sum_CD, dim=1), weight_CD))
