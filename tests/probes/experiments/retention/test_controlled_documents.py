"""Laws of documents made to measure: one thing varies, the rest is held."""

from collections import Counter, defaultdict
from collections.abc import Callable

import pytest

from lm2.tasks.prompt import Prompt
from lm2.tasks.questions import answer
from lm2.tasks.simulator import simulate
from lm2.tasks.world import understand
from lm2.text.tokens import BREAK
from probes.experiments.retention.controlled_documents import memory_load, overwritten, rivals, stretched

DESIGNS = {"loads": (memory_load, (2, 3, 4), 192), "overwritten": (overwritten, (0, 1, 2, 3, 4), 144)}


def told(prompt: Prompt) -> list[tuple[str, ...]]:
    return [understand(text).words for text in prompt.statements]


def asked_for(prompt: Prompt) -> str:
    return prompt.question.removeprefix("Where is ").removesuffix("?")


@pytest.mark.parametrize(
    "prompts",
    [
        memory_load(each=24),
        overwritten(each=24),
        [p for rival in rivals(24) for p in (rival.alone, rival.repeated, *rival.rivals)],
    ],
)
def test_every_answer_and_its_support_are_what_the_statements_tell(prompts: list[Prompt]) -> None:
    for prompt in prompts:
        assert answer(prompt.question, prompt.statements) == (prompt.answer, prompt.support)
        assert all(understand(statement) for statement in prompt.statements)


@pytest.mark.parametrize(("design", "varied", "each"), DESIGNS.values(), ids=DESIGNS)
def test_a_group_holds_its_person_its_fact_and_its_length(design: Callable, varied: tuple[int, ...], each: int) -> None:
    groups = defaultdict(list)
    for prompt in design(varied, each=each):
        groups[prompt.group].append(prompt)
    assert len(groups) == each
    for group in groups.values():
        assert len(group) == len(varied)
        assert len({(prompt.question, prompt.answer, prompt.support, len(prompt.statements)) for prompt in group}) == 1


@pytest.mark.parametrize(("design", "varied", "each"), DESIGNS.values(), ids=DESIGNS)
def test_persons_places_and_positions_are_balanced(design: Callable, varied: tuple[int, ...], each: int) -> None:
    counts = Counter((prompt.question, prompt.answer, prompt.support) for prompt in design(varied[:1], each=each))
    assert len(set(counts.values())) == 1


def test_the_load_is_as_many_people_as_were_ordered_and_the_one_asked_for_is_told_of_once() -> None:
    counts = Counter()
    for prompt in memory_load((2, 4), each=10):
        people = [person for person, _ in told(prompt)]
        assert people.count(asked_for(prompt)) == 1
        counts[len(set(people))] += 1
    assert counts == {2: 10, 4: 10}


def test_overwriting_takes_place_as_often_as_ordered_from_other_places_and_everybody_is_told_of() -> None:
    counts = Counter()
    for prompt in overwritten((0, 3), each=10):
        own = [place for person, place in told(prompt) if person == asked_for(prompt)]
        assert len(set(own)) == len(own) and own[-1] == prompt.answer
        assert len({person for person, _ in told(prompt)}) == 4
        counts[len(own) - 1] += 1
    assert counts == {0: 10, 3: 10}


def test_a_rival_is_about_another_person_and_another_place_in_a_segment_of_its_own() -> None:
    for document in rivals(12, each=3):
        (first, _), (person, place) = told(document.alone)
        assert [*document.repeated.statements[:2]] == [*document.alone.statements]
        assert document.repeated.statements[2] == document.repeated.statements[0]
        assert len(document.rivals) == 3
        for rival in document.rivals:
            assert told(rival)[2][0] not in (first, person) and told(rival)[2][1] != place
            assert rival.text.split(BREAK) == [*rival.statements, rival.question]


def test_a_stretched_question_is_asked_once_for_each_length() -> None:
    stories = [simulate(1, seed=seed).story for seed in range(3)]
    found = stretched(stories, (0, 4))
    assert [len(prompt.statements) for prompt in found] == [2, 4, 6, 8, 10] * 3 + [6, 8, 10, 12, 14] * 3
    assert all(one.answer == other.answer for one, other in zip(found[:15], found[15:]))


@pytest.mark.parametrize("make", [memory_load, overwritten, rivals])
def test_a_design_is_drawn_from_its_seed_alone(make: Callable) -> None:
    assert make(seed=1) == make(seed=1) != make(seed=2)


@pytest.mark.parametrize(
    ("order", "said"),
    [
        (lambda: memory_load((1, 2)), "from 2 to 4 for 8 statements"),
        (lambda: memory_load((4,), statements=3), "from 2 to 3"),
        (lambda: overwritten((6,), statements=20), "from 0 to 5"),
        (lambda: overwritten((4,), statements=7), "from 0 to 3 for 7 statements"),
        (lambda: rivals(0), "not 0 with 4"),
    ],
)
def test_what_cannot_be_made_is_refused_with_what_can(order: Callable, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        order()
