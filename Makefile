# The two commands are `make notebooks` and `make test`; README.md says what each prints and how long it takes.

PYTHON ?= python3
PIP_ARGS ?=
TORCH ?=
NB ?=
IMAGE ?=
BENCH ?=
OWNER ?=
PORT ?=
BIN := .venv/bin
READY := .venv/.ready
TESTS := .venv/.ready-tests
# Everything runs shielded from what a reader's shell and home would change; the list is in tools/environment.py.
RUN := @$(BIN)/python -E tools/environment.py

# What a reader chose reaches Python letter by letter: neither make nor the shell looks for commands in it. The recipes
# name the environment's variables ("$$IMAGE"), whose values a shell does not read again.
override NB := $(value NB)
override IMAGE := $(value IMAGE)
override BENCH := $(value BENCH)
override OWNER := $(value OWNER)
override PORT := $(value PORT)
override PIP_ARGS := $(value PIP_ARGS)
override TORCH := $(value TORCH)
export NB IMAGE BENCH OWNER PORT PIP_ARGS TORCH

.NOTPARALLEL:
.PHONY: notebooks test portability links check-links lab reference bench weights codecs page page-test stored site site-open lint clean setup
# A Python that is gone, as after an upgrade of the system, is set up again.
ifneq ($(shell { $(BIN)/python -E -c 'print(1)'; } 2>/dev/null),1)
.PHONY: $(READY) $(TESTS)
endif

notebooks: $(READY)
	$(RUN) tools/series.py run --notebook="$$NB" --image="$$IMAGE"

test: $(TESTS)
	$(RUN) -m pytest

# The checked outputs as other processors compute them; one at a time, since some take both cores.
portability: $(TESTS)
	$(RUN) -m pytest -n 1 -m portability tests/test_portability.py tests/test_codec.py

# Badges for Colab and Binder, and the address to clone: make links OWNER=name/repository
links: $(READY)
	$(RUN) tools/links.py "$$OWNER"

# Whether the pages that README, notes and notebooks point to still answer; `make test` checks all other links.
check-links: $(TESTS)
	$(RUN) -m pytest -n 0 -m network tests/test_links.py

# Each tool by its module: the launchers in .venv/bin keep the path that this folder had when they were installed.
lab: $(READY)
	$(RUN) -m jupyterlab notebooks

# The loss curves of five seeds that data/reference/ holds.
reference: $(READY)
	$(RUN) tools/series.py reference --notebook="$$NB"

# The benchmark: nats after some seconds, e.g. BENCH="--model joint --seconds 900"; PIXELRNN_MNIST says where MNIST is.
bench: $(READY)
	$(RUN) -c 'import os, shlex, sys; os.execv(sys.executable, [sys.executable, "tools/bench.py", *shlex.split(os.environ["BENCH"])])'

# The trained weights in data/weights/, again; digits need MNIST, and hours.
weights: $(READY)
	$(RUN) tools/train_weights.py

# Compression beside classical codes (note 9), on letters, digits (which need MNIST), a photograph and noise.
codecs: $(READY)
	$(RUN) tools/compression.py

# The page that finishes a drawing, into build/draw/; index.html opens there as a file.
page: $(READY)
	$(RUN) tools/page.py

# Its tests in a real browser; says what to install where there is none (`make test` skips them then).
page-test: $(TESTS)
	$(RUN) tools/page.py --browser
	$(RUN) -m pytest -n 0 tests/test_page.py

# The outputs that the notebooks carry.
stored: $(READY)
	$(RUN) tools/series.py stored --notebook="$$NB"

# The stored notebooks and lab notes as a site in build/site/; nothing is executed.
site: $(TESTS)
	$(RUN) tools/site.py build

# The same, served on this machine: make site-open PORT=8001
site-open: site
	$(RUN) tools/site.py open --port="$$PORT"

lint: $(TESTS)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m codespell_lib

setup: $(TESTS)

# What the notebooks need; what contributors need besides. tools/setup.py writes these marks last.
$(READY): requirements.txt constraints.txt
	$(SETUP)

$(TESTS): requirements.txt constraints.txt tests/requirements.txt
	$(SETUP) --tests

define SETUP
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, not " + sys.version.split()[0] + ". Name one: make PYTHON=python3.12 ...")'
@$(PYTHON) -E tools/setup.py
endef

# The environment too: the next command sets it up anew.
clean:
	rm -rf build .venv .pytest_cache .ruff_cache .hypothesis
