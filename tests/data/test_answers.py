"""The official comparison of answers, by cases counted by hand."""

import pytest

from albef.data.answers import answer_type, most_frequent, normalise_answer, soft_accuracy


@pytest.mark.parametrize(
    ("answer", "plain"),
    [
        ("The Dog", "dog"),
        ("two", "2"),
        ("None", "0"),
        ("isnt", "isn't"),
        ("red/white", "red white"),
        ("1,000", "1000"),
        ("yes, sir", "yes sir"),
        ("3.5", "3.5"),
        ("st. john", "st john"),
        (" on a  table\n", "on table"),
    ],
)
def test_normalised_as_officially(answer: str, plain: str) -> None:
    assert normalise_answer(answer) == plain


def test_every_number_word_and_article() -> None:
    words = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
    assert [normalise_answer(word) for word in words] == [str(number) for number in range(11)]
    assert normalise_answer("a fox an owl the car eleven") == "fox owl car eleven"


@pytest.mark.parametrize("sign", list(';/[]"{}()=+\\_-><@`,?!'))
def test_signs_part_words_or_are_nothing(sign: str) -> None:
    """A sign becomes a space; where one is beside a space, or a number has a comma, it becomes nothing."""
    assert normalise_answer(f"red{sign}blue") == "red blue"
    assert normalise_answer(f"red {sign}blue") == normalise_answer(f"red{sign} blue") == "red blue"
    assert normalise_answer(f"red{sign}blue {sign}car") == "redblue car"
    assert normalise_answer(f"red{sign}blue{sign} car") == "redblue car"
    assert normalise_answer(f"red{sign}blue 1,0") == "redblue 10"


def test_what_stands_beside_a_sign_is_asked_of_the_answer_as_given() -> None:
    assert normalise_answer("a-b;-c") == "b c"  # not beside a space before the other sign became one
    assert normalise_answer("red/blue, 1,0?x") == "redblue 10x"


def test_three_people_make_an_answer_right() -> None:
    given = ["red"] * 2 + ["blue"] * 8
    # Leaving out one of the two "red" leaves 1 match, leaving out another 2 matches.
    assert soft_accuracy("red", given) == pytest.approx((2 * 1 / 3 + 8 * 2 / 3) / 10)
    assert soft_accuracy("blue", given) == 1.0
    assert soft_accuracy("green", given) == 0.0
    assert soft_accuracy("red", ["red"] * 3 + ["blue"] * 7) == pytest.approx((3 * 2 / 3 + 7) / 10)


@pytest.mark.parametrize("people", [1, 2, 3, 10])
@pytest.mark.parametrize(
    ("answer", "given"), [("yes", "Yes"), ("Yes", "yes"), ("two", "2"), ("dog", "the dog"), (" a ", "A")]
)
def test_equal_answers_are_right_however_many_people_gave_them(answer: str, given: str, people: int) -> None:
    assert soft_accuracy(answer, [given] * people) == 1.0
    assert soft_accuracy("nothing else", [given] * people) == 0.0


def test_of_three_people_the_other_two_are_enough() -> None:
    assert soft_accuracy("red", ["red", "red", "blue"]) == pytest.approx((0.5 + 0.5 + 1) / 3)
    assert soft_accuracy("red", ["red"] * 3, official=True) == pytest.approx(2 / 3)


def test_answers_of_which_nothing_is_left_differ() -> None:
    assert soft_accuracy("the", ["a"] * 10) == 0.0
    assert soft_accuracy("?", ["!"]) == 0.0


def test_the_official_evaluation_normalises_nothing_where_all_agree() -> None:
    assert soft_accuracy("two", ["2"] * 10, official=True) == 0.0
    assert soft_accuracy("yes", ["Yes"] * 10, official=True) == 0.0
    assert soft_accuracy("two", ["2"] * 9 + ["3"], official=True) == 1.0


def test_equal_answers_are_counted_together() -> None:
    assert most_frequent(["no", "Yes", "no", "yes", "yes", "fox", "two", "2"]) == ["yes", "no", "two", "fox"]
    assert most_frequent(["b", "a", "b", "c"]) == ["b", "a", "c"]
    assert most_frequent(["A fox", "fox", "fox", "the", "a"]) == ["fox", "the", "a"]


def test_one_answer_is_enough_where_there_is_one() -> None:
    assert soft_accuracy("Two", ["2"]) == 1.0
    assert soft_accuracy("3", ["2"]) == 0.0


def test_types() -> None:
    assert [answer_type(a) for a in ("Yes", "three", "2", "a dog", "no", "2.5", "1.2.3", "twenty")] == [
        "yes_no", "number", "number", "other", "yes_no", "number", "other", "other",
    ]  # fmt: skip
