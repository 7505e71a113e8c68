"""The orders of an Online Retail file, who of them pays with a card that is declined, and what the views
must say when some of them were placed.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from orderflow.placing import NotPlaced, Placed, StillRunning
from orderflow.shop.expectation import expect
from orderflow.shop.placed_report import placing_report
from orderflow.shop.placed_truth import placed_truth
from orderflow.shop.planned import ExpectedOrder, ExpectedStock
from orderflow.shop.retail_file import NotOnlineRetail
from orderflow.shop.retail_orders import RetailOrders, read_orders
from orderflow.shop.retail_placing import Endings, Way, is_declined, registrations
from tests.support.retail import GOOD, written

WAY = Way(opening_stock=50, declined=0.1, coordination="orchestration", at_once=10, timeout=60)


def lines_of(orders: RetailOrders) -> dict[str, list[tuple[str, int, int]]]:
    return {
        order.order_id: [(line.sku, line.quantity, line.unit_price) for line in order.lines]
        for order in orders.orders
    }


def test_an_invoice_is_an_order_under_its_number_with_all_its_lines(tmp_path: Path) -> None:
    again = GOOD.replace(",6,", ",4,").replace("2.55", "0.0")
    orders = read_orders(written(tmp_path, GOOD, again))
    assert lines_of(orders) == {"536365": [("85123A", 6, 255), ("85123A", 4, 0)]}
    assert orders.users == ["17850"]
    assert (orders.rows, orders.invoices, orders.lines, orders.left_out) == (2, 1, 2, Counter())


def test_an_invoice_spread_over_the_file_is_one_order_in_the_place_of_its_first_line(
    tmp_path: Path,
) -> None:
    between = GOOD.replace("536365", "536366")
    orders = read_orders(written(tmp_path, GOOD, between, GOOD.replace("85123A", "22423")))
    assert [order.order_id for order in orders.orders] == ["536365", "536366"]
    assert [line.sku for line in orders.orders[0].lines] == ["85123A", "22423"]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (GOOD.replace("536365", "C536365").replace(",6,", ",-6,"), "return"),
        (GOOD.replace(",6,", ",-6,"), "quantity"),
        (GOOD.replace(",6,", ",0,"), "quantity"),
        (GOOD.replace(",6,", ",six,"), "quantity"),
        (GOOD.replace(",6,", ",1000001,"), "quantity"),
        (GOOD.replace("2.55", "-11062.06"), "unit_price"),
        (GOOD.replace("2.55", "cheap"), "unit_price"),
        (GOOD.replace("85123A", "bad/code"), "sku"),
        (GOOD.replace("536365", "9/1"), "invoice"),
        (GOOD.replace("17850", "a{b}"), "invoice"),
    ],
)
def test_what_cannot_be_ordered_is_left_out_and_counted(
    tmp_path: Path, row: str, reason: str
) -> None:
    orders = read_orders(written(tmp_path, row))
    assert orders.orders == []
    assert orders.left_out == {reason: 1}
    assert orders.descriptions == {}


def test_a_bad_line_leaves_the_good_ones_of_its_invoice_in(tmp_path: Path) -> None:
    orders = read_orders(written(tmp_path, GOOD.replace(",6,", ",-1,"), GOOD))
    assert lines_of(orders) == {"536365": [("85123A", 6, 255)]}
    assert orders.left_out == {"quantity": 1}


def test_more_lines_than_an_order_can_have_are_no_order(tmp_path: Path) -> None:
    orders = read_orders(written(tmp_path, *[GOOD] * 1_001))
    assert orders.orders == []
    assert orders.left_out == {"invoice": 1_001}


def test_a_limit_counts_invoices_and_keeps_all_their_lines(tmp_path: Path) -> None:
    back = GOOD.replace("536365", "C1").replace(",6,", ",-1,")
    path = written(tmp_path, back, GOOD, GOOD.replace("536365", "2"), GOOD)
    orders = read_orders(path, limit=2)
    assert (orders.invoices, orders.rows, orders.lines) == (2, 3, 2)
    assert placed_truth(path, (), 50, limit=2).askable == {"536365"}


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(NotOnlineRetail, match="line 1: the columns are"):
        read_orders(tmp_path / "other.csv")


ODDITIES = [
    GOOD,
    GOOD.replace("85123A", "POST").replace(",6,", ",1,"),
    GOOD.replace("536365", "1").replace("85123A", "bad/code"),
    GOOD.replace("536365", "2").replace(",6,", ",six,"),
    GOOD.replace("536365", "2").replace("17850", "13047"),
    GOOD.replace("536365", "3").replace("2.55", "-11062.06"),
    GOOD.replace("536365", "4").replace(",6,", ",1000000,"),
    GOOD.replace("536365", "5").replace("17850", "a{b}"),
    GOOD.replace("536365", "9/1"),
    GOOD.replace("536365", "7").replace("85123A", "85123a").replace("17850", ""),
    GOOD.replace("536365", "8").replace("WHITE HEART", "").replace("85123A", "22423"),
    GOOD.replace("536365", "10").replace("85123A", "22423").replace("2.55", "0.125"),
    GOOD.replace("536365", "C13").replace(",6,", ",-3,"),
]


def test_the_reading_and_the_independent_one_agree_on_every_oddity(tmp_path: Path) -> None:
    path = written(tmp_path, *ODDITIES)
    orders = read_orders(path)
    truth = placed_truth(path, {order.order_id for order in orders.orders}, WAY.opening_stock)
    assert truth.lines == lines_of(orders)
    assert truth.askable == {"536365", "2", "4", "7", "8", "10"}
    registered = expect(registrations(orders, WAY))
    assert registered.users == truth.views.users == {"17850", "guest"}
    assert registered.stock.keys() == truth.views.stock.keys()
    assert orders.rows == len(ODDITIES) == orders.lines + orders.left_out.total()


def test_skus_are_registered_once_with_their_first_words_and_the_opening_stock(
    tmp_path: Path,
) -> None:
    commands = list(registrations(read_orders(written(tmp_path, *ODDITIES)), WAY))
    keys = [(command.aggregate, command.aggregate_id) for command in commands]
    assert len(set(keys)) == len(keys)
    (item,) = (command for command in commands if command.aggregate_id == "22423")
    assert b'"description":"WHITE HEART"' in item.json()
    assert b'"opening_stock":50' in item.json()


def test_a_share_of_the_orders_is_declined_by_their_ids_alone() -> None:
    ids = [str(536_365 + number) for number in range(10_000)]
    declined = {order_id for order_id in ids if is_declined(order_id, 0.1)}
    assert 900 < len(declined) < 1_100
    assert declined & set(ids[:40]) == {"536375"}  # at any time, on any machine
    assert declined < {order_id for order_id in ids if is_declined(order_id, 0.2)}
    assert not any(is_declined(order_id, 0) for order_id in ids)
    assert all(is_declined(order_id, 1) for order_id in ids)


def test_placed_orders_hold_their_pieces_and_cost_their_users_and_others_nothing(
    tmp_path: Path,
) -> None:
    second = GOOD.replace("536365", "536366").replace(",6,", ",30,").replace("17850", "13047")
    both = placed_truth(written(tmp_path, GOOD, GOOD, second), {"536365", "536366"}, 50)
    assert both.views.stock["85123A"] == ExpectedStock(on_hand=50, reserved=42)
    assert both.views.stock["85123A"].available == 8
    assert both.amount == 42 * 255
    one = placed_truth(tmp_path / "retail.csv", {"536365"}, 50)
    assert one.views.stock["85123A"] == ExpectedStock(on_hand=50, reserved=12)
    assert one.views.orders == {
        "536365": ExpectedOrder("17850", "GBP", 12 * 255, lines=2, status="confirmed")
    }
    assert one.views.users == {"17850", "13047"}
    assert one.amount == 12 * 255


def test_endings_are_counted_by_code_and_told() -> None:
    endings = Endings()
    assert endings.rate == 0.0
    endings.add(Placed("1", 0), 0.5)
    endings.add(NotPlaced("2", "compensated", "insufficient_stock", "none left"), 1.0)
    endings.add(NotPlaced("3", "compensated", "insufficient_stock", "none left"), 1.5)
    endings.add(StillRunning("4", "look later"), 2.0)
    assert endings.placed == {"1"}
    assert endings.not_placed == {"insufficient_stock": 2}
    assert (endings.ended, endings.rate) == (4, 2.0)
    assert str(endings) == "4 ended: 1 placed, 2 insufficient_stock, 1 still running"


def test_a_report_adds_up(tmp_path: Path) -> None:
    path = written(tmp_path, *ODDITIES)
    orders, endings = read_orders(path), Endings()
    for order in orders.orders:
        endings.add(Placed(order.order_id, 0), 3.0)
    truth = placed_truth(path, endings.placed, WAY.opening_stock)
    report = placing_report(orders, WAY, endings, truth, [])
    assert report.rows == report.lines + sum(report.left_out.values())
    assert report.orders == report.placed == 6
    assert report.orders_per_second == 2.0
    wanted = [line for lines in truth.lines.values() for line in lines]
    assert report.amount == sum(pieces * pence for _, pieces, pence in wanted)
