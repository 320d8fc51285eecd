"""Metrics of pages and impressions: pure functions, each with its source.

`exposure`: the attention that outlets and items get. `calibration`: the similarity of a page to its viewer's history or
to editorial targets. `diversity`: within a page. `radio`: between pages and the catalog, by content labels only, never
by viewers' opinions. `concentration`: how narrow the impressions of a viewer are over time. `accuracy`: how well a
ranking agrees with relevance. `report_card`: all metrics over an impression log, as columns.
"""
