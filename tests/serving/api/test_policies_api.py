"""The policy API: draft, lint, publish, history, rollback, concurrent editors and the audit trail."""

from __future__ import annotations

import json
import threading

import httpx
import pytest

from recsys.guidance.compilation.compile import CompiledPolicy

TEXT = "outlet: cn.zj\nweights: {locality: 0.2}\ncontrols:\n  - {id: cap, action: cap, attribute: topic, at_most: 3}\n"


def post(service, path: str, body, outlet: str = "cn.zj", status: int | None = None):
    answer = service.http.post(f"/v1/policies/{outlet}/{path}", json=body)
    assert status is None or answer.status_code == status, answer.text
    return answer.json()


def test_a_policy_from_draft_to_rollback(service, until) -> None:
    def in_force() -> str:
        return service.http.get("/v1/policies/cn.zj/effective").json()["effective"]["version"]

    assert service.http.get("/v1/policies/cn.zj").status_code == 404
    assert in_force() == "cn@1"
    first = post(service, "draft", {"text": TEXT, "author": "Lin", "note": "first", "base_version": 0}, status=201)
    assert (first["version"]["version"], first["version"]["state"], first["version"]["note"]) == (1, "draft", "first")
    assert in_force() == "cn@1", "a draft must not change the policy in force"

    post(service, "publish", {"version": 1, "author": "Bo", "base_version": 0}, status=200)
    until(lambda: in_force() == "cn@1+cn.zj@1", within_s=1)
    policy = service.http.get("/v1/policies/cn.zj").json()
    assert policy["active"]["text"] == TEXT
    assert [(c["origin"], c["control"]["id"]) for c in policy["effective"]["controls"]] == [
        ("cn", "floor"),
        ("cn", "one-topic"),
        ("cn.zj", "cap"),
    ]
    assert service.page()["policy_version"] == "cn@1+cn.zj@1"

    looser = {"policy": {"outlet": "cn.zj", "weights": {}}, "author": "Lin", "base_version": 1}
    post(service, "draft", looser, status=201)
    post(service, "publish", {"version": 2, "author": "Bo"}, status=200)
    until(lambda: in_force() == "cn@1+cn.zj@2", within_s=1)
    post(service, "rollback", {"version": 1, "author": "Bo", "base_version": 2}, status=200)
    until(lambda: in_force() == "cn@1+cn.zj@1", within_s=1)

    versions = service.http.get("/v1/policies/cn.zj/history").json()["versions"]
    assert [(v["version"], v["active"], len(v["published_at"])) for v in versions] == [(2, False, 1), (1, True, 2)]
    rows = service.http.get("/v1/audit", params={"page_size": 1000}).json()["entries"]
    about = [(row["actor"], row["action"]) for row in rows if row["subject"] == "cn.zj"]
    assert about == [
        ("Lin", "policy.draft"),
        ("Bo", "policy.publish"),
        ("Lin", "policy.draft"),
        ("Bo", "policy.publish"),
        ("Bo", "policy.rollback"),
    ]
    assert service.services.control.verify_audit()[1] is None


@pytest.mark.parametrize("operation", ["draft", "publish"])
def test_yaml_requests_use_query_parameters_and_json_requests_reject_them(service, operation) -> None:
    def send(query: str, body: str = TEXT, kind: str = "application/yaml"):
        return service.http.post(
            f"/v1/policies/cn.zj/{operation}?{query}", content=body, headers={"content-type": kind}
        )

    assert send("author=Lin&base_version=0").is_success
    outdated = send("author=Bo&base_version=0")
    assert outdated.status_code == 409
    assert "version 1 is newer than 0" in outdated.json()["detail"]
    assert send("author=Bo&base_version=99").status_code == 409
    assert send("author=Bo&base_version=-1").json()["findings"][0]["where"] == "query.base_version"
    for query, text in (("nonsense=1", "no query parameter 'nonsense'"), ("autor=Bo", "did you mean 'author'")):
        refused = send(query)
        assert refused.status_code == 422
        assert text in refused.json()["findings"][0]["message"]
    body = json.dumps({"text": TEXT, "author": "Bo"} if operation == "draft" else {"version": 1, "author": "Bo"})
    unread = send("base_version=99", body, "application/json")
    assert [finding["where"] for finding in unread.json()["findings"]] == ["query.base_version"]
    assert len(service.http.get("/v1/policies/cn.zj/history").json()["versions"]) == 1


