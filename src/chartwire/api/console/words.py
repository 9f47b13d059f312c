"""What pages say of outcomes, issues, states and actions: what it means, and what to do about it."""

from dataclasses import dataclass

from chartwire.errors import IssueCode
from chartwire.identity import Failure
from chartwire.model.circuit import CircuitState
from chartwire.model.document import Document
from chartwire.model.matching import Disagreement
from chartwire.model.member import Role
from chartwire.model.overview import Condition, NetworkReport
from chartwire.model.quarantine import QuarantineState
from chartwire.model.webhook import DeliveryMode, DeliveryState, EventType, Outcome, ReplayState, SignatureScheme


@dataclass(frozen=True, slots=True)
class Word:
    """`tone` is good, busy, bad or quiet; `advice` says what to do, if anything can be done."""

    label: str
    tone: str
    meaning: str = ""
    advice: str = ""


OUTCOMES: dict[Outcome, Word] = {
    Outcome.DELIVERED: Word("Delivered", "good", "The receiver answered with a 2xx status."),
    Outcome.REDIRECT: Word(
        "Redirected",
        "bad",
        "The receiver answered with a redirect. Redirects are never followed: they could lead data elsewhere.",
        "Set the endpoint's URL to the address that the redirect points to.",
    ),
    Outcome.GONE: Word(
        "Gone",
        "bad",
        "The receiver answered 410: it wants nothing any more. The endpoint was disabled at once.",
        "If that was a mistake, mend the receiver and enable the endpoint.",
    ),
    Outcome.SLOW_DOWN: Word(
        "Asked to slow down",
        "bad",
        "The receiver answered 429, 502, 503 or 504: it is overloaded, or what stands before it is.",
        "Nothing, if it passes: it is tried again, later if the receiver says so. Else look at the receiver's load.",
    ),
    Outcome.HTTP_ERROR: Word(
        "Error answer",
        "bad",
        "The receiver was reached and answered with an error of its own.",
        "Read its answer below and its log at that time. 401 and 403 mostly mean that a signature is checked with "
        "another key than the one shown on the endpoint's page.",
    ),
    Outcome.BAD_PONG: Word(
        "Wrong pong",
        "bad",
        "The receiver answered the ping, but not with its own word.",
        'Answer {"ping": "…"} with {"pong": "…"}, the same word, as JSON with status 200.',
    ),
    Outcome.DNS: Word(
        "Name not found",
        "bad",
        "The host name of the URL could not be resolved.",
        "Check the URL for a typing error, and that the name is known to public DNS.",
    ),
    Outcome.REFUSED: Word(
        "No connection",
        "bad",
        "Nothing listens at the address of the URL, or a firewall refused the connection.",
        "Start the receiver; check the port of the URL and the firewall.",
    ),
    Outcome.TLS: Word(
        "TLS failed",
        "bad",
        "The TLS handshake failed, or the receiver's certificate is not trusted.",
        "Check that the certificate is not expired, is for this host name, and is sent with its chain.",
    ),
    Outcome.TIMEOUT: Word(
        "Timed out",
        "bad",
        "The answer was not complete before the endpoint's deadline.",
        "Answer first and work afterwards: put the message into a queue and answer 200 at once.",
    ),
    Outcome.RESET: Word(
        "Connection lost",
        "bad",
        "The connection was closed before the answer was complete.",
        "Look whether the receiver, or a proxy before it, was restarted or ran out of memory.",
    ),
    Outcome.PROTOCOL: Word(
        "Not HTTP",
        "bad",
        "What came back was not a valid HTTP answer.",
        "Check that the URL's port is that of an HTTP server, and http or https as it expects.",
    ),
    Outcome.TOO_LARGE_HEADERS: Word(
        "Too large headers",
        "bad",
        "The headers of the answer were larger than is read.",
        "Look which cookie or debugging header the receiver adds, and leave it out.",
    ),
    Outcome.FORBIDDEN_ADDRESS: Word(
        "Address not allowed",
        "bad",
        "The URL leads to an address that is not public. Nothing was sent.",
        "Use a public address, or let the operator open the network (CHARTWIRE_WEBHOOK_ALLOWED_NETWORKS).",
    ),
    Outcome.NO_URL: Word(
        "No URL", "quiet", "The endpoint had no URL when this was to be sent.", "Set a URL, then retry or replay."
    ),
    Outcome.EXPIRED: Word("Expired", "quiet", "The message was kept for its time, and is no more."),
}

STATES: dict[DeliveryState, Word] = {
    DeliveryState.WAITING: Word("Waiting", "busy", "It will be attempted, or attempted again."),
    DeliveryState.DELIVERED: Word("Delivered", "good", "The receiver has it."),
    DeliveryState.FAILED: Word("Failed", "bad", "Every attempt failed; nothing more happens until it is sent again."),
    DeliveryState.DROPPED: Word(
        "Dropped", "quiet", "Its endpoint was deleted before it was delivered, or a sample came too late."
    ),
}

