# make demo | test | bench | check: each sets up .venv by itself; needs python3 (3.11 or newer, with venv), g++ and make.
PYTHON ?= python3
BIN := .venv/bin
BENCHMARKS := $(sort $(filter-out benchmarks/common.py,$(wildcard benchmarks/*.py)))

.PHONY: demo test bench check format clean
demo: .venv/ready
	$(BIN)/bitfab demo qubit --output build/demo

test: .venv/ready
	@./scripts/system-packages
	$(BIN)/python -m pytest -n 2 --dist loadfile

bench: .venv/ready
	@mkdir -p build/bench
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group bench
	status=0; for script in $(BENCHMARKS); do \
	  $(BIN)/python $$script --json build/bench/$$(basename $$script .py).json || status=1; \
	done; exit $$status

check: .venv/ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python scripts/lint_rtl.py

format: .venv/ready
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf build .venv

# The developers' tools come with it, so that one environment serves all targets.
.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("bitfab needs Python 3.11 or newer") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv .venv || { echo "the venv module is missing: apt-get install python3-venv" >&2; exit 1; }
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[qubit,digits]" --group dev
	touch $@
