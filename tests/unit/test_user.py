"""Users: registered once, deactivated at most once."""

import pytest
from pydantic import ValidationError

from commands.user import DeactivateUser, ForgetUser, RegisterUser, ValidateUser
from schemas.rejections import Code
from schemas.user import (
    UserDeactivated,
    UserForgotten,
    UserRegistered,
    UserState,
    UserStatus,
)
from tests.support.decisions import given

ADA = UserRegistered("Ada", "ada@example.org")
GONE = UserDeactivated("asked for it")
FORGOTTEN = UserForgotten("ann", "request")


def test_a_new_user_is_registered() -> None:
    given([]).when(RegisterUser(name="Ada", email="ada@example.org")).then([ADA]).then_state(
        UserState(UserStatus.ACTIVE, "Ada", "ada@example.org", 1, 1)
    )


def test_a_user_needs_no_email() -> None:
    given([]).when(RegisterUser(name="Ada")).then([UserRegistered("Ada", None)])


def test_a_user_is_not_registered_twice() -> None:
    given([ADA]).when(RegisterUser(name="Eve")).then_rejected(
        Code.USER_ALREADY_REGISTERED, "a user with this id is registered already, and is active"
    )


def test_a_deactivated_user_is_not_registered_again() -> None:
    given([ADA, GONE]).when(RegisterUser(name="Ada")).then_rejected(
        Code.USER_ALREADY_REGISTERED,
        "a user with this id is registered already, and is deactivated",
    )


def test_a_user_is_deactivated_and_keeps_name_and_time_of_registration() -> None:
    given([ADA]).when(DeactivateUser(reason="asked for it")).then([GONE]).then_state(
        UserState(UserStatus.DEACTIVATED, "Ada", "ada@example.org", 1, 2)
    )


def test_who_is_not_registered_cannot_be_deactivated() -> None:
    given([]).when(DeactivateUser(reason="x")).then_rejected(
        Code.USER_NOT_FOUND, "no user is registered with this id"
    )


def test_a_user_is_not_deactivated_twice() -> None:
    given([ADA, GONE]).when(DeactivateUser(reason="x")).then_rejected(
        Code.USER_ALREADY_DEACTIVATED, "the user is deactivated already"
    )


def test_an_active_user_may_order_and_nothing_follows_from_being_asked() -> None:
    given([ADA]).when(ValidateUser()).then([])


def test_who_is_not_registered_may_not_order() -> None:
    given([]).when(ValidateUser()).then_rejected(
        Code.USER_NOT_FOUND, "no user is registered with this id"
    )


def test_a_deactivated_user_may_not_order() -> None:
    given([ADA, GONE]).when(ValidateUser()).then_rejected(
        Code.USER_DEACTIVATED, "the user is deactivated and may no longer order"
    )


@pytest.mark.parametrize("email", ["", "ada", "@", "a@", "@b", "a b@c", "a@b@c", "a@b\n"])
def test_what_is_no_email_address_is_refused(email: str) -> None:
    with pytest.raises(ValidationError, match="email"):
        RegisterUser(name="Ada", email=email)


@pytest.mark.parametrize("text", ["", "x" * 201])
def test_free_text_has_1_to_200_characters(text: str) -> None:
    with pytest.raises(ValidationError, match="name"):
        RegisterUser(name=text)
    with pytest.raises(ValidationError, match="reason"):
        DeactivateUser(reason=text)


@pytest.mark.parametrize("name", ["", " ", "\n\t", "x" * 201])
def test_a_name_is_1_to_200_characters_and_not_only_blanks(name: str) -> None:
    with pytest.raises(ValidationError):
        RegisterUser(name=name)


@pytest.mark.parametrize("before", [[ADA], [ADA, GONE]], ids=["active", "deactivated"])
def test_a_user_is_forgotten_and_only_times_remain(
    before: list[UserRegistered | UserDeactivated],
) -> None:
    at_ms = len(before) + 1
    given(before).when(ForgetUser(by="ann")).then([FORGOTTEN]).then_state(
        UserState(UserStatus.FORGOTTEN, "", None, 1, at_ms)
    )


def test_to_forget_again_changes_nothing() -> None:
    given([ADA, FORGOTTEN]).when(ForgetUser(by="bob")).then([])


def test_who_is_not_registered_cannot_be_forgotten() -> None:
    given([]).when(ForgetUser(by="ann")).then_rejected(
        Code.USER_NOT_FOUND, "no user is registered with this id"
    )


@pytest.mark.parametrize(
    "late", [RegisterUser(name="Ada"), DeactivateUser(reason="x"), ValidateUser()]
)
def test_nothing_follows_being_forgotten(
    late: RegisterUser | DeactivateUser | ValidateUser,
) -> None:
    given([ADA, FORGOTTEN]).when(late).then_rejected(
        Code.USER_FORGOTTEN, "the data of this user was deleted; the id cannot be used again"
    )
