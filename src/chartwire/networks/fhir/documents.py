"""What a DocumentReference means: one `RemoteDocument` for each of its attachments (MHD 4.2, mapping to XDS).

An entry that breaks the profile is left out and counted, never an error of the whole list.
"""

import binascii
import re
from base64 import b64decode
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from yarl import URL

from chartwire.errors import IssueCode, PermanentNetworkError
from chartwire.model.document import DocumentStatus, JsonObject, RemoteDocument, normalise_identifier
from chartwire.networks.fhir.client import is_web_url
from chartwire.networks.fhir.datatypes import coding, concept, first, moment, objects, reference_id, shown, text

EMPTY_SHA1 = "da39a3ee5e6b4b0d3255bfef95601890afd80709"
_OID = re.compile(r"[0-2](\.(0|[1-9]\d*))+(\^.+)?", re.ASCII)
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}(\^.+)?", re.ASCII | re.IGNORECASE)
_URI_SYSTEM = "urn:ietf:rfc:3986"
_MEDIA_TYPE = re.compile(r"[\w.+-]+/[\w.+-]+", re.ASCII)
_MAX_URL = 2048


@dataclass(frozen=True, slots=True)
class Origin:
    """How the listing network reads URLs: `resolve` makes them absolute (or raises `ValueError`)."""

    resolve: Callable[[str], URL]
    trusts: Callable[[URL], bool]


def read_documents(
    references: Sequence[JsonObject], patient_id: str, origin: Origin
) -> tuple[tuple[RemoteDocument, ...], Counter[IssueCode]]:
    """The documents that DocumentReferences of one patient list, each once, and how many were left out for what."""
    left_out: Counter[IssueCode] = Counter()
    masters = {held: _master_identifier(each) for each in references if (held := text(each.get("id")))}
    documents: dict[str, RemoteDocument] = {}
    places: set[str] = set()
    for reference in references:
        try:
            for document in _read_reference(reference, patient_id, origin, masters, left_out):
                place = document.retrieval.get("url", document.key)
                if place not in places:
                    places.add(place)
                    documents.setdefault(document.key, document)
        except PermanentNetworkError as unfit:
            left_out[unfit.code] += 1
    return tuple(documents.values()), left_out


def _read_reference(
    reference: JsonObject,
    patient_id: str,
    origin: Origin,
    masters: dict[str, str | None],
    left_out: Counter[IssueCode],
) -> Iterator[RemoteDocument]:
    if reference.get("status") == DocumentStatus.ENTERED_IN_ERROR:
        return
    common = _common_parts(reference, patient_id, masters)
    master = _master_identifier(reference)
    contents = objects(reference.get("content"))
    if not contents:
        raise PermanentNetworkError(IssueCode.NO_CONTENT)
    for number, content in enumerate(contents):
        try:
            document = _with_attachment(common, content, number, origin)
        except PermanentNetworkError as unfit:
            left_out[unfit.code] += 1
            continue
        # The other attachments are the same document in another form: a second file, not a duplicate.
        yield replace(document, master_identifier=master)
        master = None


def _common_parts(reference: JsonObject, patient_id: str, masters: dict[str, str | None]) -> RemoteDocument:
    key = text(reference.get("id"))
    if reference.get("resourceType") != "DocumentReference" or key is None:
        raise PermanentNetworkError(IssueCode.INVALID_ANSWER)
    if reference_id(reference.get("subject"), "Patient") not in {None, patient_id}:
        raise PermanentNetworkError(IssueCode.INTEGRITY)  # another patient's document: never to be mixed in
    period = first(first(reference.get("context")).get("period"))
    return RemoteDocument(
        key=key,
        description=text(reference.get("description")),
        status=_status(reference),
        indexed=moment(reference.get("date")),
        type=concept(reference.get("type")),
        category=concept(reference.get("category")),
        period_start=moment(period.get("start")),
        period_end=moment(period.get("end")),
        author=_author(reference),
        replaces=tuple(_replaced(reference, masters)),
    )


def _with_attachment(common: RemoteDocument, content: JsonObject, number: int, origin: Origin) -> RemoteDocument:
    attachment = first(content.get("attachment"))
    title = text(attachment.get("title"))
    size, sha1 = _size(attachment), read_hash(attachment.get("hash"))
    return replace(
        common,
        key=common.key if number == 0 else f"{common.key}#{number}",
        title=title,
        description=common.description or title or shown(common.category) or shown(common.type),
        indexed=moment(attachment.get("creation")) or common.indexed,
        mime_type=media_type(attachment.get("contentType")),
        size=size,
        sha1=None if sha1 == EMPTY_SHA1 else sha1,  # delayed assembly (MHD §3.67): made when it is fetched
        format=coding(content.get("format")),
        retrieval=_retrieval(attachment, common.key, number, origin),
    )


