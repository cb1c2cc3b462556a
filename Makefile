# Works with GNU make 3.81 and BSD tools. `make` alone shows what there is.
SHELL = /bin/sh
VESTAL = .venv/bin/vestal
PYTHON = .venv/bin/python
SERVICE =
# Most tests wait for processes, so there are more workers than cores. PYTEST=-n0 runs all in one process.
WORKERS = 4
# Every test starts processes of ours; each would compile the sources anew where nothing keeps what it compiled.
PYTEST_RUN = PYTHONDONTWRITEBYTECODE= $(PYTHON) -m pytest
ROUNDS = 1

.PHONY: help up down status logs doctor recover test explore test-install lint format bench chaos install uninstall clean-cache host dev lock

help:
	@echo "make up           set up what is missing, replace what is out of date, start all, wait until it is healthy"
	@echo "make down         stop everything; no process, container or port of ours stays"
	@echo "make status       what lives, what does not, and why"
	@echo "make logs         follow the logs (SERVICE=mlx_server for one)"
	@echo "make doctor       what is wrong with this machine, and the remedy"
	@echo "make recover      one recovery pass, now"
	@echo "make test         the tests (with a Docker engine, the container tests too)"
	@echo "make explore      the tests that draw their cases, with new cases (ROUNDS=10 for more)"
	@echo "make test-install a real installation under this machine's launchd or systemd, and its removal"
	@echo "make lint         ruff and mypy"
	@echo "make bench        measure beside the peers, in ten minutes (BENCH=full: in rounds; it goes on where it stopped)"
	@echo "make chaos        kill engine, gateway, agent under load, and count what is lost (CHAOS='--help' for more)"
	@echo "make install      start at login and recover every 300 s (launchd or systemd); make uninstall undoes it"
	@echo "make clean-cache  drop the prompt cache"

host:
	@deploy/bootstrap.sh host

dev:
	@deploy/bootstrap.sh dev

up: host
	@$(VESTAL) up

down: host
	@$(VESTAL) down

status: host
	@$(VESTAL) status

logs: host
	@$(VESTAL) logs -f $(SERVICE)

doctor: host
	@$(VESTAL) doctor

recover: host
	@$(VESTAL) recover --once

install: host
	@$(VESTAL) install

uninstall: host
	@$(VESTAL) uninstall

clean-cache: host
	@$(VESTAL) cache clear

test: dev
	@$(PYTEST_RUN) -n $(WORKERS) tests/unit tests/stateful tests/component tests/clients tests/e2e $(PYTEST)

explore: dev
	@round=0; while [ $$round -lt $(ROUNDS) ]; do round=$$((round + 1)); echo "round $$round of $(ROUNDS)"; \
	    $(PYTEST_RUN) -n $(WORKERS) -m hypothesis --hypothesis-profile=explore \
	    tests/unit tests/stateful tests/component $(PYTEST) || exit 1; done

test-install: dev
	@VESTAL_TEST_REAL_INSTALL=1 $(PYTEST_RUN) tests/e2e/test_real_install.py $(PYTEST)

lint: dev
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy

format: dev
	@.venv/bin/ruff check --fix .
	@.venv/bin/ruff format .

bench: host
	@$(PYTHON) -m benchmarks $(BENCH)

chaos: host
	@$(PYTHON) -m benchmarks.chaos $(CHAOS)

# Needs uv. One resolution for macOS and Linux; hashes of every file, no index address.
lock:
	@deploy/lock.sh
