"""The console: pages for members. HTML in and out; what may be done is the services' business.

A request comes to `route` (errors become pages, headers are set), is known by `visitor` (session, role, CSRF), is
answered by one of the modules of pages, and drawn by `rendering` from `templates/`.
"""
