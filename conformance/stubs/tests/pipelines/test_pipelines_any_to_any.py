"""Stands in for a module that the library's source distribution leaves out: questions about videos with sound."""

from fetch_hub_objects_for_ci import url_to_local_path

from .test_pipelines_image_text_to_text import ImageTextToTextPipelineTests


class AnyToAnyPipelineTests(ImageTextToTextPipelineTests):
    task = "any-to-any"

    def examples(self, processor) -> list[dict]:
        """Prompts and files: a generator of chats is not understood by this pipeline of the library."""
        clip = url_to_local_path("tiny_video.mp4")
        return [
            {"text": processor.apply_chat_template(chat, tokenize=False), "videos": clip, "audio": clip}
            for chat in self.chats({"type": "audio"}, {"type": "video"})
        ]

    def ask(self, answer, example: dict) -> str:
        return answer(**example, return_full_text=False)[0]["generated_text"]
