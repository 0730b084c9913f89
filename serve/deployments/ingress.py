"""The ingress: the HTTP deployment, with a searcher for each gallery."""

import asyncio
import gc
import logging
import os
from dataclasses import replace
from functools import partial
from typing import Any

from fastapi import FastAPI
from ray import serve
from starlette.types import Scope

from serve.deployments.error_mapping import at_capacity
from serve.deployments.searcher import searchers
from serve.galleries import DEFAULT_GALLERY
from serve.http.access_log import AccessLogMiddleware, configure_logging
from serve.http.admission import Admission, AdmissionControl, set_process_control
from serve.http.api import create_app
from serve.http.auth import create_authenticator
from serve.http.cors import cors_middleware
from serve.http.paths import gallery_name
from serve.metrics import RequestMetrics
from serve.problem import problem_app
from serve.rollout.app_status import AppStatusWatch, read_app_status
from serve.rollout.records import ReleaseRecords
from serve.settings import Settings

log = logging.getLogger(__name__)


@serve.ingress()
class Ingress:
    """The HTTP deployment. Serve calls `__serve_build_asgi_app__` after the constructor."""

    def __init__(
        self, sketch: Any, text: Any, fusions: dict[str, Any], settings: Settings, records: ReleaseRecords
    ) -> None:
        """`fusions`: the handle of each gallery by its name."""
        watch = AppStatusWatch(partial(read_app_status, serve.get_replica_context().app_name))
        self.searchers = searchers(sketch, text, fusions, settings, records, watch)
        self.settings, self.origins = settings, settings.cors.origins
        self.authenticator = create_authenticator(os.environ, self.origins)
        self.metrics = RequestMetrics(settings.gallery_names)
        configure_logging()
        # The modules loaded so far are not garbage; looking through them took 60 ms during a large request.
        gc.freeze()

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Switch each gallery to its release in a `user_config`. Serve calls it at start too."""
        for name in (user_config.get("galleries") or {}).keys() - self.searchers.keys():
            log.error("user_config: galleries.%s: not in the settings, so not served (docs/serve.md)", name)
        await asyncio.gather(*(each.rollout.start(user_config) for each in self.searchers.values()))

    def _is_late(self, scope: Scope) -> bool:
        """Whether a search would probably pass its deadline in the queue of its gallery."""
        searcher = self.searchers.get(gallery_name(scope))
        return searcher is not None and searcher.is_late

    def __serve_build_asgi_app__(self) -> FastAPI:
        limits, ingress = self.settings.limits, self.settings.ingress
        reject = problem_app(at_capacity(limits.retry_after_s))
        admission = AdmissionControl(
            reject,
            Admission(ingress.coalescing.max_in_flight, self.metrics.set_in_flight, self._is_late),
            Admission(ingress.thumbnails.max_in_flight),
        )
        # In front of `create_app`, so a rejection needs its own CORS headers and access log line.
        logged = AccessLogMiddleware(cors_middleware(reject, self.origins), self.metrics)
        set_process_control(replace(admission, rejection=logged))
        return create_app(
            self.searchers[DEFAULT_GALLERY],
            limits,
            self.authenticator,
            self.origins,
            self.metrics,
            admission,
            self.searchers,
        )
