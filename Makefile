# `make demo` and `make test` need Python 3.11 to 3.13, git and make; everything else is installed into .venv.

PYTHON ?= python3
BIN := .venv/bin
WORK ?= work

# WHEELHOUSE=DIR: everything is installed from that folder, which is checked first, and from nowhere else.
PIP_ALONE = $(if $(WHEELHOUSE),PIP_CONFIG_FILE=/dev/null PIP_FIND_LINKS= PIP_NO_INDEX=1)
FROM_WHEELHOUSE = $(if $(WHEELHOUSE),--no-index --find-links "$$WHEELHOUSE")
PIP_INSTALL = DS_BUILD_OPS=0 $(PIP_ALONE) $(BIN)/python -m pip install $(FROM_WHEELHOUSE) --constraint requirements.lock
CHECK_WHEELHOUSE = $(if $(WHEELHOUSE),$(PYTHON) -m launch.wheelhouse check "$$WHEELHOUSE")
export WHEELHOUSE

.PHONY: help venv wheelhouse demo test test-cluster test-transformers4 test-wheelhouse soak lint bench-prepare bench-train ablations clean

help:
	@echo "make venv   the environment alone, in .venv; WHEELHOUSE=DIR: from that folder, without a network"
	@echo "make wheelhouse   all wheels for venv and test, with hashes and licences, in wheelhouse/; WHEELHOUSE=DIR (docs/closed_networks.md)"
	@echo "make demo   raw text -> vocabulary -> data -> training -> export, on the bundled corpus (a few minutes on 2 cores)"
	@echo "make test   the test suite"
	@echo "make test-cluster   two machines and a Slurm on this one, and what can happen to them; needs root and some Debian packages"
	@echo "make test-transformers4   an export in the newest transformers 4, in an environment of its own (work/transformers4), over this one's torch"
	@echo "make test-wheelhouse   gathers a wheelhouse, installs from it without a network, and runs the demo there, short"
	@echo "make soak   runs under random kills, signals and damage, each equal to one left alone; MINUTES=10"
	@echo "make lint   ruff"
	@echo "make bench-prepare CORPUS=FILE   speed, memory and size of data preparation (benchmarks/prepare.md); without CORPUS, it is made first"
	@echo "make bench-train DATA=FOLDER     speed and memory of a training step beside Hugging Face's (benchmarks/train.md), options in BENCH_ARGS; without DATA, it is made first"
	@echo "make ablations   the ALBERT paper's ablations at a small budget (docs/ablations.md), options in ABLATION_ARGS; days on a CPU"
	@echo "make clean  remove WORK (work/), not .venv"

venv: .venv/installed

wheelhouse:
	$(PYTHON) -m launch.wheelhouse gather "$${WHEELHOUSE:-wheelhouse}"

demo: .venv/installed
	$(BIN)/python -m launch.demo --work $(WORK)

test: .venv/installed-test
	$(BIN)/python -m pytest -n 2 $(PYTEST_ARGS)

test-cluster: .venv/installed-test
	$(BIN)/python -m pytest -n 2 -rs tests/test_supervision.py tests/test_cluster.py tests/test_slurm.py tests/test_doctor.py $(PYTEST_ARGS)

# What transformers 4 needs in other versions goes before .venv's packages; the rest, torch among it, is taken from there.
T4 = $(WORK)/transformers4
test-transformers4: .venv/installed-test
	$(BIN)/python -m venv --clear --without-pip $(T4)
	$(BIN)/python -c 'import sysconfig; print("import site; site.addsitedir(%r)" % sysconfig.get_path("purelib"))' \
		> "$$($(T4)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/venv.pth"
	$(PIP_ALONE) $(BIN)/python -m pip --python $(T4)/bin/python install --quiet --no-deps $(FROM_WHEELHOUSE) --requirement tests/transformers4.txt
	TRANSFORMERS_4=$(T4)/bin/python $(BIN)/python -m pytest tests/test_export.py tests/test_squad_scorer.py -k transformers_4

# A namespace with the loopback interface alone, down; training needs it up.
ALONE = unshare $(if $(filter 0,$(shell id -u)),--net,--map-root-user --net) sh -c 'ip link set lo up && exec "$$@"' sh
CLOSED = $(WORK)/closed
test-wheelhouse:
	rm -rf $(CLOSED) && mkdir -p $(CLOSED)/checkout
	$(PYTHON) -m launch.wheelhouse gather $(CLOSED)/wheels
	git ls-files -z --cached --others --exclude-standard | tar --null --files-from=- --create | tar --extract --directory $(CLOSED)/checkout
	cd $(CLOSED)/checkout && $(ALONE) $(MAKE) .venv/installed-test WHEELHOUSE=../wheels
	cd $(CLOSED)/checkout && .venv/bin/python -c 'import fasttext, ftfy, hypothesis, moto, s3fs, xdist'
	cd $(CLOSED)/checkout && $(ALONE) .venv/bin/python -m launch.demo --work work --steps 10
	rm -rf $(CLOSED)

soak: .venv/installed-test
	$(BIN)/python tests/soak.py --minutes $(or $(MINUTES),10)

lint: .venv/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

bench-prepare: .venv/installed
	$(if $(CORPUS),,$(BIN)/python -m benchmarks.corpora --output $(WORK)/corpora)
	$(BIN)/python -m benchmarks.prepare --corpus $(or $(CORPUS),$(WORK)/corpora/english_pd.jsonl) --work $(WORK)/bench-prepare

bench-train: .venv/installed
	$(PIP_INSTALL) --editable '.[transformers,bench]'
	$(if $(DATA),,test -d $(WORK)/bench-train/data || $(MAKE) $(WORK)/bench-train/data)
	$(BIN)/python -m benchmarks.train --data $(or $(DATA),$(WORK)/bench-train/data) $(BENCH_ARGS)

LENGTH ?= 512
$(WORK)/bench-train/data:
	$(BIN)/python -m benchmarks.corpora --output $(WORK)/corpora
	$(BIN)/albert tokenizer --input $(WORK)/corpora/english_pd.jsonl --output $(WORK)/bench-train/tokenizer --vocab_size 30000
	$(BIN)/albert prepare --input $(WORK)/corpora/english_pd.jsonl --tokenizer $(WORK)/bench-train/tokenizer --output $@ --max_seq_length $(LENGTH)

ablations: .venv/installed
	$(BIN)/python -m benchmarks.ablations --work $(WORK)/ablations $(ABLATION_ARGS)

clean:
	rm -rf $(WORK)

# DeepSpeed is installed without its compiled operators: at ZeRO stage 0 none is used.
.venv/installed: setup.cfg requirements.lock launch/albert
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(not (3, 11) <= v < (3, 14) and f"Python {v[0]}.{v[1]}: 3.11 to 3.13 is needed; give one with PYTHON=python3.12")'
	$(CHECK_WHEELHOUSE)
	$(PYTHON) -m venv .venv
	$(PIP_INSTALL) --editable '.[transformers,finetune]'
	touch $@

.venv/installed-test: .venv/installed
	$(CHECK_WHEELHOUSE)
	$(PIP_INSTALL) --editable '.[transformers,finetune,test]'
	touch $@
