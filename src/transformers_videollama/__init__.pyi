from .chat_templates import load_chat_template
from .configuration_video_llama import (
    VideoLlamaAudioConfig,
    VideoLlamaAudioVisionConfig,
    VideoLlamaConfig,
    VideoLlamaResamplerConfig,
)
from .conversation import ConversationAnswer, VideoLlamaConversation
from .feature_extraction_video_llama import VideoLlamaFeatureExtractor
from .image_processing_video_llama import VideoLlamaImageProcessor
from .media import MediaError, Sound, Video, load_image, load_sound, load_video, sample_indices
from .messages import EncodedMedia
from .modeling_video_llama import (
    VideoLlamaAudioModel,
    VideoLlamaAudioVisionModel,
    VideoLlamaForConditionalGeneration,
    VideoLlamaModel,
    VideoLlamaPreTrainedModel,
    VideoLlamaResampler,
)
from .processing_video_llama import VideoLlamaProcessor
from .registration import register
from .tiny import TINY_CHECKPOINT
from .video_processing_video_llama import VideoLlamaVideoProcessor

__all__ = [
    "ConversationAnswer",
    "EncodedMedia",
    "MediaError",
    "Sound",
    "TINY_CHECKPOINT",
    "Video",
    "VideoLlamaAudioConfig",
    "VideoLlamaAudioModel",
    "VideoLlamaAudioVisionConfig",
    "VideoLlamaAudioVisionModel",
    "VideoLlamaConfig",
    "VideoLlamaConversation",
    "VideoLlamaFeatureExtractor",
    "VideoLlamaForConditionalGeneration",
    "VideoLlamaImageProcessor",
    "VideoLlamaModel",
    "VideoLlamaPreTrainedModel",
    "VideoLlamaProcessor",
    "VideoLlamaResampler",
    "VideoLlamaResamplerConfig",
    "VideoLlamaVideoProcessor",
    "load_chat_template",
    "load_image",
    "load_sound",
    "load_video",
    "register",
    "sample_indices",
]

__version__: str
