"""Tiny configurations and inputs, as the library's model tests ask for them."""

import torch
from transformers.testing_utils import torch_device

from transformers_videollama import (
    VideoLlamaAudioConfig,
    VideoLlamaAudioVisionConfig,
    VideoLlamaConfig,
    VideoLlamaForConditionalGeneration,
    VideoLlamaModel,
)


IMAGE, VIDEO, AUDIO = 80, 81, 82  # placeholders; some of the tests cut the vocabulary of 99 by 15
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 37}
TRUNK = {**SIZES, "projection_dim": 32}
IMAGE_SIZE = 28
MELS, MEL_FRAMES = 16, 20


class Tester:
    """What the tests of all models read."""

    batch_size = 3
    hidden_size, num_hidden_layers, num_attention_heads = (
        SIZES[name] for name in ("hidden_size", "num_hidden_layers", "num_attention_heads")
    )
    is_training = True


class VideoLlamaModelTester(Tester):
    """Prompts that hold an image, a video of 3 frames and a sound of 2 clips each."""

    base_model_class = VideoLlamaModel
    causal_lm_class = conditional_generation_class = VideoLlamaForConditionalGeneration
    text_length = 7
    vocab_size = 99
    num_tokens = {IMAGE: 4, VIDEO: 4, AUDIO: 3}
    seq_length = text_length + sum(num_tokens.values())

    def get_config(self) -> VideoLlamaConfig:
        fuser = {
            **SIZES,
            "vocab_size": 1,
            "max_position_embeddings": 16,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
            "encoder_hidden_size": 32,
        }
        return VideoLlamaConfig(
            vision_config={**SIZES, "image_size": IMAGE_SIZE, "patch_size": 14},
            qformer_config=fuser,
            num_query_tokens=self.num_tokens[IMAGE],
            video_resampler_config={**fuser, "num_query_tokens": self.num_tokens[VIDEO]},
            # No vision trunk of ImageBind: its frames stand in for sound, and one prompt cannot hold both
            audio_config={**TRUNK, "num_mel_bins": MELS, "num_mel_frames": MEL_FRAMES},
            audio_resampler_config={**fuser, "num_query_tokens": self.num_tokens[AUDIO]},
            text_config={
                **SIZES,
                "model_type": "llama",
                "vocab_size": self.vocab_size,
                "num_key_value_heads": 4,
                "max_position_embeddings": 256,
                "pad_token_id": 0,
                "bos_token_id": 1,
                "eos_token_id": 2,
            },
            image_token_id=IMAGE,
            video_token_id=VIDEO,
            audio_token_id=AUDIO,
            output_vocab_size=None,
        )

    def prepare_config_and_inputs_for_common(self) -> tuple[VideoLlamaConfig, dict[str, torch.Tensor]]:
        text = torch.randint(3, IMAGE, (self.batch_size, self.text_length))
        items = [torch.full((self.batch_size, length), token) for token, length in self.num_tokens.items()]
        input_ids = torch.cat((text[:, :1], *items, text[:, 1:]), dim=1)
        pixels = (3, IMAGE_SIZE, IMAGE_SIZE)
        inputs = {
            "input_ids": input_ids,
            "attention_mask": torch.ones_like(input_ids),
            "pixel_values": torch.randn(self.batch_size, *pixels),
            "pixel_values_videos": torch.randn(self.batch_size, 3, *pixels),
            "input_features": torch.randn(self.batch_size, 2, MELS, MEL_FRAMES),
        }
        return self.get_config(), {name: tensor.to(torch_device) for name, tensor in inputs.items()}


class WholeBatchTester(VideoLlamaModelTester):
    """As many rows as the library fills batches up to, so that it adds none whose items stand in no prompt."""

    batch_size = 7


class AnyTextTester(VideoLlamaModelTester):
    """For texts that are drawn from the whole vocabulary and come without items: none of it is a placeholder."""

    def get_config(self) -> VideoLlamaConfig:
        config = super().get_config()
        for number, kind in enumerate(("image", "video", "audio")):
            setattr(config, f"{kind}_token_id", self.vocab_size + number)  # which a saved configuration cannot have
        return config


class SeededTextTester(VideoLlamaModelTester):
    """For texts that are drawn so with the seed 0: of this many ids, none of them is a placeholder."""

    vocab_size = 4096


class TrainingTester(VideoLlamaModelTester):
    """Its configuration says how many tokens there are where that of a text model says it."""

    def get_config(self) -> VideoLlamaConfig:
        config = super().get_config()
        config.vocab_size = config.text_config.vocab_size
        return config


class AudioModelTester(Tester):
    """ImageBind's audio trunk and three clips."""

    seq_length = 1 + 1  # class token, and the patches of 16 x 16 in steps of 10
    key_length = seq_length + 1  # and a learned key

    def get_config(self) -> VideoLlamaAudioConfig:
        return VideoLlamaAudioConfig(**TRUNK, num_mel_bins=MELS, num_mel_frames=MEL_FRAMES)

    def prepare_config_and_inputs_for_common(self) -> tuple[VideoLlamaAudioConfig, dict[str, torch.Tensor]]:
        clips = torch.randn(self.batch_size, MELS, MEL_FRAMES)
        return self.get_config(), {"input_features": clips.to(torch_device)}


class AudioVisionModelTester(Tester):
    """ImageBind's vision trunk and three frames."""

    seq_length = 1 + 4

    def get_config(self) -> VideoLlamaAudioVisionConfig:
        return VideoLlamaAudioVisionConfig(**TRUNK, image_size=IMAGE_SIZE)

    def prepare_config_and_inputs_for_common(self) -> tuple[VideoLlamaAudioVisionConfig, dict[str, torch.Tensor]]:
        pixels = torch.randn(self.batch_size, 3, IMAGE_SIZE, IMAGE_SIZE)
        return self.get_config(), {"pixel_values": pixels.to(torch_device)}
