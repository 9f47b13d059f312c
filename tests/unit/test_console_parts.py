"""The console's pure parts: charts, words, snippets that run, passwords, one-time codes, what needs attention."""

import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qsl

import pytest

from chartwire.api.console import charts, snippets, words
from chartwire.api.console.pictures import qr_code
from chartwire.api.console.rendering import microseconds, milliseconds, size, span, when, with_query
from chartwire.delivery.signing import signature_headers
from chartwire.errors import BadRequestError, IssueCode
from chartwire.identity import Failure
from chartwire.model.circuit import Circuit, CircuitState
from chartwire.model.document import DocumentStatus, QueryStatus, StepState
from chartwire.model.health import Health
from chartwire.model.matching import Disagreement
from chartwire.model.member import Role
from chartwire.model.overview import Backlog, ConcernKind, Condition, EndpointReport, HourOfAttempts, NetworkReport
from chartwire.model.quarantine import QuarantineState
from chartwire.model.signing_key import SigningKey
from chartwire.model.webhook import (
    Attempt,
    DeliveryMode,
    DeliveryState,
    Endpoint,
    EndpointState,
    EventType,
    Outcome,
    PayloadVersion,
    ReplayState,
    SignatureScheme,
    Timing,
)
from chartwire.services.inspection import InspectedAttempt
from chartwire.services.overview import sorted_concerns
from chartwire.services.passwords import PasswordChecker, check_password, generate_password, hash_password
from chartwire.services.second_factor import code_at, matching_step, provisioning_uri

NOW = datetime(2025, 1, 2, 13, 34, 5, 678000, UTC)
KEY = SigningKey("k" * 32, bytes(32), NOW)
BODY = '{"meta":{"when":"…"},"note":"it\'s"}'.encode()


def an_endpoint(**changes: object) -> Endpoint:
    values: dict[str, object] = {
        "seq": 1, "id": "e1", "account_id": "a1", "is_settings": True, "url": "https://app.example/hook?a=b&c='d'",
        "state": EndpointState.ENABLED, "verified": True, "status_detail": "OK",
        "payload_version": PayloadVersion.V2023_04, "delivery": DeliveryMode.AS_AVAILABLE, "send_webhook_key": False,
        "signature_scheme": SignatureScheme.V1, "timeout_seconds": None, "created_at": NOW, "version": 0,
    }  # fmt: skip
    return Endpoint(**{**values, **changes})  # type: ignore[arg-type]  # the values fit their names


def an_attempt(endpoint: Endpoint) -> InspectedAttempt:
    headers = signature_headers(endpoint, [KEY], "m1", int(NOW.timestamp()), BODY)
    attempt = Attempt(1, NOW, 12, Outcome.DELIVERED, 200, endpoint.url or "", b"")
    return InspectedAttempt(attempt, (*headers.items(), ("content-length", str(len(BODY)))))


PROGRAMS = {"Python": [sys.executable], "JavaScript": ["node", "--input-type=module"], "Shell": ["sh"]}


