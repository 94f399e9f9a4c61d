# Every target makes the virtual environment it needs, with the versions pinned in constraints.txt.

PYTHON ?= python3
VENV ?= .venv
# where PyTorch's CPU builds come from, if your usual index has only CUDA builds:
#   make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=
# where the neighbours live: nnU-Net and ONNX, with versions of their own
NEIGHBOURS ?= .venv-neighbours
# where the study of fine-tuning schedules is kept
SCHEDULES ?= schedules-study
# where the comparison of networks is kept
NETWORKS ?= networks-study
# where the study of pretext methods is kept
METHODS_STUDY ?= methods-study
# where the comparison of frozen encoders is kept
FROZEN ?= frozen-study
# where the comparisons with nnU-Net are kept, and the environment that they run in
NNUNET_BENCH ?= nnunet-bench
NNUNET ?= .venv-nnunet
# processes that run tests, each in one thread
TEST_WORKERS ?= 2
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: help demo test test-neighbours check format bench method-costs bench-nnunet schedules networks methods \
	frozen pictures clean
help:
	@echo "make demo    synthetic nuclei: pretrain, fine-tune, compare, report (about 10 minutes, the first time 12)"
	@echo "make test    all tests (under 10 minutes)"
	@echo "make test-neighbours  those that need nnU-Net or ONNX, which it installs into $(NEIGHBOURS)"
	@echo "make check   format, lint, types (about 20 seconds)"
	@echo "make format  mends format and lint where it can"
	@echo "make bench   measures the parts of a training on this machine, beside other tools"
	@echo "make method-costs   measures a step of each pretext method beside a supervised one (some minutes)"
	@echo "make bench-nnunet FEWVOX_DATASETS=FOLDER  accuracy beside nnU-Net's, in $(NNUNET) (four to five hours)"
	@echo "make schedules FEWVOX_DATASETS=FOLDER  compares the schedules of fine-tuning on hippocampi (two hours)"
	@echo "make networks FEWVOX_DATASETS=FOLDER   compares the networks on hippocampi (an hour)"
	@echo "make methods FEWVOX_DATASETS=FOLDER    what every pretext method's features are worth (six hours)"
	@echo "make frozen FEWVOX_DATASETS=FOLDER     what frozen encoders are worth, random and pretrained (two hours)"
	@echo "make pictures FEWVOX_DATASETS=FOLDER   draws those of docs/augmentation.md and docs/methods.md anew"
	@echo "make clean   removes the environment and caches"
	@echo "The first of them also installs into $(VENV): about 3 minutes and 2 GB, more with CUDA."

# the stamp is written last, so that an interrupted installation is taken up again
$(INSTALLED): pyproject.toml setup.py constraints.txt
	@echo "== installing into $(VENV): once, about 3 minutes and 2 GB (more where PyTorch comes with CUDA)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt \
		$(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) -e ".[dev]"
	@touch $@

demo: $(INSTALLED)
	@echo "== demo: about 10 minutes on two cores"
	$(BIN)/fewvox demo

test: $(INSTALLED)
	@echo "== tests: under 10 minutes on two cores"
	OMP_NUM_THREADS=1 $(BIN)/pytest -q --durations=10 -n $(TEST_WORKERS) --dist loadfile

$(NEIGHBOURS)/.installed: pyproject.toml setup.py constraints.txt
	@echo "== installing into $(NEIGHBOURS): once, about 5 minutes and 3 GB (more where PyTorch comes with CUDA)"
	$(PYTHON) -m venv $(NEIGHBOURS)
	$(NEIGHBOURS)/bin/python -m pip install --disable-pip-version-check -c constraints.txt \
		$(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) -e ".[dev,neighbours]"
	@touch $@

# -rs: a test that was skipped here held nothing
test-neighbours: $(NEIGHBOURS)/.installed
	@echo "== tests against nnU-Net and onnxruntime: about 3 minutes on two cores"
	OMP_NUM_THREADS=1 $(NEIGHBOURS)/bin/pytest -q -rs tests/seg/export tests/experiments/bench/test_nnunet_runs.py

check: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath $(BIN)/python

format: $(INSTALLED)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(INSTALLED)
	$(BIN)/fewvox bench all

# what `fewvox methods` shows; METHODS="--method mae --method dino" measures these alone
METHODS ?=
method-costs: $(INSTALLED)
	$(BIN)/python -m fewvox.experiments.bench.methods $(METHODS)

# --no-deps: nnU-Net's networks ask for timm and that for torchvision, which plain U-Nets do not use; what they
# do use comes after it
$(NNUNET)/.installed: pyproject.toml setup.py constraints.txt
	@echo "== installing into $(NNUNET): once, about 4 minutes and 2 GB (more where PyTorch comes with CUDA)"
	$(PYTHON) -m venv $(NNUNET)
	$(NNUNET)/bin/python -m pip install --disable-pip-version-check -c constraints.txt \
		$(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) -e . $(USED_BY_NNUNET)
	$(NNUNET)/bin/python -m pip install --disable-pip-version-check --no-deps $(NNUNET_ITSELF)
	@touch $@

