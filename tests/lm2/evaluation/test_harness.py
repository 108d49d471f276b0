"""Laws of lm2.evaluation.harness: the harness sees the numbers of lm2.runs.likelihood and the texts of lm2.runs.runner.
Skipped where it is not installed."""

import importlib.util
import json
import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

from lm2.model.config import LM2Config
from lm2.runs.generation import generate
from lm2.runs.likelihood import log_likelihoods, perplexity
from lm2.weights.checkpoint import Checkpoint, CheckpointError, load, save

ROOT = Path(__file__).parents[3]
INSTALLED = importlib.util.find_spec("lm_eval") is not None
needs_harness = pytest.mark.skipif(not INSTALLED, reason="lm-eval is not installed: pip install -e .[harness]")

CONTEXT = "Mary moved to the garden. John went to the office. Where is"


@pytest.fixture
def saved(gated: Checkpoint, tmp_path: Path) -> Path:
    save(tmp_path / "toy", gated.model, gated.tokenizer, "# Toy")
    return tmp_path / "toy"


def instances(kind: str, *arguments: tuple) -> list:
    from lm_eval.api.instance import Instance

    return [Instance(request_type=kind, doc={}, arguments=one, idx=at) for at, one in enumerate(arguments)]


@needs_harness
def test_importing_our_packages_does_not_import_the_harness() -> None:
    code = (
        "import sys, lm2, lm2.runs.runner, lm2.runs.likelihood, lm2.tasks.mmlu, app.cli.main; sys.exit('lm_eval' in"
        " sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


@pytest.mark.skipif(INSTALLED, reason="lm-eval is installed")
def test_without_the_harness_one_sentence_says_what_to_install() -> None:
    with pytest.raises(ImportError, match="the extra `harness` of this package installs"):
        importlib.import_module("lm2.evaluation.harness")


@pytest.mark.parametrize(
    ("factor", "said"),
    [(float("nan"), "blocks.0.mlp.out.weight holds"), (1e36, "the model computes NaN or infinity: first at ")],
)
@pytest.mark.parametrize("asked", ["loglikelihood", "loglikelihood_rolling", "generate_until"])
def test_numbers_that_are_none_end_the_harness_with_one_line_and_no_metric(
    asked: str, factor: float, said: str, build: Callable[..., Checkpoint], gated_config: LM2Config, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    own, known = build(gated_config, 41), {}
    with torch.no_grad():
        own.model.blocks[0].mlp.out.weight.mul_(factor)
    save(tmp_path / "bad", own.model, own.tokenizer, "# Bad")
    arguments = {
        "loglikelihood": (CONTEXT, " Mary"),
        "loglikelihood_rolling": (CONTEXT,),
        "generate_until": (CONTEXT, {"until": []}),
    }[asked]

    def evaluate() -> None:
        getattr(known["lm2"](str(tmp_path / "bad"), device="cpu"), asked)([SimpleNamespace(args=arguments)])
        print("acc 0.25")

    stand_ins = {
        "lm_eval": {}, "lm_eval.__main__": {"cli_evaluate": evaluate}, "lm_eval.api": {},
        "lm_eval.api.instance": {"Instance": object},
        "lm_eval.api.model": {"LM": object},
        "lm_eval.api.registry": {"register_model": lambda name: lambda made: known.setdefault(name, made)},
    }  # fmt: skip
    for name, content in stand_ins.items():
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
        vars(sys.modules[name]).update(content)
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("lm2.evaluation.harness", run_name="__main__")
    told = capsys.readouterr()
    assert ended.value.code == 2 and not told.out
    assert (
        said in told.err.splitlines()[-1]
        and told.err.count("lm2.evaluation.harness: ") == 1
        and "Traceback" not in told.err
    )


@needs_harness
def test_the_harness_knows_our_model_and_gives_it_its_arguments(saved: Path) -> None:
    from lm_eval.api.registry import get_model

    import lm2.evaluation.harness

    assert get_model("lm2") is lm2.evaluation.harness.HarnessModel
    arguments = {"checkpoint": str(saved), "segment_length": 5}
    made = get_model("lm2").create_from_arg_obj(arguments, {"batch_size": 1, "max_batch_size": None, "device": "cpu"})
    assert (made.checkpoint.name, made.segment_length, made.checkpoint.device) == (str(saved), 5, "cpu")
    assert get_model("lm2").create_from_arg_obj(arguments, {"device": "cuda:0"}).checkpoint.device in (
        "cuda",
        "mps",
        "cpu",
    )
    with pytest.raises(CheckpointError, match="'nobody' is neither"):
        get_model("lm2").create_from_arg_string("checkpoint=nobody")


@needs_harness
def test_log_likelihoods_come_in_the_order_of_the_requests(saved: Path) -> None:
    from lm2.evaluation.harness import HarnessModel

    model, checkpoint = HarnessModel(str(saved), device="cpu"), load(saved, "cpu")
    pairs = [(CONTEXT, " Mary"), (CONTEXT, " John"), ("Where is", " Mary?"), (CONTEXT, " Sandra"), ("", "Mary moved")]
    found = model.loglikelihood(instances("loglikelihood", *pairs))
    for (log_probability, greedy), wanted in zip(found, log_likelihoods(checkpoint, pairs), strict=True):
        assert log_probability == pytest.approx(wanted.log_probability, abs=1e-5)
        assert greedy is wanted.greedy
    rolling = model.loglikelihood_rolling(instances("loglikelihood_rolling", (CONTEXT,), ("Mary moved",)))
    wanted = [perplexity(checkpoint, text) for text in (CONTEXT, "Mary moved")]
    assert rolling == pytest.approx([-one.nats_per_token * one.tokens for one in wanted])


@needs_harness
def test_writing_stops_before_the_first_string_that_ends_it(saved: Path) -> None:
    from lm2.evaluation.harness import HarnessModel

    model, checkpoint = HarnessModel(str(saved), device="cpu"), load(saved, "cpu")
    whole = generate(checkpoint, CONTEXT, max_tokens=12).text
    later, sooner = whole[len(whole) // 2 :][:3], whole[2:5]
    settings = [
        {"until": [], "max_gen_toks": 12},
        {"until": [later, sooner], "max_gen_toks": 12},
        {"until": sooner, "max_new_tokens": 12, "do_sample": False, "temperature": 0.7, "top_p": 0.9},
        {"max_gen_toks": 12, "temperature": 0.0},
    ]
    found = model.generate_until(instances("generate_until", *((CONTEXT, setting) for setting in settings)))
    cut = whole[: min(whole.index(sooner), whole.index(later))]
    assert found == [whole, cut, whole[: whole.index(sooner)], whole]
    sampled = model.generate_until(
        instances("generate_until", (CONTEXT, {"max_gen_toks": 3, "do_sample": True, "temperature": 2.0}))
    )
    assert isinstance(sampled[0], str)
    with pytest.raises(ValueError, match="sampling knows a temperature alone, not top_p"):
        model.generate_until(instances("generate_until", (CONTEXT, {"do_sample": True, "top_p": 0.9})))


TASKS = {
    "toy_choice": (
        """
output_type: multiple_choice
doc_to_text: "{{story}} {{question}}"
doc_to_choice: [bathroom, bedroom, garden, hallway, kitchen, office]
doc_to_target: answer
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
"""
    ),
    "toy_words": (
        """
output_type: generate_until
doc_to_text: "{{story}} {{question}}"
doc_to_target: " {{answer}}"
generation_kwargs: {until: ["."], max_gen_toks: 1, do_sample: false}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
"""
    ),
    "toy_rolling": (
        """
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{story}}"
metric_list: [{metric: bits_per_byte}]
"""
    ),
}


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    """Three tasks over one file of four stories that the bundled model can answer."""
    told = [("Mary", "garden"), ("John", "office"), ("Sandra", "kitchen"), ("Daniel", "hallway")]
    rows = [
        {
            "story": f"{who} moved to the {place}. {other} went to the {elsewhere}.",
            "question": f"Where is {who}?",
            "answer": place,
        }
        for (who, place), (other, elsewhere) in zip(told, told[1:] + told[:1])
    ]
    folder = tmp_path / "tasks"
    folder.mkdir()
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, body in TASKS.items():
        head = (
            f"task: {name}\ndataset_path: json\ndataset_kwargs: {{data_files: {{test:"
            f" {folder / 'rows.jsonl'}}}}}\ntest_split: test\n"
        )
        (folder / f"{name}.yaml").write_text(head + body.lstrip())
    return folder


@needs_harness
def test_the_command_evaluates_tasks_of_every_kind_without_a_network(tasks: Path, tmp_path: Path) -> None:
    order = [sys.executable, "-m", "lm2.evaluation.harness", "--model", "lm2", "--model_args", "checkpoint=babi-lm2"]
    order += ["--tasks", ",".join(TASKS), "--include_path", str(tasks), "--output_path", str(tmp_path / "out")]
    offline = {"HF_DATASETS_OFFLINE": "1", "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")}
    environment = {**os.environ, **offline, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(order, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    (file,) = (tmp_path / "out").rglob("results*.json")
    results = json.loads(file.read_text())["results"]
    assert results["toy_choice"]["acc,none"] == results["toy_words"]["exact_match,none"] == 1.0

    checkpoint = load("babi-lm2")
    stories = [json.loads(row)["story"] for row in (tasks / "rows.jsonl").read_text().splitlines()]
    read = [perplexity(checkpoint, story) for story in stories]
    bits = sum(one.bits_per_byte * len(story.encode()) for one, story in zip(read, stories)) / sum(
        len(story.encode()) for story in stories
    )
    assert results["toy_rolling"]["bits_per_byte,none"] == pytest.approx(bits, abs=1e-4)
