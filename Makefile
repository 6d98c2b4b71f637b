# install: .venv with everything locked.  demo, demo-local, test, check, bench, lock: see README.md.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
UV := $(shell command -v uv 2>/dev/null)
# Tests wait for processes more than they compute.
WORKERS ?= $(shell expr 2 \* $$(nproc))

# Many processes are started: each would compile everything anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: install demo demo-local test check bench lock generate clean
install: $(STAMP)

$(STAMP): requirements.lock pyproject.toml
ifneq ($(UV),)
	uv venv --quiet --allow-existing --python $(PYTHON) .venv
	uv pip sync --quiet --compile-bytecode --python $(BIN)/python --require-hashes requirements.lock
	uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
else
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
endif
	$(BIN)/python -m compileall -q -j 0 src  # each of many processes would do it anew
	@touch $(STAMP)

demo: install
	$(BIN)/python examples/rides/demo.py $(if $(KEEP),--keep)

demo-local: install
	$(BIN)/python examples/rides/demo_local.py

test: install
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(TESTS)

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/generate.py --check

generate: install
	$(BIN)/python tools/generate.py

bench: install
	$(BIN)/python -m bench $(BENCH) --publish

# Needs uv.
lock:
	uv pip compile --quiet --generate-hashes --all-extras --no-emit-index-url --no-annotate --no-header --python-version 3.11 pyproject.toml -o requirements.lock

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache
