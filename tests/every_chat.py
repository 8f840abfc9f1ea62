"""
Chats of every kind, and what a model answers to them. It does not import the package, so that an interpreter can ask
where the package is absent.
"""

import json
from pathlib import Path
from typing import Any

import torch


__all__ = ["ask_conversation", "ask_every_chat", "ask_pipeline", "read_chats", "write_chats"]

GREEDY = {"max_new_tokens": 24, "do_sample": False}


def write_chats(path: Path, *, clip: str, silent: str, picture: str, sound: str) -> None:
    """Chats by name. The batch is a list of conversations; all others are one."""
    media = {
        "text": [],
        "image": [{"type": "image", "path": picture}],
        "video": [{"type": "video", "path": silent}],
        "video with sound": [{"type": "video", "path": clip}],
        "sound": [{"type": "audio", "path": sound}],
        "several": [
            {"type": "image", "path": picture},
            {"type": "video", "path": clip},
            {"type": "audio", "path": sound},
            {"type": "video", "path": silent, "num_frames": 3},
        ],
    }
    question = {"type": "text", "text": "What do you see and hear?"}
    chats: dict[str, list] = {
        name: [{"role": "user", "content": [*blocks, question]}] for name, blocks in media.items()
    }
    chats["second turn"] = [
        *chats["video with sound"],
        {"role": "assistant", "content": [{"type": "text", "text": "I see a circle."}]},
        {"role": "user", "content": [{"type": "text", "text": "What color is the circle?"}]},
    ]
    chats["batch"] = [chats[name] for name in ("video with sound", "several", "text", "second turn")]
    path.write_text(json.dumps(chats))


def read_chats(path: str | Path) -> dict[str, list]:
    return json.loads(Path(path).read_text())


def ask_every_chat(model: Any, processor: Any, chats: dict[str, list]) -> dict[str, Any]:
    """Prompts as token ids, answers as token ids and as text."""
    found = {}
    for name, chat in chats.items():
        inputs = processor.apply_chat_template(
            chat, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
        )
        answers = model.generate(**inputs, **GREEDY)[:, inputs["input_ids"].shape[1] :]
        texts = [text.strip() for text in processor.post_process_image_text_to_text(answers)]
        found[name] = {"prompt": inputs["input_ids"].tolist(), "answer": answers.tolist(), "text": texts}
    return found


def ask_pipeline(pipe: Any, chats: dict[str, list]) -> dict[str, list[str]]:
    """Texts, as those of `ask_every_chat`; each conversation of a batch for itself."""
    texts = {}
    for name, chat in chats.items():
        outputs = pipe(text=chat if name == "batch" else [chat], return_full_text=False, **GREEDY)
        texts[name] = [output["generated_text"].strip() for (output,) in outputs]
    return texts


def ask_conversation(conversation: Any, chats: dict[str, list]) -> list[list]:
    """Two turns about a video with sound, of which the second goes on from the first."""
    first, second = chats["video with sound"][0]["content"], chats["second turn"][-1]["content"]
    with torch.no_grad():
        answers = [conversation.ask(content, **GREEDY) for content in (first, second)]
    return [[str(answer), answer.prompt_tokens, answer.reused_tokens > 0] for answer in answers]
