"""Laws of the Questions screen and of the choice of a set: what is chosen is asked everywhere, a file's mistakes are
told by line, and any question opens in any screen."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from pages import finished, told
from streamlit.testing.v1 import AppTest
from tokenizers_of_others import FAMILIES

from app.server import sets
from lm2.text.tokens import Tokenizer
from lm2.weights.checkpoint import Checkpoint, save

CONTEXT = "John went to the garden. Mary went to the kitchen."


def row(**other: object) -> dict[str, object]:
    return {"context": CONTEXT, "question": "Where is John?", "answers": "garden", **other}


def upload(*rows: object, file: str = "mine.jsonl") -> str:
    """The name of an uploaded set."""
    return sets.uploaded().add(file, "\n".join(map(json.dumps, rows)).encode())


GOOD = (
    row(facts=["John went to the garden."], rivals=["kitchen", "office"], labels=[["mood", "glad", 0, 24]]),
    row(context=f"{CONTEXT} Bill moved.", question="Where is Mary?", answers=["kitchen", "the kitchen"]),
)


def _script(screen: str) -> None:
    from app.navigation import SCREENS
    from app.ui import sidebar, state

    state.begin_page()
    sidebar.render(asking=SCREENS[screen].asks)
    SCREENS[screen].render()
    state.publish()


def _page(screen: str, **link: str) -> AppTest:
    test = AppTest.from_function(_script, kwargs={"screen": screen}, default_timeout=60)
    for name, value in {"source": "simulated", "seed": "5", **link}.items():
        test.query_params[name] = value
    test.run()
    assert not test.exception
    return test


def _link(test: AppTest, name: str) -> str:
    value = test.query_params[name]
    return value if isinstance(value, str) else value[0]


@pytest.fixture(autouse=True)
def simulated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stories of the simulator, which are quick to have."""
    monkeypatch.delenv("LM2_DATA_DIR", raising=False)


@pytest.fixture
def toy(gated: Checkpoint, folder: Callable[[Checkpoint], str]) -> str:
    return folder(gated)


def test_a_set_is_shown_in_numbers_and_question_by_question(toy: str) -> None:
    test = _page("questions", checkpoint=toy, set=upload(*GOOD))
    numbers, items = (table.value for table in test.dataframe)
    values = dict(zip(*(numbers[name] for name in numbers)))
    assert (values["can be asked"], values["with facts"]) == ("2", "1")
    assert values["labels"] == "mood"
    assert list(items["question"]) == ["Where is John?", "Where is Mary?"]
    assert list(items["accepted answers"]) == ["garden", "kitchen / the kitchen"]
    assert list(items["facts"]) == [1, 0] and list(items["rivals"]) == [2, 0]
    assert "against kitchen, office" in told(test) and "mood = glad" in told(test)


def test_the_mistakes_of_a_file_are_told_by_line_and_nothing_asks_it(toy: str) -> None:
    name = upload(GOOD[0], row(answers=[]), GOOD[1], row(facts=["nowhere"]))
    test = _page("questions", checkpoint=toy, set=name)
    (mistakes,) = (table.value for table in test.dataframe)
    assert list(mistakes["line"]) == ["2", "4"] and "stands 0 times" in mistakes["mistake"][1]
    assert "mine.jsonl has 2 mistakes beside 2 questions that can be read" in told(test)
    test = _page("experiments", checkpoint=toy, set=name)
    assert "mine.jsonl:2" in told(test) and not any(button.label.startswith("Run") for button in test.button)


def test_questions_without_tokens_for_their_answer_are_named_with_the_reason(gated: Checkpoint, tmp_path: Path) -> None:
    save(tmp_path / "words", gated.model, Tokenizer(FAMILIES["wordpiece"]()), "")
    test = _page("questions", checkpoint=str(tmp_path / "words"), set=upload(*GOOD, row(answers="xylophone")))
    _, skipped, items = (table.value for table in test.dataframe)
    assert "question 3" in skipped["cannot be asked"][0] and list(items["can be asked"]) == ["yes", "yes", "no"]


@pytest.mark.parametrize("screen", ["run", "memory", "gates", "bank", "updates", "ablations", "patching"])
def test_a_question_opens_in_every_screen_of_one_text(screen: str, toy: str) -> None:
    test = _page("questions", checkpoint=toy, set=upload(*GOOD), item="1")
    test.button(key=f"open_{screen}").click().run()
    chosen = test.session_state["selection"]
    assert (chosen.text.source.value, chosen.text.item, chosen.donor.source.value) == ("question", 1, "question")
    test = _page(screen, checkpoint=toy, set=upload(*GOOD), source="question", item="1", donor_source="question")
    assert "question 1 of 2 questions of mine.jsonl" in told(test)
    assert not test.error


