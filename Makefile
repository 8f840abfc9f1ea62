# Every target sets up what it needs; nothing has to be installed by hand but Python 3.11 to 3.13 and make.
PYTHON ?= python3
VENV ?= .venv
VENV_LATEST ?= .venv-latest
VENV_MIN ?= .venv-min
VENV_SERVE ?= .venv-serve
WORKERS ?= 2
# For `make gpu`: what the machine with the GPU lacks next to torch, its platform, and where it is carried and installed
WHEELS ?= wheels
GPU_PACKAGES ?= av bitsandbytes torchao transformers
GPU_PYTHON ?= 3.12
GPU_PLATFORMS ?= manylinux_2_28_x86_64 manylinux_2_24_x86_64 manylinux_2_17_x86_64 manylinux2014_x86_64
GPU_CUDA ?= 130
GPU_SITE ?= build/gpu
GPU_ARGUMENTS ?=
PIP_INSTALL = -m pip install --quiet --disable-pip-version-check
PIP_DOWNLOAD = -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
	--implementation cp --python-version $(GPU_PYTHON) $(GPU_PLATFORMS:%=--platform %) --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help install demo tiny test test-slow test-all test-latest test-min conformance conformance-latest conformance-min serve-test bench wheels gpu \
	lint format clean

help:  ## list these commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-18s %s\n", $$1, $$2 }'

install: $(VENV)/.installed  ## create .venv from constraints.txt

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python $(PIP_INSTALL) --constraint constraints.txt --editable '.[audio,dev]'
	touch $@

# The oldest supported transformers. Its any-to-any pipeline asks for librosa.
$(VENV_MIN)/.installed: pyproject.toml constraints.txt constraints-min.txt
	$(PYTHON) -m venv $(VENV_MIN)
	grep -v '^transformers==' constraints.txt | cat - constraints-min.txt > $(VENV_MIN)/constraints.txt
	$(VENV_MIN)/bin/python $(PIP_INSTALL) --constraint $(VENV_MIN)/constraints.txt --editable '.[audio,dev]' librosa
	touch $@

# What a plain installation takes today: the newest release of everything, and so without the extra `audio`, whose wheels
# fit one torch each. `make clean` is how it becomes the newest again.
$(VENV_LATEST)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV_LATEST)
	$(VENV_LATEST)/bin/python $(PIP_INSTALL) --upgrade --upgrade-strategy eager --editable '.[dev]'
	touch $@

demo: install  ## render a clip with sound, and ask the tiny model of the package about it
	$(VENV)/bin/python -m examples.demo

tiny: install  ## train and test a tiny model that sees and hears, from nothing (about an hour)
	$(VENV)/bin/python -m examples.tiny demo/tiny

test: install  ## run the tests, but for the slow ones
	$(VENV)/bin/python -m pytest -n $(WORKERS) --dist worksteal -m 'not slow'

test-slow: install  ## run the slow tests: benchmark suites, documentation pages, fresh interpreters, compiled models
	$(VENV)/bin/python -m pytest -n $(WORKERS) --dist worksteal -m slow

test-all: test test-slow  ## run all tests

test-latest: $(VENV_LATEST)/.installed  ## run the tests on the newest release of everything
	$(VENV_LATEST)/bin/python -m pytest -n $(WORKERS) --dist worksteal

test-min: $(VENV_MIN)/.installed  ## run the tests on the oldest supported transformers
	$(VENV_MIN)/bin/python -m pytest -n $(WORKERS) --dist worksteal

conformance: install  ## run the library's own tests of models and processors on ours
	$(VENV)/bin/python -m conformance -n $(WORKERS)

conformance-latest: $(VENV_LATEST)/.installed  ## the same on the newest release of everything
	$(VENV_LATEST)/bin/python -m conformance -n $(WORKERS)

conformance-min: $(VENV_MIN)/.installed  ## the same on the oldest supported transformers
	$(VENV_MIN)/bin/python -m conformance -n $(WORKERS)

# No two of vLLM's, torch's and torchvision's builds for CPUs agree on a torch: constraints-vllm.txt names every package.
$(VENV_SERVE)/.installed: pyproject.toml constraints-vllm.txt
	$(PYTHON) -m venv $(VENV_SERVE)
	$(VENV_SERVE)/bin/python $(PIP_INSTALL) --no-deps --requirement constraints-vllm.txt
	$(VENV_SERVE)/bin/python $(PIP_INSTALL) --no-deps --editable .
	touch $@

serve-test: $(VENV_SERVE)/.installed  ## serve the tiny model on the CPU, with both engines, and ask it
	$(VENV_SERVE)/bin/python -m pytest serving

bench: install  ## measure the time to the first token of a first and a second question (python -m benchmarks)
	$(VENV)/bin/python -m benchmarks chat

# Into a folder that is carried to the machine with the GPU, with this tree; PYTHON is any with pip
wheels:  ## download what `make gpu` installs on a machine without network (GPU_PYTHON, GPU_PLATFORMS, GPU_CUDA)
	rm -rf $(WHEELS)
	$(PYTHON) $(PIP_DOWNLOAD) --dest $(WHEELS) $(GPU_PACKAGES)
	$(PYTHON) -m benchmarks.wheels $(WHEELS) --cuda $(GPU_CUDA)

# The own torch of the machine stays as it is: the wheels come to stand in front of its packages
gpu:  ## measure all that one GPU has to show, in less than nine minutes; another call goes on where it stopped
	rm -rf $(GPU_SITE)
	[ ! -d $(WHEELS) ] || $(PYTHON) $(PIP_INSTALL) --no-index --no-deps --no-compile --target $(GPU_SITE) $(WHEELS)/*.whl
	PYTHONPATH=$(GPU_SITE):src $(PYTHON) -m benchmarks.gpu $(GPU_ARGUMENTS)

lint: install  ## check style, types, and the structure that the library asks of its models
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/python -m conformance.lint

format: install  ## put the code into its style
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

clean:  ## remove the environments and what the demo made
	rm -rf $(VENV) $(VENV_LATEST) $(VENV_MIN) $(VENV_SERVE) demo
