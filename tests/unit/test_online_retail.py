"""The plan of an Online Retail file, and the independent pass over it, on small files with every
oddity."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from orderflow.shop.expectation import expect
from orderflow.shop.online_retail import RetailPlan, command_id
from orderflow.shop.planned import PlannedCommand
from orderflow.shop.retail_file import COLUMNS, NotOnlineRetail, pence_of
from orderflow.shop.retail_truth import truth_of
from schemas.ids import is_id
from schemas.rejections import Code
from tests.support.retail import GOOD, written


def planned(path: Path) -> list[PlannedCommand]:
    return list(RetailPlan(path).commands())


def kinds(commands: list[PlannedCommand]) -> list[tuple[str, str, Code | None]]:
    return [(command.type, command.aggregate_id, command.expected) for command in commands]


@pytest.mark.parametrize("packed", [False, True])
def test_an_invoice_becomes_user_item_order_reservation_and_commitment(
    tmp_path: Path, packed: bool
) -> None:
    commands = planned(written(tmp_path, GOOD, packed=packed))
    assert kinds(commands) == [
        ("RegisterUser", "17850", None),
        ("RegisterItem", "85123A", None),
        ("CreateOrder", "536365", None),
        ("ReserveStock", "85123A", None),
        ("CommitReservation", "85123A", None),
    ]
    assert [command.command_id for command in commands] == [
        "retail:user:17850",
        "retail:item:85123A",
        "retail:536365:create",
        "retail:536365:85123A:reserve",
        "retail:536365:85123A:commit",
    ]
    assert b'"opening_stock":6' in commands[1].json()
    assert commands[2].occurred_at_ms == 1_291_191_960_000  # 08:26 in London in winter is 08:26 UTC


def test_summer_time_in_london_is_an_hour_before_utc(tmp_path: Path) -> None:
    commands = planned(written(tmp_path, GOOD.replace("2010-12-01", "2011-06-01")))
    assert commands[2].occurred_at_ms == 1_306_913_160_000  # 07:26 UTC


def test_a_blank_customer_is_the_guest(tmp_path: Path) -> None:
    commands = planned(written(tmp_path, GOOD.replace("17850", "")))
    assert kinds(commands)[0] == ("RegisterUser", "guest", None)
    assert b'"user_id":"guest"' in commands[2].json()


def test_lines_of_one_sku_share_one_reservation(tmp_path: Path) -> None:
    commands = planned(written(tmp_path, GOOD, GOOD.replace(",6,", ",4,")))
    assert [kind for kind, _, _ in kinds(commands)].count("ReserveStock") == 1
    reserve = next(command for command in commands if command.type == "ReserveStock")
    assert b'"quantity":10' in reserve.json()


def test_a_c_invoice_is_stock_received_back_for_each_line(tmp_path: Path) -> None:
    back = GOOD.replace("536365", "C536379").replace(",6,", ",-1,")
    commands = planned(written(tmp_path, GOOD, back, back))
    received = [command for command in commands if command.type == "ReceiveStock"]
    assert [command.command_id for command in received] == [
        "retail:C536379:1",
        "retail:C536379:2",
    ]
    assert all(b'"quantity":1,' in command.json() for command in received)
    assert truth_of(tmp_path / "retail.csv").stock["85123A"].on_hand == 2


def test_a_write_off_is_sent_all_the_same_and_expected_to_be_refused(tmp_path: Path) -> None:
    commands = planned(written(tmp_path, GOOD.replace(",6,", ",-10,")))
    assert kinds(commands)[2:] == [
        ("CreateOrder", "536365", Code.INVALID_DATA),
        ("ReserveStock", "85123A", Code.INVALID_DATA),
        ("CommitReservation", "85123A", Code.RESERVATION_NOT_FOUND),
    ]


def test_one_bad_line_refuses_the_order_and_withholds_the_good_ones(tmp_path: Path) -> None:
    bad = GOOD.replace("85123A", "22423").replace(",6,", ",-10,")
    path = written(tmp_path, GOOD, bad)
    plan = RetailPlan(path)
    commands = list(plan.commands())
    assert plan.withheld == 1
    assert [row for row in kinds(commands) if row[0] == "ReserveStock"] == [
        ("ReserveStock", "22423", Code.INVALID_DATA)
    ]
    truth = truth_of(path)
    assert truth.orders == {}
    assert truth.stock["85123A"].on_hand == 6  # all that its sales would have taken is still there


def test_an_invoice_spread_over_the_file_is_one_order(tmp_path: Path) -> None:
    between = GOOD.replace("536365", "536366")
    commands = planned(written(tmp_path, GOOD, between, GOOD.replace("85123A", "22423")))
    created = [row[1] for row in kinds(commands) if row[0] == "CreateOrder"]
    assert created == ["536366", "536365"]


@pytest.mark.parametrize(
    ("pounds", "pence"),
    [("2.55", 255), ("0.125", 12), ("0.135", 14), ("0.001", 0), ("-11062.06", -1_106_206)],
)
def test_pounds_round_half_even_to_pence(pounds: str, pence: int) -> None:
    assert pence_of(pounds) == pence


ODDITIES = [
    GOOD,
    GOOD.replace("536365", "1").replace("85123A", "bad/code"),
    GOOD.replace("536365", "2").replace(",6,", ",six,"),
    GOOD.replace("536365", "3").replace("2.55", "-11062.06"),
    GOOD.replace("536365", "4").replace("2.55", "cheap"),
    GOOD.replace("536365", "5").replace(",6,", ",0,"),
    GOOD.replace("536365", "6").replace(",6,", ",1000001,"),
    GOOD.replace("536365", "7").replace(",6,", ",1000000,"),
    GOOD.replace("536365", "7").replace(",6,", ",1000000,"),
    GOOD.replace("536365", "8").replace("17850", "a{b}"),
    GOOD.replace("536365", "9/1"),
    GOOD.replace("536365", "10").replace("85123A", "85123a"),
    GOOD.replace("536365", "11").replace("WHITE HEART", ""),
    GOOD.replace("536365", "12").replace("2.55", "0.0"),
    GOOD.replace("536365", "C13").replace(",6,", ",-3,"),
    GOOD.replace("536365", "C13").replace(",6,", ",3,"),
    GOOD.replace("536365", "C14").replace("85123A", "bad/code").replace(",6,", ",-3,"),
]


def test_plan_and_independent_pass_agree_on_every_oddity(tmp_path: Path) -> None:
    path = written(tmp_path, *ODDITIES)
    by_plan, truth = expect(planned(path)), truth_of(path)
    # What no aggregate can be called is in no view: the plan expects it to be refused by its key.
    assert by_plan.orders == truth.orders
    assert by_plan.stock == truth.stock
    assert by_plan.users == truth.users
    assert by_plan.rejections[Code.INVALID_KEY] == 6
    assert set(truth.orders) == {"536365", "7", "10", "11", "12"}


def test_nothing_of_the_file_is_skipped(tmp_path: Path) -> None:
    commands = planned(written(tmp_path, *ODDITIES))
    counted = Counter(command.type for command in commands)
    assert counted["CreateOrder"] == 13
    assert counted["ReceiveStock"] == 3 + 2  # three lines back, and an opening beyond one command


def test_command_ids_are_unique_can_be_ids_and_come_out_the_same_again(tmp_path: Path) -> None:
    path = written(tmp_path, *ODDITIES)
    ids = [(command.aggregate, command.command_id) for command in planned(path)]
    assert len(set(ids)) == len(ids)
    assert all(is_id(name) for _, name in ids)
    assert ids == [(command.aggregate, command.command_id) for command in planned(path)]


def test_a_part_that_no_command_id_can_hold_is_named_by_its_hash() -> None:
    assert command_id("9/1", "create") == "retail:sha256-465db89f720332c0:create"


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("a,b\n1,2\n", "line 1: the columns are"),
        (",".join(COLUMNS) + "\n1,2,3\n", "line 2: 3 columns instead of 8"),
        (",".join(COLUMNS) + "\n" + GOOD.replace("2010-12-01T", "1 Dec ") + "\n", "no ISO 8601"),
    ],
)
def test_another_file_is_refused_before_anything_is_sent(
    tmp_path: Path, content: str, complaint: str
) -> None:
    path = tmp_path / "other.csv"
    path.write_text(content)
    with pytest.raises(NotOnlineRetail, match=complaint):
        RetailPlan(path)


def test_a_damaged_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "retail.csv.gz"
    path.write_bytes(written(tmp_path, *[GOOD] * 500, packed=True).read_bytes()[:-20])
    with pytest.raises(NotOnlineRetail, match="damaged"):
        RetailPlan(path)
