# Every target makes what it needs in .venv, and nothing again when nothing changed.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: demo up test check load corpus fuzz bench format clean
.DEFAULT_GOAL := demo
FUZZ_SECONDS ?= 60
TEST_PROCESSES ?= 2

demo: $(READY)  ## patch a tiny adapter through the real service
	$(BIN)/adapter-safety demo

up: $(READY)  ## run API, worker and broker on this machine
	$(BIN)/adapter-safety up

test: $(READY)  ## a test file stays in one process, so that its fixtures are made once
	$(BIN)/python -m pytest --numprocesses $(TEST_PROCESSES) --dist loadfile

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml
	$(BIN)/hadolint docker/api.Dockerfile docker/worker.Dockerfile

corpus: $(READY)  ## every hostile file through the gate: what it costs at worst
	$(BIN)/python -m tests.attacks.corpus > /dev/null

load: $(READY)  ## many clients at once, in both set-ups; needs PostgreSQL
	$(BIN)/python -m tests.load

fuzz: $(READY)  ## look for inputs that break the gate, FUZZ_SECONDS=60
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[fuzz]'
	$(BIN)/python -m tests.fuzz.gate -max_total_time=$(FUZZ_SECONDS)

bench: $(READY)
	$(BIN)/python -m tests.benchmarks.modules
	$(BIN)/python -m tests.benchmarks.device
	$(BIN)/python -m tests.benchmarks.whole_process
	$(BIN)/python -m tests.benchmarks.salora
	$(BIN)/python -m tests.benchmarks.evaluating
	$(BIN)/python -m tests.benchmarks.hub

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --editable '.[dev]'
	touch $(READY)

clean:
	rm -rf .venv demo-output .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .fuzz
