"""Reports what each control did on a page, what it cost, and verifies that report."""
