"""The galleries of an application: their names, settings and deployments, and their part of a deploy."""

from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass

DEFAULT_GALLERY = "default"  # the gallery of the argument `gallery`, whose routes are those of /v1 itself


def _refuse_default(name: str) -> str:
    if name == DEFAULT_GALLERY:
        raise ValueError("is the name of the gallery of the argument gallery; take another")
    return name


GalleryName = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$"), AfterValidator(_refuse_default)
]


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class GalleryConfig:
    """A gallery beside the default one. `version`: None: the one published at the deploy."""

    gallery: str
    version: int | None = None


def fusion_deployment(name: str) -> str:
    """The name of the deployment that searches a gallery."""
    return "FusionReplica" if name == DEFAULT_GALLERY else f"FusionReplica_{name}"


def release_config(user_config: dict[str, Any], name: str) -> dict[str, Any]:
    """The fields of a gallery's `serve.rollout.release.ReleaseConfig` in the `user_config` of a deploy.

    They are not validated; a gallery that `user_config` lacks has no field `gallery`.
    """
    fields = {"version": None, **user_config}
    galleries = fields.pop("galleries", None)
    if name == DEFAULT_GALLERY:
        return fields
    own = galleries.get(name) if isinstance(galleries, dict) else None
    own = own if isinstance(own, dict) else {}
    return {"checkpoint": user_config.get("checkpoint"), "version": None, **own}
