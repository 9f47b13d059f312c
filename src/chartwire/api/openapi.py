"""The OpenAPI 3.1 document, made to say exactly what is answered."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from chartwire.api.errors import response_of
from chartwire.api.models import Message, Problem

TAGS = [
    {"name": "organization", "description": "The customer's organization; one per account."},
    {"name": "facility", "description": "Places of care, known by their National Provider Identifier."},
    {"name": "patient", "description": "Patients, found again by their demographics."},
    {"name": "document", "description": "Asking for a patient's documents, and reading them."},
    {"name": "fhir", "description": "The stored documents as a FHIR R4 server (IHE MHD) shows them."},
    {"name": "webhook", "description": "Where messages go, and how they arrive."},
    {"name": "status", "description": "Is it running."},
]

_DESCRIPTION = """\
Present an API key as `x-api-key` on every call but those of *status*. Errors have a `title` for programs and a `detail`
for people; `docs/reference/api.md` in the source has the rules that hold for every call."""

_FRAMEWORK_SCHEMAS = ("HTTPValidationError", "ValidationError")


def describe(app: FastAPI) -> dict[str, Any]:
    """The document of `app`, made once."""
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title,
            version=app.version,
            summary=app.summary,
            description=_DESCRIPTION,
            routes=app.routes,
            tags=app.openapi_tags,
            servers=app.servers,
        )
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        for name in _FRAMEWORK_SCHEMAS:
            schemas.pop(name, None)
        for model in (Message, Problem):
            schemas[model.__name__] = model.model_json_schema(by_alias=True, mode="serialization")
        for path in document["paths"].values():
            for operation in path.values():
                _add_common_answers(operation)
                for parameter in operation.get("parameters", ()):
                    parameter["schema"] = _without_null(parameter["schema"])
        app.openapi_schema = document
    return app.openapi_schema


def _add_common_answers(operation: dict[str, Any]) -> None:
    """What is true of every route that takes parameters, a body or a key, and so is not repeated at each."""
    responses = operation["responses"]
    if _FRAMEWORK_SCHEMAS[0] in str(responses.get("422")):  # the framework's own answer, which we never give
        del responses["422"]
        responses.setdefault("400", _documented(400))
    if "requestBody" in operation:
        responses.setdefault("413", _documented(413))
    if "security" in operation:
        responses.setdefault("403", _documented(403))
        responses.setdefault("429", _documented(429))
    operation["responses"] = dict(sorted(responses.items()))


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """A parameter is absent or it is not: HTTP has no null for it."""
    kept = [part for part in schema.get("anyOf", ()) if part != {"type": "null"}]
    rest = {key: value for key, value in schema.items() if key != "anyOf"}
    return {**rest, **kept[0]} if len(kept) == 1 else schema


def _documented(status: int) -> dict[str, Any]:
    response = response_of(status)
    if (model := response.pop("model", None)) is not None:
        names = [model] if isinstance(model, type) else list(model.__args__)
        references = [{"$ref": f"#/components/schemas/{name.__name__}"} for name in names]
        schema = references[0] if len(references) == 1 else {"anyOf": references}
        response["content"] = {"application/json": {"schema": schema}}
    return response
