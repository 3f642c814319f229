# The one command of each kind: `make demo`, `make test`. Both set up .venv first, and only when something changed.
# PYTHON names another interpreter; it must be Python 3.11.

VENV ?= .venv
PYTHON ?=
TESTS ?= tests
ARGS ?=
UV ?= uv

# The stamps are written last: a set-up that was cut short has none, and starts again.
LOCKED := $(VENV)/.locked
READY := $(VENV)/.ready

# 3 hides what TensorFlow prints on import about devices it did not find; 0 shows it.
export TF_CPP_MIN_LOG_LEVEL ?= 3
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help setup demo test fast lint docs bench lock clean
.DELETE_ON_ERROR:

help:
	@echo 'make demo    train with and without compression and show what it saves (ARGS=... goes to tff-compress demo)'
	@echo 'make test    run the tests (TESTS=path, ARGS=... goes to pytest)'
	@echo 'make fast    run those that load no TensorFlow: a minute on two cores'
	@echo 'make lint    look at all of the code for faults, wrong types and long lines: a few seconds'
	@echo 'make docs    make the tables of the documents anew that repeat what the code says'
	@echo 'make bench   run the benchmarks (ARGS=... goes to python -m benchmarks)'
	@echo 'make setup   only the set-up: $(VENV) with what requirements.lock names'
	@echo 'make lock    for maintainers: resolve requirements.lock again with uv (UV=path)'
	@echo 'make clean   remove $(VENV) and what builds and tests leave behind'

setup: $(READY)

demo: $(READY)
	@$(VENV)/bin/tff-compress demo $(ARGS)

# Tests that start TFF share a process (`@pytest.mark.xdist_group`), as each process that does imports it and has a worker.
test: $(READY)
	@$(VENV)/bin/python -m pytest -n 2 --dist loadgroup $(TESTS) $(ARGS)

# What a contributor runs all the time; tests/needs.py says which tests these are.
fast: $(READY)
	@$(VENV)/bin/python -m pytest -n 2 -m fast --quiet $(TESTS) $(ARGS)

lint: $(READY)
	@$(VENV)/bin/ruff check --quiet .
	@$(VENV)/bin/mypy

docs: $(READY)
	@$(VENV)/bin/python -m docs.tables

bench: $(READY)
	@$(VENV)/bin/python -m benchmarks $(ARGS)

# An environment that was moved, copied or emptied does not count as set up.
$(shell { test -x $(VENV)/bin/python && grep -qF ' $(abspath $(VENV))' $(VENV)/pyvenv.cfg; } 2>/dev/null || rm -f $(LOCKED) $(READY))

$(LOCKED): requirements.lock
	@python=; unusable=; \
	for candidate in $(or $(PYTHON),python3.11 /usr/bin/python3.11 python3 python); do \
	  $$candidate -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null || continue; \
	  $$candidate -c 'import ensurepip, venv' 2>/dev/null || { unusable=$$candidate; continue; }; \
	  python=$$candidate; break; \
	done; \
	if [ -z "$$python" ] && [ -n "$$unusable" ]; then \
	  echo "$$unusable cannot make virtual environments: install its venv module (Debian: apt-get install python3.11-venv) and try again." >&2; exit 1; \
	fi; \
	if [ -z "$$python" ]; then \
	  echo "$(if $(PYTHON),$(PYTHON) is not Python 3.11,There is no Python 3.11 on the path): install it (Debian: apt-get install python3.11 python3.11-venv), or name one with make PYTHON=path." >&2; exit 1; \
	fi; \
	if [ ! -e $@ ]; then \
	  echo "Setting up $(VENV): 2.5 GB on disk; the first time, 0.8 GB is downloaded."; \
	  $$python -m venv --clear $(VENV) || exit 1; \
	fi; \
	rm -f $@
	@$(VENV)/bin/python -m pip install --quiet --no-deps --only-binary :all: -r requirements.lock
	@touch $@

# tflite_export has a command of its own once it exists, so its arrival is a reason to install again.
$(READY): $(LOCKED) setup.py $(wildcard tflite_export/__init__.py)
	@$(VENV)/bin/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

# TFF 0.87 asks for jax 0.4.14 and a jaxlib 0.4.14 that is no longer published; 0.4.20 works in its place. Vizier asks for an
# SQLAlchemy older than the server's, and nothing here uses its database. Nothing here imports the packages left out:
# SQLAlchemy's for asyncio, TensorBoard's server and its sign-in, TensorFlow's build tools and GCS files.
JAX := 0.4.20
UNUSED := greenlet werkzeug markdown tensorboard-data-server google-auth google-auth-oauthlib \
  requests-oauthlib oauthlib pyasn1 pyasn1-modules cryptography cffi pycparser libclang google-pasta \
  tensorflow-io-gcs-filesystem
lock:
	@printf 'jax==$(JAX)\njaxlib==$(JAX)\nsqlalchemy>=2,<2.1\n' > overrides.tmp
	@printf 'setuptools==69.5.1\nwheel\n' | $(UV) pip compile setup.py - --all-extras --override overrides.tmp \
	  --python-version 3.11 --python-platform x86_64-manylinux_2_31 $(UNUSED:%=--no-emit-package %) \
	  --no-annotate --no-header --quiet --output-file requirements.lock; \
	  status=$$?; rm -f overrides.tmp; exit $$status

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .hypothesis .ruff_cache .mypy_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
