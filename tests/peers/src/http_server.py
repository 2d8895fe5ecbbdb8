"""A server of Python's http.server that does with each request what its script says, and prints what came.

Arguments: the port (0: a free one), then one word for each request; from there on, everything is taken.
  take             answers 204
  drop             closes the connection after the whole request was read, without an answer
  stall            reads the request and answers nothing until the client goes away
  STATUS[:SECONDS] answers with that status, a text, and Retry-After
The word `bad=TEXT` is for no request in particular: whatever has TEXT in its body is answered with 400.
With the environment variables TLS_CERT and TLS_KEY it speaks TLS, and with TLS_CA it asks for a client certificate.
"""

import json
import os
import ssl
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

bad = [word[4:] for word in sys.argv[2:] if word.startswith("bad=")]
script = [word for word in sys.argv[2:] if not word.startswith("bad=")]
lock = threading.Lock()


def tell(record):
    with lock:
        print(json.dumps(record), flush=True)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        with lock:
            action = script.pop(0) if script else "take"
        if action == "take" and any(text in body for text in bad):
            action = "400"
        headers = {name.lower(): value for name, value in self.headers.items()}
        tell({"path": self.path, "headers": headers, "body": json.loads(body), "did": action})
        if action == "take":
            self.answer(204, None, b"")
        elif action == "drop":
            self.close_connection = True
        elif action == "stall":
            self.rfile.read(1)
            self.close_connection = True
        else:
            status, _, seconds = action.partition(":")
            self.answer(int(status), seconds, b"the script says " + status.encode() + b"\n")

    def answer(self, status, retry_after, text):
        self.send_response(status)
        if retry_after:
            self.send_header("Retry-After", retry_after)
        if status != 204:
            self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):
        pass  # a client that went away


server = Server(("127.0.0.1", int(sys.argv[1])), Handler)
if "TLS_CERT" in os.environ:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(os.environ["TLS_CERT"], os.environ["TLS_KEY"])
    if "TLS_CA" in os.environ:
        context.load_verify_locations(os.environ["TLS_CA"])
        context.verify_mode = ssl.CERT_REQUIRED
    server.socket = context.wrap_socket(server.socket, server_side=True)
tell({"port": server.server_address[1]})
server.serve_forever()
