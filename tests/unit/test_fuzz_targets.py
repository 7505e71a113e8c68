"""What fuzzing has kept, and every golden record, against every decoder; no fuzzer is needed for it."""

import pytest

from tests.fuzz.records import packed, unpacked
from tests.fuzz.seeds import CORPUS, golden_records, kept
from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("target", TARGETS)
def test_no_golden_record_and_no_kept_input_breaks_a_decoder(target: str) -> None:
    for data in (*golden_records(), *kept(target)):
        TARGETS[target](data)


def test_every_folder_of_the_corpus_belongs_to_a_target() -> None:
    assert {folder.name for folder in CORPUS.iterdir()} <= set(TARGETS)


def test_a_packed_record_is_unpacked_as_it_was() -> None:
    headers: list[tuple[str, str | bytes | None]] = [("correlation-id", b"a"), ("x", None)]
    record = unpacked(packed(b"o-1", None, headers), "orderflow.order.events")
    assert (record.key, record.value, record.headers) == (b"o-1", None, headers)
