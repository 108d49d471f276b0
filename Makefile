.PHONY: app test

app: .venv/.installed
	.venv/bin/lm2 serve

test: .venv/.installed
	.venv/bin/python -m pytest -q

# Made again whenever what it installs has changed.
.venv/.installed: requirements.txt pyproject.toml
	python3 -m venv .venv
	.venv/bin/python -m pip install -q -r requirements.txt
	touch $@
