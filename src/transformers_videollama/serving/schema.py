"""The form of a request, which is OpenAI's, and of an error."""

from typing import Any

from ..messages import Block, parse_message


__all__ = ["check_request", "error_body"]

# The arguments of `apply_chat_template` that a request may set; the library would pass on anything
TEMPLATE_OPTIONS = {"num_frames", "fps", "start", "end", "sampling", "add_timestamps"}
TEMPLATE_OPTIONS |= {"video_stream", "audio_stream", "on_damage"}
ROLES = ("system", "user", "assistant")
# The keys under which OpenAI's blocks hold an item, and its form
FORMS = {
    "image_url": "{'url': address}",
    "video_url": "{'url': address}",
    "audio_url": "{'url': address}",
    "input_audio": "{'data': base64, 'format': ...}",
}


def check_request(body: Any) -> None:
    """
    Checks that the body of a chat completion has the form that OpenAI's has.

    Raises:
        ValueError: if it has not; the message says where.
    """
    if not isinstance(body, dict) or not isinstance(body.get("messages"), list) or not body["messages"]:
        raise ValueError("the body must be an object with 'messages', a list of at least one message")
    unknown = set(body.get("chat_template_kwargs") or ()) - TEMPLATE_OPTIONS
    if unknown:
        raise ValueError(f"chat_template_kwargs may have {sorted(TEMPLATE_OPTIONS)}, got {sorted(unknown)}")
    for i, message in enumerate(body["messages"]):
        where = f"messages[{i}]"
        parsed = parse_message(message, where)
        if parsed.role not in ROLES:
            raise ValueError(f"{where}: got the role {parsed.role[:40]!r}, expected one of {', '.join(ROLES)}")
        if message.get("content") is None:
            raise ValueError(f"{where}: got no content, expected a string or a list of blocks")
        for j, block in enumerate(parsed.content):
            if isinstance(block, Block):
                _check_block(block, message["content"][j], f"{where}, block {j}")


def _check_block(block: Block, given: dict, where: str) -> None:
    """Only addresses and content are taken, under OpenAI's names alone."""
    kind = given["type"]
    if kind == "text":
        return
    if kind not in FORMS:
        raise ValueError(f"{where}: got the type {kind[:40]!r}, expected one of text, {', '.join(FORMS)}")
    if block.source_keys != (kind,) or not isinstance(given[kind], dict) or not isinstance(block.source, str):
        raise ValueError(
            f"{where}: the {block.kind} is missing; expected '{kind}': {FORMS[kind]}, and no other source"
        )


def error_body(status: int, message: str) -> dict:
    """In the form of OpenAI's."""
    return {"error": {"message": message, "type": "invalid_request_error", "code": status}}
