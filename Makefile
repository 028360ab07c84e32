# The few commands of this repository; `make` alone lists them. Needs make and Python 3.11 to 3.13, nothing else:
# whatever a command uses, it first puts into .venv itself.
#
#   PYTHON=…   the interpreter to make .venv with (otherwise the newest that fits is found)
#   ARGS=…     passed on by test, demo and bench: make test ARGS='tests/database -k claim'
#   WORKERS=3  processes that tests run in: they wait for most of the time
#   NAMESPACE=siorg OPERATOR_IMAGE=… JOB_IMAGE=…   of make manifests

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PYTHON ?=
ARGS ?=
WORKERS ?= 3
NAMESPACE ?= siorg
OPERATOR_IMAGE ?= registry.example/siorg-operator:0.1.0
JOB_IMAGE ?= registry.example/siorg-job:0.1.0

SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SUFFIXES:
.PHONY: help venv tools demo test test-fast soak soak-captured soak-faults soak-operator mutants test-cluster e2e kind-test check format crd reference manifests chart bench bench-operator constraints dist clean

# A person's own Python settings must not reach into .venv.
unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV
export PIP_USER := 0
export PIP_NO_INPUT := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_ROOT_USER_ACTION := ignore
# Containers and CI users may have no home; pip and other tools then keep their caches here.
ifneq ($(shell test -n "$$HOME" && test -d "$$HOME" && test -w "$$HOME" && echo writable),writable)
export PIP_CACHE_DIR := $(CURDIR)/$(VENV)/.cache/pip
export XDG_CACHE_HOME := $(CURDIR)/$(VENV)/.cache
endif

# Python before 3.13 reads in the locale's encoding where its packages are, and dies where that path has an accent and the locale is
# C, or none that this machine has (LANG=pt_BR.UTF-8 over ssh); initdb refuses the latter.
ifneq ($(shell locale charmap 2>/dev/null),UTF-8)
export LC_ALL := C.UTF-8
endif

# Sets $$python to the first interpreter that fits. Each is really run: a version manager may leave names on the PATH
# behind which there is nothing.
define find_python
python=; without_venv=; \
for candidate in $(if $(PYTHON),"$(PYTHON)",python3.13 python3.12 python3.11 python3); do \
  "$$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' >/dev/null 2>&1 || continue; \
  if "$$candidate" -c 'import ensurepip, venv' >/dev/null 2>&1; then python=$$candidate; break; fi; \
  without_venv=$${without_venv:-$$candidate}; \
done; \
if [ -z "$$python" ]; then \
  if [ -n "$$without_venv" ]; then \
    version=$$("$$without_venv" -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
    echo "$$without_venv has no venv module. On Debian and Ubuntu: apt install python$$version-venv" >&2; \
  elif [ -n "$(PYTHON)" ]; then \
    echo "PYTHON=$(PYTHON) is no Python 3.11 to 3.13 that runs." >&2; \
  else \
    echo "Python 3.11 to 3.13 is needed, and none was found. On Debian and Ubuntu: apt install python3 python3-venv;" >&2; \
    echo "or name one: make PYTHON=/path/to/python3.12 …" >&2; \
  fi; \
  exit 1; \
fi
endef

help: ## list the commands
	@echo "make <command>"; echo
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/  \1@\2/p' Makefile | awk -F@ '{ printf "%-14s %s\n", $$1, $$2 }'
	@echo; sed -n 's/^#   \([A-Z].*\)/  \1/p' Makefile

venv: $(INSTALLED) ## make the virtual environment .venv, with everything in it

$(INSTALLED): pyproject.toml constraints.txt
	@$(find_python); \
	if ! $(BIN)/python -c 'import pip' >/dev/null 2>&1; then \
	  echo "Making $(VENV) with $$("$$python" --version)"; \
	  "$$python" -m venv --clear $(VENV); \
	fi
	@echo "Installing into $(VENV) (the first time this takes a minute)"
	@$(BIN)/python -m pip install --quiet --progress-bar off --constraint constraints.txt --editable '.[dev]'
	@touch $@

tools: $(INSTALLED) ## programs that some tests want: kustomize and helm (built with Go), promtool and pgbouncer (Debian)
	@tests/get-tools

demo: $(INSTALLED) ## everything in small, to see it work: database, SIORG, some job processes, live progress
	@PYTHONPATH=tests $(BIN)/python benchmarks/demo.py $(ARGS)

test: $(INSTALLED) ## run the tests
	@$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

test-fast: $(INSTALLED) ## those that need neither a process nor a database, at each save
	@$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal tests/unit $(ARGS)

soak-captured: $(INSTALLED) ## follow the captured dates, edited and decided in every way, there and back (ARGS='--seeds 1-20')
	@PYTHONPATH=tests $(BIN)/python -m support.captured $(ARGS)

# With ARGS, which are the machine's, only that.
soak: $(INSTALLED) ## run in long: the convergence machine (ARGS='--seeds 17' runs one program again), then soak-operator and soak-faults
	@PYTHONPATH=tests $(BIN)/python -m support.convergence $(ARGS)
	@$(if $(ARGS),:,$(MAKE) --no-print-directory soak-operator soak-faults)

soak-faults: $(INSTALLED) ## 500 items and 60 s for each fault that is no item's; a ledger of 20,000 items (ARGS='-k ledger')
	@SOAK=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -rP tests/system/chaos/test_ledger.py tests/system/chaos/test_burns.py $(ARGS)

soak-operator: $(INSTALLED) ## the operator in 500 simulated worlds of 5 h, in which everything goes wrong (ARGS='--seeds 17 --story')
	@PYTHONPATH=tests $(BIN)/python -m support.simulation $(ARGS)

