"""An HTTPS tracker that names one peer: https_tracker.py CERTIFICATE KEY PEER_PORT; prints its own port."""
import http.server
import ssl
import sys

certificate, key, peer_port = sys.argv[1], sys.argv[2], int(sys.argv[3])
answer = b"d8:intervali60e5:peers6:\x7f\x00\x00\x01" + peer_port.to_bytes(2, "big") + b"e"


class Tracker(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *words):
        pass


server = http.server.HTTPServer(("127.0.0.1", 0), Tracker)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)
server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_port, flush=True)
server.serve_forever()
