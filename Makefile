# Every target works as the first command on a fresh machine: it makes .venv, the extension, and what they need. What
# stands behind ## is what `make help` prints.

PYTHON ?= python3
VENV := .venv/bin
ENGINE := $(wildcard candy/_fastpath.pyx candy/engine/* bench/*.py[xi] bench/*.pxi)
TYPED := candy tests $(wildcard scripts/*.py bench)

.PHONY: help run test lint types demo build reference documents cluster faults bench fuzz mutants asan tsan soak wheel try-wheel units image clean

run: build  ## build all, and start a relay here
	@exec $(VENV)/candy-server

help:  ## this list
	@awk -F ':.*## ' '/^[a-z][a-z -]*:.*## / { printf "%-12s %s\n", $$1, $$2 }' Makefile

test: lint types  ## lint, types, and tests but those of clusters; as root those in network namespaces too
	@scripts/bootstrap.sh tools || :
	@scripts/bootstrap.sh tls
	@scripts/bootstrap.sh browser || :
	@echo test
	@scripts/test.sh

lint: build  ## the form of every source, and which part imports which
	@echo lint
	@scripts/lint.sh

types: build  ## mypy, and the stubs of both extensions
	@echo types
	@$(VENV)/mypy --no-error-summary $(TYPED)
	@$(VENV)/python -m mypy.stubtest --concise --ignore-unused-allowlist --allowlist scripts/stubtest-allowed.txt candy._fastpath
	@MYPYPATH=bench PYTHONPATH=bench $(VENV)/python -m mypy.stubtest --concise --ignore-unused-allowlist --allowlist scripts/stubtest-allowed.txt _endpoints

demo: build  ## a relay and two members in network namespaces, and what they carry; as root
	@scripts/bootstrap.sh tools
	@exec $(VENV)/python scripts/demo.py

build: .venv/engine  ## the engine, in place, and .venv with all that is needed
	@:

reference: build  ## docs/reference.md and docs/api.md anew
	@$(VENV)/python scripts/reference.py
	@$(VENV)/python scripts/api.py

documents: build  ## run every block of commands in the documents; as root
	@scripts/bootstrap.sh tools
	@exec $(VENV)/python -m pytest -q tests/netns/test_documents_run.py

cluster: build  ## relays and real servers of NATS
	@exec $(VENV)/python -m pytest -q tests/relay/cluster

faults: build  ## fifty rounds of faults that are drawn, at relays and servers of NATS; nine minutes, as root
	@scripts/bootstrap.sh tools
	@# In memory: servers of NATS wait for the disk before they answer, which some machines have stand still for a minute.
	@TMPDIR=$${TMPDIR:-/dev/shm} CANDY_FAULT_ROUNDS=50 exec $(VENV)/python -m pytest -q -s tests/relay/cluster/test_faults.py

bench: build  ## what the relay carries in a second, here
	@exec $(VENV)/python bench/throughput.py

fuzz: build  ## the parsers, with libFuzzer, and the property tests for long
	@echo fuzz
	@scripts/fuzz.sh
	@$(VENV)/python -m pytest -q -m hypothesis --hypothesis-profile=fuzz

mutants: build  ## put faults into the engine, which the tests have to find
	@echo mutants
	@exec $(VENV)/python scripts/mutants.py

asan tsan: build  ## the engine's tests under a sanitizer
	@scripts/sanitize.sh $@

soak: build  ## relay, members and mischief for half an hour, links without their relay for ten minutes; as root
	@scripts/bootstrap.sh tools
	@$(VENV)/python tests/soak.py
	@CANDY_AWAY_S=600 $(VENV)/python -m pytest -q tests/netns/test_links_alone.py

wheel: build  ## a wheel that installs without a compiler, into dist/
	@exec scripts/wheel.sh

try-wheel: wheel  ## install it into a clean environment, and join two machines by it; for each of PYTHONS
	@scripts/bootstrap.sh tools
	@exec $(VENV)/python scripts/try_wheel.py

units: .venv/installed  ## install as the documents say, and run the services under a real systemd; as root
	@scripts/bootstrap.sh machines
	@exec $(VENV)/python scripts/units.py

image: .venv/installed  ## build the image of Dockerfile, and join two machines by it; as root
	@scripts/bootstrap.sh containers
	@exec $(VENV)/python scripts/image.py

clean:  ## take away all that was built
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