def test_concurrent_edits_of_a_policy_are_a_conflict(service) -> None:
    post(service, "draft", {"text": TEXT, "author": "Lin", "base_version": 0}, status=201)
    second = post(service, "draft", {"text": TEXT, "author": "Bo", "base_version": 0}, status=409)
    assert "version 1 is newer than 0" in second["detail"]
    assert (second["code"], second["params"]["newest"], second["params"]["base"]) == ("version_outdated", 1, 0)
    post(service, "publish", {"version": 1, "author": "Lin"}, status=200)
    outdated = post(service, "publish", {"version": 1, "author": "Bo", "base_version": 0}, status=409)
    assert outdated["type"] == "urn:mainstay:problem:conflict"


def test_findings_of_an_invalid_policy_name_its_fields(shared) -> None:
    bad = {"outlet": "cn.zj", "controls": [{"id": "a", "action": "quota", "where": {"label": "x"}, "at_least": 1.5}]}
    for path, body in (("draft", {"policy": bad, "author": "Lin"}), ("lint", {"policy": bad})):
        findings = post(shared, path, body)["findings"]
        assert findings[0]["where"] == "controls[0].at_least", path
    wrong_outlet = post(shared, "draft", {"text": "outlet: cn.js\n", "author": "Lin"}, status=422)
    assert "cn.js" in wrong_outlet["findings"][0]["message"]
    both = post(shared, "draft", {"text": TEXT, "policy": {}, "author": "Lin"}, status=422)
    assert "either `text`" in both["findings"][0]["message"]
    no_author = post(shared, "draft", {"text": TEXT, "author": ""}, status=422)
    assert no_author["findings"][0]["where"] == "body.author"
    assert shared.services.control.history("cn.zj") == []


def test_lint_and_draft_accept_yaml_unchanged(service) -> None:
    headers = {"content-type": "application/yaml"}
    lint = service.http.post("/v1/policies/cn.zj/lint", content=TEXT, headers=headers)
    assert lint.json() == post(service, "lint", {"text": TEXT}, status=200)
    saved = service.http.post("/v1/policies/cn.zj/draft?author=Lin&note=one", content=TEXT, headers=headers).json()
    version = saved["version"]
    assert (version["text"], version["author"], version["note"]) == (TEXT, "Lin", "one")
    assert service.http.post("/v1/policies/cn.zj/lint", content="{", headers=headers).json()["findings"]


def test_a_body_with_a_wrong_content_type_is_rejected_with_the_expected_one(shared) -> None:
    body, form = '{"viewer_id": "v1"}', {"content-type": "application/x-www-form-urlencoded"}  # what curl -d sends
    for path in ("placements/cn.zj-mobile-home:recommend", "targets/cn.zj/harvest/pause", "policies/cn.zj/rollback"):
        answer = shared.http.post(f"/v1/{path}", content=body, headers=form)
        assert answer.status_code == 415
        [finding] = answer.json()["findings"]
        assert finding["where"] == "header.content-type"
        assert "send content-type: application/json" in finding["message"]


def test_lint_reports_an_unknown_outlet(shared) -> None:
    findings = post(shared, "lint", {"text": "outlet: cn.zk\n"}, outlet="cn.zk", status=200)["findings"]
    assert findings[0]["where"] == "outlet"
    assert "no outlet 'cn.zk' is known" in findings[0]["message"]
    assert "did you mean 'cn.zj'?" in findings[0]["message"]
    for outlet in ("cn", "cn.zj"):
        findings = post(shared, "lint", {"text": f"outlet: {outlet}\n"}, outlet=outlet, status=200)["findings"]
        assert not [finding for finding in findings if finding["where"] == "outlet"]


def test_lint_names_the_control_and_an_excessive_weight(shared) -> None:
    text = (
        "outlet: cn.zj\nweights: {public_value: 0.9}\ncontrols:\n  - {id: odd, action: pin, item: nothing, slot: 1}\n"
    )
    weight, pin = post(shared, "lint", {"text": text}, status=200)["findings"][:2]
    assert weight["where"] == "weights.public_value"
    assert weight["control"] is None, "the weight is outside of any control"
    assert "adds up to 0.9 play equivalents" in weight["message"]
    assert (pin["where"], pin["control"]) == ("controls[0].item", "odd")


def test_only_findings_of_level_error_prevent_saving(shared) -> None:
    """Draft rejects a policy with an error and saves a policy with only warnings and hints."""
    odd = "outlet: cn.zj\nweights: {qqqqqqqq: 0.1}\ncontrols:\n  - {id: a, action: block, where: {label: nothing}}\n"
    for text, levels in (("outlet: cn.zj\ncontrols: [\n", {"error"}), (odd, {"warning", "hint"})):
        findings = post(shared, "lint", {"text": text}, status=200)["findings"]
        assert {finding["level"] for finding in findings} == levels, findings
    refused = post(shared, "draft", {"text": "outlet: cn.zj\ncontrols: [\n", "author": "Lin"}, status=422)
    assert refused["findings"][0]["level"] == "error"


