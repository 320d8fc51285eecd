"""What editors do: draft, check, publish, look back, roll back; two at once; and who did it."""

from __future__ import annotations

from recsys.guidance.compile import CompiledPolicy

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
    assert in_force() == "cn@1", "a draft changes nothing"

    post(service, "publish", {"version": 1, "author": "Bo", "base_version": 0}, status=200)
    until(lambda: in_force() == "cn@1+cn.zj@1", within_s=1)
    said = service.http.get("/v1/policies/cn.zj").json()
    assert said["active"]["text"] == TEXT
    assert [(c["origin"], c["control"]["id"]) for c in said["effective"]["controls"]] == [
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
    rows = service.http.get("/v1/audit", params={"limit": 1000}).json()["rows"]
    about = [(row["actor"], row["action"]) for row in rows if row["subject"] == "cn.zj"]
    assert about == [
        ("Lin", "policy.draft"),
        ("Bo", "policy.publish"),
        ("Lin", "policy.draft"),
        ("Bo", "policy.publish"),
        ("Bo", "policy.rollback"),
    ]
    assert service.parts.control.audit_break() is None


def test_of_two_editors_the_second_is_told_of_the_first(service) -> None:
    post(service, "draft", {"text": TEXT, "author": "Lin", "base_version": 0}, status=201)
    second = post(service, "draft", {"text": TEXT, "author": "Bo", "base_version": 0}, status=409)
    assert "version 1 is newer than 0" in second["detail"]
    post(service, "publish", {"version": 1, "author": "Lin"}, status=200)
    late = post(service, "publish", {"version": 1, "author": "Bo", "base_version": 0}, status=409)
    assert late["type"] == "urn:mainstay:problem:conflict"


def test_a_policy_that_cannot_be_read_is_refused_at_its_fields(shared) -> None:
    bad = {"outlet": "cn.zj", "controls": [{"id": "a", "action": "share", "where": {"label": "x"}, "at_least": 1.5}]}
    for path, body in (("draft", {"policy": bad, "author": "Lin"}), ("lint", {"policy": bad})):
        said = post(shared, path, body)
        findings = said["findings"]
        assert findings[0]["where"] == "controls[0].at_least", path
    other = post(shared, "draft", {"text": "outlet: cn.js\n", "author": "Lin"}, status=422)
    assert "cn.js" in other["findings"][0]["message"]
    both = post(shared, "draft", {"text": TEXT, "policy": {}, "author": "Lin"}, status=422)
    assert "one of both" in both["findings"][0]["message"]
    nobody = post(shared, "draft", {"text": TEXT, "author": ""}, status=422)
    assert nobody["findings"][0]["where"] == "body.author"
    assert shared.parts.control.history("cn.zj") == []


def test_what_no_page_could_be_made_under_is_neither_saved_nor_published(service, monkeypatch) -> None:
    huge = "outlet: cn.zj\ncontrols:\n  - {id: a, action: cap, attribute: topic, at_most: 3000000000}\n"
    for path in ("draft", "lint"):
        said = post(service, path, {"text": huge} | ({"author": "Lin"} if path == "draft" else {}))
        assert "at most 200" in said["findings"][0]["message"], path
    for odd in ("\\ud800", "\\u0000"):
        text = f'{{"outlet": "cn.zj", "note": "{odd}"}}'
        (told,) = post(service, "draft", {"text": text, "author": "Lin"}, status=422)["findings"]
        assert (told["where"], "cannot stand in a policy" in told["message"]) == ("note", True)
    said = post(service, "draft", {"policy": {"outlet": "cn.zj", "note": "\0"}, "author": "Lin"}, status=422)
    assert said["findings"][0]["where"] == "note"
    assert service.parts.control.history("cn.zj") == []
    post(service, "draft", {"text": TEXT, "author": "Lin"}, status=201)
    monkeypatch.setattr(CompiledPolicy, "trial", _overflow)
    for path, body in (("draft", {"text": TEXT, "author": "Lin"}), ("publish", {"version": 1, "author": "Lin"})):
        said = post(service, path, body, status=422)
        assert "no page could be made under it (OverflowError" in said["findings"][0]["message"], path
    assert [version.active for version in service.parts.control.history("cn.zj")] == [False]


def _overflow(policy: CompiledPolicy) -> None:
    raise OverflowError("Python integer 3000000000 out of bounds for int32")


def test_lint_knows_the_parents_in_force(shared) -> None:
    loosened = (
        "outlet: cn.zj\ncontrols:\n  - {id: floor, action: share, where: {label: public-service}, at_least: 0.1}\n"
    )
    findings = post(shared, "lint", {"text": loosened}, status=200)["findings"]
    assert any("floor" in finding["message"] and "legal" in finding["message"] for finding in findings)


def test_versions_that_do_not_exist_and_outlets_that_are_no_codes(shared) -> None:
    post(shared, "publish", {"version": 9, "author": "Lin"}, status=404)
    post(shared, "rollback", {"version": 9, "author": "Lin"}, status=404)
    bad = post(shared, "publish", {"version": "x"}, status=422)
    assert [f["where"] for f in bad["findings"]] == ["body.version", "body.author"]
    assert shared.http.get("/v1/policies/Not-A-Code/effective").status_code == 422
    assert shared.http.get("/v1/policies/cn.js/effective").status_code == 404


def test_outlets_have_names_and_say_what_is_in_force(service, until) -> None:
    named = {"name": {"zh": "浙江", "en": "Zhejiang"}, "author": "Lin"}
    assert service.http.put("/v1/outlets/cn.zj", json=named).status_code == 200
    service.caught_up()
    outlets = {outlet["code"]: outlet for outlet in service.http.get("/v1/outlets").json()}
    assert list(outlets) == ["cn", "cn.zj"]
    assert outlets["cn.zj"]["name"]["zh"] == "浙江"
    assert outlets["cn.zj"]["policy_version"] == "cn@1"


def test_the_token_guards_every_write_and_the_audit_trail(serve) -> None:
    with serve({"admin_token": "s3cret"}) as service:
        for method, path in [
            ("POST", "/v1/policies/cn/draft"),
            ("POST", "/v1/policies/cn/publish"),
            ("POST", "/v1/policies/cn/rollback"),
            ("POST", "/v1/policies/cn/lint"),
            ("PUT", "/v1/outlets/cn"),
            ("POST", "/v1/items"),
            ("GET", "/v1/audit"),
            ("GET", "/console/choices"),
        ]:
            assert service.http.request(method, path, json={}).status_code == 401, path
        assert service.parts.control.revision() == 0


def test_a_profile_is_taken_up_by_its_name(service) -> None:
    profiles = {one["name"]: one for one in service.http.get("/v1/profiles").json()["profiles"]}
    assert {"mainstream-guidance", "european-works", "canadian-discoverability"} <= profiles.keys()
    assert all(c["legal_ref"] for one in profiles.values() for c in one["controls"])
    assert any(duty["kept_by"] == "request" for duty in profiles["mainstream-guidance"]["duties"])
    service.publish("cn.zj", "outlet: cn.zj\nprofile: mainstream-guidance\n")
    page = service.page()
    assert page["policy_version"] == "cn@1+profile:mainstream-guidance@1+cn.zj@1"
    origins = {line["id"]: line["origin"] for line in page["receipt"]["controls"]}
    assert origins["mainstream-floor"] == "profile:mainstream-guidance"
    unknown = post(service, "draft", {"text": "outlet: cn.zj\nprofile: nonsense\n", "author": "Lin"}, status=422)
    assert unknown["findings"][0]["where"] == "profile"
    assert "mainstream-guidance" in unknown["findings"][0]["message"]
