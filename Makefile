# The two commands are `make notebooks` and `make test`; README.md says what each prints and how long it takes.

PYTHON ?= python3
PIP_ARGS ?=
NB ?=
IMAGE ?=
BENCH ?=
OWNER ?=
PORT ?=
BIN := .venv/bin
READY := .venv/.ready

# What a reader chose reaches Python letter by letter: neither make nor the shell looks for commands in it. The recipes
# name the environment's variables ("$$IMAGE"), whose values a shell does not read again.
override NB := $(value NB)
override IMAGE := $(value IMAGE)
override BENCH := $(value BENCH)
override OWNER := $(value OWNER)
override PORT := $(value PORT)
export NB IMAGE BENCH OWNER PORT
# What would change a notebook or its checks; tools/series.py says the same to those without make.
unexport MPLBACKEND PYTHONDEVMODE PYTHONOPTIMIZE PYTHONSTARTUP PYTHONWARNINGS

.PHONY: notebooks test portability links check-links lab reference bench weights codecs page page-test stored site site-open lint clean setup

notebooks: $(READY)
	@$(BIN)/python tools/series.py run --notebook="$$NB" --image="$$IMAGE"

test: $(READY)
	@$(BIN)/python -m pytest

# The checked outputs as other processors compute them; one at a time, since some take both cores.
portability: $(READY)
	@$(BIN)/python -m pytest -n 1 -m portability tests/test_portability.py tests/test_codec.py

# Badges for Colab and Binder, and the address to clone: make links OWNER=name/repository
links: $(READY)
	@$(BIN)/python tools/links.py "$$OWNER"

# Whether the pages that README, notes and notebooks point to still answer; `make test` checks all other links.
check-links: $(READY)
	@$(BIN)/python -m pytest -n 0 -m network tests/test_links.py

# Each tool by its module: the launchers in .venv/bin keep the path that this folder had when they were installed.
lab: $(READY)
	@$(BIN)/python -m jupyterlab notebooks

# The loss curves of five seeds that data/reference/ holds.
reference: $(READY)
	@$(BIN)/python tools/series.py reference --notebook="$$NB"

# The benchmark: nats after some seconds, e.g. BENCH="--model joint --seconds 900"; PIXELRNN_MNIST says where MNIST is.
bench: $(READY)
	@$(BIN)/python -c 'import os, shlex, sys; os.execv(sys.executable, [sys.executable, "tools/bench.py", *shlex.split(os.environ["BENCH"])])'

# The trained weights in data/weights/, again; digits need MNIST, and hours.
weights: $(READY)
	@$(BIN)/python tools/train_weights.py

# Compression beside classical codes (note 9), on letters, digits (which need MNIST), a photograph and noise.
codecs: $(READY)
	@$(BIN)/python tools/compression.py

# The page that finishes a drawing, into build/draw/; index.html opens there as a file.
page: $(READY)
	@$(BIN)/python tools/page.py

# Its tests in a real browser; says what to install where there is none (`make test` skips them then).
page-test: $(READY)
	@$(BIN)/python tools/page.py --browser
	@$(BIN)/python -m pytest -n 0 tests/test_page.py

# The outputs that the notebooks carry.
stored: $(READY)
	@$(BIN)/python tools/series.py stored --notebook="$$NB"

# The stored notebooks and lab notes as a site in build/site/; nothing is executed.
site: $(READY)
	@$(BIN)/python tools/site.py build

# The same, served on this machine: make site-open PORT=8001
site-open: site
	@$(BIN)/python tools/site.py open --port="$$PORT"

lint: $(READY)
	@$(BIN)/python -m ruff check .
	@$(BIN)/python -m ruff format --check .
	@$(BIN)/python -m codespell_lib

setup: $(READY)

# Written last, so that an interrupted installation is taken up again.
$(READY): requirements.txt constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, not " + sys.version.split()[0] + ". Name one: make PYTHON=python3.12 ...")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "Installing requirements.txt into .venv (once) ..."
	@$(BIN)/python -m pip install --quiet $(PIP_ARGS) -r requirements.txt -c constraints.txt
	@touch $(READY)

clean:
	rm -rf build .pytest_cache .ruff_cache .hypothesis