@pytest.mark.parametrize("screen", ["experiments", "sweeps", "slots"])
def test_every_screen_that_asks_many_questions_asks_the_chosen_set(screen: str, toy: str) -> None:
    name = upload(*GOOD)
    test = _page(screen, checkpoint=toy, set=name)
    assert f"2 questions in 2 groups of {name}" in told(test)
    assert any(button.label.startswith(("Run", "Read")) for button in test.button)


def test_a_set_that_is_chosen_is_the_one_that_probes_read(toy: str) -> None:
    test = _page("questions", checkpoint=toy)
    test.selectbox(key="set_kind").set_value("pairs").run()
    assert _link(test, "set") == _link(test, "probe_sets") == "pairs:"
    test.number_input(key="set_n").set_value(3).run()
    assert _link(test, "set") == _link(test, "probe_sets") == "pairs:?n=3"


@pytest.mark.parametrize(
    ("kind", "option", "entered", "name"),
    [
        ("simulated", "statements", 6, "simulated:qa1?statements=6"),
        ("simulated", "people", "Anna, Paul", "simulated:qa1?people=Anna,Paul"),
        ("simulated", "task", 2, "simulated:qa2"),
        ("babilong", "length", "1k", "babilong:qa1@1k"),
        ("passkey", "depth", 0.5, "passkey:?depth=0.5"),
        ("mmlu", "subject", "astronomy", "mmlu:astronomy"),
    ],
)
def test_every_form_of_option_makes_the_name(kind: str, option: str, entered: object, name: str, toy: str) -> None:
    test = _page("questions", checkpoint=toy)
    test.selectbox(key="set_kind").set_value(kind).run()
    widgets = (*test.selectbox, *test.number_input, *test.text_input)
    next(widget for widget in widgets if widget.key == f"set_{option}").set_value(entered).run()
    assert not test.exception and _link(test, "set") == name
    same = _page("questions", checkpoint=toy, set=name)
    widgets = (*same.selectbox, *same.number_input, *same.text_input)
    assert next(widget.value for widget in widgets if widget.key == f"set_{option}") == entered


def test_an_option_that_cannot_be_is_told_and_the_set_stays(toy: str) -> None:
    test = _page("questions", checkpoint=toy, set="passkey:?length=2k&text=filler")
    test.text_input(key="set_length").set_value("soon").run()
    assert "like 4k" in test.error[0].value and _link(test, "set") == "passkey:?length=2k&text=filler"


def test_who_opens_a_link_without_the_file_is_told_which_is_missing(toy: str) -> None:
    for screen in ("questions", "experiments", "sweeps", "slots"):
        test = _page(screen, checkpoint=toy, set="theirs.csv?sha256=0123456789ab")
        assert "theirs.csv (the one whose SHA-256 begins with 0123456789ab) is not on this server" in told(test)
    test = _page("probes", checkpoint=toy, probe_sets="theirs.csv?sha256=0123456789ab")
    assert "theirs.csv" in told(test)
    test = _page("memory", checkpoint=toy, set="theirs.csv?sha256=0123456789ab", source="question")
    assert "theirs.csv" in told(test)


def test_a_set_that_is_none_is_told_on_every_screen(toy: str) -> None:
    for screen in ("questions", "experiments"):
        assert "no option is called 'n'" in told(_page(screen, checkpoint=toy, set="babi:qa1?n=4"))


def test_what_the_model_answers_is_scored_by_every_rule_and_shown_question_by_question(toy: str) -> None:
    test = _page("questions", checkpoint=toy, set=upload(*GOOD))
    next(button for button in test.button if button.label == "Ask all 2").click().run()
    *_, scores, replies = (table.value for table in finished(test).dataframe)
    assert list(scores["rule"]) == ["exact", "contains", "f1"] and set(scores["questions"]) == {2}
    assert list(replies["question"]) == ["Where is John?", "Where is Mary?"]
    assert any("lm2 eval" in code.value and "--n 2" in code.value for code in test.code)


def test_probes_of_a_set_without_places_begin_with_what_it_has(toy: str) -> None:
    name = upload(*(row(context=f"{CONTEXT} {n}", labels=[["mood", "ab"[n % 2], 0, 24]]) for n in range(4)))
    test = _page("probes", checkpoint=toy, set=name, probe_sets=name)
    assert _link(test, "probe_targets") == "label *"
