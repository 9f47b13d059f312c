"""What every body on the wire has in common."""

from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

T = TypeVar("T")


def _is_none(value: object) -> bool:
    return value is None


Omittable = Annotated[T | None, Field(exclude_if=_is_none)]
"""In an answer: left out when unset. Clients' parsers fail on null, so `T | None` alone is for the few fields that the
contract wants as null."""


class ApiModel(BaseModel):
    """A body in camelCase. Keys that are not known are stripped, as clients rely on."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True)


class StrictModel(ApiModel):
    """A body in which a key that is not known is a mistake worth telling."""

    model_config = ConfigDict(extra="forbid")


class Message(ApiModel):
    """What is answered before a request reaches anything of an account: no key, no such route."""

    message: str


class Problem(ApiModel):
    """An error, for programs (`status`, `title`) and for people (`detail`). `name` is the status's reason phrase."""

    status: int = Field(examples=[404])
    title: str = Field(examples=["NotFoundError"])
    detail: str = Field(examples=["Could not find patient"])
    name: str = Field(examples=["Not Found"])
    additional_info: Omittable[dict[str, str]] = None
