"""Which of two forms of a document a client wants (RFC 9110 §12.5.1, FHIR R4 §3.1.0.1.11 and §2.36.2)."""

_JSON = ("application/fhir+json", "application/json+fhir")
_JSON_FORMATS = frozenset({*_JSON, "application/json", "text/json", "json"})
_ANY_BYTES = "application/octet-stream"
_XML = ("application/xml", "text/xml")

_EXACT = 2
Preference = tuple[float, int]
"""How much a form is wanted, and by how exact a name: 0 for any, 1 for its family, 2 for itself."""


def wants_fhir_json(accept: str, format_parameter: str, native: str) -> bool | None:
    """Whether a client wants a FHIR Binary in JSON (True) or the native bytes (False, also when it does not care).

    None if it takes neither. `_format` is stronger than `Accept`.
    """
    names = _native_names(native)
    if format_parameter:
        wanted = _bare(format_parameter.replace(" ", "+"))  # a `+` in a URL arrives as a space
        return wanted in _JSON_FORMATS or (False if wanted in names else None)
    as_json, as_native = preference(accept, *_JSON), preference(accept, *names)
    if as_json[0] == 0 and as_native[0] == 0:
        return None
    return as_json > as_native


def takes_fhir_json(accept: str, format_parameter: str) -> bool:
    """Whether a client takes a resource in JSON: yes, unless it asks for FHIR in XML alone."""
    asked = format_parameter.replace(" ", "+") or accept
    asks_for_xml = any("xml" in _bare(part) for part in asked.split(","))
    return not asks_for_xml or any(_bare(part) in {*_JSON_FORMATS, "*/*", "application/*"} for part in asked.split(","))


def preference(accept: str, name: str, *others: str) -> Preference:
    """The preference of an `Accept` header for a form; its `others` names count where they are named themselves."""
    ranges = [_media_range(part) for part in accept.split(",") if part.strip()] or [("*/*", 1.0)]
    named = [found for other in others if (found := _preference(ranges, other))[1] == _EXACT]
    return max([_preference(ranges, name), *named])


def _preference(ranges: list[tuple[str, float]], name: str) -> Preference:
    """The most exact of the ranges that cover a name decides."""
    family = f"{name.partition('/')[0]}/*"
    covering = [((name, family, "*/*").index(pattern), q) for pattern, q in ranges if pattern in {name, family, "*/*"}]
    if not covering:
        return (0.0, 0)
    distance, quality = min(covering)
    return (quality, _EXACT - distance)


def _media_range(text: str) -> tuple[str, float]:
    pattern, _, parameters = text.partition(";")
    for parameter in parameters.split(";"):
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "q":
            return pattern.strip().lower(), _quality(value)
    return pattern.strip().lower(), 1.0


def _quality(text: str) -> float:
    try:
        return min(max(float(text), 0.0), 1.0)
    except ValueError:
        return 1.0


def _bare(text: str) -> str:
    return text.partition(";")[0].strip().lower()


def _native_names(native: str) -> list[str]:
    """The type itself, then what it may be called instead."""
    bare = _bare(native)
    return [bare, _ANY_BYTES, *(_XML if bare in _XML else ())]
