# Every target works as the first command on a fresh machine: it makes .venv, the extension, and what they need.

PYTHON ?= python3
VENV := .venv/bin
ENGINE := $(wildcard candy/_fastpath.pyx candy/engine/* bench/*.py[xi] bench/*.pxi)
TYPED := candy tests $(wildcard scripts/*.py bench)

.PHONY: run test lint types demo build reference bench fuzz mutants asan tsan soak clean

run: build
	@exec $(VENV)/candy-server

test: lint types
	@scripts/bootstrap.sh tools || :
	@scripts/bootstrap.sh tls
	@scripts/bootstrap.sh browser || :
	@echo test
	@scripts/test.sh

lint: build
	@echo lint
	@scripts/lint.sh

types: build
	@echo types
	@$(VENV)/mypy --no-error-summary $(TYPED)
	@$(VENV)/python -m mypy.stubtest --concise --ignore-unused-allowlist --allowlist scripts/stubtest-allowed.txt candy._fastpath
	@MYPYPATH=bench PYTHONPATH=bench $(VENV)/python -m mypy.stubtest --concise --ignore-unused-allowlist --allowlist scripts/stubtest-allowed.txt _endpoints

demo: build
	@scripts/bootstrap.sh tools
	@exec $(VENV)/python scripts/demo.py

build: .venv/engine
	@:

reference: build
	@$(VENV)/python scripts/reference.py

bench: build
	@exec $(VENV)/python bench/throughput.py

fuzz: build
	@echo fuzz
	@scripts/fuzz.sh
	@$(VENV)/python -m pytest -q -m hypothesis --hypothesis-profile=fuzz

mutants: build
	@echo mutants
	@exec $(VENV)/python scripts/mutants.py

asan tsan: build
	@scripts/sanitize.sh $@

soak: build
	@scripts/bootstrap.sh tools
	@exec $(VENV)/python tests/soak.py

clean:
	@rm -rf .venv build dist *.egg-info candy/*.so bench/*.so .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@find candy tests scripts bench -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || :

.venv/made:
	@PYTHON=$(PYTHON) scripts/bootstrap.sh python
	@echo "make .venv"
	@$(PYTHON) -m venv --clear .venv
	@touch $@

.venv/installed: pyproject.toml .venv/made
	@echo "install candy and its tools into .venv"
	@$(VENV)/python -m pip install -q --disable-pip-version-check --editable '.[dev]'
	@touch $@

.venv/engine: .venv/installed setup.py $(ENGINE)
	@echo "build the engine"
	@$(VENV)/python setup.py -q build_ext --inplace
	@touch $@
