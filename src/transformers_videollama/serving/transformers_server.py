"""The library's OpenAI-compatible server, with limits on what requests may do."""

import json
from argparse import Namespace
from collections.abc import Awaitable, Callable
from typing import Any

from .limits import MODELS, RequestLimits
from .schema import error_body


__all__ = ["serve_with_transformers"]


def serve_with_transformers(args: Namespace) -> None:
    """
    Answer until stopped.

    Args:
        args (`Namespace`): as [`~transformers_videollama.serving.serve`] takes them.
    """
    from fastapi.routing import APIRoute
    from transformers import AutoVideoProcessor
    from transformers.cli.serve import Serve  # which says itself what it lacks

    num_frames = AutoVideoProcessor.from_pretrained(args.model).num_frames

    class LimitedServe(Serve):
        def start_server(self) -> None:
            """The library's hook for what runs the app that it has built."""
            app = self.server.config.app
            app.add_exception_handler(ValueError, _answer_bad_input)
            app.router.routes.insert(0, APIRoute(MODELS, _models_route(args.model)))
            app.add_middleware(RequestLimits, max_bytes=args.max_upload << 20, seconds=args.timeout)
            self.server.run()

    LimitedServe(
        force_model=str(args.model),
        host=args.host,
        port=args.port,
        device=args.device or "auto",
        dtype=args.dtype,
        chat_template_kwargs=json.dumps({"num_frames": num_frames}),  # it would take 32 of any video
        non_blocking=True,
    )


def _models_route(model: str) -> Callable[[], Awaitable[dict]]:
    """The library's own lists what else is in the machine's cache."""

    async def models() -> dict:
        return {"object": "list", "data": [{"id": str(model), "object": "model", "created": 0, "owned_by": "user"}]}

    return models


async def _answer_bad_input(request: Any, error: Exception):
    from fastapi.responses import JSONResponse

    return JSONResponse(error_body(400, str(error)), 400)
