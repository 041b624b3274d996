# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTHON311 ?= python3.11
PYTHON312 ?= python3.12

# Extras whose lowest versions are tried, and what the newest are tried with.
LOWEST := plot archive media peers recommend dev
TESTERS := hypothesis pytest pytest-timeout pytest-xdist
# Tests of how the package meets xarray, Zarr and numcodecs; and, for old versions, of its commands.
WIRING := $(addprefix tests/test_,zarr.py sphere_codec.py patch_codecs.py accessor.py writing.py)
OLD := $(addprefix tests/test_,golden.py bound.py archive.py cli_help.py doctor.py)
comma := ,
space := $(subst ,, )

.PHONY: demo test fuzz lint types docs wheel try-wheel lowest newest compatibility benchmarks clean

# constraints.txt pins what must be pinned; the marker is newer than both only after an install.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[all]'
	touch $@

demo: $(VENV)/.installed
	$(BIN)/python examples/demo.py

test: $(VENV)/.installed
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal

# A minute of damaged payloads, and of whatever else may come from strangers.
FUZZ := damaged repaired structured configurations models files
fuzz: $(VENV)/.installed
	set -e; for suite in $(FUZZ); do $(BIN)/python fuzz/run.py --suite $$suite --seconds 12; done

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell

types: $(VENV)/.installed
	$(BIN)/mypy

# The site, in build/site; a broken link or reference is an error.
docs: $(VENV)/.installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# Wheel and sdist, in dist; both must be complete.
wheel: $(VENV)/.installed
	rm -rf dist
	$(BIN)/hatchling build -d dist
	$(BIN)/python tests/distribution/contents.py dist

# The wheel, then the checkout, in an environment that has nothing else.
try-wheel: wheel
	$(PYTHON) -m venv --clear build/wheel
	build/wheel/bin/python -m pip install --quiet dist/*.whl
	build/wheel/bin/python -I tests/distribution/installed.py examples/era5_t2m_46x90.nc
	build/wheel/bin/python -m pip install --quiet --force-reinstall --no-deps .
	build/wheel/bin/python -I tests/distribution/installed.py examples/era5_t2m_46x90.nc

# The lowest versions that pyproject.toml allows, without torch. Old versions warn. Two tests are left
# out: before Typer 0.26 arguments keep no help, and old versions of xarray drop units in sums.
lowest: $(VENV)/.installed
	@if ! $(PYTHON311) -c "" 2>/dev/null; then echo "skipped: no $(PYTHON311)"; exit; fi; set -ex; \
	$(PYTHON311) -m venv --clear build/lowest; \
	$(BIN)/python tests/distribution/lowest.py $(LOWEST) > build/lowest.txt; \
	build/lowest/bin/python -m pip install --quiet --only-binary :all: \
	    --constraint build/lowest.txt --editable '.[$(subst $(space),$(comma),$(LOWEST))]'; \
	build/lowest/bin/python -m pytest -W default $(WIRING) $(OLD) \
	    --deselect tests/test_cli_help.py::test_every_argument_and_option_is_explained \
	    --deselect tests/test_archive.py::test_another_source_is_refused

# The newest versions that there are, on Python 3.12; Zarr from 3.2 on needs it.
newest: export PYENV_VERSION = 3.12
newest:
	@if ! $(PYTHON312) -c "" 2>/dev/null; then echo "skipped: no $(PYTHON312)"; exit; fi; set -ex; \
	$(PYTHON312) -m venv --clear build/newest; \
	build/newest/bin/python -m pip install --quiet --editable '.[plot]' $(TESTERS); \
	build/newest/bin/python -m pytest $(WIRING)

# What takes minutes and downloads much.
compatibility: try-wheel lowest newest

benchmarks: $(VENV)/.installed
	$(BIN)/python benchmarks/throughput.py
	$(BIN)/python benchmarks/shipped_model.py
	$(BIN)/python benchmarks/against_others.py
	$(BIN)/python benchmarks/native.py
	$(BIN)/python benchmarks/soak.py
	$(BIN)/python benchmarks/random_bounds.py --of globes
	$(BIN)/python benchmarks/random_bounds.py --of patches
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
	$(BIN)/python benchmarks/water.py
	$(BIN)/python benchmarks/safeguards.py
	$(BIN)/python benchmarks/tables.py

clean:
	rm -rf $(VENV) out runs dist build
