"""The form of a request, which is OpenAI's, and of an error."""

from typing import Any

from ..messages import block_kind


__all__ = ["check_request", "error_body"]

# Of `apply_chat_template`, what a request may set; the library would pass on anything
TEMPLATE_OPTIONS = {"num_frames", "fps", "start", "end", "sampling", "add_timestamps"}
BLOCKS = {"text", "image_url", "video_url", "audio_url", "input_audio"}


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


def error_body(status: int, message: str) -> dict:
    """In the form of OpenAI's."""
    return {"error": {"message": message, "type": "invalid_request_error", "code": status}}
