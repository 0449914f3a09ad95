# Every command stands on `make setup`, which makes .venv and does nothing when that is up to date.
PYTHON := .venv/bin/python
PERSEID := .venv/bin/perseid
UV := $(shell command -v uv || echo .venv-tools/bin/uv)

.PHONY: help setup demo demo-meteor test test-kind test-argo test-queue test-fast lint format manifests chart chart-goldens control-plane crash efficacy \
  crash-operator bench-synthesis bench-judging bench-operator check-pack images lock lock-images clean docs

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 18

setup: ## the environment in .venv, with .venv/bin/perseid
	@scripts/setup.sh

demo: setup ## make the embedded model better at short Python problems
	$(PERSEID) run examples/quickstart.yaml

demo-meteor: setup ## make the embedded model learn a domain: from a mentor, from its own judgement, from itself
	$(PERSEID) run examples/meteor-quickstart.yaml

# Each process has an API server and engines of its own, 4 GiB at most: more processes are for larger machines.
TEST_PROCESSES := 2

test: setup control-plane ## all tests, the fast ones first
	$(PYTHON) -m pytest tests --ignore=tests/e2e --numprocesses $(TEST_PROCESSES)

test-kind: setup ## tests in a kind cluster: images, chart and stages in pods; skipped where kind or an image is missing
	$(PYTHON) -m pytest tests/e2e --ignore=tests/e2e/argo --ignore=tests/e2e/queue

test-argo: setup ## what Argo says of failed pods and makes of parameters: the real one, built once, in a kind cluster
	tests/e2e/argo/build
	$(PYTHON) -m pytest tests/e2e/argo

test-queue: setup ## runs in a queue of Kueue, and a TrainJob of Kubeflow Trainer: the real ones, built once, in a kind cluster
	tests/e2e/queue/build
	$(PYTHON) -m pytest tests/e2e/queue

test-fast: setup ## the tests that start no engine and train no model
	$(PYTHON) -m pytest tests --ignore=tests/e2e -m "not slow"

lint: setup ## style, types and the direction of imports
	$(PYTHON) -m ruff check --no-cache .  # its cache does not notice that a module has moved
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy
	.venv/bin/lint-imports
	$(PYTHON) -m perseid_operator.crd --check manifests/base/crd.yaml
	$(PYTHON) scripts/chart.py --check

format: setup ## put the style right
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

manifests: setup ## write what is generated in manifests/ and charts/: the CRD, copies, the chart's README
	$(PYTHON) -m perseid_operator.crd > manifests/base/crd.yaml.new && mv manifests/base/crd.yaml.new manifests/base/crd.yaml
	$(PYTHON) scripts/chart.py

chart: setup control-plane ## all checks of the Helm chart, with Helm and a real API server
	$(PYTHON) -m pytest tests/chart

chart-goldens: setup ## write anew what tests/chart/golden expects; read the difference before you commit it
	$(PYTHON) tests/chart/chart_goldens.py

# Without Go, envtest's programs or a cluster the tests that need one are skipped, loudly: so this may fail.
control-plane: setup ## a real kube-apiserver for the tests, built from its Go modules where no other is named
	-$(PYTHON) tests/cluster/control_plane.py build

images: ## perseid-operator and perseid-stage, with docker or podman; what can be set says scripts/images.sh
	scripts/images.sh

crash: setup ## kill a run at ten random moments, go on each time, compare with an undisturbed one
	$(PYTHON) benchmarks/crash.py --method sra-mcts
	$(PYTHON) benchmarks/crash.py --method meteor

crash-operator: setup ## kill the operator a thousand times on a real API server, and count pipeline runs
	$(PYTHON) benchmarks/operator_crash.py

efficacy: setup ## what a run teaches the embedded model, over three seeds and beside the baselines; hours, in several sittings
	$(PYTHON) benchmarks/efficacy.py --directory runs/efficacy

bench-judging: setup ## what self-assessment teaches the embedded model about judging its own answers, over three seeds
	$(PYTHON) benchmarks/judging.py

bench-operator: setup ## the operator against a bare client on a real API server
	$(PYTHON) benchmarks/operator_speed.py

bench-synthesis: setup ## synthesis against one call at a time and against the engine's saturated batch
	$(PYTHON) benchmarks/synthesis.py

docs: setup ## the documentation as a site, build/docs/index.html; a warning is an error
	$(PYTHON) -m sphinx --builder html --fail-on-warning --keep-going --quiet --doctree-dir build/doctrees docs build/docs
	@echo "file://$(CURDIR)/build/docs/index.html"

check-pack: setup ## every reference solution passes, every wrong one fails
	$(PYTHON) scripts/check_pack.py

# --universal and one Python: a lock holds for every machine that images and tests run on. The images' locks have no
# development tools, and the operator's none of what only stages, the command line or KFP's uploads to Google import.
NOT_IN_OPERATOR := numpy rapidfuzz regex kubernetes-asyncio typer shellingham annotated-doc rich pygments markdown-it-py \
  mdurl google-cloud-storage google-cloud-core google-api-core google-crc32c google-resumable-media proto-plus
LOCK := $(UV) pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
  --no-annotate --quiet

# What vLLM for GPUs pins otherwise than vLLM for CPUs. Lines with PyPy in their marker would have uv resolve for PyPy, which
# no vLLM for GPUs knows.
CUDA_OWN := apache-tvm-ffi

lock: ## resolve pyproject.toml's ranges into requirements/cpu.txt, and the images' locks
	$(LOCK) pyproject.toml --extra cpu --extra dev --upgrade --output-file requirements/cpu.txt
	$(LOCK) requirements/build.in --upgrade --output-file requirements/build.txt
	$(MAKE) lock-images CUDA_UPGRADE=--upgrade  # of what requirements/cpu.txt has not

lock-images: ## the locks of the images, in the versions of requirements/cpu.txt where that has the package
	$(LOCK) pyproject.toml --extra cpu --constraint requirements/cpu.txt --output-file requirements/stage-cpu.txt
	sed -n 's/^\([a-z0-9].*==.*\) \\$$/\1/p' requirements/cpu.txt | grep -vE '^($(CUDA_OWN))==|PyPy' | \
	  $(LOCK) pyproject.toml --extra vllm --constraint /dev/stdin $(CUDA_UPGRADE) --output-file requirements/stage-cuda.txt
	$(LOCK) pyproject.toml --extra operator --constraint requirements/cpu.txt --output-file requirements/operator.txt \
	  $(NOT_IN_OPERATOR:%=--no-emit-package %)

clean: ## remove what the commands above made, runs included
	rm -rf .venv .venv-tools runs dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
