"""Requests generated from the OpenAPI document get documented answers, no server error, and take bounded work."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi.checks import content_type_conformance, status_code_conformance

REQUESTS = 20_000
CPU_MAX_S = 1.0
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance]

EXISTING = {"outlet": "cn", "target": "film/drama", "item_id": "item-1", "placement_id": "cn.zj-mobile-home"}
"""Path parameters of things that exist: half of all requests use them."""

TARGET = """
outlet: cn
controls:
  - {id: film/drama, action: exposure_target, where: {label: film}, impressions: 1000, until: 2099-01-01T00:00:00Z}
"""


@pytest.mark.timeout(4 * 3600)  # the 20,000 requests of a nightly run take most of an hour
def test_every_generated_request_gets_a_documented_answer(serve, scaled: Callable[..., int]) -> None:
    faults: Counter[str] = Counter()
    statuses: Counter[int] = Counter()
    with serve() as service, requests.Session() as session:
        service.stock(20, TARGET)
        service.page()  # compiles the page solver
        schema = schemathesis.openapi.from_dict(service.http.get("/openapi.json").json())
        operations = [result.ok() for result in schema.get_all_operations()]
        with_input = [o for o in operations if o.body or o.query or o.path_parameters or o.headers]
        for operation in with_input:
            count = -(-scaled(REQUESTS) // len(with_input))
            for status, problems in send(operation, str(service.http.base_url), session, count):
                statuses[status] += 1
                faults.update(problems)
    assert not faults, "\n".join(f"{count} x {text}" for text, count in faults.most_common())
    assert statuses.total() >= 0.9 * scaled(REQUESTS)  # Hypothesis stops early where it has no further input
    assert {200, 404, 422} <= set(statuses)


def send(operation: Any, base_url: str, session: requests.Session, count: int) -> list[tuple[int, list[str]]]:
    """Send `count` requests of an operation; return the status and the faults of each answer."""
    existing = {p.name: EXISTING[p.name] for p in operation.path_parameters if p.name in EXISTING}
    strategies = [
        operation.as_strategy(generation_mode=mode, path_parameters=parameters)
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
        for parameters in ((None, existing) if existing else (None,))
    ]
    answers: list[tuple[int, list[str]]] = []

    @given(case=st.one_of(strategies))
    @settings(max_examples=count, database=None, suppress_health_check=list(HealthCheck))
    def send_one(case: Any) -> None:
        started = time.process_time()
        try:
            response = case.call(base_url=base_url, session=session)
        except (requests.exceptions.InvalidURL, requests.exceptions.InvalidHeader, UnicodeEncodeError):
            return  # the client cannot send it
        took = time.process_time() - started
        answers.append((response.status_code, list(faults_of(case, response, took))))

    send_one()
    return answers


def faults_of(case: Any, response: Any, took_s: float) -> Iterator[str]:
    """Yield what is wrong with an answer."""
    request = f"{case.operation.label}: {case.as_curl_command()[:600]}"
    if took_s > CPU_MAX_S:
        yield f"{took_s:.1f} s of CPU: {request}"
    try:
        case.validate_response(response, checks=CHECKS)
    except FailureGroup as group:
        for failure in group.exceptions:
            yield f"{response.status_code} {failure.title}: {request}: {response.text[:300]}"
