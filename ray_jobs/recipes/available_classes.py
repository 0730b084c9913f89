"""A recipe for shards without class labels: with clusters of image features, or without the class term."""

from collections.abc import Sequence

from ray_jobs.recipes.ablations import NUM_CLUSTERS, with_clusters, without_category
from stbir.config import Recipe
from stbir.data.shards import Shards

MIN_PHOTOS_PER_CLUSTER = 10


def with_available_classes(
    recipe: Recipe, shards: Shards, splits: Sequence[str]
) -> tuple[Recipe, str | None]:
    """The recipe that fits the labels of the splits, and one line for the user if it is another one.

    A recipe changes only if it uses labels and no photo has one: a few missing labels are a fault of the
    data, which `class_names` reports.
    """
    if not recipe.uses_classes or recipe.num_clusters:
        return recipe, None
    photos = [
        photo for photo in shards.index.select(["class", "split"]).to_pylist() if photo["split"] in splits
    ]
    if any(photo["class"] is not None for photo in photos):
        return recipe, None
    if len(photos) >= NUM_CLUSTERS * MIN_PHOTOS_PER_CLUSTER:
        changed, what = with_clusters(recipe), f"{NUM_CLUSTERS} clusters of image features are the classes"
    else:
        changed = without_category(recipe)
        what = f"{len(photos)} photos are too few for clusters, so the class term is off"
    return changed, f"{shards.folder.uri}: no photo has a class; {what} ({changed.name})"
