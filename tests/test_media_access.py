"""What a service opens for strangers: no local files, no private addresses, no files that lead to others."""

import http.server
import shutil
import socket
import threading

import pytest
from PIL import Image

from examples.render_clip import render_clip
from transformers_videollama import MediaError, load_image, load_sound, load_video
from transformers_videollama.media import access
from transformers_videollama.media.access import MediaAccess, restrict_media_access


LOADERS = (load_video, load_sound, load_image)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return render_clip(tmp_path_factory.mktemp("clips") / "clip.mp4", seconds=1.0)


@pytest.fixture
def restrict():
    before = restrict_media_access(MediaAccess())
    yield lambda **options: restrict_media_access(MediaAccess(**options))
    restrict_media_access(before)


@pytest.mark.parametrize("load", LOADERS)
@pytest.mark.parametrize("spelling", ("{}", "file://{}", "{}.missing"))
def test_no_local_files(restrict, clip, load, spelling):
    """Nor is it said whether they are there."""
    restrict(local_folders=())
    with pytest.raises(MediaError, match="local files are not allowed here"):
        load(spelling.format(clip))


def test_what_is_sent_is_opened_wherever_files_are_not(restrict, clip):
    restrict(local_folders=(), private_addresses=False)
    assert len(load_video(clip.read_bytes()).frames) == 8


def test_files_of_a_folder_alone(restrict, clip, tmp_path):
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    for folder in (outside, inside):
        folder.mkdir()
        shutil.copy(clip, folder / "clip.mp4")
        Image.new("RGB", (32, 32)).save(folder / "frame.png")
    (inside / "link.mp4").symlink_to(outside / "clip.mp4")
    restrict(local_folders=(inside,))
    assert len(load_video(inside / "clip.mp4").frames) == 8
    assert len(load_video(inside).frames) == 1
    for path in (outside / "clip.mp4", inside / ".." / "outside" / "clip.mp4", inside / "link.mp4", outside):
        with pytest.raises(MediaError, match="not allowed here, or not of this folder"):
            load_video(path)


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.requests.append(self.path)
        if self.path.startswith("/to/"):
            self.send_response(302)
            self.send_header("Location", self.path.removeprefix("/to/"))
            self.end_headers()
        else:
            self.send_response(200)
            self.send_header("Content-Length", str(len(self.server.content)))
            self.end_headers()
            self.wfile.write(self.server.content)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(clip, monkeypatch):
    """A server on this machine, which also has the name `public.test`."""
    resolve = socket.getaddrinfo

    def getaddrinfo(host, *arguments, **options):
        return resolve("127.0.0.1" if host == "public.test" else host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.content, server.requests = clip.read_bytes(), []
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def public(monkeypatch):
    """Takes `public.test` for a name on the internet."""
    check = access._check_public
    monkeypatch.setattr(
        access, "_check_public", lambda host, address: None if host == "public.test" else check(host, address)
    )


@pytest.mark.parametrize(
    "host", ("127.0.0.1", "localhost", "public.test", "[::ffff:127.0.0.1]", "0177.0.0.1", "2130706433")
)
def test_no_private_addresses(restrict, server, host):
    """However they are spelled, and whatever name leads to them."""
    restrict(private_addresses=False)
    with pytest.raises(MediaError, match="is not on the public internet"):
        load_video(f"http://{host}:{server.server_port}/clip.mp4", timeout=5)
    assert server.requests == []


@pytest.mark.parametrize("scheme", ("http", "https"))
@pytest.mark.parametrize(
    "address",
    ("10.0.0.1", "169.254.169.254", "192.168.1.1", "[::1]", "[fd00::1]", "[fe80::1]", "[64:ff9b::a00:1]", "224.0.0.1"),
)
def test_addresses_that_are_not_public(restrict, scheme, address):
    restrict(private_addresses=False)
    with pytest.raises(MediaError, match="is not on the public internet"):
        load_video(f"{scheme}://{address}:9/clip.mp4", timeout=5)


def test_public_addresses_are_opened(restrict, server, public):
    restrict(private_addresses=False)
    address = f"http://public.test:{server.server_port}"
    assert len(load_video(f"{address}/clip.mp4").frames) == 8
    assert len(load_video(f"{address}/to//clip.mp4").frames) == 8


@pytest.mark.parametrize("target", ("http://127.0.0.1:{port}/clip.mp4", "file://{clip}", "ftp://127.0.0.1/clip.mp4"))
def test_nor_where_a_public_address_redirects_to(restrict, server, public, clip, target):
    restrict(private_addresses=False)
    target = target.format(port=server.server_port, clip=clip)
    with pytest.raises(MediaError, match="cannot be downloaded"):
        load_video(f"http://public.test:{server.server_port}/to/{target}", timeout=5)
    assert len(server.requests) == 1


PLAYLISTS = {
    "clip.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nclip.mp4\n#EXT-X-ENDLIST\n",
    "clip.ffconcat": "ffconcat version 1.0\nfile clip.mp4\n",
    "clip.sdp": "v=0\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
}


@pytest.mark.parametrize("load", (load_video, load_sound))
@pytest.mark.parametrize("name", PLAYLISTS)
@pytest.mark.parametrize("as_bytes", (False, True))
def test_files_that_name_others_are_not_followed(clip, load, name, as_bytes):
    playlist = clip.with_name(name)
    playlist.write_text(PLAYLISTS[name])
    with pytest.raises(MediaError, match=r"playlist or the like|no video or sound"):
        load(playlist.read_bytes() if as_bytes else playlist)
