"""What pages do to viewers, outlets and values, measured on impressions: pure functions, each with its source.

`exposure` who gets attention · `calibration` does a page look like its viewer's history, or like what editors want ·
`diversity` within a page · `radio` between pages and catalogue (content labels only: nothing here looks at what viewers
think) · `concentration` how narrow what a segment is shown becomes over time · `controls` what became of the rules ·
`table` all of them over an impression log, as columns.
"""
