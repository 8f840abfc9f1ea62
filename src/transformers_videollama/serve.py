"""`videollama serve`: the library's OpenAI-compatible server or vLLM's, with limits on what requests may do."""

import asyncio
import json
from argparse import Namespace
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

from .chat_media import block_kind
from .media_access import MediaAccess, restrict_media_access


__all__ = ["RequestLimits", "check_request", "serve"]

CHAT, HEALTH, MODELS = "/v1/chat/completions", "/health", "/v1/models"
# Of `apply_chat_template`, what a request may set; the library would pass on anything
TEMPLATE_OPTIONS = {"num_frames", "fps", "start", "end", "sampling", "add_timestamps"}
BLOCKS = {"text", "image_url", "video_url", "audio_url", "input_audio"}

Message = MutableMapping[str, Any]
App = Callable[[Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]


def serve(args: Namespace) -> None:
    """
    Answer until stopped.

    Args:
        args (`Namespace`): `engine`, `model`, `host`, `port`, `device`, `dtype`, `max_upload` in MiB, `timeout` in
            seconds, `allow_local` (folders), `allow_private`, `engine_options`.

    Raises:
        ImportError: where the packages of the engine are not installed.
        ValueError: options that the engine does not take.
    """
    if args.engine_options and args.engine != "vllm":
        raise ValueError(f"got {args.engine_options} behind --, but only vLLM takes further options")
    restrict_media_access(MediaAccess(tuple(map(Path, args.allow_local)), args.allow_private))
    if args.engine == "vllm":
        from .vllm.server import serve_with_vllm

        serve_with_vllm(args)
    else:
        _serve_with_transformers(args)


def _serve_with_transformers(args: Namespace) -> None:
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


class RequestLimits:
    """
    ASGI middleware: refuses what is too large, malformed, or meant for other models, before it is worked on, and ends
    what takes too long.

    Args:
        app: the ASGI application that answers.
        max_bytes (`int`): of the body of a request.
        seconds (`float`): for an answer, from the last byte of the request to that of the answer.
        unlimited (`tuple[str, ...]`): paths besides that of chats that are answered, too.
    """

    def __init__(self, app: App, max_bytes: int, seconds: float, unlimited: tuple[str, ...] = (HEALTH, MODELS)):
        self.app, self.max_bytes, self.seconds, self.unlimited = app, max_bytes, seconds, unlimited

    async def __call__(self, scope: Message, receive, send) -> None:
        if scope["type"] != "http" or scope["path"] in self.unlimited:
            return await self.app(scope, receive, send)
        if scope["path"] != CHAT:
            return await _answer(send, 404, f"this server answers at {CHAT}, got {scope['path']}")
        body = await _read(receive, self.max_bytes)
        if body is None:
            return await _answer(send, 413, f"the request has more than {self.max_bytes} bytes")
        try:
            check_request(json.loads(body))
        except ValueError as error:  # json's is one, too
            return await _answer(send, 400, str(error))
        await self._answer_in_time(scope, _Replay(body, receive), send)

    async def _answer_in_time(self, scope: Message, receive, send) -> None:
        started = False

        async def tracked(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await asyncio.wait_for(self.app(scope, receive, tracked), self.seconds)
        except (TimeoutError, asyncio.TimeoutError):
            if started:
                raise  # an answer that has begun can only be broken off
            await _answer(send, 504, f"no answer within {self.seconds} s; ask for less")


class _Replay:
    """A body that was read already, then what comes behind it."""

    def __init__(self, body: bytes, receive):
        self.body: bytes | None = body
        self.receive = receive

    async def __call__(self) -> Message:
        if self.body is None:
            return await self.receive()
        body, self.body = self.body, None
        return {"type": "http.request", "body": body, "more_body": False}


async def _read(receive, max_bytes: int) -> bytes | None:
    """The body of a request; `None` as soon as it is longer than allowed."""
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > max_bytes:
            return None
        if not message.get("more_body", False):
            return bytes(body)


async def _answer(send, status: int, message: str) -> None:
    content = json.dumps(_error(status, message)).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})


def _models_route(model: str) -> Callable[[], Awaitable[dict]]:
    """The library's own lists what else is in the machine's cache."""

    async def models() -> dict:
        return {"object": "list", "data": [{"id": str(model), "object": "model", "created": 0, "owned_by": "user"}]}

    return models


async def _answer_bad_input(request: Any, error: Exception):
    from fastapi.responses import JSONResponse

    return JSONResponse(_error(400, str(error)), 400)


def _error(status: int, message: str) -> dict:
    """In the form of OpenAI's."""
    return {"error": {"message": message, "type": "invalid_request_error", "code": status}}


def check_request(body: Any) -> None:
    """
    Whether the body of a chat completion has the form that OpenAI's has.

    Raises:
        ValueError: says where it has not.
    """
    if not isinstance(body, dict) or not isinstance(body.get("messages"), list) or not body["messages"]:
        raise ValueError("the body must be an object with 'messages', a list of at least one message")
    unknown = set(body.get("chat_template_kwargs") or ()) - TEMPLATE_OPTIONS
    if unknown:
        raise ValueError(f"chat_template_kwargs may have {sorted(TEMPLATE_OPTIONS)}, got {sorted(unknown)}")
    for i, message in enumerate(body["messages"]):
        if not isinstance(message, dict) or message.get("role") not in ("system", "user", "assistant"):
            raise ValueError(f"messages[{i}] must be an object with a 'role' of system, user or assistant")
        content = message.get("content")
        if isinstance(content, str):
            continue
        if not isinstance(content, list):
            raise ValueError(
                f"messages[{i}].content must be a string or a list of blocks, got {type(content).__name__}"
            )
        for j, block in enumerate(content):
            _check_block(block, f"messages[{i}].content[{j}]")


def _check_block(block: Any, where: str) -> None:
    kind = block.get("type") if isinstance(block, dict) else None
    if kind not in BLOCKS:
        raise ValueError(f"{where} must be an object with a 'type' of {sorted(BLOCKS)}, got {str(kind)[:40]!r}")
    value = block.get(kind)
    if kind == "text":
        good = isinstance(value, str)
    elif kind == "input_audio":
        good = isinstance(value, dict) and isinstance(value.get("data"), str)
    else:
        good = isinstance(value, dict) and isinstance(value.get("url"), str)
    if not good:
        form = {"text": "a string", "input_audio": "{'data': base64, 'format': ...}"}.get(kind, "{'url': ...}")
        raise ValueError(f"{where}.{kind} must be {form}; the {block_kind(block)} is missing")
