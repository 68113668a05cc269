"""A page in headless Chromium, through the DevTools protocol, with the standard library alone.

    with Browser() as browser:                  # Missing is raised where there is no Chromium
        browser.open("file:///...", width=390, height=844, dark=True)
        browser.run("document.title")           # the value of a JavaScript expression
        browser.complaints                      # console messages, exceptions and requests other than the page itself
"""
import base64, json, os, shutil, socket, struct, subprocess, tempfile, time, urllib.request


class Missing(Exception):
    pass


class Browser:
    def __init__(self):
        program = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
        if not program:
            raise Missing("Chromium is not installed")
        self.profile = tempfile.mkdtemp(prefix="meltwater-browser-")
        self.process = subprocess.Popen([program, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars", "--disable-dev-shm-usage",
            "--disable-background-networking", "--remote-debugging-port=0", "--user-data-dir=" + self.profile, "about:blank"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        port_file = os.path.join(self.profile, "DevToolsActivePort")
        deadline = time.time() + 120
        while not (os.path.exists(port_file) and len(open(port_file).read().split()) >= 1):
            if time.time() > deadline or self.process.poll() is not None:
                raise RuntimeError("Chromium does not answer")
            time.sleep(0.1)
        port = int(open(port_file).read().split()[0])
        pages = json.load(urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"http://127.0.0.1:{port}/json"))
        self.connect(next(p for p in pages if p["type"] == "page")["webSocketDebuggerUrl"])
        self.number, self.events, self.complaints, self.page = 0, [], [], None
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(domain + ".enable")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.profile, ignore_errors=True)

    # a websocket (RFC 6455): text frames, masked on the way out
    def connect(self, url):
        host, path = url[len("ws://"):].split("/", 1)
        name, port = host.split(":")
        self.socket = socket.create_connection((name, int(port)), timeout=180)
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall((f"GET /{path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                             f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n").encode())
        self.stream = self.socket.makefile("rb")
        if b"101" not in self.stream.readline():
            raise RuntimeError("Chromium refuses the connection")
        while self.stream.readline() not in (b"\r\n", b""):
            pass

    def send(self, text):
        payload, mask = text.encode(), os.urandom(4)
        n = len(payload)
        head = bytes([0x81]) + (bytes([0x80 | n]) if n < 126 else bytes([0xFE]) + struct.pack(">H", n) if n < 65536 else bytes([0xFF]) + struct.pack(">Q", n))
        self.socket.sendall(head + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(payload)))

    def receive(self):
        message = b""
        while True:
            first, second = self.stream.read(2)
            n = second & 127
            n = struct.unpack(">H", self.stream.read(2))[0] if n == 126 else struct.unpack(">Q", self.stream.read(8))[0] if n == 127 else n
            part = self.stream.read(n)
            if first & 15 in (0, 1, 2):
                message += part
                if first & 128:
                    return json.loads(message)

    def call(self, method, **parameters):
        self.number += 1
        self.send(json.dumps({"id": self.number, "method": method, "params": parameters}))
        while True:
            answer = self.receive()
            if answer.get("id") == self.number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]
            if "method" in answer:
                self.note(answer["method"], answer["params"])

    def note(self, method, params):
        self.events.append(method)
        if method == "Runtime.consoleAPICalled":
            self.complaints.append("console: " + " ".join(str(a.get("value", a.get("description"))) for a in params["args"]))
        elif method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.complaints.append("exception: " + details.get("exception", {}).get("description", details["text"]))
        elif method == "Log.entryAdded":
            self.complaints.append("log: " + params["entry"]["text"])
        elif method == "Network.requestWillBeSent" and params["request"]["url"] != self.page and not params["request"]["url"].startswith(("data:,", "blob:")): # of its own
            self.complaints.append("request: " + params["request"]["url"][:200])

    def open(self, url, width=1280, height=900, dark=False, motion=False):
        self.page, self.complaints, self.events = url, [], []
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}, {"name": "prefers-reduced-motion", "value": "no-preference" if motion else "reduce"}])
        self.call("Page.navigate", url=url)
        deadline = time.time() + 180
        while "Page.loadEventFired" not in self.events:
            if time.time() > deadline:
                raise RuntimeError("the page does not load")
            message = self.receive()
            if "method" in message:
                self.note(message["method"], message["params"])

    def run(self, expression):
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            details = result["exceptionDetails"]
            raise RuntimeError(f"{expression[:200]}: {details.get('exception', {}).get('description', details['text'])}")
        return result["result"].get("value")

    def key(self, name, code=None):
        codes = {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Home": 36, "End": 35, "Tab": 9, " ": 32, "Enter": 13, "Escape": 27}
        text = {" ": {"text": " "}, "Enter": {"text": "\r"}}.get(name, {})
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=name, code=code or ("Space" if name == " " else name), windowsVirtualKeyCode=codes[name], **(text if kind == "keyDown" else {}))

    def picture(self, path, whole=False, clip=None):
        more = {"clip": {**clip, "scale": 1}} if clip else {}
        with open(path, "wb") as file:
            file.write(base64.b64decode(self.call("Page.captureScreenshot", captureBeyondViewport=whole or bool(clip), **more)["data"]))
