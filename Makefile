# The two commands are `make notebooks` and `make test`; README.md says what each prints and how long it takes. `make`
# alone lists all targets: what stands behind ## here.

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
# Everything ignores the reader's own settings that would change a run; tools/environment.py lists them.
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
.PHONY: help notebooks test lab page site site-open bench weights setup lint stored reference links check-links page-test portability codecs clean
# A Python that is gone, as after an upgrade of the system, is set up again.
ifneq ($(shell { $(BIN)/python -E -c 'print(1)'; } 2>/dev/null),1)
.PHONY: $(READY) $(TESTS)
endif

help:
	@awk -F ' *## *' '/^### /{print "\n" substr($$0, 5)} /^[a-z-]+:.* ## /{sub(/:.*/, "", $$1); printf "  make %-12s %s\n", $$1, $$2}' Makefile

### For readers
notebooks: $(READY) ## runs the series into build/; NB=02: one note, IMAGE=mine.png: on your picture
	$(RUN) tools/series.py run --notebook="$$NB" --image="$$IMAGE"

test: $(TESTS) ## unit tests; the notebooks, run again and compared with their stored outputs
	$(RUN) -m pytest

# Each tool by its module: the launchers in .venv/bin keep the path that this folder had when they were installed.
lab: $(READY) ## JupyterLab, to change parameters
	$(RUN) -m jupyterlab notebooks

page: $(READY) ## the page that finishes your drawing, build/draw/index.html
	$(RUN) tools/page.py

site: $(TESTS) ## the stored notebooks and lab notes as a site, build/site/; nothing is executed
	$(RUN) tools/site.py build

site-open: site ## the same, served on this machine; PORT=8001
	$(RUN) tools/site.py open --port="$$PORT"

bench: $(READY) ## nats after some seconds of training; BENCH="--model joint --seconds 900"
	$(RUN) -c 'import os, shlex, sys; os.execv(sys.executable, [sys.executable, "tools/bench.py", *shlex.split(os.environ["BENCH"])])'

weights: $(READY) ## trains the stored weights again; digits need MNIST and take hours
	$(RUN) tools/train_weights.py

# The environment too: the next command sets it up anew.
clean: ## removes build/ and .venv
	rm -rf build .venv .pytest_cache .ruff_cache .hypothesis

### For contributors
setup: $(TESTS) ## .venv with all that the others need; TORCH=cpu or cu130 names a build

lint: $(TESTS) ## ruff and codespell
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m codespell_lib

stored: $(READY) ## the outputs that the notebooks carry; NB=02: of one note
	$(RUN) tools/series.py stored --notebook="$$NB"

reference: $(READY) ## the loss curves of five seeds in data/reference/; NB=02: of one note
	$(RUN) tools/series.py reference --notebook="$$NB"

codecs: $(READY) ## compression beside classical codes (note 9)
	$(RUN) tools/compare_codes.py

links: $(READY) ## badges for Colab and Binder, and the address to clone; OWNER=name/repository
	$(RUN) tools/links.py "$$OWNER"

check-links: $(TESTS) ## whether the pages that we link to still answer
	$(RUN) -m pytest -n 0 -m network tests/test_links.py

page-test: $(TESTS) ## the page's tests in Chromium and Firefox
	$(RUN) tools/page.py --browser
	$(RUN) -m pytest -n 0 tests/test_page.py

# One at a time, since some take both cores.
portability: $(TESTS) ## the checked outputs as other processors compute them
	$(RUN) -m pytest -n 1 -m portability tests/test_portability.py tests/test_codec.py

# What the notebooks need; what contributors need besides. tools/setup.py writes these marks last.
$(READY): requirements.txt constraints.txt
	$(SETUP)

$(TESTS): requirements.txt constraints.txt tests/requirements.txt
	$(SETUP) --tests

define SETUP
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, not " + sys.version.split()[0] + ". Name one: make PYTHON=python3.12 ...")'
@$(PYTHON) -E tools/setup.py
endef
