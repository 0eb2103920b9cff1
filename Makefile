# Everything installs what it needs: Python 3.11 or newer and make are enough.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

PURE_FUZZ := tests/fuzz/test_targets.py tests/fuzz/test_queries.py tests/fuzz/test_pages.py
FUZZ_WITH_PARTS := tests/fuzz/test_glance.py tests/fuzz/test_running.py
QUICK := tests/unit tests/test_deployment.py tests/test_docs.py tests/test_imports.py
WHOLE := tests/properties $(PURE_FUZZ) tests/contract tests/integration tests/model \
	tests/durability $(FUZZ_WITH_PARTS) tests/functional
# Three processes for two cores, because tests wait much; a file in one of them, in the order above.
SIDE_BY_SIDE := -n 3 --dist loadfile --no-loadscope-reorder

.PHONY: demo test unit verify verify-random verify-model verify-fuzz verify-storm verify-power verify-reload verify-page verify-fronts verify-leaks verify-import bench-store lint clean

demo: $(READY)
	$(BIN)/python -m lab.demo $(if $(KEEP),--keep)

# The quick ones first: what they find needs no registry to understand. The environments of the real
# parts are made meanwhile; a test that needs one waits for it.
test: unit
	$(BIN)/python -m lab.venvs & making=$$!; \
		$(BIN)/pytest $(SIDE_BY_SIDE) $(WHOLE); passed=$$?; wait $$making && exit $$passed

unit: $(READY)
	$(BIN)/pytest $(SIDE_BY_SIDE) $(QUICK)

# All of `make test`, and what takes longer: many more examples, new ones each time.
verify: lint test verify-random verify-model verify-fuzz verify-storm verify-power verify-reload \
	verify-page verify-fronts verify-leaks verify-import

verify-random: $(READY)
	HYPOTHESIS_PROFILE=verify $(BIN)/pytest tests/properties tests/integration/test_random.py \
		tests/contract/test_order.py

# Two thousand stories of each tenancy before a stand-in, a hundred before a Glance; -s counts them.
verify-model: $(READY)
	HYPOTHESIS_PROFILE=verify $(BIN)/pytest -s tests/model tests/functional/test_model_of_glance.py

# A million targets, queries and list bodies, compared with other readers; 130,000 requests that a
# real Glance is asked about; whole requests to a running relproxy. -s prints how many of each.
# And a client that leaves after every single byte.
verify-fuzz: $(READY)
	HYPOTHESIS_PROFILE=verify $(BIN)/pytest -s tests/fuzz tests/integration/test_pool_of_one.py

# Twenty storms, each some thousand creates; -s prints what happened in each.
verify-storm: $(READY)
	HYPOTHESIS_PROFILE=verify $(BIN)/pytest -s tests/durability/test_storm.py

# Thirty power losses under load; -s prints what was there afterwards.
verify-power: $(READY)
	HYPOTHESIS_PROFILE=verify $(BIN)/pytest -s tests/durability/test_power.py

# Ten reloads under load, with workers and without; -s prints how much was tried.
verify-reload: $(READY)
	HYPOTHESIS_PROFILE=verify $(BIN)/pytest -s tests/integration/test_reload.py

# The operator's page in a real Chromium, which Debian has; pictures are left in build/page.
verify-page: $(READY)
	command -v chromium >/dev/null || apt-get install -y -qq --no-install-recommends chromium
	$(BIN)/pytest tests/page

# HAProxy and nginx, as config/ has them, before real relproxies: skipped in `make test` without them.
verify-fronts: $(READY)
	command -v haproxy >/dev/null && command -v nginx >/dev/null || \
		apt-get install -y -qq --no-install-recommends haproxy nginx-light
	$(BIN)/pytest tests/test_deployment.py tests/integration/test_fronts.py \
		tests/integration/test_fronts_secured.py tests/integration/test_headers_beside_nginx.py

# Thousands of clients and registries that go wrong, ten thousand that do nothing; -s prints the memory.
verify-leaks: $(READY)
	HYPOTHESIS_PROFILE=verify $(BIN)/pytest -s tests/integration/test_nothing_leaks.py \
		tests/integration/test_crowd.py

# A hundred thousand images taken in and compared, killed in the middle; -s prints seconds and MiB.
verify-import: $(READY)
	HYPOTHESIS_PROFILE=verify $(BIN)/pytest -s tests/integration/test_taking_in.py

# Durable creates a second, the size of a million rows, a look-up; ROWS=10000000 takes a while.
bench-store: $(READY)
	$(BIN)/python -m bench.store $(if $(ROWS),--rows $(ROWS))

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --disable-pip-version-check -qq -e '.[test]'
	touch $@

clean:
	rm -rf $(VENV) .venvs .demo build *.egg-info