CONDITIONS: dict[Condition, Word] = {
    Condition.WELL: Word("Well", "good", "The last answer was good."),
    Condition.UNPROVEN: Word("Not proven yet", "busy", "Nothing has been answered well yet: send a ping."),
    Condition.FAILING: Word("Failing", "bad", "The last attempts failed."),
    Condition.PAUSED: Word("Paused", "bad", "Too many failures in a row: one delivery at a time is tried."),
    Condition.DISABLED: Word("Disabled", "quiet", "Nothing is sent; what waits is held."),
    Condition.UNSET: Word("No URL", "quiet", "Messages for it fail until a URL is set."),
}

REPLAYS: dict[ReplayState, Word] = {
    ReplayState.RUNNING: Word("Running", "busy"),
    ReplayState.COMPLETED: Word("Completed", "good"),
    ReplayState.CANCELLED: Word("Cancelled", "quiet"),
}

QUERIES: dict[str, Word] = {
    "processing": Word("Under way", "busy"),
    "completed": Word("Completed", "good"),
    "failed": Word("Failed", "bad"),
}

STEPS: dict[str, Word] = {
    "waiting": Word("Being asked", "busy"),
    "done": Word("Answered", "good"),
    "held": Word("Here already", "quiet"),
    "failed": Word("Failed", "bad"),
}

DOCUMENT_STATUSES: dict[str, Word] = {
    "current": Word("Current", "good"),
    "superseded": Word("Superseded", "quiet"),
    "entered-in-error": Word("Entered in error", "bad"),
}

SIGN_ON_FAILURES: dict[Failure, Word] = {
    Failure.UNREACHABLE: Word(
        "The sign-in service does not answer",
        "bad",
        "Chartwire could not reach the provider that you sign in by.",
        "Try again in a minute. If it lasts, tell whoever runs this installation; meanwhile a password works.",
    ),
    Failure.MISCONFIGURED: Word(
        "Single sign-on is not set up rightly",
        "bad",
        "What the provider says of itself does not fit this installation's settings.",
        "Tell whoever runs this installation to look at CHARTWIRE_OIDC_ISSUER and CHARTWIRE_OIDC_ACCOUNT.",
    ),
    Failure.REFUSED: Word(
        "The provider did not let you in",
        "bad",
        "It ended the sign-in, or did not accept this installation's word.",
        "Begin again. If it lasts, whoever runs this installation finds the reason in the provider's own log.",
    ),
    Failure.STALE: Word(
        "This sign-in is too old",
        "bad",
        "It was begun more than ten minutes ago, in another browser, or without cookies.",
        "Begin again, and allow cookies for this site.",
    ),
    Failure.NOT_PROVEN: Word(
        "The provider's answer proves nothing",
        "bad",
        "It was not signed by the provider, not for this installation or this sign-in, or its time is over.",
        "Begin again. If it lasts, compare the clocks of both machines, and the client id in the settings.",
    ),
    Failure.UNKNOWN_PERSON: Word(
        "Nobody has let you in yet",
        "bad",
        "The provider knows you, this account does not.",
        "Ask an owner of the account to add your e-mail address under Members.",
    ),
    Failure.NO_ROLE: Word(
        "You have no role here",
        "bad",
        "None of your groups at the provider is one that may use this console.",
        "Ask whoever runs the provider to add you to one.",
    ),
    Failure.UNVERIFIED_EMAIL: Word(
        "Your e-mail address is not verified",
        "bad",
        "The provider names no address of yours, or does not say that it is yours.",
        "Verify the address there, then begin again.",
    ),
}

WORKERS: dict[str, str] = {
    "all": "Everything",
    "api": "Answers apps and people",
    "ingest": "Asks networks, keeps documents",
    "deliver": "Posts webhooks",
}

QUEUES: dict[str, str] = {
    "questions": "Networks to be asked",
    "documents": "Documents to be fetched",
    "deliveries": "Deliveries",
    "replays": "Replays under way",
}

QUARANTINE: dict[QuarantineState, Word] = {
    QuarantineState.HELD: Word("Held", "bad", "Nobody is told of it until somebody has looked."),
    QuarantineState.RELEASED: Word("Let in", "good", "It was taken in as it is, and told of."),
    QuarantineState.DISCARDED: Word("Thrown away", "quiet", "The same bytes are passed over when they come again."),
}

DISAGREEMENTS: dict[Disagreement, str] = {
    Disagreement.BIRTH_DATE: "birth date",
    Disagreement.NAME: "name",
    Disagreement.SEX: "sex",
}

