"""The snapshot follows the control plane as a whole and keeps the last good policy of each outlet."""

from __future__ import annotations

import threading

import pytest

from features.control.plane import ControlPlane
from recsys.domain.query import Query
from recsys.guidance.compilation.compile import CompiledPolicy
from recsys.guidance.solver.page_constraints import PageConstraints


def ids(page) -> list[str]:
    return [slot["item"]["id"] for slot in page["items"]]


def force(control: ControlPlane, outlet: str, text: str) -> None:
    """Publish any text without validation, as an older or newer version of the engine could have done."""
    newest = max((version.version for version in control.history(outlet)), default=0)
    control.publish(outlet, control.draft(outlet, text, "t", "", newest).version, "t")


def test_a_withdrawn_item_disappears_within_a_second(service, item, until) -> None:
    first = ids(service.page(seed=1))[0]
    n = int(first.removeprefix("item-"))
    service.http.post("/v1/items", json=[item(n, status="withdrawn")]).raise_for_status()
    assert until(lambda: first not in ids(service.page(seed=1)), within_s=1) < 1


def test_an_unreadable_policy_leaves_the_last_good_one_in_service(service, until) -> None:
    control = service.services.control
    force(control, "cn", "outlet: cn\ncontrols: [{id: x, action: teleport}]\n")
    service.caught_up()
    page = service.page()
    assert page["policy_version"] == "cn@1"
    assert {line["id"] for line in page["receipt"]["controls"]} == {"floor", "one-topic"}
    ready = service.http.get("/health/ready").json()
    assert ready["status"] == "degraded"
    assert "version 2" in ready["parts"]["policies"]["detail"]
    service.publish("cn", "outlet: cn\n")
    assert service.page()["policy_version"] == "cn@3"
    assert service.http.get("/health/ready").json()["parts"]["policies"]["ok"]


def test_a_policy_that_fails_to_compile_leaves_the_last_good_one_in_service(service, monkeypatch) -> None:
    """An unexpected fault, such as a count above 32 bits, must be detected before the first page."""
    original = CompiledPolicy._builder

    def overflow(policy: CompiledPolicy, *args: object) -> object:
        if any(origin.control.id == "odd" for origin in policy.controls):
            raise OverflowError("Python integer 3000000000 out of bounds for int32")
        return original(policy, *args)

    monkeypatch.setattr(CompiledPolicy, "_builder", overflow)
    force(
        service.services.control, "cn", "outlet: cn\ncontrols: [{id: odd, action: cap, attribute: topic, at_most: 3}]\n"
    )
    service.caught_up()
    page = service.page()
    assert (page["policy_version"], page["degraded_parts"]) == ("cn@1", ["model"])
    assert "OverflowError" in service.http.get("/health/ready").json()["parts"]["policies"]["detail"]


def test_editorial_pages_are_served_if_the_last_good_policy_does_not_fit_the_catalog(
    service, item, monkeypatch
) -> None:
    monkeypatch.setattr(CompiledPolicy, "smoke_test", _failing_smoke_test)
    service.http.post("/v1/items", json=[item(3, title={"en": "New title"})]).raise_for_status()
    service.caught_up()
    page = service.page()
    assert (page["fallback_level"], page["policy_version"], "policy" in page["degraded_parts"]) == (
        "editorial",
        "none",
        True,
    )
    monkeypatch.undo()
    service.http.post("/v1/items", json=[item(3)]).raise_for_status()
    service.caught_up()
    assert service.page()["policy_version"] == "cn@1", "the policy must recover by itself"


def _failing_smoke_test(policy: CompiledPolicy) -> None:
    if policy.controls:
        raise OverflowError("injected fault")


def test_a_page_whose_policy_cannot_be_applied_is_editorial_and_degraded(service, monkeypatch) -> None:
    monkeypatch.setattr(CompiledPolicy, "bounds", _failing_bounds)
    page = service.page()
    assert (page["fallback_level"], page["policy_version"], "policy" in page["degraded_parts"]) == (
        "editorial",
        "none",
        True,
    )
    assert page["items"]


def _failing_bounds(policy: CompiledPolicy, query: Query, rows, slots: int, shown) -> PageConstraints:
    if policy.controls:
        raise OverflowError("injected fault")
    return PageConstraints.free(rows, slots)


def test_an_outlet_without_any_readable_policy_gets_editorial_pages(service, bundle) -> None:
    from features.columns import FEATURES
    from recsys.models.served_model import ServedModel

    service.services.holders.set_model(ServedModel.load(bundle("m1", [f"item-{n}" for n in range(60)]), FEATURES))
    force(service.services.control, "cn.zj", "outlet: cn.zj\nnonsense: true\n")
    service.caught_up()
    page = service.page()
    assert (page["fallback_level"], page["policy_version"]) == ("editorial", "cn@1")
    assert "policy" in page["degraded_parts"]
    parent_page = service.page(placement="cn-mobile-home")
    assert (parent_page["fallback_level"], parent_page["degraded_parts"]) == ("popular", [])


def test_an_outlet_inherits_the_policy_of_its_parent(service, item) -> None:
    service.http.post("/v1/items", json=[item(200, outlet="cn.zj.hz")]).raise_for_status()
    service.caught_up()
    assert service.page(placement="cn.zj.hz-mobile-home")["policy_version"] == "cn@1"
    service.publish("cn.zj", "outlet: cn.zj\nweights: {locality: 0.1}\n")
    assert service.page(placement="cn.zj.hz-mobile-home")["policy_version"] == "cn@1+cn.zj@1"
    assert service.page(placement="cn-mobile-home")["policy_version"] == "cn@1"


def test_each_request_uses_one_snapshot_while_everything_changes(service, item) -> None:
    """Items and policies change together; no snapshot may combine a catalog with a policy of another one."""
    stop = threading.Event()
    inconsistent: list[str] = []

    def look() -> None:
        while not stop.is_set():
            snapshot = service.services.holders.current
            for outlet, serving in snapshot.serving_snapshots.items():
                if serving.catalog is not snapshot.catalog or serving.policy.catalog is not snapshot.catalog:
                    inconsistent.append(outlet)
                if len(serving.stats.impressions) != len(snapshot.catalog):
                    inconsistent.append(outlet)

    watcher = threading.Thread(target=look)
    watcher.start()
    for n in range(300, 312):
        service.http.post("/v1/items", json=[item(n)]).raise_for_status()
        force(service.services.control, "cn.zj", f"outlet: cn.zj\nnote: '{n}'\n")
        service.page()
    service.caught_up()
    stop.set()
    watcher.join()
    assert inconsistent == []
    assert len(service.services.holders.current.catalog) == 72


def test_a_large_catalog_is_read_in_batches(service, item, monkeypatch) -> None:
    import serving.snapshot.holders

    monkeypatch.setattr(serving.snapshot.holders, "BATCH_SIZE", 7)
    service.http.post("/v1/items", json=[item(n) for n in range(50, 110)]).raise_for_status()
    service.caught_up()
    assert set(service.services.holders.current.catalog.ids) == {f"item-{n}" for n in range(110)}


@pytest.mark.parametrize("text", ["outlet: cn\n", "{}"])
def test_a_new_process_reads_the_policy_in_force(serve, text: str) -> None:
    with serve() as first:
        first.stock()
        force(first.services.control, "cn", text)
    with serve() as second:
        assert second.services.holders.current.revision == second.services.control.revision()
        page = second.page()
        assert page["policy_version"] == ("cn@2" if text != "{}" else "none")
        assert ("policy" in page["degraded_parts"]) == (text == "{}")