def test_the_audit_trail_can_be_listed_newest_first(service) -> None:
    for n in range(5):
        post(service, "draft", {"text": TEXT, "author": f"editor-{n}", "base_version": n}, status=201)
    every = [row["seq"] for row in service.http.get("/v1/audit", params={"page_size": 1000}).json()["entries"]]
    listed: list[int] = []
    token = None
    for _ in every:
        query = {"order": "newest", "page_size": 3} | ({"page_token": token} if token else {})
        page = service.http.get("/v1/audit", params=query).json()
        listed += [row["seq"] for row in page["entries"]]
        token = page["next_page_token"]
        if token is None:
            break
    assert listed == every[::-1]


def test_a_policy_under_which_no_page_can_be_made_is_neither_saved_nor_published(service, monkeypatch) -> None:
    huge = "outlet: cn.zj\ncontrols:\n  - {id: a, action: cap, attribute: topic, at_most: 3000000000}\n"
    for path in ("draft", "lint"):
        body = post(service, path, {"text": huge} | ({"author": "Lin"} if path == "draft" else {}))
        assert "at most 200" in body["findings"][0]["message"], path
    for odd in ("\\ud800", "\\u0000"):
        text = f'{{"outlet": "cn.zj", "note": "{odd}"}}'
        (finding,) = post(service, "draft", {"text": text, "author": "Lin"}, status=422)["findings"]
        assert (finding["where"], "is not allowed in a policy" in finding["message"]) == ("note", True)
    refused = post(service, "draft", {"policy": {"outlet": "cn.zj", "note": "\0"}, "author": "Lin"}, status=422)
    assert refused["findings"][0]["where"] == "note"
    assert service.services.control.history("cn.zj") == []
    post(service, "draft", {"text": TEXT, "author": "Lin"}, status=201)
    monkeypatch.setattr(CompiledPolicy, "smoke_test", _overflow)
    for path, body in (("draft", {"text": TEXT, "author": "Lin"}), ("publish", {"version": 1, "author": "Lin"})):
        refused = post(service, path, body, status=422)
        assert "no page can be built under this policy (OverflowError" in refused["findings"][0]["message"], path
    assert [version.active for version in service.services.control.history("cn.zj")] == [False]


def _overflow(policy: CompiledPolicy) -> None:
    raise OverflowError("Python integer 3000000000 out of bounds for int32")


def test_lint_checks_a_policy_against_its_parents_in_force(shared) -> None:
    loosened = (
        "outlet: cn.zj\ncontrols:\n  - {id: floor, action: quota, where: {label: public-service}, at_least: 0.1}\n"
    )
    findings = post(shared, "lint", {"text": loosened}, status=200)["findings"]
    assert any("floor" in finding["message"] and "legal" in finding["message"] for finding in findings)


def test_unknown_versions_and_invalid_outlets_are_errors(shared) -> None:
    post(shared, "publish", {"version": 9, "author": "Lin"}, status=404)
    post(shared, "rollback", {"version": 9, "author": "Lin"}, status=404)
    bad = post(shared, "publish", {"version": "x"}, status=422)
    assert [f["where"] for f in bad["findings"]] == ["body.version", "body.author"]
    assert shared.http.get("/v1/policies/Not-A-Code/effective").status_code == 422
    assert shared.http.get("/v1/policies/cn.js/effective").status_code == 404


def test_outlets_have_names_and_their_policy_version_in_force(service, until) -> None:
    named = {"name": {"zh": "浙江", "en": "Zhejiang"}, "author": "Lin"}
    assert service.http.put("/v1/outlets/cn.zj", json=named).status_code == 200
    service.caught_up()
    outlets = {outlet["code"]: outlet for outlet in service.http.get("/v1/outlets").json()["outlets"]}
    assert list(outlets) == ["cn", "cn.zj"]
    assert outlets["cn.zj"]["name"]["zh"] == "浙江"
    assert outlets["cn.zj"]["policy_version"] == "cn@1"


def test_every_write_and_the_audit_trail_require_the_token(serve) -> None:
    with serve({"admin_token": "s3cret"}) as service:
        for method, path in [
            ("POST", "/v1/policies/cn/draft"),
            ("POST", "/v1/policies/cn/publish"),
            ("POST", "/v1/policies/cn/rollback"),
            ("POST", "/v1/policies/cn/lint"),
            ("PUT", "/v1/outlets/cn"),
            ("POST", "/v1/items"),
            ("GET", "/v1/audit"),
            ("GET", "/v1/policies/cn/history"),
            ("GET", "/console/choices"),
        ]:
            assert service.http.request(method, path, json={}).status_code == 401, path
        assert service.services.control.revision() == 0


