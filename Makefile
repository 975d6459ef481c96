# Two commands are all a newcomer needs: `make quickstart` and `make test`. Each sets up .venv by itself.
PYTHON ?= python3
CONSTRAINTS ?= constraints.txt
BIN := .venv/bin
RUN := runs/quickstart

.PHONY: quickstart quickstart-smoke test check format bench clean

quickstart: .venv/installed  ## train a model on pictograms (6 minutes on 2 cores), evaluate it, search with it
	$(BIN)/python scripts/quickstart.py --run $(RUN) $(if $(FRESH),--fresh)

quickstart-smoke: .venv/installed  ## the same in a reduced form, for CI
	$(BIN)/python scripts/quickstart.py --run runs/quickstart-smoke --fresh --smoke

test: .venv/installed  ## the test suite
	$(BIN)/python -m pytest -n 2

check: .venv/installed  ## format, lint, types, tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(MAKE) test

format: .venv/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: .venv/installed  ## all benchmarks; rewrites BENCHMARKS.md, docs/performance.md and docs/growth.png
	$(BIN)/python benchmarks/run.py $(if $(QUICK),--quick)

clean:
	rm -rf .venv runs .pytest_cache .mypy_cache .ruff_cache .hypothesis

.venv/installed: pyproject.toml $(CONSTRAINTS)
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		$(if $(CONSTRAINTS),--constraint $(CONSTRAINTS)) --editable '.[dev,tensorboard]'
	touch $@
