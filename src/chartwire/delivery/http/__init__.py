"""The delivery client: HTTP/1.1 posts over pooled connections, and nothing else (`docs/decisions/0014`).

client        the port's adapter: take or open a connection, post, give it back, within one deadline
destination   what a URL says: where to connect, and the bytes every request to it begins with
resolution    names to addresses
connecting    addresses under the address rule, then TLS
routes        addresses to sockets
proxy         the same through an HTTP or SOCKS5 proxy
tls           contexts of endpoints that have an authority or a certificate of their own
connection    one connection: a request at a time, its answer, what became of it
answer        bytes to an answer, at a glance or with care, within bounds
laps          how long each step took
reasons       why there was no answer, in the codes that customers see
pool          connections that wait for their next request
"""
