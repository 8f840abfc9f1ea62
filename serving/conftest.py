"""Media and right answers for the tests of serving."""

import os
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForMultimodalLM, AutoProcessor

from transformers_videollama import TINY_CHECKPOINT

from .media import MAX_TOKENS, mixed_requests, render_media


os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")  # GiB
os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")  # other programs run on these cores, too
os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def media(tmp_path_factory):
    return render_media(tmp_path_factory.mktemp("media"))


@pytest.fixture(scope="session")
def processor():
    return AutoProcessor.from_pretrained(TINY_CHECKPOINT)


@pytest.fixture(scope="session")
def encode(processor):
    """A request -> the inputs of `generate`; engines leave out the sentence about the times of frames."""

    def encode(request):
        options = {} if request.num_frames is None else {"num_frames": request.num_frames}
        return processor.apply_chat_template(
            request.chat(),
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            add_generation_prompt=True,
            add_timestamps=False,
            load_audio_from_video=False,
            **options,
        )

    return encode


@pytest.fixture(scope="session")
def requests(media, processor, encode):
    """20 requests, with the answers of `generate`, greedy."""
    model = AutoModelForMultimodalLM.from_pretrained(TINY_CHECKPOINT, dtype=torch.float32).eval()
    answered = []
    for request in mixed_requests(media):
        inputs = encode(request)
        generated = model.generate(**inputs, do_sample=False, max_new_tokens=MAX_TOKENS)
        (answer,) = processor.post_process_image_text_to_text(generated[:, inputs["input_ids"].shape[1] :])
        answered.append(replace(request, answer=answer))
    assert len({request.answer for request in answered}) > 10  # they tell requests apart
    return answered