def _retrieval(attachment: JsonObject, key: str, number: int, origin: Origin) -> dict[str, str]:
    """Where the bytes are: at a URL, or in the DocumentReference itself, to be read again.

    A URL of another origin with a query may be signed: a secret that expires. It, too, is read again when needed.
    """
    again = {"reference": key, "content": str(number)}
    url = retrieval_url(attachment, origin.resolve)
    if url is None and not attachment.get("data"):
        raise PermanentNetworkError(IssueCode.NO_CONTENT)
    return {"url": str(url)} if url is not None and (origin.trusts(url) or not url.query_string) else again


def retrieval_url(attachment: JsonObject, resolve: Callable[[str], URL]) -> URL | None:
    """The absolute URL of an attachment's bytes; None if it has none.

    Raises `PermanentNetworkError` for one that cannot be fetched.
    """
    held = text(attachment.get("url"))
    if held is None or attachment.get("data"):
        return None
    try:
        url = resolve(held)
    except ValueError:
        raise PermanentNetworkError(IssueCode.INVALID_ANSWER, "an attachment's URL is malformed") from None
    if not is_web_url(url):
        raise PermanentNetworkError(IssueCode.NO_CONTENT, "an attachment's URL cannot be fetched")  # `urn:` and others
    if len(held) > _MAX_URL or url.user is not None or url.password is not None:
        raise PermanentNetworkError(IssueCode.INVALID_ANSWER, "an attachment's URL may not be used")
    return url.with_fragment(None)


def media_type(value: object) -> str | None:
    """A media type without its parameters, in lower case."""
    bare = (text(value) or "").partition(";")[0].strip().lower()
    return bare if _MEDIA_TYPE.fullmatch(bare) else None


def read_hash(value: object) -> str | None:
    """An attachment's SHA-1 as lower-case hex: from Base64 of the digest, or, a common bug, of its hex text."""
    if not isinstance(value, str):
        return None
    try:
        digest = b64decode(value.strip(), validate=True)
    except (binascii.Error, ValueError):
        return None
    if len(digest) == 20:
        return digest.hex()
    hexadecimal = value.strip().encode() if len(value.strip()) == 40 else digest
    return hexadecimal.decode().lower() if re.fullmatch(rb"[0-9a-fA-F]{40}", hexadecimal) else None


def _master_identifier(reference: JsonObject) -> str | None:
    """The author's id of the document: `masterIdentifier`, else the registry's own URN for the entry (MHD entryUUID).

    Any other `identifier` may be one for all versions of a document, or of the visit that it is about.
    """
    official = (
        each
        for each in objects(reference.get("identifier"))
        if each.get("use") == "official" and each.get("system") == _URI_SYSTEM
    )
    named = map(global_identifier, (first(reference.get("masterIdentifier")), *official))
    return next((each for each in named if each is not None), None)


def global_identifier(identifier: JsonObject) -> str | None:
    """One spelling of an Identifier; None where another network could use the same for another document."""
    value, system = text(identifier.get("value")), text(identifier.get("system"))
    if value is None:
        return None
    bare = normalise_identifier(value)
    if _UUID.fullmatch(bare):
        return bare[:36].lower() + bare[36:]
    if _OID.fullmatch(bare) or system == _URI_SYSTEM:
        return bare
    return f"{normalise_identifier(system)}|{value}" if system else None


def _replaced(reference: JsonObject, masters: dict[str, str | None]) -> Iterator[str]:
    """Master identifiers of the earlier versions that this document replaces."""
    contained = {f"#{each.get('id')}": each for each in objects(reference.get("contained"))}
    for relation in objects(reference.get("relatesTo")):
        if relation.get("code") != "replaces":
            continue
        target = first(relation.get("target"))
        listed = masters.get(reference_id(target, "DocumentReference") or "")
        inside = _master_identifier(contained.get(text(target.get("reference")) or "", {}))
        earlier = listed or inside or global_identifier(first(target.get("identifier")))
        if earlier is not None:
            yield earlier


def _author(reference: JsonObject) -> str | None:
    """The first author that has a name: written out, or in a contained resource."""
    contained = {f"#{each.get('id')}": each for each in objects(reference.get("contained"))}
    for author in objects(reference.get("author")):
        name = text(author.get("display")) or _name(contained.get(text(author.get("reference")) or "", {}))
        if name is not None:
            return name
    return None


def _name(resource: JsonObject) -> str | None:
    """The name of a contained Practitioner or Patient (HumanName) or Organization (a string)."""
    held = resource.get("name")
    human = first(held)
    given = human.get("given")
    parts = [*(given if isinstance(given, list) else []), human.get("family")]
    written = " ".join(part for part in map(text, parts) if part)
    return text(held) or text(human.get("text")) or text(written)


def _status(reference: JsonObject) -> DocumentStatus:
    superseded = reference.get("status") == DocumentStatus.SUPERSEDED
    return DocumentStatus.SUPERSEDED if superseded else DocumentStatus.CURRENT


def _size(attachment: JsonObject) -> int | None:
    size = attachment.get("size")
    return size if isinstance(size, int) and not isinstance(size, bool) and 0 < size < 1 << 53 else None
