"""What every request reads follows the control plane, as a whole, and keeps the last good policy."""

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
    """Put any text in force, as an older or newer engine might have."""
    newest = max((version.version for version in control.history(outlet)), default=0)
    control.publish(outlet, control.draft(outlet, text, "t", "", newest).version, "t")


def test_a_take_down_is_in_force_within_a_second(service, item, until) -> None:
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


def test_a_policy_that_makes_no_bounds_leaves_the_last_good_one_in_service(service, monkeypatch) -> None:
    """A fault no check foresaw, as counts beyond 32 bits once were: no page may be the first to find it."""
    sound = CompiledPolicy._builder

    def overflow(policy: CompiledPolicy, *args: object) -> object:
        if any(origin.control.id == "odd" for origin in policy.controls):
            raise OverflowError("Python integer 3000000000 out of bounds for int32")
        return sound(policy, *args)

    monkeypatch.setattr(CompiledPolicy, "_draft_of", overflow)
    force(
        service.services.control, "cn", "outlet: cn\ncontrols: [{id: odd, action: cap, attribute: topic, at_most: 3}]\n"
    )
    service.caught_up()
    page = service.page()
    assert (page["policy_version"], page["degraded_parts"]) == ("cn@1", ["model"])
    assert "OverflowError" in service.http.get("/health/ready").json()["parts"]["policies"]["detail"]


def test_where_the_last_good_policy_no_longer_fits_the_catalogue_editorial_pages_answer(
    service, item, monkeypatch
) -> None:
    monkeypatch.setattr(CompiledPolicy, "smoke_test", _no_trial)
    service.http.post("/v1/items", json=[item(3, title={"en": "Anew"})]).raise_for_status()
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
    assert service.page()["policy_version"] == "cn@1", "and comes back by itself"


def _no_trial(policy: CompiledPolicy) -> None:
    if policy.controls:
        raise OverflowError("of ours")


def test_a_page_whose_policy_cannot_be_applied_is_editorial_and_says_so(service, monkeypatch) -> None:
    monkeypatch.setattr(CompiledPolicy, "bounds", _no_bounds)
    page = service.page()
    assert (page["fallback_level"], page["policy_version"], "policy" in page["degraded_parts"]) == (
        "editorial",
        "none",
        True,
    )
    assert page["items"]


def _no_bounds(policy: CompiledPolicy, query: Query, rows, slots: int, shown) -> PageConstraints:
    if policy.controls:
        raise OverflowError("of ours")
    return PageConstraints.free(rows, slots)


def test_where_no_policy_was_ever_readable_editorial_pages_answer(service, bundle) -> None:
    from features.columns import FEATURES
    from recsys.models.served_model import ServedModel

    service.services.holders.set_model(ServedModel.load(bundle("m1", [f"item-{n}" for n in range(60)]), FEATURES))
    force(service.services.control, "cn.zj", "outlet: cn.zj\nnonsense: true\n")
    service.caught_up()
    page = service.page()
    assert (page["fallback_level"], page["policy_version"]) == ("editorial", "cn@1")
    assert "policy" in page["degraded_parts"]
    other = service.page(placement="cn-mobile-home")
    assert (other["fallback_level"], other["degraded_parts"]) == ("popular", [])


def test_a_child_is_under_its_parents_policy(service, item) -> None:
    service.http.post("/v1/items", json=[item(200, outlet="cn.zj.hz")]).raise_for_status()
    service.caught_up()
    assert service.page(placement="cn.zj.hz-mobile-home")["policy_version"] == "cn@1"
    service.publish("cn.zj", "outlet: cn.zj\nweights: {locality: 0.1}\n")
    assert service.page(placement="cn.zj.hz-mobile-home")["policy_version"] == "cn@1+cn.zj@1"
    assert service.page(placement="cn-mobile-home")["policy_version"] == "cn@1"


def test_each_request_sees_one_world_while_everything_changes(service, item) -> None:
    """Version n of the policy comes with items whose title says n: no page may mix them."""
    stop = threading.Event()
    torn: list[str] = []

    def look() -> None:
        while not stop.is_set():
            snapshot = service.services.holders.current
            for outlet, world in snapshot.worlds.items():
                if world.catalog is not snapshot.catalog or world.policy.catalog is not snapshot.catalog:
                    torn.append(outlet)
                if len(world.stats.impressions) != len(snapshot.catalog):
                    torn.append(outlet)

    watcher = threading.Thread(target=look)
    watcher.start()
    for n in range(300, 312):
        service.http.post("/v1/items", json=[item(n)]).raise_for_status()
        force(service.services.control, "cn.zj", f"outlet: cn.zj\nnote: '{n}'\n")
        service.page()
    service.caught_up()
    stop.set()
    watcher.join()
    assert torn == []
    assert len(service.services.holders.current.catalog) == 72


def test_a_catalogue_of_many_pages_is_read_whole(service, item, monkeypatch) -> None:
    import serving.snapshot.holders

    monkeypatch.setattr(serving.snapshot.holders, "PAGE", 7)
    service.http.post("/v1/items", json=[item(n) for n in range(50, 110)]).raise_for_status()
    service.caught_up()
    assert set(service.services.holders.current.catalog.ids) == {f"item-{n}" for n in range(110)}


@pytest.mark.parametrize("text", ["outlet: cn\n", "{}"])
def test_a_new_process_reads_what_is_in_force(serve, text: str) -> None:
    with serve() as first:
        first.stock()
        force(first.services.control, "cn", text)
    with serve() as second:
        assert second.services.holders.current.revision == second.services.control.revision()
        page = second.page()
        assert page["policy_version"] == ("cn@2" if text != "{}" else "none")
        assert ("policy" in page["degraded_parts"]) == (text == "{}")
