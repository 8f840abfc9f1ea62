"""The library's OpenAI-compatible server, with limits on what requests may do."""

import json
from argparse import Namespace
from collections.abc import Awaitable, Callable
from typing import Any

from ..adapters import processor_source
from ..processing_video_llama import VideoLlamaProcessor
from .limits import MODELS, RequestLimits
from .schema import error_body
from .trained import register_trained


__all__ = ["serve_with_transformers", "template_options"]


def serve_with_transformers(args: Namespace) -> None:
    """
    Answer until stopped.

    Args:
        args (`Namespace`): as [`~transformers_videollama.serving.serve`] takes them.
    """
    from fastapi.routing import APIRoute
    from transformers import AutoProcessor
    from transformers.cli.serve import Serve  # which says itself what it lacks

    source = processor_source(args.model, args.adapter, args.branch)
    if args.adapter or args.branch:
        register_trained(args.adapter, args.branch, str(source))

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
        chat_template_kwargs=json.dumps(template_options(AutoProcessor.from_pretrained(source))),
        non_blocking=True,
    )


def template_options(processor: VideoLlamaProcessor) -> dict[str, Any]:
    """
    The arguments of `apply_chat_template` for every request, as the processor has them: the library's server would
    hear any video, and take 32 frames of it.
    """
    return {
        "num_frames": processor.video_processor.num_frames,
        "processor_kwargs": {"load_audio_from_video": processor.load_audio_from_video},
    }


def _models_route(model: str) -> Callable[[], Awaitable[dict]]:
    """The library's own lists what else is in the machine's cache."""

    async def models() -> dict:
        return {"object": "list", "data": [{"id": str(model), "object": "model", "created": 0, "owned_by": "user"}]}

    return models


async def _answer_bad_input(request: Any, error: Exception):
    from fastapi.responses import JSONResponse

    return JSONResponse(error_body(400, str(error)), 400)
