"""Bodies of the document routes, as existing clients know them."""

from typing import Annotated, Any, Self

from pydantic import BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from chartwire.api.models import ApiModel, Omittable
from chartwire.clock import iso
from chartwire.model.document import JsonObject, Progress, QueryStatus, StepState
from chartwire.services.documents import QueryProgress
from chartwire.store.queries import Asked

_MOST_PAIRS = 50
_LONGEST_KEY = 40
_LONGEST_VALUE = 500
_RULE = "metadata is an object of at most 50 pairs of strings, keys of 1 to 40 characters, values of at most 500"

_STEP_STATUS = {
    StepState.WAITING: QueryStatus.PROCESSING,
    StepState.DONE: QueryStatus.COMPLETED,
    StepState.HELD: QueryStatus.COMPLETED,
    StepState.FAILED: QueryStatus.FAILED,
}


def _check_metadata(value: object) -> object:
    """One message for every breach: it must not repeat what was sent, keys included."""
    if not isinstance(value, dict) or len(value) > _MOST_PAIRS or not all(map(_is_pair, value.items())):
        raise ValueError(_RULE)
    return value


def _is_pair(item: tuple[object, object]) -> bool:
    key, value = item
    return (
        isinstance(key, str)
        and isinstance(value, str)
        and 1 <= len(key) <= _LONGEST_KEY
        and len(value) <= _LONGEST_VALUE
    )


_METADATA_SCHEMA: JsonObject = {
    "type": "object",
    "maxProperties": _MOST_PAIRS,
    "propertyNames": {"minLength": 1, "maxLength": _LONGEST_KEY},
    "additionalProperties": {"type": "string", "maxLength": _LONGEST_VALUE},
}
Metadata = Annotated[dict[str, str], BeforeValidator(_check_metadata), WithJsonSchema(_METADATA_SCHEMA)]


def _describe_both_forms(schema: JsonObject) -> None:
    """In the OpenAPI document: the map within `metadata`, or the map itself."""
    wrapped = {"type": "object", "required": ["metadata"], "properties": schema.pop("properties")}
    del schema["type"]
    schema["anyOf"] = [wrapped, {**_METADATA_SCHEMA, "not": {"required": ["metadata"]}}]


class MetadataBody(ApiModel):
    """`metadata` comes back as `meta.data` of the webhook messages that follow from this call.

    One generated client sends the map itself as the body: a body of strings alone is taken for it.
    """

    model_config = ConfigDict(json_schema_extra=_describe_both_forms)

    metadata: Metadata = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _accept_raw_map(cls, body: Any) -> Any:
        is_raw = isinstance(body, dict) and body and "metadata" not in body
        return {"metadata": body} if is_raw and all(isinstance(value, str) for value in body.values()) else body

    def given(self) -> dict[str, str] | None:
        """The metadata; None if the body held none."""
        return self.metadata if "metadata" in self.model_fields_set else None


class StageAnswer(ApiModel):
    """How far one stage is. `total` is how many documents were found that were not here yet."""

    status: QueryStatus
    total: Omittable[int] = None
    successful: Omittable[int] = None
    errors: Omittable[int] = None
    webhook_sent: Omittable[bool] = None


class NetworkAnswer(ApiModel):
    """How far asking one network is; `issue` is the reason code of what went wrong there."""

    name: str
    status: QueryStatus
    issue: Omittable[str] = None

    @classmethod
    def of(cls, asked: Asked) -> Self:
        """From the service's record."""
        return cls(name=asked.network, status=_STEP_STATUS[asked.state], issue=asked.issue)


class ProgressAnswer(ApiModel):
    """How far a document query is; empty if there never was one."""

    request_id: Omittable[str] = None
    started_at: Omittable[str] = None
    trigger_consolidated: Omittable[bool] = None
    download: Omittable[StageAnswer] = None
    convert: Omittable[StageAnswer] = None
    networks: Omittable[list[NetworkAnswer]] = None

    @classmethod
    def of(cls, progress: QueryProgress | None) -> Self:
        """From the service's record."""
        if progress is None:
            return cls()
        if progress.query is None:
            return cls(download=StageAnswer(status=progress.download.status))
        has_ended = progress.download.status is not QueryStatus.PROCESSING
        return cls(
            request_id=progress.query.id,
            started_at=iso(progress.query.started_at),
            trigger_consolidated=False,
            download=_stage(progress.download, has_ended),
            convert=_NOTHING_TO_CONVERT if has_ended else None,
            networks=[NetworkAnswer.of(asked) for asked in progress.networks],
        )


def _stage(progress: Progress, has_ended: bool) -> StageAnswer:
    return StageAnswer(
        status=progress.status,
        total=progress.total,
        successful=progress.successful,
        errors=progress.errors,
        webhook_sent=True if has_ended else None,  # the closing message is written with the end, in one transaction
    )


_NOTHING_TO_CONVERT = StageAnswer(status=QueryStatus.COMPLETED, total=0, successful=0, errors=0)
"""Documents are kept as they are: it is known from the start that none is to be converted."""


class DocumentList(ApiModel):
    """Documents, newest first: DocumentReferences, or with `output=dto` flat records.

    The flat answer has the query's progress beside it, for clients of 2023.
    """

    documents: list[JsonObject]
    query_status: Omittable[QueryStatus] = None
    download: Omittable[StageAnswer] = None
    convert: Omittable[StageAnswer] = None


class UrlAnswer(ApiModel):
    """A link that needs no key and works for a few minutes."""

    url: str


class BulkAnswer(ApiModel):
    """The links come by webhook, in a message with this `requestId`."""

    status: QueryStatus
    request_id: str
