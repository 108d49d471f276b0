.PHONY: app test lint wheel-test benchmark figures screens docs

app: .venv/.installed
	.venv/bin/lm2 serve

# Side by side, one process more than a small machine has cores, since browser tests wait; one that has none left takes
# tests of another.
test: .venv/.installed
	.venv/bin/python -m pytest -q -n 3 --dist worksteal

# Style, formatting and types; their rules are in pyproject.toml.
lint: .venv/.installed
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/basedpyright

# The wheel holds all that it needs: built, installed and used away from this folder.
wheel-test: .venv/.installed
	OMP_NUM_THREADS=1 .venv/bin/python tests/wheel/check.py

# The table in docs from the bundled models: bAbI's held-out stories, hidden in held-out books of the folder LM2_DATA_DIR.
# Long texts get few samples, or two cores would need hours; the intervals say what that costs.
benchmark: .venv/.installed
	OMP_NUM_THREADS=1 .venv/bin/lm2 eval --models babi-lm2,babi-rmt,babi-llama --lengths 0k,1k,2k,4k,8k,16k,32k,64k \
		--samples 100,40,20,10,4,2,1,1 --out lm2/benchmark --report docs/benchmark.md

# The figures and tables of README and documentation from the bundled models, by their specs in docs/figures.
figures: .venv/.installed
	OMP_NUM_THREADS=1 .venv/bin/python docs/figures.py

# The tour's pictures of every screen, taken by the browser test.
screens: .venv/.installed
	OMP_NUM_THREADS=1 LM2_TOUR=docs/screens .venv/bin/python -m pytest -q tests/browser -k '(photographed and light) or put_into_a_figure or zoomed'

# The documentation as pages in site/; a broken link or a missing page fails.
docs: .venv/.installed
	.venv/bin/mkdocs build --strict

# Made again whenever what it installs has changed. Python compiles a module when it is first imported, and most never are.
.venv/.installed: requirements.txt pyproject.toml
	python3 -m venv .venv
	.venv/bin/python -m pip install -q --no-compile -r requirements.txt
	touch $@
