# Two commands for a bare machine; the plain commands behind them are in README.md.
VENV ?= .venv
PY := $(VENV)/bin/python

.PHONY: qualify rehearse-npu selftest lint proof tools

# ARGS are pytest's: make qualify ARGS="--device npu --qualify"
qualify:
	@.ci/prepare $(VENV) requirements.txt
	$(PY) -m pytest tests $(ARGS)

# The whole qualification on a simulated Ascend card, by the real torch-npu; no card, no CANN.
rehearse-npu: export PYTHONPATH := $(abspath $(VENV))/torch-npu/2.9.0
rehearse-npu: export ASCEND_RT_VISIBLE_DEVICES ?= 0
rehearse-npu: export PYTORCH_NPU_ALLOC_CONF ?= expandable_segments:True
rehearse-npu:
	@PYTHONPATH= .ci/prepare $(VENV) requirements.txt
	@PYTHONPATH= .ci/torch-npu $(VENV) 2.9.0
	$(PY) -m pytest tests --device npu --simulate 1 $(ARGS)

tools:
	@.ci/prepare $(VENV) requirements.txt selftest/requirements.txt
	@.ci/torch-npu $(VENV)

lint: tools
	$(VENV)/bin/ruff check --config .ci/ruff.toml .
	$(VENV)/bin/ruff format --config .ci/ruff.toml --check .
	$(VENV)/bin/mypy --config-file .ci/mypy.ini

# Coverage is taken over the runs that selftests start as well, in folders of their own.
selftest: export COVERAGE_FILE = $(CURDIR)/.coverage
selftest: tools
	$(VENV)/bin/coverage erase --rcfile .ci/coverage.ini
	$(PY) -m pytest -c selftest/pytest.ini -n 2 --dist loadgroup --cov --cov-config .ci/coverage.ini --cov-report term $(ARGS) selftest
	$(VENV)/bin/coverage report --rcfile .ci/coverage.ini --fail-under 95

# Exhaustive, resumable, outside CI; the tables it prints are committed under proof/.
proof: tools
	$(PY) -m selftest.proof $(ARGS)
