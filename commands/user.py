"""A user: registered once, deactivated at most once, forgotten at most once and for good.

Imported through the table in commands/__init__.py. Laws: a user is never registered twice, not even
after being deactivated or forgotten; only being forgotten follows a deactivation, and nothing follows that.
"""

from typing import Annotated, Final, assert_never

from pydantic import Field, StringConstraints

from commands.aggregate import Aggregate, Command, Decision, Loaded
from commands.text import Text
from schemas.ids import Id
from schemas.rejections import Code, Rejection
from schemas.user import (
    EVENTS,
    UserDeactivated,
    UserEvent,
    UserForgotten,
    UserRegistered,
    UserState,
    UserStatus,
)

Email = Annotated[str, StringConstraints(pattern=r"^[^@\s]+@[^@\s]+$", max_length=254)]
"""Something, an @, something, no blanks: only a mail that arrives proves more. SMTP allows 254."""


class RegisterUser(Command):
    """Make the user known; the user id is the record key."""

    name: Text = Field(description="What the user is called.")
    email: Email | None = Field(default=None, description="Where the user can be written to.")


class DeactivateUser(Command):
    """The user may no longer order; what was ordered stays."""

    reason: Text = Field(description="Why, in words for people.")


class ValidateUser(Command):
    """Ask whether the user may order: accepted, with no event, when the user is active."""


class ForgetUser(Command):
    """Make the user's personal data unreadable everywhere, for good; a repetition changes nothing."""

    by: Id = Field(
        description="Who orders it, as an id of theirs; it stands in the history for ever."
    )
    reason: Id = Field(
        default="request", description="Why, as a code or the number of a request; no words."
    )


UserCommand = RegisterUser | DeactivateUser | ValidateUser | ForgetUser


def decide(loaded: Loaded, command: UserCommand) -> Decision:
    """What follows from the command, or why nothing does."""
    user: UserState | None = loaded.root
    match command:
        case RegisterUser():
            return _register(user, command)
        case DeactivateUser():
            return _deactivate(user, command)
        case ValidateUser():
            return _validate(user)
        case ForgetUser():
            return _forget(user, command)
        case _:
            assert_never(command)


def _register(user: UserState | None, command: RegisterUser) -> Decision:
    if user is not None and user.status is UserStatus.FORGOTTEN:
        return _forgotten()
    if user is not None:
        return Rejection(
            Code.USER_ALREADY_REGISTERED,
            f"a user with this id is registered already, and is {user.status}",
        )
    return (UserRegistered(command.name, command.email),)


def _deactivate(user: UserState | None, command: DeactivateUser) -> Decision:
    if user is None:
        return _not_found()
    if user.status is UserStatus.FORGOTTEN:
        return _forgotten()
    if user.status is UserStatus.DEACTIVATED:
        return Rejection(Code.USER_ALREADY_DEACTIVATED, "the user is deactivated already")
    return (UserDeactivated(command.reason),)


def _validate(user: UserState | None) -> Decision:
    if user is None:
        return _not_found()
    if user.status is UserStatus.FORGOTTEN:
        return _forgotten()
    if user.status is UserStatus.DEACTIVATED:
        return Rejection(Code.USER_DEACTIVATED, "the user is deactivated and may no longer order")
    return ()  # the outcome is the answer


def _forget(user: UserState | None, command: ForgetUser) -> Decision:
    if user is None:
        return _not_found()
    if user.status is UserStatus.FORGOTTEN:
        return ()
    return (UserForgotten(command.by, command.reason),)


def _forgotten() -> Rejection:
    return Rejection(
        Code.USER_FORGOTTEN, "the data of this user was deleted; the id cannot be used again"
    )


def _not_found() -> Rejection:
    return Rejection(Code.USER_NOT_FOUND, "no user is registered with this id")


def evolve(loaded: Loaded, event: UserEvent, at_ms: int) -> Loaded:
    """The user after the event."""
    match event:
        case UserRegistered(name, email):
            return Loaded(UserState(UserStatus.ACTIVE, name, email, at_ms, at_ms))
        case UserDeactivated():
            user: UserState = loaded.root
            return Loaded(
                UserState(
                    UserStatus.DEACTIVATED, user.name, user.email, user.registered_at_ms, at_ms
                )
            )
        case UserForgotten():
            user = loaded.root
            return Loaded(UserState(UserStatus.FORGOTTEN, "", None, user.registered_at_ms, at_ms))
        case _:
            assert_never(event)


USER: Final = Aggregate(
    name="user",
    commands=(RegisterUser, DeactivateUser, ValidateUser, ForgetUser),
    events=EVENTS,
    root_type=UserState,
    decide=decide,
    evolve=evolve,
)
