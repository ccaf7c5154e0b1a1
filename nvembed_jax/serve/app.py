"""The FastAPI application: routes, what each can answer, and the documentation made of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from nvembed_jax.serve import schema
from nvembed_jax.serve.errors import ServeError, invalid
from nvembed_jax.serve.gate import OPEN_PATHS, Gate
from nvembed_jax.serve.keys import ApiKeys
from nvembed_jax.serve.routes import Routes
from nvembed_jax.serve.service import EmbeddingService
from nvembed_jax.serve.wire import error_response
from nvembed_jax.version import __version__

_FAILURES = {
    400: "The request does not fit the model, or the body is no JSON.",
    401: "No valid API key.",
    404: "No such model.",
    408: "The body did not arrive in time.",
    413: "The body is too large.",
    422: "A field is missing or wrong.",
    429: "The queue is full: see Retry-After.",
    500: "The server failed.",
    503: "Not ready yet, or stopping: see Retry-After.",
}
_READ = (401, 500)
_HEALTH = (500, 503)


class _Route(NamedTuple):
    path: str
    method: str
    handler: str
    answer: Any  # model of a 200
    failures: tuple[int, ...]
    body: Any = None


_ROUTES = (
    _Route("/v1/embeddings", "POST", "embeddings", schema.EmbeddingsAnswer, (*_FAILURES,),
           schema.EmbeddingsBody),
    _Route("/tokenize", "POST", "tokenize", schema.TokenizeAnswer, (*_FAILURES,),
           schema.TokenizeBody),
    _Route("/similarity", "POST", "similarity", schema.SimilarityAnswer, (*_FAILURES,),
           schema.SimilarityBody),
    _Route("/v1/models", "GET", "models", schema.ModelsAnswer, _READ),
    _Route("/v1/health/live", "GET", "live", schema.HealthAnswer, _HEALTH),
    _Route("/v1/health/ready", "GET", "ready", schema.HealthAnswer, _HEALTH),
    _Route("/v1/metrics", "GET", "metrics", None, _READ),
    _Route("/v1/metadata", "GET", "metadata", schema.MetadataAnswer, _READ),
    _Route("/v1/version", "GET", "version", schema.VersionAnswer, _READ),
)  # fmt: skip


def make_app(
    service: EmbeddingService, before_stop: Callable[[], Awaitable[None]] | None = None
) -> Any:
    """The application (`fastapi.FastAPI`); its lifespan starts and stops `service`.

    Args:
        before_stop: waited for before the service stops: other ways in that are still in use.
    """
    from fastapi import FastAPI
    from fastapi.exceptions import RequestValidationError

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        service.start()
        try:
            yield
        finally:
            if before_stop is not None:
                await before_stop()
            service.stop()

    keys = ApiKeys(service.settings.api_keys)
    app = FastAPI(
        title="nvembed",
        description="Text embeddings: OpenAI's and NVIDIA NIM's interface.",
        version=__version__,
        lifespan=lifespan,
        redoc_url=None,
        # Answers have one form only where nothing redirects.
        redirect_slashes=False,
    )
    app.add_middleware(Gate, keys=keys, metrics=service.metrics)  # type: ignore[arg-type]
    app.add_exception_handler(ServeError, _on_error)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    routes = Routes(service)
    limits = schema.Limits(service.names.known(), service.settings.max_inputs)
    for route in _ROUTES:
        _add(app, route, routes, limits)
    _add_security(app, bool(keys))
    return app


def _add(app: Any, route: _Route, routes: Routes, limits: schema.Limits) -> None:
    """One route with all statuses that it can answer."""
    extra: dict[str, Any] = {}
    if route.body is not None:
        content = {"application/json": {"schema": schema.body_schema(route.body, limits)}}
        extra["requestBody"] = {"required": True, "content": content}
    responses: dict[int, Mapping[str, Any]] = {
        status: {"model": schema.ErrorAnswer, "description": _FAILURES[status]}
        for status in route.failures
    }
    if route.answer is not None:
        responses[200] = {"model": route.answer, "description": "Done."}
    else:
        responses[200] = {
            "content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Done."
        }  # fmt: skip
    handler = getattr(routes, route.handler)
    app.add_api_route(
        route.path,
        handler,
        methods=[route.method],
        name=route.handler,
        operation_id=route.handler,
        summary=route.handler.capitalize(),
        description=handler.__doc__,
        response_model=None,
        response_class=Response,
        responses=responses,
        openapi_extra=extra,
    )


def _add_security(app: Any, has_keys: bool) -> None:
    """Says in the documentation where a key is asked for."""
    make = app.openapi

    def openapi() -> dict[str, Any]:
        is_new = app.openapi_schema is None
        made = make()
        if has_keys and is_new:
            bearer = {"type": "http", "scheme": "bearer"}
            made.setdefault("components", {})["securitySchemes"] = {"key": bearer}
            made["security"] = [{"key": []}]
            for path in OPEN_PATHS:
                made["paths"][path]["get"]["security"] = []
        return made

    app.openapi = openapi


async def _on_error(request: Request, error: Any) -> Response:
    return error_response(error)


async def _on_http_error(request: Request, error: Any) -> Response:
    """What the framework answers by itself: no such path (404), wrong method (405)."""
    failed = ServeError(error.status_code, str(error.detail), headers=error.headers)
    return error_response(failed)


async def _on_invalid(request: Request, error: Any) -> Response:
    found = error.errors()[0]
    return error_response(invalid(f"{'.'.join(map(str, found['loc']))}: {found['msg']}"))
