# The two main commands are `make demo` and `make test`. Both set up everything they need.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
HOME_DIR ?= .mainstay
# To use real servers instead of the embedded defaults: make demo STREAM=kafka://… ONLINE=redis://… CONTROL=postgresql://…
DEMO_FLAGS := --home $(HOME_DIR) $(if $(ONCE),--once) $(if $(STREAM),--stream $(STREAM)) \
              $(if $(ONLINE),--online $(ONLINE)) $(if $(CONTROL),--control $(CONTROL)) $(if $(PORT),--port $(PORT))

# Compiles the kernels of the page solver whenever they change, so that no page request has to wait for it.
KERNELS := $(VENV)/.kernels
WARM = $(BIN)/python -c 'from recsys.guidance.solver.solve import warm; warm()'

.PHONY: demo test test-fast nightly check format setup clean help lock bench-guidance bench-targets bench-faults bench-preview bench-features notebooks

help:           ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 18

demo: $(VENV)/.demo $(KERNELS)     ## run the whole engine on this machine; ONCE=1 exits after the report
	@$(BIN)/mainstay demo $(DEMO_FLAGS)

# One BLAS thread for each test process: the processes themselves use the cores.
PYTEST = OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile

test: $(VENV)/.dev $(KERNELS)      ## run all tests, including those against real Kafka, Valkey and PostgreSQL servers
	@$(PYTEST) $(TEST_FLAGS)

test-fast: $(VENV)/.dev $(KERNELS) ## run the tests that are not marked slow: no servers, no child processes
	@$(PYTEST) -m "not slow" $(TEST_FLAGS)

nightly: $(VENV)/.dev $(KERNELS)   ## run all tests with full counts of random cases (hours)
	@NIGHTLY_TESTS=1 $(PYTEST) $(TEST_FLAGS)

check: $(VENV)/.dev     ## check format, lint, types, architecture and names
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/python -m pytest -q tests/test_architecture.py tests/test_names.py

bench-preview: $(VENV)/.dev $(KERNELS)   ## a preview of a thousand requests: time to first figures and to all, and page latency meanwhile
	@OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python -m benchmarks.preview

format: $(VENV)/.dev    ## format the code with ruff
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

notebooks: $(VENV)/.dev $(KERNELS)   ## open the notebooks in JupyterLab, which is installed into .venv
	@$(BIN)/pip install --quiet -c constraints.txt jupyterlab
	@$(BIN)/jupyter lab notebooks

setup: $(VENV)/.dev $(KERNELS)     ## install everything a developer needs

clean:          ## delete the demo's data (the virtual environment stays)
	rm -rf $(HOME_DIR)

lock: $(VENV)/.dev      ## write the installed versions into constraints.txt
	@{ sed -n '/^#/p' constraints.txt; $(BIN)/pip freeze --exclude-editable | grep -v '^#' | sed -E 's/^(torch==[0-9.]+).*/\1/'; } \
	  > constraints.new && mv constraints.new constraints.txt

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Mainstay needs Python 3.11 or newer; run make PYTHON=…")'
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Setting up (a few minutes the first time; PyTorch is the large part) ..."
	@$(BIN)/pip install --quiet -c constraints.txt -e '.[demo]'
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Setting up for development (a few minutes the first time) ..."
	@$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@ $(VENV)/.demo

$(KERNELS): $(wildcard recsys/guidance/solver/kernels/*.py) | $(BIN)/python
	@$(WARM)
	@touch $@
