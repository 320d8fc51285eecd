"""Figures for Prometheus: GET /metrics."""

from __future__ import annotations

from fastapi import APIRouter, Response

from serving.metrics import Metrics


def routes(metrics: Metrics) -> APIRouter:
    """The metrics route."""
    router = APIRouter(tags=["operations"])

    @router.get(
        "/metrics", summary="Figures in Prometheus text form, over all serving processes", response_class=Response
    )
    def figures() -> Response:
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return router
