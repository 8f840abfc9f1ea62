"""The Auto classes know Video-LLaMA once the package was imported, whatever else was imported before or after."""

import pytest
from interpreters import WarmInterpreter, run_python, told


pytestmark = pytest.mark.slow
PACKAGE = "import transformers_videollama"

CHECK = """
from transformers import AutoConfig, AutoModelForMultimodalLM, AutoProcessor
import torch, transformers
from transformers.models.auto.modeling_auto import MODEL_FOR_MULTIMODAL_LM_MAPPING
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING
config_class = type(AutoConfig.for_model("video_llama"))
print(config_class.__name__, MODEL_FOR_MULTIMODAL_LM_MAPPING[config_class].__name__,
      PROCESSOR_MAPPING[config_class].__name__, transformers.VideoLlamaForConditionalGeneration.__name__)
"""

KNOWN = "VideoLlamaConfig VideoLlamaForConditionalGeneration VideoLlamaProcessor VideoLlamaForConditionalGeneration\n"


@pytest.fixture(scope="module")
def warm(tmp_path_factory):
    interpreter = WarmInterpreter(tmp_path_factory.mktemp("warm"))
    yield interpreter
    interpreter.close()


@pytest.fixture
def assert_known(warm):
    def check(*lines: str) -> None:
        result = warm.run("\n".join([*lines, CHECK]))
        assert result.stdout == KNOWN, result.stderr

    return check


def test_the_architecture_is_known_in_a_fresh_interpreter():
    """In which nothing was imported before, as it was in those of the tests below."""
    result = run_python("\n".join([PACKAGE, CHECK]))
    assert result.stdout == KNOWN, result.stderr


@pytest.mark.parametrize(
    "line",
    [
        "",
        "import transformers",
        "from transformers import AutoConfig",
        "from transformers.models.auto import AutoModelForMultimodalLM",
        "from transformers.models.auto.processing_auto import AutoProcessor",
        "from transformers.pipelines import pipeline",
    ],
)
@pytest.mark.parametrize("order", ["package first", "package last"])
def test_the_order_of_imports(assert_known, line, order):
    lines = [PACKAGE, line]
    assert_known(*(lines if order == "package first" else reversed(lines)))


@pytest.mark.parametrize(
    "line",
    [
        # each imports the Auto classes while it is half done itself, and registering needs it whole
        "import transformers.modeling_utils",
        "import transformers.modeling_layers",
        "import transformers.models.blip_2.configuration_blip_2",
        "from transformers import LlamaForCausalLM",
        "from transformers import Trainer",
        "from transformers_videollama.configuration_video_llama import VideoLlamaConfig",
        "from transformers_videollama import VideoLlamaForConditionalGeneration",
        "from transformers_videollama import VideoLlamaProcessor",
        "from transformers_videollama import register",
        "import transformers_videollama.training",
    ],
)
def test_what_imports_the_auto_classes_on_its_way(assert_known, line):
    assert_known(PACKAGE, line)


def test_registering_again_changes_nothing(assert_known):
    register = "transformers_videollama.register()"
    assert_known(PACKAGE, register, register)


def test_importing_anew_changes_nothing(assert_known):
    lines = ["import importlib", "importlib.reload(transformers_videollama)"]
    lines += ["importlib.reload(sys.modules['transformers_videollama.registration']).register()"]
    assert_known("import sys", PACKAGE, *lines)


@pytest.mark.parametrize("first", ["package first", "each thread imports the package"])
def test_threads_that_import_the_auto_classes_at_once(warm, first):
    result = warm.run(
        f"{PACKAGE if first == 'package first' else ''}\nTHREAD = 'import transformers_videollama'\n{THREADS}"
    )
    assert result.stdout == "10 know VideoLlamaConfig, 0 failed\n", result.stderr


THREADS = """
import threading

ready, known, failed = threading.Barrier(10), [], []

def look_up():
    ready.wait()
    try:
        exec(THREAD)
        from transformers import AutoConfig, AutoModelForMultimodalLM, AutoProcessor
        from transformers.models.auto.modeling_auto import MODEL_FOR_MULTIMODAL_LM_MAPPING
        config_class = type(AutoConfig.for_model("video_llama"))
        MODEL_FOR_MULTIMODAL_LM_MAPPING[config_class]
        known.append(config_class.__name__)
    except Exception as error:
        failed.append(repr(error))

threads = [threading.Thread(target=look_up) for _ in range(10)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(len(known), "know", *set(known), end="")
print(f", {len(failed)} failed", *failed)
"""


