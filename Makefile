# Two commands matter: `make demo` and `make test`. Both set everything up by themselves.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
HOME_DIR ?= .mainstay
# Real servers instead of the embedded defaults: make demo STREAM=kafka://… ONLINE=redis://… CONTROL=postgresql://…
DEMO_FLAGS := --home $(HOME_DIR) $(if $(ONCE),--once) $(if $(STREAM),--stream $(STREAM)) \
              $(if $(ONLINE),--online $(ONLINE)) $(if $(CONTROL),--control $(CONTROL)) $(if $(PORT),--port $(PORT))

# The page solver's kernels are compiled here, whenever they change, and not while somebody waits for a page.
KERNELS := $(VENV)/.kernels
WARM = $(BIN)/python -c 'from recsys.guidance.solver.solve import warm; warm()'

.PHONY: demo test check format setup clean help lock bench-guidance bench-targets bench-faults bench-preview bench-features notebooks

help:           ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 18

demo: $(VENV)/.demo $(KERNELS)     ## the whole engine on this machine; ONCE=1 prints its figures and leaves
	@$(BIN)/recsys-demo $(DEMO_FLAGS)

test: $(VENV)/.dev $(KERNELS)      ## all tests, those against real Kafka, Valkey and PostgreSQL servers among them
	@$(BIN)/python -m pytest -q

check: $(VENV)/.dev     ## format, lint, types, architecture
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/python -m pytest -q tests/test_architecture.py

bench-preview: $(VENV)/.dev $(KERNELS)   ## a preview of a thousand requests: time to first figures and to all, and page latency meanwhile
	@OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python -m benchmarks.preview

format: $(VENV)/.dev    ## let ruff put the layout in order
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench-guidance: $(VENV)/.dev $(KERNELS)  ## the page solver against HiGHS and baselines, on every family of instances (hours)
	@$(BIN)/python -m benchmarks.guidance $(BENCH_FLAGS)
	@$(BIN)/python -m benchmarks.guidance.exhaustive
	@$(BIN)/python -m benchmarks.guidance.receipt_claims
	@$(BIN)/python -m benchmarks.guidance.pins

bench-targets: $(VENV)/.dev $(KERNELS)  ## exposure targets on simulated days, against other strategies and the offline optimum (ten minutes)
	@$(BIN)/python -m benchmarks.targets

bench-faults: $(VENV)/.dev $(KERNELS)   ## killed processes, wiped brokers, full disks, poison messages (an hour; BENCH_FLAGS=--short: minutes)
	@$(BIN)/python -m benchmarks.faults $(BENCH_FLAGS)

bench-features: $(VENV)/.dev $(KERNELS)  ## event intake, folds, features, embeddings (half an hour; BENCH_FLAGS="--clicks FILE --titles FILE" for real data, --short: minutes)
	@OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python -m benchmarks.features $(BENCH_FLAGS)

notebooks: $(VENV)/.dev $(KERNELS)   ## open the notebooks in JupyterLab, which comes into .venv with it
	@$(BIN)/pip install --quiet -c constraints.txt jupyterlab
	@$(BIN)/jupyter lab notebooks

setup: $(VENV)/.dev $(KERNELS)     ## everything a developer needs, without running anything

clean:          ## forget what the demo has stored (the virtual environment stays)
	rm -rf $(HOME_DIR)

lock: $(VENV)/.dev      ## write the versions installed now into constraints.txt
	@{ sed -n '/^#/p' constraints.txt; $(BIN)/pip freeze --exclude-editable | grep -v '^#' | sed -E 's/^(torch==[0-9.]+).*/\1/'; } \
	  > constraints.new && mv constraints.new constraints.txt

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Mainstay needs Python 3.11 or newer; say make PYTHON=…")'
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Setting up (a few minutes the first time; PyTorch is the large part) ..."
	@$(BIN)/pip install --quiet --no-compile -c constraints.txt -e '.[demo]'
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Setting up for development (a few minutes the first time) ..."
	@$(BIN)/pip install --quiet --no-compile -c constraints.txt -e '.[dev]'
	@touch $@ $(VENV)/.demo

$(KERNELS): $(wildcard recsys/guidance/kernels/*.py) | $(BIN)/python
	@$(WARM)
	@touch $@
