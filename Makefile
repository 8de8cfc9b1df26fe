# `make help` lists what there is. Everything runs in ./.venv, which is made when it is missing.
.DEFAULT_GOAL := help
PY := .venv/bin/python
PYTEST := $(PY) -m pytest
# How many processes run tests: five for CI's two cores, as two thirds of a test are waiting for a worker or a lease.
JOBS ?= 5
OUTAGE ?= 30
ifeq ($(SEED),)
SEED := $(shell od -An -N2 -tu2 /dev/urandom | tr -d ' ')
endif
# Figures are told at the end of a run; a long run says which tests are done.
MEASURE := KQ_CONTRACT_PAGE=- $(PYTEST) -v --timeout 3600
# The tests start a thousand workers; without bytecode each of them would compile kq anew, half a second of processor.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test unit check format contract backlog chaos once alerts outages churn faults bench peers transport-report reference simulate pythons clean

help:  ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1\t/p' $(MAKEFILE_LIST) | while IFS="$$(printf '\t')" read -r name text; do printf '  make %-16s %s\n' "$$name" "$$text"; done

.venv/.kq: pyproject.toml scripts/venv.sh
	@scripts/venv.sh
	@touch $@

.venv/.dev: pyproject.toml scripts/venv.sh
	@scripts/venv.sh dev
	@touch $@ .venv/.kq

demo: .venv/.kq  ## real jobs on real workers, on an SQLite file in a temporary folder
	@.venv/bin/kq demo

test: .venv/.dev  ## all tests; on private Redis and RabbitMQ servers where they can be had
	@scripts/servers.sh
	@$(PY) -m compileall -q kq transports/kq_transports
	@$(PYTEST) -q -n $(JOBS) --dist loadgroup $(ARGS)

unit: .venv/.dev  ## the tests that need no broker, in seconds
	@$(PYTEST) -q tests/unit $(ARGS)

check: .venv/.dev  ## format, lint, types, layers
	@.venv/bin/ruff format --check --quiet . || { .venv/bin/ruff format --diff .; exit 1; }
	@.venv/bin/ruff check --quiet .
	@.venv/bin/mypy
	@PYTHONPATH=.:transports .venv/bin/lint-imports --no-cache

format: .venv/.dev  ## put the code in shape
	@.venv/bin/ruff format --quiet .
	@.venv/bin/ruff check --quiet --fix .

contract: .venv/.dev  ## prove the contract on each broker: writes docs/contract.md (minutes)
	@scripts/servers.sh
	@KQ_THOROUGH=1 KQ_CONTRACT_PAGE=docs/contract.md $(PYTEST) -q -n 2 tests/conformance $(ARGS)

backlog: .venv/.dev  ## what a job costs with 1 000 000 jobs waiting, on each broker (minutes)
	@scripts/servers.sh
	@KQ_BACKLOG=1000000 $(MEASURE) tests/conformance/test_contract.py -k cost_the_same $(ARGS)

chaos: .venv/.dev  ## 200 random kills over 5 000 jobs on SQLite, Redis and RabbitMQ (minutes); SEED=… repeats one
	@scripts/servers.sh
	@echo "the seed is $(SEED)"
	@KQ_KILLS=200 KQ_JOBS=5000 KQ_SEED=$(SEED) $(MEASURE) tests/conformance/test_lottery.py $(ARGS)

once: .venv/.dev  ## 300 kills on each broker while mails are sent: none accepted twice, none lost (half an hour); SEED=…
	@scripts/servers.sh
	@echo "the seed is $(SEED)"
	@KQ_ONCE_KILLS=300 KQ_SEED=$(SEED) $(MEASURE) tests/conformance/test_once.py $(ARGS)

alerts: .venv/.dev  ## 100 000 failures of 3 kinds on each broker: 3 alerts and digests (minutes)
	@scripts/servers.sh
	@KQ_FAILURES=100000 $(MEASURE) tests/conformance/test_alerts.py -k storm $(ARGS)

outages: .venv/.dev  ## the broker restarted, cut off or locked for 30 s (OUTAGE=…) under a lease of half of that (minutes)
	@scripts/servers.sh
	@KQ_OUTAGE=$(OUTAGE) KQ_RESETS=150 KQ_SLOW=1 $(MEASURE) tests/conformance/test_contract.py \
	  -k "restart or down_for_longer or black_hole_that or locks or half_open or slow_network or end_again or storm" $(ARGS)

churn: .venv/.dev  ## 10 000 times all connections of a worker and a producer are reset, on each broker (half an hour)
	@scripts/servers.sh
	@KQ_OUTAGE=$(OUTAGE) KQ_RESETS=10000 $(MEASURE) tests/conformance/test_contract.py -k storm $(ARGS)

faults: .venv/.dev  ## every fault on each broker, at length: writes docs/faults.md (three quarters of an hour); SEED=… repeats one
	@scripts/servers.sh
	@echo "the seed is $(SEED)"
	@KQ_THOROUGH=1 KQ_FAULTS_PAGE=docs/faults.md KQ_SEED=$(SEED) KQ_KILLS=50 KQ_JOBS=5000 KQ_OUTAGE=$(OUTAGE) KQ_RESETS=150 KQ_SLOW=1 KQ_CUTS=100 \
	  KQ_LEASES=100 KQ_CLIENTS=1000 $(PYTEST) -v -m fault --timeout 3600 tests/conformance tests/worker $(ARGS)

# What tests need is not installed there: redis-py imports OpenTelemetry where it can, 3 MiB in each worker.
.venv/bench/.kq: .venv/.kq
	@$(PY) -m venv .venv/bench
	@.venv/bench/bin/python -m pip install --quiet --editable '.[conformance]'
	@touch $@

bench: .venv/bench/.kq  ## measure each transport; prints the table of docs/benchmarks.md (25 minutes)
	@scripts/servers.sh
	@.venv/bench/bin/python -m benchmarks $(ARGS)

peers: .venv/.dev  ## kq beside celery, dramatiq, taskiq, rq and huey on Redis, in environments of their own (minutes)
	@scripts/servers.sh
	@$(PY) -m benchmarks.peers $(ARGS)

transport-report: .venv/.dev  ## what kq's transports and Kombu's own keep: writes docs/kombu-transports.md (minutes)
	@scripts/servers.sh
	@$(PY) -m pip install --quiet sqlalchemy
	@PYTHONPATH=.:transports $(PY) -m tests.transports.report $(ARGS)

reference: .venv/.dev  ## write docs/reference.md from the code
	@PYTHONPATH=. $(PY) scripts/reference.py

simulate: .venv/.dev  ## a million histories of workers that die, freeze and fail, in memory (minutes)
	@KQ_HISTORIES=1000000 $(PYTEST) -q -n 2 tests/unit/test_simulation.py --timeout 3600 $(ARGS)

pythons: .venv/.dev  ## what needs no server, under each Python here from 3.11 to 3.14 (minutes)
	@scripts/pythons.sh $(ARGS)

clean:  ## remove what make and the tools made
	@rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
