"""Whatever goes wrong names its case."""

import pickle

import pytest
from fewvox.data.errors import UserError
from fewvox.data.making import BatchError, OperationError, making

KNOWN = UserError("a.b2nd", found="damaged", rule="whole", remedy="again")


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (IndexError("axis 3"), r"^case c03: .*\(IndexError: axis 3\).*workers=0"),
        (MemoryError(), r"^case c03: .*\(MemoryError\).*fewer workers"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "fewer workers"),
    ],
)
def test_an_error_names_the_case_and_what_to_do(error, told):
    with pytest.raises(BatchError, match=told), making(("c03",)):
        raise error


def test_an_error_that_names_its_place_stays_as_it_is():
    with pytest.raises(UserError) as raised, making(("a", "b")), making(("a",)):
        raise KNOWN
    assert raised.value is KNOWN
    with pytest.raises(BatchError, match=r"^case a: "), making(("a", "b")), making(("a",)):
        raise ValueError


def test_an_operation_that_failed_keeps_its_parts_and_gets_a_case():
    with pytest.raises(BatchError) as raised, making(("a", "b")), making(("a",)):
        raise OperationError("Crop", found="smaller", rule="as large", remedy="leave it out")
    assert str(raised.value) == "case a, Crop: smaller. As large. Leave it out."


def test_an_interruption_is_no_error():
    with pytest.raises(KeyboardInterrupt), making(("a",)):
        raise KeyboardInterrupt


def test_notes_cross_a_process_boundary():
    KNOWN.add_note("where it happened")
    there = pickle.loads(pickle.dumps(KNOWN))
    assert (str(there), there.__notes__) == (str(KNOWN), ["where it happened"])
