"""The limits of requests: their size, their form, and the time of an answer."""

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from .schema import check_request, error_body


__all__ = ["CHAT", "HEALTH", "MODELS", "RequestLimits"]

CHAT, HEALTH, MODELS = "/v1/chat/completions", "/health", "/v1/models"
Message = MutableMapping[str, Any]
App = Callable[[Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]


class RequestLimits:
    """
    ASGI middleware: refuses requests that are too large, malformed, or meant for other models, before anything works
    on them, and ends those that take too long.

    Args:
        app: the ASGI application that answers.
        max_bytes (`int`): of the body of a request.
        seconds (`float`): for an answer, from the last byte of the request to that of the answer.
        unlimited (`tuple[str, ...]`): paths that are answered in addition to that of chats.
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
    """A body that was read already, then what follows it."""

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
    content = json.dumps(error_body(status, message)).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
