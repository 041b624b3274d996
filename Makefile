# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test fuzz lint types docs benchmarks clean

# constraints.txt pins what must be pinned; the marker is newer than both only after an install.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[all]'
	touch $@

demo: $(VENV)/.installed
	$(BIN)/python examples/demo.py

test: $(VENV)/.installed
	$(BIN)/python -m pytest --numprocesses 2

# A minute of damaged payloads.
fuzz: $(VENV)/.installed
	$(BIN)/python fuzz/run.py --suite damaged --seconds 20
	$(BIN)/python fuzz/run.py --suite repaired --seconds 40

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell

types: $(VENV)/.installed
	$(BIN)/mypy

# The site, in build/site; a broken link or reference is an error.
docs: $(VENV)/.installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

benchmarks: $(VENV)/.installed
	$(BIN)/python benchmarks/throughput.py
	$(BIN)/python benchmarks/shipped_model.py
	$(BIN)/python benchmarks/against_others.py
	$(BIN)/python benchmarks/soak.py
	$(BIN)/python benchmarks/random_bounds.py
	$(BIN)/python benchmarks/peer_sizes.py
	$(BIN)/python benchmarks/target_rmse.py
	$(BIN)/python benchmarks/model_size.py
	$(BIN)/python benchmarks/train_your_own.py
	$(BIN)/python benchmarks/siren_vs_eof.py
	$(BIN)/python benchmarks/images.py
	$(BIN)/python benchmarks/audio.py
	$(BIN)/python benchmarks/volumes.py
	$(BIN)/python benchmarks/media_throughput.py
	$(BIN)/python benchmarks/media_plots.py
	$(BIN)/python benchmarks/archive_scale.py
	$(BIN)/python benchmarks/reproduction.py
	$(BIN)/python benchmarks/science.py
	$(BIN)/python benchmarks/tables.py

clean:
	rm -rf $(VENV) out runs dist build
