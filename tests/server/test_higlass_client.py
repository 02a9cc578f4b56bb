"""The client of HiGlass itself, from npm, loads tilesets from the server and draws them."""

import shutil
import subprocess
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

import headscope as hs
from tests.conftest import FLAGS
from tests.server.serving import Client, text_head

pytestmark = [pytest.mark.browser, pytest.mark.slow]

# Each package, and the files of it that the page loads.
PACKAGES = {
    "react@17.0.2": {"umd/react.production.min.js": "react.js"},
    "react-dom@17.0.2": {"umd/react-dom.production.min.js": "react-dom.js"},
    "pixi.js@6.5.10": {"dist/browser/pixi.min.js": "pixi.js"},
    "higlass@2.3.5": {"dist/hglib.min.js": "hglib.js", "dist/hglib.css": "hglib.css"},
}
PAGE = """<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,"><link rel="stylesheet" href="hglib.css">
<div id="here" style="width: 700px; height: 600px; position: absolute"></div>
<script src="react.js"></script><script src="react-dom.js"></script><script src="pixi.js"></script>
<script>
// React 17 has its JSX functions in a module of their own, and none for pages without a bundler.
const made = (type, { children, ...props }, key) =>
  React.createElement(type, key === undefined ? props : { ...props, key }, ...[children].flat());
globalThis.ReactJSXRuntime = { Fragment: React.Fragment, jsx: made, jsxs: made };
</script><script src="hglib.js"></script>"""
# Software WebGL: this machine may have no other.
WEBGL = ["--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"]
# How many pixels of all the tiles that HiGlass drew are there, and how many of these are darker than the paper.
DRAWN = """async () => {
  const found = new DOMParser().parseFromString(api.exportAsSvg(), "image/svg+xml");
  const [all, dark] = [[], []];
  for (const element of found.querySelectorAll("image")) {
    const image = new Image();
    image.src = element.getAttribute("xlink:href") ?? element.getAttribute("href");
    await image.decode();
    const canvas = new OffscreenCanvas(image.width, image.height);
    const context = canvas.getContext("2d");
    context.drawImage(image, 0, 0);
    const { data } = context.getImageData(0, 0, image.width, image.height);
    all.push(data.length / 4);
    dark.push(data.filter((value, i) => i % 4 === 2 && value < 200 && data[i + 1] > 0).length);
  }
  return [all, dark];
}"""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The files of HiGlass and of what it needs, downloaded; without npm or a registry there is no test."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("no npm on the PATH, and so no client of HiGlass")
    folder = tmp_path_factory.mktemp("higlass")
    found = {"index.html": PAGE.encode()}
    for package, wanted in PACKAGES.items():
        done = subprocess.run([npm, "pack", package], cwd=folder, capture_output=True, text=True, timeout=120)
        if done.returncode:
            pytest.skip(f"npm pack {package}: {done.stderr.strip().splitlines()[-1:]}")
        with tarfile.open(folder / done.stdout.split()[-1]) as archive:
            for path, name in wanted.items():
                member = archive.extractfile(f"package/{path}")
                assert member is not None
                found[name] = member.read()
    return found


@pytest.fixture
def site(files):
    """The address of a page with HiGlass in it, on a server of its own."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            name = self.path.lstrip("/")
            kinds = {"html": "text/html", "js": "text/javascript", "css": "text/css"}
            self.send_response(200 if name in files else 404)
            self.send_header("Content-Type", kinds.get(name.rpartition(".")[2], "text/plain"))
            self.end_headers()
            self.wfile.write(files.get(name, b""))

        def log_message(self, *_):
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def view(server: str, head: str, n: int) -> dict:
    """What HiGlass shows: the maxima of a head, and above them what its keys receive."""
    matrix = {"type": "heatmap", "uid": "matrix", "server": server, "tilesetUid": f"{head}-max"}
    received = {"type": "horizontal-line", "uid": "received", "server": server, "tilesetUid": f"{head}-received"}
    tracks = {"top": [received | {"height": 60}], "left": [], "right": [], "bottom": [], "center": [matrix]}
    place = {"layout": {"w": 12, "h": 12, "x": 0, "y": 0}, "initialXDomain": [0, n], "initialYDomain": [0, n]}
    return {"editable": False, "views": [{"uid": "view", "tracks": tracks} | place]}


def test_higlass_loads_a_head_and_draws_it(browser, chromium, site):
    head = text_head()
    with hs.serve(head, origins=[site]) as served:
        client = Client(served.url)
        (name,) = client.heads()
        client.filled(name)
        running = browser.browser_type.launch(executable_path=chromium, args=[*FLAGS, *WEBGL])
        page = running.new_page(viewport={"width": 800, "height": 700})
        complaints, tiles = [], []
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("requestfailed", lambda request: complaints.append(f"{request.url}: {request.failure}"))
        page.on("response", lambda answer: "/tiles/" in answer.url and tiles.append(answer.status))
        page.goto(f"{site}/index.html")
        start = "view => { hglib.viewer(document.querySelector('#here'), view).then((made) => (window.api = made)); }"
        page.evaluate(start, view(f"{served.url}api/v1", name, len(head.q)))
        page.wait_for_function("() => window.api", timeout=60_000)
        for _ in range(60):
            page.wait_for_timeout(500)
            all_pixels, dark = page.evaluate(DRAWN)
            if sum(dark):
                break
        running.close()
    assert complaints == []
    assert set(tiles) == {200}
    # A causal head: something is drawn, and half of the plane is empty.
    assert sum(all_pixels) >= 256**2
    assert 0 < sum(dark) < 0.6 * sum(all_pixels)
