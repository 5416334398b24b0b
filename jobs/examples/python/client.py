"""A client of gofer that uses the standard library only. It submits a job with headers and a session, waits for its result, and
follows results with a durable consumer. usage: client.py nats://127.0.0.1:4222 http://SITE. The site needs the path /ok."""

import json
import socket
import sys
import time
import urllib.parse

server, site = urllib.parse.urlsplit(sys.argv[1]), sys.argv[2]
connection = socket.create_connection((server.hostname, server.port or 4222), timeout=180)
wire = connection.makefile("rwb")


def send(line, payload=None):
    wire.write(line.encode() + b"\r\n" + (payload + b"\r\n" if payload is not None else b""))
    wire.flush()


def receive():
    """Returns subject, reply, headers and payload of the next message. Answers pings."""
    while True:
        verb, *words = wire.readline().decode().split() or sys.exit("the server closed the connection")
        if verb == "PING":
            send("PONG")
        elif verb == "-ERR":
            sys.exit("the server refuses: " + " ".join(words))
        elif verb in ("MSG", "HMSG"):
            total = int(words.pop())
            size = int(words.pop()) if verb == "HMSG" else 0
            data = wire.read(total + 2)[:-2]
            headers = dict(line.split(":", 1) for line in data[:size].decode().split("\r\n") if ":" in line)
            return words[0], words[2] if len(words) > 2 else "", {k: v.strip() for k, v in headers.items()}, data[size:]


wire.readline()  # INFO
send('CONNECT {"verbose":false,"headers":true,"no_responders":true,"lang":"python","version":"1"}')
job_id = "py-%d" % time.time_ns()
result = "gofer.results.default." + job_id
send("SUB %s 1\r\nSUB _INBOX.%s.> 2" % (result, job_id))

# All jobs of a session go through one proxy while it works.
job = json.dumps({"url": site + "/ok", "headers": {"Accept-Language": "en"}, "proxy": {"session": "cart-7"}}).encode()
send("PUB gofer.jobs.default.%s _INBOX.%s.ack %d" % (job_id, job_id, len(job)), job)
outcome = None
while outcome is None:
    subject, reply, headers, payload = receive()
    if subject == result:
        outcome = headers
    elif "error" in json.loads(payload):  # the acknowledgement: without an error the job is stored
        sys.exit(payload.decode())
print("page:", outcome["Gofer-Outcome"], outcome["Gofer-Status"])

while subject != result or not reply:  # gofer setup prepares the durable reader
    send("PUB $JS.API.CONSUMER.MSG.NEXT.GOFER_RESULTS.reader _INBOX.%s.next 33" % job_id, b'{"batch":1,"expires":60000000000}')
    subject, reply, headers, payload = receive()
    if subject.endswith(".next"):  # a status in place of a message
        sys.exit("the reader brought nothing within 60 s: does it exist, and does nobody else read with it?")
    send("PUB %s 4" % reply, b"+ACK")  # no other reader gets a result that was acked
print("followed:", headers["Gofer-Outcome"])