def test_the_vocabulary_lists_terms_with_the_number_of_items(service, item) -> None:
    items = [item(100, status="withdrawn", labels=["gone"]), item(101, region="cn.zj.hz", series="harvest")]
    service.http.post("/v1/items", json={"items": items}).raise_for_status()
    service.caught_up()
    vocabulary = service.http.get("/v1/vocabulary").json()
    assert vocabulary["published_items"] == 61

    def terms(field: str) -> list[tuple[str, int]]:
        listed = service.http.get("/v1/vocabulary", params={"field": field}).json()["terms"]
        assert listed == [term for term in vocabulary["terms"] if term["field"] == field]
        return [(term["name"], term["items"]) for term in listed]

    assert terms("label") == [("film/drama", 46), ("public-service", 15)]
    assert terms("axis") == [("public_value", 41)]
    assert [term["largest"] for term in vocabulary["terms"] if term["largest"] is not None] == [1.0]
    assert terms("region") == [("cn.zj.hz", 1)]
    assert terms("series") == [("harvest", 1)]
    assert sum(count for _, count in terms("topic")) == sum(count for _, count in terms("kind")) == 61


def test_a_policy_applies_a_profile_by_name(service) -> None:
    profiles = {profile["name"]: profile for profile in service.http.get("/v1/profiles").json()["profiles"]}
    assert {"mainstream-guidance", "european-works", "canadian-discoverability"} <= profiles.keys()
    assert all(c["legal_ref"] for profile in profiles.values() for c in profile["controls"])
    assert any(duty["owner"] == "request" for duty in profiles["mainstream-guidance"]["duties"])
    service.publish("cn.zj", "outlet: cn.zj\nprofile: mainstream-guidance\n")
    page = service.page()
    assert page["policy_version"] == "cn@1+profile:mainstream-guidance@1+cn.zj@1"
    origins = {line["id"]: line["origin"] for line in page["receipt"]["controls"]}
    assert origins["mainstream-floor"] == "profile:mainstream-guidance"
    unknown = post(service, "draft", {"text": "outlet: cn.zj\nprofile: nonsense\n", "author": "Lin"}, status=422)
    assert unknown["findings"][0]["where"] == "profile"
    assert "mainstream-guidance" in unknown["findings"][0]["message"]


def test_a_policy_whose_pages_exceed_their_budget_is_not_published(service, monkeypatch) -> None:
    """Publication is refused by counted work; a draft is saved, and its findings say that it cannot be published."""
    monkeypatch.setattr("recsys.guidance.lint.lint.LINT_S", 0.1)
    minimum = "  - {{id: m{n}, action: quota, where: {{label: {label}}}, at_least: {count}, prefixes: [{prefix}]}}\n"
    labels = ["film/drama", "public-service"]
    controls = [minimum.format(n=n, label=labels[n % 2], count=2 + n % 9, prefix=1 + n % 20) for n in range(250)]
    text = f"outlet: cn.zj\ncontrols:\n{''.join(controls)}"
    revision = service.services.control.revision()
    headers = {"content-type": "application/yaml"}
    refused = service.http.post("/v1/policies/cn.zj/publish", content=text, headers=headers)
    assert refused.status_code == 422, refused.text
    assert [finding["code"] for finding in refused.json()["findings"]] == ["policy_exceeds_page_budget"]
    assert service.services.control.revision() == revision
    assert service.http.get("/v1/policies/cn.zj/history").json()["versions"] == []
    saved = post(service, "draft", {"text": text, "author": "Lin"}, status=201)
    [finding] = [f for f in saved["findings"] if f["code"] == "policy_exceeds_page_budget"]
    assert finding["level"] == "warning"
    answer = post(service, "publish", {"version": saved["version"]["version"], "author": "Lin"}, status=422)
    assert answer["findings"][0]["where"] == "controls"


@pytest.mark.parametrize("path", ["lint", "draft"])
def test_lint_stops_when_the_client_disconnects(service, path, monkeypatch) -> None:
    stopped = threading.Event()

    def slow_lint(*arguments):
        cancelled = arguments[-1]
        for _ in range(100):
            if cancelled():
                stopped.set()
                break
            stopped.wait(0.1)
        return ()

    monkeypatch.setattr("serving.editorial.policy_service.lint", slow_lint)
    body = {"text": TEXT} | ({"author": "Lin"} if path == "draft" else {})
    with pytest.raises(httpx.ReadTimeout):
        service.http.post(f"/v1/policies/cn.zj/{path}", json=body, timeout=0.5)
    assert stopped.wait(5.0)
