# `make demo` and `make test` need Python 3.11 to 3.13, git and make; everything else is installed into .venv.

PYTHON ?= python3
BIN := .venv/bin
WORK ?= work

.PHONY: help venv demo test test-cluster soak lint bench-prepare bench-train clean

help:
	@echo "make venv   the environment alone, in .venv"
	@echo "make demo   raw text -> vocabulary -> data -> training -> export, on the bundled corpus (a few minutes on 2 cores)"
	@echo "make test   the test suite"
	@echo "make test-cluster   two machines on this one, and what can happen to them; needs root and some Debian packages"
	@echo "make soak   runs under random kills, signals and damage, each equal to one left alone; MINUTES=10"
	@echo "make lint   ruff"
	@echo "make bench-prepare CORPUS=FILE   speed, memory and size of data preparation (benchmarks/prepare.md); without CORPUS, it is made first"
	@echo "make bench-train DATA=FOLDER     speed and memory of a training step beside Hugging Face's (benchmarks/train.md), options in BENCH_ARGS; without DATA, it is made first"
	@echo "make clean  remove WORK (work/), not .venv"

venv: .venv/installed

demo: .venv/installed
	$(BIN)/python -m launch.demo --work $(WORK)

test: .venv/installed-test
	$(BIN)/python -m pytest -n 2 $(PYTEST_ARGS)

test-cluster: .venv/installed-test
	$(BIN)/python -m pytest -rs tests/test_supervision.py tests/test_cluster.py $(PYTEST_ARGS)

soak: .venv/installed-test
	$(BIN)/python tests/soak.py --minutes $(or $(MINUTES),10)

lint: .venv/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

bench-prepare: .venv/installed
	$(if $(CORPUS),,$(BIN)/python -m benchmarks.corpora --output $(WORK)/corpora)
	$(BIN)/python -m benchmarks.prepare --corpus $(or $(CORPUS),$(WORK)/corpora/english_pd.jsonl) --work $(WORK)/bench-prepare

bench-train: .venv/installed
	$(BIN)/python -m pip install --constraint requirements.lock --editable '.[transformers,bench]'
	$(if $(DATA),,test -d $(WORK)/bench-train/data || $(MAKE) $(WORK)/bench-train/data)
	$(BIN)/python -m benchmarks.train --data $(or $(DATA),$(WORK)/bench-train/data) $(BENCH_ARGS)

LENGTH ?= 512
$(WORK)/bench-train/data:
	$(BIN)/python -m benchmarks.corpora --output $(WORK)/corpora
	$(BIN)/albert tokenizer --input $(WORK)/corpora/english_pd.jsonl --output $(WORK)/bench-train/tokenizer --vocab_size 30000
	$(BIN)/albert prepare --input $(WORK)/corpora/english_pd.jsonl --tokenizer $(WORK)/bench-train/tokenizer --output $@ --max_seq_length $(LENGTH)

clean:
	rm -rf $(WORK)

# DeepSpeed is installed without its compiled operators: at ZeRO stage 0 none is used.
.venv/installed: setup.cfg requirements.lock launch/albert
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(not (3, 11) <= v < (3, 14) and f"Python {v[0]}.{v[1]}: 3.11 to 3.13 is needed; give one with PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	DS_BUILD_OPS=0 $(BIN)/python -m pip install --constraint requirements.lock --editable '.[transformers]'
	touch $@

.venv/installed-test: .venv/installed
	DS_BUILD_OPS=0 $(BIN)/python -m pip install --constraint requirements.lock --editable '.[transformers,test]'
	touch $@
