# The work is in .ci/, one script a target. Variables, where a target says so:
#   PYTHON=   one interpreter: a tag (3.14), a command or a path     PORT=   for demo
#   PYTHONS=  the interpreters to test on, of the same kinds         ARGS=   for pytest or profiling
#   ONLY=     rust or python: only these tests
#   MINUTES=  for soak
export PYTHON PYTHONS PORT ARGS ONLY MINUTES

.DEFAULT_GOAL := help
.PHONY: help demo build wheel test lint fmt bench micro soak clean

help: ## this list
	@sed -n 's/^\([a-z]*\): .*## \(.*\)/make \1\t\2/p' Makefile | expand -t 14
	@sed -n 's/^#   /  /p' Makefile

demo: ## build and serve examples/hello.py on 127.0.0.1:8000 (PYTHON, PORT)
	@.ci/demo

build: ## release build in .venv (PYTHON)
	@.ci/build .venv "$(PYTHON)"

wheel: ## the wheel that is published, profile-guided, into dist (PYTHON)
	@.ci/wheel

test: ## Rust and Python tests on every interpreter found (PYTHONS, ONLY, ARGS)
	@.ci/test

lint: ## formatting, clippy, ruff, mypy: any finding is an error (PYTHON)
	@.ci/lint

fmt: ## format Rust and Python
	@.ci/lint --fix

bench: ## measure against bare hyper and other servers (PYTHON, ARGS)
	@.ci/bench

micro: ## micro-benchmarks: Criterion and pytest-benchmark, on a release build (PYTHON, ONLY, ARGS)
	@.ci/micro

soak: ## ten minutes of mixed traffic, then 200 shutdowns, on a release build (MINUTES, PYTHONS)
	@PROFILE=release PYTHON="$(or $(PYTHON),$(firstword $(PYTHONS)))" .ci/soak
	@PYTHONS="$${PYTHONS:-$$(.ci/interpreters --best | cut -f1)}" TREADLE_SOAK=1 ONLY=python \
	PROFILE=release ARGS="-k shutdown -o timeout=3600 -o faulthandler_timeout=3600 $(ARGS)" .ci/test

clean: ## remove what the other targets made
	rm -rf target profiling/baseline/target profiling/benches/target profiling/.peers dist .venv .venv-*
	rm -rf .pytest_cache .mypy_cache .ruff_cache
	find python tests examples profiling -name __pycache__ -prune -exec rm -rf {} +
