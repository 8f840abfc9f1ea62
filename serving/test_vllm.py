"""vLLM, in this process."""

import numpy as np
import pytest
from private_parts import PRIVATE_PARTS, fault_of
from vllm import LLM, SamplingParams

from transformers_videollama import TINY_CHECKPOINT, load_sound, load_video

from .media import MAX_TOKENS


GREEDY = SamplingParams(temperature=0, max_tokens=MAX_TOKENS)


@pytest.fixture(scope="module")
def new_engine(media):
    def new_engine(**options):
        return LLM(
            str(TINY_CHECKPOINT),
            dtype="float32",
            max_model_len=512,
            enforce_eager=True,
            allowed_local_media_path=str(media["bell"].parent),
            limit_mm_per_prompt={"image": 2, "video": 2, "audio": 2},
            **options,
        )

    return new_engine


@pytest.fixture(scope="module")
def engine(new_engine):
    engine = new_engine()
    yield engine
    engine.llm_engine.engine_core.shutdown()


def test_chats_at_once(engine, requests, encode):
    """Prompts are the processor's, to the token, and answers those of `generate`."""
    chats = [request for request in requests if request.num_frames is None]
    outputs = engine.chat([request.messages() for request in chats], GREEDY)
    for request, output in zip(chats, outputs, strict=True):
        assert output.prompt_token_ids == encode(request)["input_ids"][0].tolist(), request
        assert output.outputs[0].text.strip() == request.answer.strip(), request


def test_layers_split_over_two_processes(new_engine, requests):
    """Tensor parallelism; vLLM's runner for CPUs cannot do that of pipelines, of its own LLaMA either."""
    chats = [request for request in requests if request.num_frames is None]
    engine = new_engine(tensor_parallel_size=2, distributed_executor_backend="mp")
    outputs = engine.chat([request.messages() for request in chats], GREEDY)
    engine.llm_engine.engine_core.shutdown()
    assert [output.outputs[0].text.strip() for output in outputs] == [request.answer.strip() for request in chats]


def test_decoded_media_of_any_number_of_frames(engine, requests, encode, processor):
    """What is decoded already, as arrays."""
    others = [request for request in requests if request.num_frames is not None]
    prompts = [_decoded(request, processor) for request in others]
    for request, output in zip(others, engine.generate(prompts, GREEDY), strict=True):
        assert output.prompt_token_ids == encode(request)["input_ids"][0].tolist(), request
        assert output.outputs[0].text.strip() == request.answer.strip(), request


def _decoded(request, processor) -> dict:
    content = [*({"type": kind} for kind, _ in request.media), {"type": "text", "text": request.question}]
    prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    items = {"video": [], "audio": []}
    for kind, path in request.media:
        if kind == "video":
            video = load_video(path, num_frames=request.num_frames, size=(112, 112))
            items["video"].append((np.asarray(video.frames), {"fps": video.fps}))
        else:
            sound = load_sound(path)
            items["audio"].append((sound.read(0, sound.duration, 16_000).mean(0), 16_000))
    tokens = processor.tokenizer(prompt, add_special_tokens=False)["input_ids"]  # the template begins with one
    return {"prompt_token_ids": tokens, "multi_modal_data": {kind: given for kind, given in items.items() if given}}


def test_more_frames_than_positions_are_refused_and_the_engine_goes_on(engine, requests, processor):
    request = next(request for request in requests if request.num_frames == 32)
    prompt = _decoded(request, processor)
    ((video, known),) = prompt["multi_modal_data"]["video"]
    too_long = {**prompt, "multi_modal_data": {"video": [(np.concatenate([video, video[:1]]), known)]}}
    with pytest.raises(ValueError, match="video 0 has 33 frames, but the model has positions for 32"):
        engine.generate([too_long], GREEDY)
    (output,) = engine.generate([prompt], GREEDY)
    assert output.outputs[0].text.strip() == request.answer.strip()


@pytest.mark.parametrize(
    "part", [part for part in PRIVATE_PARTS if part.package == "vllm"], ids=lambda part: part.path
)
def test_private_parts_are_as_the_table_has_them(part):
    assert fault_of(part) is None, fault_of(part)
