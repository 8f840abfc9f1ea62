"""
Video-LLaMA (arXiv 2306.02858) for the Hugging Face Transformers ecosystem. Importing registers the Auto classes. The
names stand in `__init__.pyi`; each is imported when it is first used.
"""

import lazy_loader

from .deferred_registration import register_with_auto_classes


__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

register_with_auto_classes()
