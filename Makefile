# Every target makes what it needs in .venv, and nothing again when nothing changed.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
MULTITOOL := .node/.multitool-5.7.0

SITE := site

# Off where the environment turns it on: tests start hundreds of processes that would compile anew.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo up test check docs reference dist dist-demo licences sbom audit topology images load corpus fuzz bench \
	format clean
.DEFAULT_GOAL := demo
FUZZ_SECONDS ?= 60
TEST_PROCESSES ?= 3

demo: $(READY)  ## patch a tiny adapter through the real service
	$(BIN)/adapter-safety demo

up: $(READY)  ## run API, worker and broker on this machine
	$(BIN)/adapter-safety up

test: $(READY) $(MULTITOOL)  ## a test file stays in one process, so that its fixtures are made once
	$(BIN)/python -m pytest --numprocesses $(TEST_PROCESSES) --dist loadfile

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml
	$(BIN)/hadolint docker/api.Dockerfile docker/worker.Dockerfile
	$(MAKE) docs

docs: $(READY)  ## the site, into site/; a broken link, anchor or left-out page is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --site-dir $(SITE)

dist: $(READY)  ## wheel and sdist in dist/, checked
	rm -rf dist
	$(BIN)/python -m tests.release.dist dist

dist-demo: dist  ## the wheel where no checkout is, with all that it needs
	rm -rf build/demo && mkdir -p build/demo/empty
	$(PYTHON) -m venv build/demo/venv
	build/demo/venv/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt dist/*.whl
	cd build/demo/empty && ../venv/bin/adapter-safety demo

licences: $(READY)  ## docs/reference/licences.md
	$(BIN)/python -m tests.release.licences

sbom: $(READY)  ## dist/sbom.json, CycloneDX, of this environment
	mkdir -p dist
	$(BIN)/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible \
		--output-format JSON --output-file dist/sbom.json $(BIN)/python

audit: $(READY)  ## known vulnerabilities of what is pinned; needs a service on the network
	$(BIN)/pip-audit --strict --requirement constraints.txt --no-deps --disable-pip

reference: $(READY)  ## the pages that are made from the code
	$(BIN)/python -m tests.docs.reference
	$(BIN)/python -m tests.workers.kinds_page
	$(BIN)/python -m tests.release.licences

topology: $(READY)  ## the compose file's services as processes, two of them killed; needs PostgreSQL
	$(BIN)/python -m pytest tests/topology

images: $(READY)  ## both images' steps from the package index, and a job through what they make
	$(BIN)/python -m tests.deploy.images

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
	@echo "installing into .venv: some minutes, about 3 GB"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --editable '.[dev]'
	touch $(READY)

# SARIF's own schema and validator, which only the tests need; without npm they skip what asks for it
$(MULTITOOL):
	@mkdir -p .node
	@if command -v npm >/dev/null && npm install --prefix .node --no-save --no-audit --no-fund --silent \
		@microsoft/sarif-multitool@5.7.0; then touch $@; else echo "no npm: reports as SARIF are not held against SARIF's own schema"; fi

clean:
	rm -rf .venv .node demo-output build dist site .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .fuzz
