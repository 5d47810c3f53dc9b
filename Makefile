# make qg    makes .venv, installs, runs the main case;   make test   makes .venv, installs, runs the tests
# make test-slow   runs the few that take long: notebooks, the site, trainings that are stopped, several processes
PYTHON ?= python3.11
VENV := .venv
RUN := $(VENV)/bin/python
export OMP_NUM_THREADS ?= 1

.PHONY: qg test test-slow lint docs wheel bench bench-assimilation notebooks clean
qg: $(VENV)/installed
	$(RUN) cases/qg_two_layer.py $(ARGS)

test: $(VENV)/installed
	$(RUN) -m pytest -q -n 2 --dist loadfile -m "not slow" $(ARGS)

test-slow: $(VENV)/installed
	$(RUN) -m pytest -q -n 2 --dist load -m slow $(ARGS)

lint: $(VENV)/installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/pyright

# the site, docs/_build/html/index.html; warnings are errors
docs: $(VENV)/docs
	$(RUN) -m sphinx -q -W --keep-going -b html docs docs/_build/html

# a wheel, installed without extras in an environment of its own, and the README's Python with nothing else
wheel: $(VENV)/installed
	rm -rf build dist
	$(RUN) -m pip wheel -q --no-deps -w dist .
	$(PYTHON) -m venv dist/venv
	dist/venv/bin/pip install -q -c constraints.txt dist/*.whl
	dist/venv/bin/python tests/pages.py README.md

bench: $(VENV)/installed bench/.venv/installed
	$(RUN) bench/qg_speed.py $(SPEED)
	$(RUN) bench/qg_climate.py $(CLIMATE)

bench-assimilation: $(VENV)/installed bench/.dapper/installed
	$(RUN) bench/assimilation.py $(ASSIMILATION)

notebooks: $(VENV)/installed
	$(RUN) -m nbconvert --to notebook --execute --inplace notebooks/*.ipynb

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install -q -c constraints.txt -e ".[fast,scale,test,notebooks]"
	touch $@

$(VENV)/docs: $(VENV)/installed
	$(RUN) -m pip install -q -c constraints.txt -e ".[docs]"
	touch $@

# pyqg 0.7.2 in an environment of its own, with pyfftw before it is compiled, or it uses numpy's transforms; needs FFTW's headers (Debian: libfftw3-dev)
bench/.venv/installed: bench/requirements.txt bench/constraints.txt
	$(PYTHON) -m venv bench/.venv
	bench/.venv/bin/pip install -q -c bench/constraints.txt setuptools setuptools_scm wheel cython numpy pyfftw
	bench/.venv/bin/pip install -q --no-cache-dir -c bench/constraints.txt --no-build-isolation -r bench/requirements.txt
	touch $@

# DAPPER in another one, with sciml as the model that it is given
bench/.dapper/installed: bench/requirements-dapper.txt constraints.txt
	$(PYTHON) -m venv bench/.dapper
	bench/.dapper/bin/pip install -q -c constraints.txt -r bench/requirements-dapper.txt -e ".[fast]"
	touch $@

# neuraloperator in another one, for the rows of its FNO and U-NO
bench/.neuralop/installed: bench/requirements-neuraloperator.txt constraints.txt
	$(PYTHON) -m venv bench/.neuralop
	bench/.neuralop/bin/pip install -q -c constraints.txt -r bench/requirements-neuraloperator.txt -e .
	touch $@

clean:
	rm -rf $(VENV) bench/.venv bench/.dapper bench/.neuralop runs build dist docs/_build docs/generated docs/tutorials
