"""Stands in for a module that the library's source distribution leaves out: questions about pictures."""

from fetch_hub_objects_for_ci import url_to_local_path
from transformers import AutoProcessor, pipeline


class ImageTextToTextPipelineTests:
    task = "image-text-to-text"

    def get_test_pipeline(self, model, tokenizer, dtype: str, **processors) -> tuple:
        processor = AutoProcessor.from_pretrained(model.config.name_or_path)
        answer = pipeline(self.task, model=model, processor=processor, dtype=dtype, max_new_tokens=5)
        return answer, self.examples(processor)

    def run_pipeline_test(self, answer, examples: list) -> None:
        for example in examples:
            assert self.ask(answer, example).strip()

    def examples(self, processor) -> list:
        return self.chats({"type": "image", "url": url_to_local_path("picture.png")})

    def ask(self, answer, example: list) -> str:
        return answer(text=example, return_full_text=False)[0]["generated_text"]

    def chats(self, *media: dict) -> list:
        questions = ("What do you see?", "How many objects are there?")
        return [[{"role": "user", "content": [*media, {"type": "text", "text": text}]}] for text in questions]