def test_a_missing_torchvision_is_named():
    """Both times: an import that failed leaves nothing behind that would let the next one pass for whole."""
    result = run_python("""
        import sys
        sys.modules["torchvision"] = None  # what Python itself takes for: there is none
        for attempt in range(2):
            try:
                import transformers_videollama
            except ImportError as error:
                print("Torchvision library" in str(error), "transformers_videollama" in sys.modules)
    """)
    assert result.stdout == "True False\nTrue False\n", result.stderr


@pytest.mark.parametrize(
    ("started_as", "registered"),
    [
        (["/usr/bin/videollama", "--help"], False),
        (["-m", "transformers_videollama"], False),
        (["videollama.py"], True),
        (["-c", "from multiprocessing.spawn import spawn_main", "--multiprocessing-fork"], True),
    ],
)
def test_the_command_alone_waits_with_registering(started_as, registered):
    """`videollama --help` imports neither torch nor the library; a script of any other name is no command."""
    result = run_python(f"""
        import sys
        sys.argv = ["/usr/bin/videollama", "precompute"]  # which processes that it spawns have, too
        sys.orig_argv = ["python", *{started_as!r}]
        import transformers_videollama
        import transformers_videollama.cli
        print("torch" in sys.modules, "transformers" in sys.modules)
    """)
    assert result.stdout == f"{registered} {registered}\n", result.stderr


@pytest.mark.parametrize("order", ["package first", "package last"])
def test_a_taken_model_type_is_an_error(warm, order):
    other = """
from transformers import AutoConfig, PreTrainedConfig
class OtherConfig(PreTrainedConfig):
    model_type = "video_llama"
AutoConfig.register("video_llama", OtherConfig)
"""
    lines = [PACKAGE, other, "transformers_videollama.register()"]
    result = warm.run("\n".join(lines if order == "package first" else [other, PACKAGE]))
    assert result.returncode != 0
    assert "'video_llama' is already used" in result.stderr


def test_a_library_that_knows_the_model_type_is_an_error(warm):
    result = warm.run("""
        from transformers.models.auto.auto_mappings import CONFIG_MAPPING_NAMES
        CONFIG_MAPPING_NAMES["video_llama"] = "TheirConfig"
        import transformers_videollama
    """)
    assert result.returncode != 0
    assert "'video_llama' is already used" in result.stderr


@pytest.mark.parametrize("order", ["package first", "package last"])
def test_the_architecture_is_in_the_library_whenever_it_was_imported(warm, order):
    """The library makes its top module twice; TRL and its own pipelines look the architecture up in either."""
    lines = ["import transformers as early", "from transformers import AutoProcessor"]
    result = warm.run(
        "\n".join(
            [
                *([PACKAGE, *lines] if order == "package first" else [*lines, PACKAGE]),
                "import transformers as late",
                "name = 'VideoLlamaForConditionalGeneration'",
                "print(early is late, getattr(early, name) is getattr(late, name))",
            ]
        )
    )
    assert result.stdout == f"{order == 'package first'} True\n", result.stderr


def test_importing_is_silent():
    """No decoder is imported, and no network is touched."""
    result = run_python("""
        import sys
        import socket
        def refuse(*args):
            raise AssertionError("the network was touched")
        socket.socket.connect = refuse
        import transformers.processing_utils  # imports torchaudio by itself, where that is installed
        known = set(sys.modules)
        import transformers_videollama
        assert not {"av", "torchaudio"} & (sys.modules.keys() - known)
        assert "VideoLlamaConfig" in dir(transformers_videollama)
        print("imported")
    """)
    assert (result.stdout, told(result.stderr, "")) == ("imported\n", []), result.stderr


def test_every_public_name_is_there(warm):
    result = warm.run("""
        from transformers_videollama import *
        import transformers_videollama
        assert len(transformers_videollama.__all__) > 20
        assert all(name in globals() for name in transformers_videollama.__all__)
        try:
            transformers_videollama.VideoLlamaNothing
        except AttributeError as error:
            print(error)
    """)
    assert "VideoLlamaNothing" in result.stdout, result.stderr
