# make run | test | test-slow | check: four words to learn; `make help` says the rest.
# The environment is .venv, made from $(PYTHON) (3.10 or newer) with the versions of constraints.txt.

PYTHON ?= python3
PYTHON310 ?= $(firstword $(wildcard $(HOME)/.pyenv/versions/3.10.*/bin/python3.10) python3.10)
ARGS ?=
PYTEST ?= -q -n 2

python := .venv/bin/python
pip := -m pip --disable-pip-version-check install --quiet --quiet
sources := lpml tests

.DELETE_ON_ERROR:
.PHONY: help run digits test test-slow test-ray check format bench bench-cluster bench-peers clean

help:
	@echo "make run          DQN with several actors learns CartPole, shows what came of it"
	@echo "make digits       the same of a network that a parameter server trains on digits"
	@echo "make test         style, types and the tests that take a moment"
	@echo "make test-slow    every test"
	@echo "make test-ray     every launcher's suites on a Ray cluster of this machine, and calls over TLS"
	@echo "make check        style and types only"
	@echo "make format       rewrites the sources in the style that check wants"
	@echo "make bench        measures lpml, and the peers that are installed, side by side"
	@echo "make bench-cluster  measures calls between hosts beside Ray, and what strangers at the door cost"
	@echo "make bench-peers  builds the environments of the peers (Launchpad needs Python 3.10)"
	@echo "make clean        removes the environments and what was built"
	@echo "ARGS='...' goes to 'lpml run dqn', 'digits' or to the benchmarks; PYTEST='-k name' to pytest;"
	@echo "PYTHON=python3.12 picks the interpreter of a new environment."

run: .venv/.has-programs
	@$(python) -m lpml run dqn $(ARGS)
	@$(python) -m lpml plot latest -m evaluator_return -m episode_return -m loss

digits: .venv/.has-programs
	@$(python) -m lpml run digits $(ARGS)
	@$(python) -m lpml plot latest

test: check
	$(python) -m pytest -m "not slow" $(PYTEST)

test-slow: check
	$(python) -m pytest $(PYTEST)

test-ray: .venv-ray/.has-ray
	.venv-ray/bin/python -m pytest -m "not slow" tests/cluster tests/lpml/test_tls.py \
	  tests/lpml/test_relay.py tests/lpml/test_hosts.py -q $(PYTEST)

check: .venv/.has-dev
	$(python) -m ruff check .
	$(python) -m ruff format --check .
	$(python) -m mypy $(sources)
	$(python) -m pyright $(sources)

format: .venv/.has-dev
	$(python) -m ruff check --fix .
	$(python) -m ruff format .

bench: .venv/.has-dev
	$(python) -m benchmarks.rpc --minutes 5 $(ARGS)
	$(python) -m benchmarks.launch --minutes 3 $(ARGS)
	$(python) -m benchmarks.ps --minutes 3 $(ARGS)
	$(python) -m benchmarks.replay --repetitions 1 $(ARGS)
	$(python) -m benchmarks.agents --repetitions 1 $(ARGS)
	$(python) -m benchmarks.on_device $(ARGS)
	$(python) -m benchmarks.on_device_bare $(ARGS)
	$(python) -m benchmarks.on_device_service $(ARGS)
	$(python) -m benchmarks.host_simulators $(ARGS)

bench-cluster: .venv-ray/.has-ray
	.venv-ray/bin/python -m benchmarks.cluster $(ARGS)
	.venv-ray/bin/python -m benchmarks.credentials $(ARGS)

bench-peers: .venv-launchpad/.has-peers .venv-peers/.has-peers .venv-reverb/.has-peers \
  .venv-acme/.has-peers

clean:
	rm -rf .venv .venv-ray .venv-launchpad .venv-peers .venv-reverb .venv-acme build dist *.egg-info
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis

# Stamps: each is newer than what it was made from. One environment grows by the second.

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || { \
	  echo "lpml needs Python 3.10 or newer; '$(PYTHON)' is" \
	    "$$($(PYTHON) --version 2>&1 | tail -n 1 || true)." \
	    "Install one and say which: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -m venv .venv || { rm -rf .venv; \
	  echo "'$(PYTHON) -m venv' failed; on Debian and Ubuntu: apt-get install python3-venv" >&2; \
	  exit 1; }

.venv/.has-programs: pyproject.toml constraints.txt | .venv/bin/python
	@echo "installing lpml and what its programs need into .venv; a minute or two"
	@$(python) $(pip) -c constraints.txt --config-settings editable_mode=compat -e '.[all]'
	@touch $@

.venv/.has-dev: .venv/.has-programs
	@echo "installing the tools for tests into .venv; a minute"
	@$(python) $(pip) -c constraints.txt --config-settings editable_mode=compat -e '.[dev]'
	@touch $@

.venv-ray/.has-ray: pyproject.toml constraints.txt | .venv/bin/python
	$(PYTHON) -m venv .venv-ray
	.venv-ray/bin/python $(pip) -c constraints.txt --config-settings editable_mode=compat -e '.[dev,ray]'
	@touch $@

.venv-launchpad/.has-peers .venv-reverb/.has-peers: .venv-%/.has-peers: benchmarks/peers/%.txt
	@$(PYTHON310) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 10))' 2>/dev/null || { \
	  echo "dm-launchpad has no wheels after Python 3.10 and '$(PYTHON310)' is not one." \
	    "Install one and say which: make bench-peers PYTHON310=/path/to/python3.10" >&2; exit 1; }
	$(PYTHON310) -m venv .venv-$*
	.venv-$*/bin/python $(pip) -r benchmarks/peers/$*.txt
	@touch $@

.venv-peers/.has-peers: benchmarks/peers/peers.txt | .venv/bin/python
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python $(pip) -r benchmarks/peers/peers.txt
	@touch $@

.venv-acme/.has-peers: benchmarks/peers/acme.txt
	$(PYTHON310) -m venv .venv-acme
	.venv-acme/bin/python $(pip) --no-deps -r benchmarks/peers/acme.txt
	git clone --quiet https://github.com/google-deepmind/acme .venv-acme/acme
	git -C .venv-acme/acme checkout --quiet ac668d5
	@touch $@