ISSUES: dict[str, str] = {
    IssueCode.TIMEOUT: "It did not answer in time. It is asked again by itself.",
    IssueCode.UNREACHABLE: "It could not be reached. Check its address and the way there (chartwire doctor).",
    IssueCode.THROTTLED: "It asked for fewer requests. It is asked again later; lower its concurrency if this lasts.",
    IssueCode.SERVER_ERROR: "It answered with an error of its own. Tell its operator the time of the query.",
    IssueCode.UNAUTHORIZED: "It does not accept our credentials. Check key or token with its operator.",
    IssueCode.FORBIDDEN: "It knows us, but this is not granted. Ask its operator for the scope.",
    IssueCode.NOT_FOUND: "What it listed is not there, or it is not configured any more.",
    IssueCode.GONE: "It listed a document that it has deleted.",
    IssueCode.REJECTED: "It refused the question as it was asked.",
    IssueCode.INVALID_ANSWER: "Its answer was not what the standard says. Tell its operator.",
    IssueCode.FORBIDDEN_ADDRESS: "It pointed to an address that is not allowed.",
    IssueCode.FOREIGN_ORIGIN: "It pointed to another origin. Add it to allowed_origins if you trust it.",
    IssueCode.TOO_LARGE: "The document is larger than this installation accepts (max_document_bytes).",
    IssueCode.TOO_MANY_PAGES: "Its list has more pages than are read (max_pages).",
    IssueCode.NO_CONTENT: "It gave a document without content.",
    IssueCode.INTEGRITY: "The bytes were not those that it had announced.",
    IssueCode.WRONG_PATIENT: "It says that it is about somebody else: it is held under Quarantine for review.",
    IssueCode.MULTIPLE_CANDIDATES: "It knows several people who may be the patient, and none for certain.",
    IssueCode.NEEDS_MORE_DEMOGRAPHICS: "It needs to know more of the patient: add address, phone or identifiers.",
    IssueCode.NO_CONSENT: "The patient's consent is missing there.",
    IssueCode.INTERNAL: "Something went wrong in Chartwire. Look at its log at that time.",
}

TYPES: dict[EventType, str] = {
    EventType.PING: "Ping",
    EventType.DOCUMENT_DOWNLOAD: "Documents",
    EventType.DOCUMENT_BULK_DOWNLOAD_URLS: "Download links",
    EventType.ENDPOINT_DISABLED: "Endpoint disabled",
    EventType.SAMPLE: "Sample of yours",
    EventType.SUBSCRIPTION_HANDSHAKE: "FHIR handshake",
    EventType.SUBSCRIPTION_HEARTBEAT: "FHIR heartbeat",
    EventType.SUBSCRIPTION_EVENT: "FHIR notification",
}

MODES: dict[DeliveryMode, str] = {
    DeliveryMode.AS_AVAILABLE: "Each document as soon as it is here",
    DeliveryMode.ON_COMPLETION: "All documents of a query in one message when it ends",
}

SCHEMES: dict[SignatureScheme, str] = {
    SignatureScheme.V1: "HMAC-SHA256 (v1), one secret on both sides",
    SignatureScheme.V1A: "Ed25519 (v1a), the receiver has the public key alone",
}

ROLES: dict[Role, str] = {
    Role.OWNER: "Owner: everything, and who else comes in",
    Role.DEVELOPER: "Developer: webhooks, replays, keys, patients and documents",
    Role.VIEWER: "Viewer: sees patients, documents and deliveries, changes nothing",
    Role.AUDITOR: "Auditor: the audit trail and whether all is well, no health data",
}

NOTES: dict[str, str] = {
    "saved": "Saved.",
    "created": "Created. Its receiver is being pinged.",
    "deleted": "Deleted.",
    "enabled": "Enabled: what waits goes out now.",
    "hastened": "What waits is being attempted now.",
    "disabled": "Disabled: what waits is held until it is enabled.",
    "retried": "What had failed is being sent again.",
    "resent": "It is being sent again.",
    "released": "Let in: it is being taken in, and your receivers are told of it.",
    "discarded": "Thrown away.",
    "asked": "The networks are being asked. Documents appear here as they arrive.",
    "opted-out": "Opted out: networks are not asked about this patient any more.",
    "opted-in": "Opted in: networks may be asked about this patient.",
    "revoked": "Revoked: the key is refused from now on.",
    "removed": "Removed: the member cannot sign in any more.",
    "cancelled": "Cancelled: nothing more of it is sent again.",
    "role": "The role is changed.",
    "factor-on": "From now on a code of your app is asked for when you sign in.",
    "factor-off": "From now on the password alone is asked for.",
}
"""What happened, by the word that a form's redirect carries: text of ours, never of the address."""


def kind_of(document: Document) -> str:
    """What kind of document it is: nothing in it tells of whom."""
    coded = document.type
    named = next((coding.display for coding in coded.coding if coding.display), None) if coded else None
    return named or (coded.text if coded else None) or "Document"


def network_word(report: NetworkReport) -> Word:
    """How a network is, judged by its circuit breaker and by how asking it went."""
    if report.circuit_state is not CircuitState.CLOSED:
        return Word("Away", "bad")
    if report.waiting and report.issues:
        return Word("Being asked again", "busy")
    if report.failed and not report.answered:
        return Word("Failing", "bad")
    if report.failed:
        return Word("Fails at times", "bad")
    if report.waiting:
        return Word("Being asked", "busy")
    return Word("Answers", "good") if report.answered else Word("Not asked lately", "quiet")