@pytest.mark.parametrize("scheme", SignatureScheme)
@pytest.mark.parametrize("language", PROGRAMS)
def test_a_snippet_tells_a_right_signature_from_a_wrong_one(
    tmp_path: Path, language: str, scheme: SignatureScheme
) -> None:
    program = PROGRAMS[language]
    if shutil.which(program[0]) is None or (language == "Shell" and shutil.which("openssl") is None):
        pytest.skip(f"needs {program[0]} and openssl")
    endpoint = an_endpoint(signature_scheme=scheme)
    found = {each.language: each for each in snippets.verification(endpoint, an_attempt(endpoint))}
    for body, said in ((BODY, "good\n"), (BODY + b" ", "WRONG\n")):
        (tmp_path / "payload.json").write_bytes(body)
        ran = subprocess.run(
            program, input=found[language].code, cwd=tmp_path, env={**os.environ, "WEBHOOK_KEY": KEY.webhook_key},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert ran.stdout == said


def test_curl_sends_the_very_bytes() -> None:
    endpoint = an_endpoint()
    command = snippets.curl(an_attempt(endpoint), BODY).replace("curl -i", 'printf "%s\\n"', 1)
    parts = subprocess.run(["sh", "-c", command], capture_output=True, check=True).stdout.decode().split("\n")
    assert parts[0] == endpoint.url
    assert parts[-2] == BODY.decode()
    assert "webhook-id: m1" in parts
    assert not any(part.startswith("content-length") for part in parts)


def test_without_its_key_nothing_is_claimed_of_a_signature() -> None:
    inspected = InspectedAttempt(an_attempt(an_endpoint()).attempt, ())
    assert snippets.verification(an_endpoint(), inspected) == []


def test_everything_has_a_word() -> None:
    for enumeration, table in (
        (Outcome, words.OUTCOMES),
        (DeliveryState, words.STATES),
        (Condition, words.CONDITIONS),
        (ReplayState, words.REPLAYS),
        (QueryStatus, words.QUERIES),
        (StepState, words.STEPS),
        (DocumentStatus, words.DOCUMENT_STATUSES),
        (IssueCode, words.ISSUES),
        (EventType, words.TYPES),
        (DeliveryMode, words.MODES),
        (SignatureScheme, words.SCHEMES),
        (Role, words.ROLES),
        (QuarantineState, words.QUARANTINE),
        (Failure, words.SIGN_ON_FAILURES),
        (Disagreement, words.DISAGREEMENTS),
    ):
        assert set(table) == set(enumeration)
    assert all(word.advice for outcome, word in words.OUTCOMES.items() if word.tone == "bad"), "say what to do"


def test_the_chart_stacks_the_last_24_hours() -> None:
    this_hour = NOW.replace(minute=0, second=0, microsecond=0)
    chart = charts.attempt_chart(
        [
            HourOfAttempts(this_hour, {Outcome.DELIVERED: 2, Outcome.HTTP_ERROR: 1, Outcome.REFUSED: 1}),
            HourOfAttempts(this_hour - timedelta(hours=23), {Outcome.DELIVERED: 1}),
            HourOfAttempts(this_hour - timedelta(hours=24), {Outcome.DELIVERED: 9}),  # too old
        ],
        NOW,
    )
    assert chart.totals == {"good": 3, "answered": 1, "silent": 1}
    assert chart.highest == 4
    assert [(bar.series, bar.y, bar.height) for bar in chart.bars[-3:]] == [
        ("good", 48, 48), ("answered", 24, 24), ("silent", 0, 24)
    ]  # fmt: skip
    assert chart.bars[0].x < charts.WIDTH / charts.HOURS
    assert [hour.start for hour in chart.hours] == [this_hour - timedelta(hours=23), this_hour]
    assert charts.attempt_chart([], NOW).bars == []


def test_parts_of_a_bar_fill_it() -> None:
    assert charts.parts([1, 0, 3], 100) == [(0, 25), (25, 0), (25, 75)]
    assert charts.parts([0, 0], 100) == [(0, 0), (0, 0)]


def test_the_time_of_an_attempt_is_told_by_its_steps() -> None:
    def told(duration_ms: int, timing: Timing | None) -> list[tuple[str, str, int]]:
        attempt = Attempt(1, NOW, duration_ms, Outcome.DELIVERED, 200, "https://x.example", b"", timing)
        return [(lap.name, lap.label, lap.microseconds) for lap in charts.laps(attempt)]

    assert told(30, Timing(False, 500, 9500, None, 12_000)) == [
        ("dns", "DNS", 500), ("connect", "Connect", 9500), ("first-byte", "First byte", 12_000),
        ("rest", "The rest", 8000),
    ]  # fmt: skip
    assert told(5000, Timing(True)) == [("rest", "No answer", 5_000_000)]
    assert told(2, Timing(True, first_byte=1900)) == [("first-byte", "First byte", 1900)]  # the rest is rounding
    assert told(5, None) == []
    assert [microseconds(count) for count in (40, 1250, 12_400, 1_500_000)] == ["0.0 ms", "1.2 ms", "12 ms", "1.5 s"]


def test_concerns_are_sorted_by_how_pressing_they_are() -> None:
    well = EndpointReport(an_endpoint(), Health(), 3, 0)
    failing = EndpointReport(an_endpoint(id="e2"), Health(failures=1), 2, 4)
    paused = EndpointReport(an_endpoint(id="e3"), Health(failures=5, waits=1), 1, 0)
    disabled = EndpointReport(an_endpoint(id="e4", state=EndpointState.DISABLED), Health(), 0, 0)
    unset = EndpointReport(an_endpoint(id="e5", url=None), Health(), 0, 0)
    networks = [
        NetworkReport("mercy", failed=2, issues=(("timeout", 2),)),
        NetworkReport("grace", failed=1, waiting=4, circuit=Circuit(), circuit_state=CircuitState.HALF_OPEN),
        NetworkReport("sandbox", answered=5),
    ]
    found = sorted_concerns([well, failing, paused, disabled, unset], networks, Backlog((5, 0, 2, 1, 0)))
    assert [(each.kind, each.subject, each.count) for each in found] == [
        (ConcernKind.ENDPOINT_DISABLED, "e4", 0),
        (ConcernKind.ENDPOINT_PAUSED, "e3", 1),
        (ConcernKind.ENDPOINT_FAILING, "e2", 2),
        (ConcernKind.NETWORK_AWAY, "grace", 4),
        (ConcernKind.NETWORK_FAILING, "mercy", 2),
        (ConcernKind.DELIVERIES_FAILED, "e2", 4),
        (ConcernKind.BACKLOG_OLD, "", 3),
    ]
    assert sorted_concerns([well], [], Backlog((9, 9, 0, 0, 0))) == []


@pytest.mark.parametrize(
    ("password", "said"),
    [
        ("elevenchars", "at least 12 characters"),
        ("a few words" * 20, "at most 200 characters"),
        ("aaaaaaaaaaaaaa", "easy to guess"),
        ("Ada.Lovelace.1815", "easy to guess"),
    ],
)
def test_a_password_that_will_not_do_is_refused_with_the_reason(password: str, said: str) -> None:
    with pytest.raises(BadRequestError, match=said):
        check_password(password, "ada.lovelace.1815@clinic.example")


@pytest.mark.parametrize("password", ["twelve chars", "few words " * 20])
def test_a_few_words_will_do(password: str) -> None:
    check_password(password, "ada.lovelace.1815@clinic.example")


async def test_a_password_matches_its_own_hash_alone() -> None:
    check_password(generate_password(), "ada@clinic.example")
    kept, checker = hash_password("correct horse battery"), PasswordChecker()
    assert kept.startswith("$argon2id$")
    assert await checker.matches("correct horse battery", kept)
    assert not await checker.matches("correct horse batterz", kept)
    assert not await checker.matches("", None)
    assert not await checker.matches("x", "nonsense")


@pytest.mark.parametrize(("seconds", "code"), [(59, "287082"), (1_111_111_109, "081804"), (20_000_000_000, "353130")])
def test_codes_are_those_of_rfc_6238(seconds: int, code: str) -> None:
    """Appendix B of the RFC, the last six of its eight digits."""
    secret, then = b"12345678901234567890", datetime.fromtimestamp(seconds, UTC)
    assert code_at(secret, then) == code
    assert matching_step(secret, f"{code[:3]} {code[3:]}", then) == seconds // 30
    for wrong in ("", "12345", "abcdef", "٣٣٣٣٣٣"):
        assert matching_step(secret, wrong, then) is None


def test_a_code_is_taken_where_clocks_differ_by_a_step_and_no_more() -> None:
    secret, step = bytes(20), int(NOW.timestamp()) // 30
    clocks = [NOW + timedelta(seconds=30 * steps) for steps in range(-2, 3)]
    assert [matching_step(secret, code_at(secret, NOW), clock) for clock in clocks] == [None, step, step, step, None]


def test_an_app_reads_the_secret_off_the_picture() -> None:
    uri = provisioning_uri(bytes(20), "ada@clinic.example")
    assert uri.startswith("otpauth://totp/Chartwire:ada%40clinic.example?")
    assert dict(parse_qsl(uri.partition("?")[2]))["secret"] == "A" * 32
    path, side = qr_code(uri)
    assert (side - 8 - 17) % 4 == 0  # each version of the code has 4 squares more; 4 on each side are margin
    finder = [f"M{4 + column} 4h1v1h-1z" for column in range(7)]
    assert path.startswith("".join(finder))  # the upper edge of the first finder pattern (ISO/IEC 18004 §6.3.3)


def test_amounts_are_written_for_people() -> None:
    assert [size(count) for count in (0, 1023, 1024, 10_240, 1 << 30, 3 << 40)] == [
        "0 B", "1023 B", "1.0 KiB", "10 KiB", "1.0 GiB", "3.0 TiB"
    ]  # fmt: skip
    assert [milliseconds(count) for count in (5, 999, 1500, 61_000)] == ["5 ms", "999 ms", "1.5 s", "1 min"]
    assert span(timedelta(hours=30)) == "1 d"
    assert when(NOW) == (
        '<time datetime="2025-01-02T13:34:05.678Z" title="2025-01-02 13:34:05.678 UTC">2025-01-02 13:34:05 UTC</time>'
    )
    assert when(None) == "–"
    assert with_query("/x", {"a": ["1", "2"], "b": "", "c": "&"}, d=None, after="z") == "/x?a=1&a=2&c=%26&after=z"
