"""The receipt of a page: what each control did and what it cost, and an independent check of both."""
