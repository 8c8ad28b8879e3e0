# segfair: `make help` lists what there is to make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PARAMS ?= params/demo.yaml
# Packages of others read their own files in the machine's encoding, which is ASCII where no locale is set.
export PYTHONUTF8 := 1

.DEFAULT_GOAL := help
.PHONY: help install demo run lab test coverage lint format calibrate bench bench-inference bench-metrics bench-fairness bench-spatial \
	bench-scale train-demo tables images clean fuzz soak

help:  ## Show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## (.*)/  make \1|\2/' | column -t -s '|'

install: $(INSTALLED)  ## Create .venv and install everything, at the pinned versions

# One install call with every pin, so that torch is never resolved to another build on the way.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("segfair needs Python 3.11 or newer; this is " + sys.version.split()[0] + ": set PYTHON=python3.11") if sys.version_info < (3, 11) else None'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (about 2 minutes, once)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	@touch $@

demo: $(INSTALLED)  ## Run the demo study and print the path of its report
	@$(BIN)/segfair run params/demo.yaml

run: $(INSTALLED)  ## Run another study: make run PARAMS=params/my_study.yaml
	@$(BIN)/segfair run $(PARAMS)

lab: $(INSTALLED)  ## Open JupyterLab on a study's copies of the notebooks: make lab PARAMS=params/my_study.yaml
	@$(BIN)/segfair lab $(PARAMS) -- $(LAB_OPTIONS)

# A file's tests share what is costly to make (a study, a JupyterLab), so they stay in one process. In the order of
# their names: files of few tests would come last, and the whole studies are among these.
PARALLEL := -n auto --dist loadfile --no-loadscope-reorder
test: $(INSTALLED)  ## Run the tests
	@$(BIN)/python -m pytest $(PARALLEL)

coverage: $(INSTALLED)  ## Run the tests and count the lines of helpers they reach; fails under 90 %
	@$(BIN)/python -m pytest $(PARALLEL) --cov --cov-report=term:skip-covered --cov-report=html

lint: $(INSTALLED)  ## Check code, types, notebooks, import contracts and spelling
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/codespell
	@git ls-files -z '*.ipynb' | xargs -0 -r $(BIN)/nbstripout --verify --keep-id --extra-keys "metadata.papermill cell.metadata.papermill metadata.language_info.version"

format: $(INSTALLED)  ## Format code and notebooks, strip notebook outputs
	@$(BIN)/ruff check --fix --quiet . || true
	@$(BIN)/ruff format .
	@git ls-files -z '*.ipynb' | xargs -0 -r $(BIN)/nbstripout --keep-id --extra-keys "metadata.papermill cell.metadata.papermill metadata.language_info.version"

calibrate: $(INSTALLED)  ## Audit the audit with planted cohorts; writes docs/validity*.md, fails where a limit is broken
	@status=0; for part in fairness spatial; do \
		test ! -f tests/calibration/calibrate_$$part.py || $(BIN)/python -m tests.calibration.calibrate_$$part || status=1; \
	done; exit $$status

bench: bench-metrics bench-fairness bench-spatial bench-inference  ## Run every benchmark (docs/benchmarks.md keeps the last output)

bench-inference: $(INSTALLED)  ## SAM and nnU-Net against their official loops (about 30 minutes without a GPU)
	@$(BIN)/python tests/benchmarks/bench_inference.py
	@$(BIN)/python tests/benchmarks/bench_nnunet.py

bench-metrics: $(INSTALLED)  ## Mask metrics against the field's packages
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test,benchmark]'
	@$(BIN)/python tests/benchmarks/bench_metrics.py

bench-fairness: $(INSTALLED)  ## Group statistics against pingouin, scipy and fairlearn
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test,benchmark]'
	@$(BIN)/python tests/benchmarks/bench_fairness.py

bench-spatial: $(INSTALLED)  ## Surface permutation tests against nilearn
	@$(BIN)/python tests/benchmarks/bench_spatial.py

fuzz: $(INSTALLED)  ## Feed N hostile inputs of seed SEED to `segfair check`, each in a process of its own
	@$(BIN)/python -m tests.fuzzing --seed $(or $(SEED),0) --number $(or $(N),1000)

soak: $(INSTALLED)  ## Kill 50 runs at random moments and compare what the next ones write (hours; docs/reliability.md)
	@$(BIN)/python -m tests.soak --kills $(or $(N),50) --seed $(or $(SEED),0)

bench-scale: $(INSTALLED)  ## How time and memory of each stage grow with 500 to 8,000 scans (32,000 with FULL=1); hours
	@$(BIN)/python tests/benchmarks/bench_scale.py 500 2000 8000 $(if $(FULL),32000)

train-demo: $(INSTALLED)  ## Train the demo's models again (about four hours on one core, of which the nnU-Net takes minutes)
	@$(BIN)/papermill notebooks/extras/train_nnunet_demo.ipynb outputs/train_nnunet_demo.ipynb --cwd .
	@$(BIN)/papermill notebooks/extras/train_sam_demo.ipynb outputs/train_sam_demo.ipynb --cwd .

tables: $(INSTALLED)  ## Write docs/TABLES.md again from helpers.schema
	@$(BIN)/python docs/make_tables.py

images: demo  ## Make the README's picture again from the demo's report (needs chromium)
	@$(BIN)/python docs/make_images.py

clean:  ## Remove .venv and all outputs
	rm -rf $(VENV)
	find outputs -mindepth 1 ! -name .gitkeep -delete