mutants: $(INSTALLED) ## change the product in 100 places, one at a time: do its tests notice? (ARGS='--count 20 --seed 2')
	@PYTHONPATH=tests $(BIN)/python -m support.mutants $(ARGS)

# The component tests that `make test` runs on the small API server, on a real one. They make namespaces of their own and
# the CRD. Real pods come with `make e2e`.
test-cluster: $(INSTALLED) ## run the operator's tests against the API server of KUBECONFIG
	@test -n "$$KUBECONFIG" || { echo "KUBECONFIG is not set: it has to name the cluster to test on" >&2; exit 2; }
	@SIORG_TEST_CLUSTER=1 $(BIN)/python -m pytest $(if $(findstring tests/,$(ARGS)),,tests/kube_double tests/cluster) $(ARGS)

# E2E_CONTEXT has to name the current context of KUBECONFIG: nobody's cluster is touched by mistake. The other variables are in
# tests/support/target.py.
e2e: $(INSTALLED) ## install everything on the cluster of KUBECONFIG, watch it work, remove it
	@test -n "$$E2E_CONTEXT" || { echo "E2E_CONTEXT is not set: it has to name the context that may be used (kubectl config current-context)" >&2; exit 2; }
	@$(BIN)/python -m pytest tests/e2e/test_system.py --exitfirst --verbose -p no:cacheprovider -p no:xdist --capture=no $(ARGS)

kind-test: ## the same on a kind cluster, made for it and deleted again; needs Docker, kind and kubectl
	@tests/e2e/kind-test

check: $(INSTALLED) ## look for what tests do not see: lint, format, types, who imports whom
	@$(BIN)/python -m ruff check .
	@$(BIN)/python -m ruff format --check .
	@$(BIN)/python -m mypy
	@$(BIN)/lint-imports
	@$(BIN)/yamllint --strict .
	@$(BIN)/shellcheck .ci/run core/image tests/e2e/kind-test tests/get-tools manifests/render
	@$(BIN)/hadolint job/Dockerfile simulator/Dockerfile operator/Dockerfile

crd: $(INSTALLED) ## write crds/ anew from the models
	@$(BIN)/siorg-operator crd >crds/siorgsyncworkers.yaml

reference: $(INSTALLED) ## write docs/reference.md anew from the models
	@$(BIN)/python docs/make_reference.py >docs/.reference.md && mv docs/.reference.md docs/reference.md

manifests: export NAMESPACE := $(NAMESPACE)
manifests: export OPERATOR_IMAGE := $(OPERATOR_IMAGE)
manifests: export JOB_IMAGE := $(JOB_IMAGE)
manifests: ## write dist/namespace.yaml, install.yaml, migrate.yaml and tools.yaml, with your namespace and images
	@mkdir -p dist
	@for file in namespace install migrate tools; do \
	  case $$file in install) folder=base ;; *) folder=$$file ;; esac; \
	  manifests/render $$folder >dist/.$$file.yaml && mv dist/.$$file.yaml dist/$$file.yaml || { rm -f dist/.$$file.yaml; exit 2; }; \
	done
	@echo "Written to dist/. Next: kubectl apply -f dist/namespace.yaml; kubectl apply --server-side -f dist/install.yaml;"
	@echo "then the Secrets, dist/migrate.yaml, manifests/siorgsyncworker.yaml (README.md)"

chart: $(INSTALLED) ## write the Helm chart: dist/chart and dist/siorg-sync-VERSION.tgz; needs helm and kustomize (make tools)
	@PATH="$$PATH:$(CURDIR)/$(BIN)"; \
	command -v helm >/dev/null || { echo "helm is not installed; \`make tools\` builds it where Go is" >&2; exit 2; }; \
	mkdir -p dist && $(BIN)/python chart/make_chart.py dist/chart && helm package dist/chart --destination dist

format: $(INSTALLED) ## put the code into the one form, and mend what can be mended by itself
	@$(BIN)/python -m ruff check --fix .
	@$(BIN)/python -m ruff format .

bench: $(INSTALLED) ## measure, beside other queues too (ARGS='--only queue', ARGS=--list, ARGS=--plot: docs/performance.md)
	@PYTHONPATH=tests $(BIN)/python benchmarks/bench.py $(ARGS)

bench-operator: $(INSTALLED) ## measure the operator: insert to Job, 1,000 resources at rest, fail-over, 10,000 finished Jobs
	@PYTHONPATH=tests $(BIN)/python benchmarks/operator_bench.py $(ARGS)

constraints: ## find out the newest versions that fit together, and write them to constraints.txt
	@$(find_python); \
	folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && \
	echo "Installing into an empty environment" && \
	"$$python" -m venv "$$folder/venv" && \
	"$$folder/venv/bin/python" -m pip install --quiet --progress-bar off '.[dev,bench]' && \
	{ \
	  echo "# What tests and benchmarks run with: name==version, no hashes, no addresses. \`make constraints\` makes it again."; \
	  "$$folder/venv/bin/python" -m pip list --format=freeze --exclude pip --exclude setuptools --exclude siorg-sync; \
	} >"$$folder/constraints.txt" && \
	cp "$$folder/constraints.txt" constraints.txt && \
	echo "constraints.txt: $$(grep -c '^[^#]' constraints.txt) packages"

dist: $(INSTALLED) ## build the wheel and the source distribution into dist/
	@$(BIN)/python -m pip install --quiet --progress-bar off --upgrade --target $(VENV)/.hatchling hatchling
	@PYTHONPATH=$(VENV)/.hatchling $(BIN)/python -m hatchling build -d dist

clean: ## remove everything that these commands have made
	rm -rf $(VENV) dist build .demo benchmarks/results .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find core operator job simulator tests benchmarks docs chart -name __pycache__ -type d -prune -exec rm -rf {} +
