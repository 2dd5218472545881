# Two commands do all set-up on a fresh machine: make quickstart, make test.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOCK := requirements/lock-cpu.txt

.PHONY: quickstart test test-slow lab lint clean
quickstart: $(VENV)/.installed
	$(BIN)/vlm-rl train configs/quickstart.yaml

test: $(VENV)/.installed lint
	$(BIN)/python -m pytest -m "not slow"

# End-to-end runs too long for every push: the quickstart with three seeds, the warm start, kill and resume of whole runs.
test-slow: $(VENV)/.installed
	$(BIN)/python -m pytest -m slow

# Every claim of configs/claims, trained and judged; hours on two cores. Goes on where it was stopped. Short forms: make lab LAB=--quick
lab: $(VENV)/.installed
	@for claim in configs/claims/*.yaml; do $(BIN)/vlm-rl lab run $$claim --docs docs/lab $(LAB) || failed="$$failed $$claim"; done; \
	test -z "$$failed" || { echo "not finished:$$failed"; exit 1; }

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

# The lock is complete and was resolved once, so nothing is resolved here.
$(VENV)/.installed: $(LOCK) pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "vlm-rl needs Python 3.11 or newer; write make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r $(LOCK)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

clean:
	rm -rf $(VENV) runs build *.egg-info
