"""The search behind the routes, independent of Ray: what they need of a gallery."""

from typing import Any, Protocol

from serve.messages import LargePhoto, Query, SearchResult
from stbir.embedding.explanation import Explanation


class SearchBackend(Protocol):
    """The search of one gallery. Its methods raise Problem for errors that the client should get.

    A call is cancelled at the deadline and when the client hangs up.
    """

    async def search(self, query: Query) -> SearchResult:
        """The hits of a query."""

    async def explain(self, query: Query, photo_id: str) -> Explanation:
        """What each part of the query's sketch and text contributed to the score of a photo."""

    async def thumbnail(self, photo_id: str) -> bytes:
        """The encoded thumbnail of a photo; empty if it has none."""

    async def large_photo(self, photo_id: str) -> LargePhoto:
        """The original of a photo, reduced for a screen, and its page on the web."""

    def info(self) -> dict[str, Any]:
        """A description of `model` and `gallery`; the gallery is None until one is published."""

    async def ready(self) -> dict[str, Any]:
        """The release that answers searches."""
