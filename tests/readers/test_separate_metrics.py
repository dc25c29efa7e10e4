"""Metrics that a format keeps apart, put back into rows."""

from hypothesis import given
from hypothesis import strategies as st

from nndiag.readers.stores.separate_metrics import TOGETHER_MS, Points, table_of


def points(*triples):
    made = Points()
    for time, step, value in triples:
        made.add(time, step, value)
    return made


def test_what_is_logged_together_shares_a_row():
    table = table_of(
        {"loss": points((0, 1, 5.0), (100, 2, 4.0)), "acc": points((7, 1, 0.1), (108, 2, 0.2))}
    )

    assert table.height == 2
    assert list(table.columns["acc"].rows) == list(table.columns["loss"].rows) == [0, 1]
    assert list(table.columns["step"].values) == [1, 2]


def test_equal_steps_far_apart_in_time_have_rows_of_their_own():
    late = TOGETHER_MS + 1
    table = table_of({"loss": points((0, 1, 5.0), (9, 2, 4.0)), "test": points((late, 1, 0.1))})

    assert list(table.columns["test"].rows) == [2]


def test_a_step_that_a_restart_repeats_is_another_row():
    table = table_of(
        {
            "loss": points((0, 1, 5.0), (1, 2, 4.0), (2, 1, 4.5), (3, 2, 3.5)),
            "acc": points((4, 2, 0.5)),
        }
    )

    assert list(table.columns["loss"].rows) == [0, 1, 2, 3]
    assert list(table.columns["acc"].rows) == [3]


def test_without_times_a_metric_of_fewer_attempts_belongs_to_the_last():
    table = table_of(
        {
            "loss": points((0, 1, 5.0), (0, 2, 4.0), (0, 1, 4.5), (0, 2, 3.5)),
            "acc": points((0, 2, 0.5)),
        }
    )

    assert list(table.columns["acc"].rows) == [3]


def test_steps_that_nobody_gave_are_no_column():
    table = table_of({"loss": points((0, 0, 5.0), (1, 0, 4.0)), "acc": points((0, 0, 0.1))})

    assert set(table.columns) == {"loss", "acc"}
    assert list(table.columns["acc"].rows) == [0]


METRIC = st.lists(
    st.tuples(st.integers(0, 5).map(lambda t: 4000.0 * t), st.integers(-3, 6), st.floats(width=16)),
    max_size=12,
)


@given(st.dictionaries(st.sampled_from(["a", "b", "c"]), METRIC))
def test_each_metric_keeps_its_values_in_their_order_at_their_steps(metrics):
    table = table_of({name: points(*triples) for name, triples in metrics.items()})

    filled = {name: triples for name, triples in metrics.items() if triples}
    assert set(table.columns) - {"step"} == set(filled)
    steps = table.columns["step"].values if "step" in table.columns else None
    for name, triples in filled.items():
        column = table.columns[name]
        assert [str(v) for v in column.values] == [str(float(value)) for _, _, value in triples]
        assert (column.rows[1:] > column.rows[:-1]).all()
        assert column.rows[-1] < table.height
        if steps is not None:
            assert list(steps[column.rows]) == [step for _, step, _ in triples]
