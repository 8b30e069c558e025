# Everything starts here, on a machine with Python 3.11 or newer and make:
#   make book            execute the chapters that changed, build the site into _build/html
#   make book SERVE=1    ... and open it on http://127.0.0.1:8000/
#   make test            style, types, unit tests, every notebook, the site in a browser
#   make lab             JupyterLab on the chapters
#   make bench           the measurements of benchmarks/
# TORCH=cpu installs torch without CUDA (5 GB less); PYTHON=python3.12 names another Python.
.POSIX:
PYTHON = python3
TORCH =
BIN = .venv/bin
# Tests run side by side where there are cores; a file stays together, so that it shares its fixtures.
# Those marked "alone" run by themselves afterwards: they bound the time of what they run.
PARALLEL = -n logical --maxprocesses 4
.PHONY: book test lab bench lock clean env lint unit notebooks site

book: env
	@$(BIN)/course book $${SERVE:+--serve}

test: env lint unit notebooks site

lab: env
	@$(BIN)/course lab

env:
	@TORCH=$(TORCH) $(PYTHON) course_lib/bootstrap.py

lint:
	$(BIN)/ruff format --check course_lib tests benchmarks $(wildcard solutions)
	$(BIN)/ruff check course_lib tests benchmarks $(wildcard solutions)
	$(BIN)/mypy

unit:
	$(BIN)/python -m pytest $(PARALLEL) --dist loadfile tests --ignore tests/site -m "not alone"
	$(BIN)/python -m pytest tests --ignore tests/site -m alone

# Each chapter is executed here, once: what nbval saw goes into the cache the book is built from.
# The assignments run with their solutions in place.
notebooks:
	$(BIN)/course notebooks
	$(BIN)/python -m pytest $(PARALLEL) --dist loadfile --nbval-lax --nbval-current-env \
	  -p course_lib.publish.nbval_plugin _build/notebooks _build/solutions

site:
	$(BIN)/course book
	$(BIN)/python -m pytest $(PARALLEL) --dist loadgroup tests/site

bench: env
	$(BIN)/python -m benchmarks

# Bring every locked version up to date. The lock names no host, so that any mirror serves it.
lock: env
	@uv=$$(command -v uv || echo .tools/bin/uv); $$uv pip compile pyproject.toml --group dev --universal \
	  --python-version 3.11 --generate-hashes --no-annotate --no-header --no-emit-index-url --upgrade \
	  --output-file requirements.lock

clean:
	rm -rf _build .venv .tools
