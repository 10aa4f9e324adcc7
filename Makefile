# On a fresh machine `make demo` and `make test` need nothing done first: the environment is made on the way, and made
# again when pyproject.toml changes; the library is compiled again when a source changes. Another Python or compiler:
#     make PYTHON=python3.12 test
#     make CXX=clang++ clean test

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
NATIVE := src/knownmf/native
SANITIZED := $(CURDIR)/build/sanitize
TARGETS := x86_64-linux-gnu.2.17 aarch64-linux-gnu.2.17 aarch64-macos.11.0 x86_64-windows-gnu

.PHONY: demo test lint bench docs venv library sanitize wheels clean

demo: library
	$(BIN)/knownmf demo --out knownmf-demo --force

test: library
	$(BIN)/python -m pytest $(PYTEST_FLAGS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $(NATIVE)/*.cpp $(NATIVE)/*.hpp
	@if $(BIN)/python hatch_build.py --has-compiler; then \
		echo "$(BIN)/clang-tidy $(NATIVE)/knownmf.cpp"; \
		$(BIN)/clang-tidy --quiet $(NATIVE)/knownmf.cpp -- -std=c++17 -fopenmp-simd -Wall -Wextra \
			-DKNOWNMF_SOURCE_HASH='""' -DKNOWNMF_COMPILER='""'; \
	else \
		echo "clang-tidy skipped: it needs the C++ headers of a compiler, and there is none on this machine"; \
	fi

bench: library
	$(BIN)/python -m benchmarks

docs: library
	$(BIN)/python docs/learning_pictures.py

venv: $(READY)

# Compile in place what is not current: hatch_build.py compares the hash of the sources. Zig's compiler is installed if
# something has to be compiled and there is no other.
library: $(READY)
	@package=$$($(BIN)/python hatch_build.py --requires) && { test -z "$$package" || $(PIP) "$$package"; }
	@$(BIN)/python hatch_build.py

# The tests, with a library that stops at the first invalid access or undefined operation. Needs gcc. The runtime
# libraries are loaded first because Python itself is not linked with them. pytest must not capture what they print when
# they end the process.
sanitize: library
	CXX="$(CXX)" $(BIN)/python hatch_build.py --sanitize $(SANITIZED)
	KNOWNMF_LIBRARY_FOLDER=$(SANITIZED) ASAN_OPTIONS=detect_leaks=0 \
		LD_PRELOAD="$$($(CXX) -print-file-name=libasan.so) $$($(CXX) -print-file-name=libstdc++.so)" \
		$(BIN)/python -m pytest --capture=sys $(PYTEST_FLAGS)

# One wheel for each target, for all versions of Python.
wheels: $(READY)
	$(PIP) hatchling "$$(KNOWNMF_TARGET=$(firstword $(TARGETS)) $(BIN)/python hatch_build.py --requires)"
	for target in $(TARGETS); do KNOWNMF_TARGET=$$target $(BIN)/python -m hatchling build --target wheel || exit 1; done

$(READY): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "knownmf needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) knownmf-demo build dist $(NATIVE)/*.so $(NATIVE)/*.dylib $(NATIVE)/*.dll
