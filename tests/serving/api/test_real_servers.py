"""The service on Kafka, Redis and PostgreSQL."""

from __future__ import annotations

import time

from sqlalchemy import create_engine, make_url, text

from features.columns import FEATURES
from features.state.codec import encode_viewer, viewer_key
from recsys.domain.viewer import Recent, ViewerState
from recsys.models.served_model import ServedModel


def test_pages_events_and_policies_on_real_servers(serve, bundle, unique, kafka_url, redis_url, postgres_url) -> None:
    server = make_url(postgres_url).set(drivername="postgresql+psycopg")
    admin = create_engine(server, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"CREATE SCHEMA {unique}"))
    control = server.update_query_dict({"options": f"-csearch_path={unique}"}).render_as_string(hide_password=False)
    urls = {"stream": kafka_url, "online": redis_url, "control": control, "topic": unique}
    try:
        with serve(urls) as service:
            service.stock()
            viewer = ViewerState(unique, tuple(Recent(f"item-{n}", "like", time.time()) for n in (1, 3)))
            service.services.online.put({viewer_key(unique): encode_viewer(viewer)}, ttl_s=60)
            service.services.holders.set_model(
                ServedModel.load(bundle("m1", [f"item-{n}" for n in range(60)]), FEATURES)
            )
            page = service.page(unique, slots=6)
            assert (page["fallback_level"], page["policy_version"], page["degraded_parts"]) == ("personal", "cn@1", [])
            liked = {
                "specversion": "1.0",
                "id": "e1",
                "source": "/app",
                "type": "mainstay.viewer.like",
                "subject": unique,
                "attributiontoken": page["attribution_token"],
                "data": {"item_id": page["items"][0]["item"]["id"]},
            }
            assert service.http.post("/v1/events", json=[liked]).status_code == 202
            events = {event.kind: event for event in service.published(2)}
            assert events["impression"].request_id == events["like"].request_id == page["request_id"]
            parts = service.http.get("/health/ready").json()["parts"]
            assert {name for name, part in parts.items() if not part["ok"]} <= {
                "model",
                "worker",
            }  # no model and no worker in this test
            assert service.services.control.verify_audit()[1] is None
    finally:
        with admin.connect() as connection:
            connection.execute(text(f"DROP SCHEMA {unique} CASCADE"))
        admin.dispose()
