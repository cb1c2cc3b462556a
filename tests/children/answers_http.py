"""Answer GET /health on 127.0.0.1:PORT with 200, or hang while FILE exists: answers_http.py PORT [FILE]"""

import http.server
import pathlib
import sys
import time


class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        while len(sys.argv) > 2 and pathlib.Path(sys.argv[2]).exists():
            time.sleep(0.01)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Health).serve_forever()
