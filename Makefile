# One command each; every one of them makes .venv first when it is missing or older than its inputs.
#
#   make fit     the main job on an embedded data set of real images; results in runs/digits
#   make test    make check, then the tests and all doctests
#   make check   ruff (rules and format) and mypy --strict
#   make presets every preset at two sizes, by all three routes into a graph (minutes)
#   make bench   benchmarks/*.py, each written to docs/benchmarks/NAME.md; make bench-NAME runs one
#   make engine-presets  every preset compiled by the engine and compared with its meaning in three number types, at 64 pixels
#                or fewer; ARGS='--side 0 --types fp32' at its own size; goes on where it was stopped (minutes)
#   make engine-alone  a saved plan, run in a virtual environment of numpy and llvmlite alone
#   make cluster-test  searches on two local Ray nodes with a study in PostgreSQL, while workers are killed and the database
#                goes away; installs Debian's postgresql where it is missing and it may (10 minutes)
#   make fuzz    2,000 random networks, compiled, against torch; goes on where it was stopped (about 20 minutes)
#   make search-table  the 300 small networks that bench-search compares samplers on; goes on where it was stopped (an hour)
#   make lab-NAME  an experiment of docs/labs.md at its standard size (90 minutes); the same command resumes
#   make docs    doctests, then the reference pages in build/docs
#   make clean   removes .venv, caches and build products; leaves runs/ alone
#
#   PYTHON=python3.12 chooses the interpreter; ARGS='--seed 1' is passed on to fit, or to pytest

PYTHON ?= python3
RUN_DIR ?= runs/digits
# The suite is written for two cores: two workers, one thread each.  WORKERS=0 runs it in one process.
WORKERS ?= 2
ARGS ?=

BIN := .venv/bin
TRAIN := .venv/.installed-train
DEV := .venv/.installed-dev
PEERS := .venv/.installed-peers
CLUSTER := .venv/.installed-cluster
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

# Tests on real data run where the data is; elsewhere they are skipped and counted.
ifneq ($(wildcard ../shared/data),)
export LUTHIER_DATA ?= $(abspath ../shared/data)
endif

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help fit test check presets engine-presets engine-alone cluster-test fuzz bench search-table docs doctest clean

help:
	@sed -n 's/^#   //p' Makefile

.venv/.created:
	@command -v '$(PYTHON)' >/dev/null || { \
	  echo "luthier: there is no '$(PYTHON)'; install Python 3.11, 3.12 or 3.13, or name one: make PYTHON=python3.12" >&2; exit 1; }
	@'$(PYTHON)' -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v < (3, 14) else \
	  "luthier: needs Python 3.11, 3.12 or 3.13, but $(PYTHON) is %d.%d; name another: make PYTHON=python3.12" % v)'
	@'$(PYTHON)' -m venv .venv || { rm -rf .venv; \
	  echo "luthier: $(PYTHON) cannot make a virtual environment; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@touch $@

$(TRAIN): .venv/.created pyproject.toml constraints.txt
	@echo "luthier: installing into .venv (about 5 GB with torch; minutes, once)" >&2
	@$(PIP_INSTALL) --editable '.[train]'
	@touch $@

$(DEV): $(TRAIN)
	@$(PIP_INSTALL) --editable '.[train,dev,scene]'
	@touch $@

$(PEERS): $(DEV)
	@$(PIP_INSTALL) --editable '.[train,dev,scene,peers]'
	@touch $@

$(CLUSTER): $(DEV)
	@$(PIP_INSTALL) --editable '.[train,dev,cluster]'
	@touch $@

fit: $(TRAIN)
	$(BIN)/luthier fit --run-dir $(RUN_DIR) $(ARGS)

check: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: check
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup $(ARGS)

presets: $(DEV)
	LUTHIER_ALL_PRESETS=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/graph/test_routes.py -n $(WORKERS) $(ARGS)

doctest: $(DEV)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest src $(ARGS)

# Each benchmark checks its result and prints one Markdown section on stdout (progress on stderr), or writes a page of
# its own under docs; it takes no required argument.  A failing one leaves the old page in place.
BENCHMARKS := $(patsubst benchmarks/%.py,%,$(sort $(wildcard benchmarks/*.py)))

bench: $(addprefix bench-,$(BENCHMARKS))

bench-%: benchmarks/%.py $(DEV)
	@mkdir -p build docs/benchmarks
	@echo "luthier: $<" >&2
	@$(BIN)/python "$<" > build/bench-$*.md
	@{ printf '\n%s\n' "Written by \`make bench-$*\` at commit $$(git rev-parse --short HEAD), on $$(nproc) cores of \
	   $$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1), $$(date -u +%Y-%m-%d)." | tr -s '\t ' ' '; } >> build/bench-$*.md
	@cp build/bench-$*.md docs/benchmarks/$*.md.new && mv docs/benchmarks/$*.md.new docs/benchmarks/$*.md

bench-engine: $(PEERS)

search-table: $(DEV)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/search_table.py $(ARGS)

engine-presets: $(DEV)
	PYTHONPATH=tests OMP_NUM_THREADS=1 $(BIN)/python -m tests.engine.every_preset $(ARGS)

engine-alone: $(DEV)
	$(BIN)/python -m tests.engine.alone

cluster-test: $(CLUSTER)
	@ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || command -v initdb >/dev/null || \
	  { [ "$$(id -u)" = 0 ] && apt-get install --yes --no-install-recommends postgresql; } || \
	  { echo "luthier: no PostgreSQL server; on Debian and Ubuntu: apt install postgresql" >&2; exit 1; }
	LUTHIER_CLUSTER=1 PYTHONPATH=tests/search:. OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/search/test_cluster.py $(ARGS)

fuzz: $(DEV)
	PYTHONPATH=tests OMP_NUM_THREADS=1 $(BIN)/python -m tests.engine.fuzz $(ARGS)

# The trainings are kept in runs/; the pages are written anew from them.
lab-%: $(DEV)
	OMP_NUM_THREADS=1 $(BIN)/luthier lab $* --standard --out docs/labs $(ARGS)

docs: doctest
	$(BIN)/pdoc --docformat google --math --output-directory build/docs luthier

clean:
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