NNUNET_ITSELF := "nnunetv2==2.8.*" "dynamic-network-architectures==0.4.*" "acvl-utils==0.2.*" \
	"batchgenerators==0.25.*" "batchgeneratorsv2==0.3.*"
USED_BY_NNUNET := tqdm pandas scikit-image seaborn connected-components-3d

# each of its lines is taken up where it was left; see experiments/configs/nnunet_hippocampus.yaml
bench-nnunet: bench-nnunet-hippocampus bench-nnunet-nuclei
	$(NNUNET)/bin/python -m fewvox.experiments.bench.nnunet_table $(NNUNET_BENCH)/hippocampus $(NNUNET_BENCH)/nuclei

bench-nnunet-hippocampus: DATA := hippocampus
bench-nnunet-nuclei: DATA := mouse_embryo_nuclei
bench-nnunet-%: $(NNUNET)/.installed
	$(NNUNET)/bin/python -m fewvox.experiments.bench.nnunet_runs nnunet_$* \
		--set data=$(FEWVOX_DATASETS)/$(DATA) --out $(NNUNET_BENCH)/$*
	$(NNUNET)/bin/fewvox compare nnunet_$* --set data=$(FEWVOX_DATASETS)/$(DATA) --out $(NNUNET_BENCH)/$*

# taken up where it was left; see experiments/configs/schedules.yaml
STUDY := $(SCHEDULES)/pretrained
schedules: $(INSTALLED)
	$(BIN)/fewvox prepare $(FEWVOX_DATASETS)/hippocampus --out $(SCHEDULES)/store --budget cpu \
		--subjects experiments/configs/hippocampus_subjects.csv
	$(BIN)/fewvox pretrain mae --store $(SCHEDULES)/store --out $(STUDY) --test 40 --set steps=2000 \
		--set width=8 --set "patch=[32,40,32]" --set batch=2 $(if $(wildcard $(STUDY)/config.yaml),--resume)
	$(BIN)/fewvox compare schedules --set data=$(FEWVOX_DATASETS)/hippocampus --set pretrained=$(STUDY) \
		--out $(SCHEDULES)/comparison

# taken up where it was left; see experiments/configs/networks.yaml
networks: $(INSTALLED)
	$(BIN)/fewvox compare networks --set data=$(FEWVOX_DATASETS)/hippocampus --out $(NETWORKS)
	$(BIN)/python -m fewvox.experiments.bench.networks_table $(NETWORKS)

# taken up where it was left; see experiments/configs/methods
methods: $(INSTALLED)
	$(BIN)/python -m fewvox.experiments.methods_study hippocampus --set data=$(FEWVOX_DATASETS)/hippocampus \
		--out $(METHODS_STUDY)/hippocampus
	$(BIN)/python -m fewvox.experiments.methods_study nuclei --set data=$(FEWVOX_DATASETS)/mouse_embryo_nuclei \
		--out $(METHODS_STUDY)/nuclei

# taken up where it was left; see experiments/configs/frozen_hippocampus.yaml. A method that make methods has
# pretrained already is not pretrained again
frozen: frozen-hippocampus frozen-nuclei
frozen-hippocampus: DATA := hippocampus
frozen-nuclei: DATA := mouse_embryo_nuclei
frozen-%: $(INSTALLED)
	$(BIN)/python -m fewvox.experiments.methods_study $* --set data=$(FEWVOX_DATASETS)/$(DATA) \
		--set "methods=[triplet,dino,mae]" --out $(METHODS_STUDY)/$*
	$(BIN)/fewvox compare frozen_$* --set data=$(FEWVOX_DATASETS)/$(DATA) --out $(FROZEN)/$* \
		$(foreach arm,triplet dino mae,--set arms.$(arm)-frozen.pretrained=$(METHODS_STUDY)/$*/pretraining/$(arm))

# for docs/augmentation.md, which tells where the MRI is from, and docs/methods.md
pictures: $(INSTALLED)
	$(BIN)/python -c "from fewvox.experiments.gallery import write_gallery; write_gallery( \
		'docs/pictures', '$(FEWVOX_DATASETS)/hippocampus/images/hippocampus_004.nii.gz')"
	$(BIN)/python -c "from pathlib import Path; from fewvox.experiments.methods_gallery import \
		write_method_pictures; write_method_pictures(Path('docs/pictures'))"

clean:
	rm -rf $(VENV) $(NEIGHBOURS) $(NNUNET) build dist *.egg-info .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
