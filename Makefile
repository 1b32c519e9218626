# Every target works alone on a fresh machine with Python 3.11 or newer and a C++ compiler (Annoy comes as source).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := var/demo
INSTALLED := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help install demo test lint type docs reference bench serve release clean

help: ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: $(INSTALLED) ## make .venv with feedrank and all its tools

$(INSTALLED): setup.cfg pyproject.toml constraints.txt
	@echo "installing into $(VENV) (a few minutes the first time)"
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --progress-bar off -c constraints.txt -e '.[dev]' | grep -E '^(Collecting|Building|Installing|Successfully)' | cut -c1-120
	@test -x $(BIN)/feedrank && touch $@

demo: $(INSTALLED) ## the main job on real data: load MovieLens-100K, index, compare, train, one feed
	@mkdir -p $(DEMO)
	$(BIN)/feedrank --home $(DEMO) import movielens-100k
	$(BIN)/feedrank --home $(DEMO) index
	$(BIN)/feedrank --home $(DEMO) evaluate --dataset movielens-100k --json $(DEMO)/report.json --plot $(DEMO)/comparison.png
	$(BIN)/feedrank --home $(DEMO) train
	$(BIN)/feedrank --home $(DEMO) recommend --user 1
	@echo "report: $(DEMO)/report.json   picture: $(DEMO)/comparison.png   next: make serve"

test: $(INSTALLED) ## run the tests, on all cores
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile

lint: $(INSTALLED) ## ruff: rules and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

type: $(INSTALLED) ## mypy, strict, on feedrank
	$(BIN)/mypy

docs: $(INSTALLED) ## build the documentation site into build/site, without a network
	$(BIN)/mkdocs build --strict --quiet
	@echo "site: build/site/index.html"

reference: $(INSTALLED) ## write docs/reference again, from the code
	$(BIN)/python -m docs.generator

bench: $(INSTALLED) ## measure every bar; results go to benchmarks/results
	$(BIN)/python -m benchmarks.run

serve: $(INSTALLED) ## serve the demo's feeds on http://127.0.0.1:8080
	$(BIN)/feedrank --home $(DEMO) serve --no-keys

release: $(INSTALLED) ## build wheel, source distribution and docs into dist, and check them
	.ci/release

clean: ## remove what was built (the .venv and var stay)
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
