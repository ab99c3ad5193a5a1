"""What ultralytics' LoadStreams lets a consumer see: `... peer_streams <json>`; one line of JSON.

A process of its own sends 4K MJPEG over HTTP at a steady pace; the number of each frame stands in
its pixels. The consumer takes batches as the loader gives them, with or without a small network
behind (YOLO11n from YAML, untrained: as slow as a trained one).
"""

from __future__ import annotations

import io
import json
import logging
import multiprocessing
import os
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from PIL import Image

BITS, SIDE = 16, 48
NUM_IMAGES = 16


def mark(pixels: np.ndarray, number: int) -> np.ndarray:
    """Write a number into the top left corner, as black and white squares."""
    pixels = pixels.copy()
    for bit in range(BITS):
        pixels[:SIDE, bit * SIDE : (bit + 1) * SIDE] = 255 if number >> bit & 1 else 0
    return pixels


def read_mark(pixels: np.ndarray) -> int:
    """The number in the corner."""
    row = pixels[SIDE // 2, SIDE // 2 : BITS * SIDE : SIDE]
    return sum(int(value > 127) << bit for bit, value in enumerate(row))


def send(settings: dict[str, Any], port: Any, start: Any, sent: Any) -> None:
    """The cameras: one path each; every frame is sent when it is due."""
    frames = np.load(settings["frames"], mmap_mode="r")
    images = [np.array(frames[number % len(frames)]) for number in range(NUM_IMAGES)]
    most = int(settings["fps"] * settings["seconds"])
    coded: dict[int, bytes] = {}

    def jpeg(number: int) -> bytes:
        if number not in coded:
            stream = io.BytesIO()
            Image.fromarray(mark(images[number % NUM_IMAGES], number)).save(stream, "JPEG",
                                                                            quality=80)  # fmt: skip
            coded[number] = stream.getvalue()
        return coded[number]

    for number in range(most + 2):
        jpeg(number)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            stream = int(self.path.strip("/").split(".")[0])
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            self._send(jpeg(0))
            start.wait()
            begin = time.monotonic()
            for number in range(1, most + 1):
                time.sleep(max(0.0, begin + number / settings["fps"] - time.monotonic()))
                try:
                    self._send(jpeg(number))
                except OSError:
                    return
                # A client may look first and come again.
                sent[stream] = max(sent[stream], number)

        def _send(self, data: bytes) -> None:
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
            self.wfile.write(head.encode() + data + b"\r\n")
            self.wfile.flush()

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    port.value = server.server_address[1]
    server.serve_forever()


def consume(settings: dict[str, Any], port: int, start: Any) -> tuple[list[set[int]], int, int]:
    """Frames seen of each stream, batches, and frames seen again."""
    os.environ["YOLO_CONFIG_DIR"] = tempfile.mkdtemp()
    from ultralytics import YOLO
    from ultralytics.data.loaders import LoadStreams

    # It says "Waiting for stream" for each look.
    logging.getLogger("ultralytics").setLevel(logging.ERROR)
    model = YOLO("yolo11n.yaml", verbose=False) if settings["with_model"] else None
    if model is not None:
        model.predict(np.zeros((640, 640, 3), np.uint8), imgsz=640, verbose=False)
    with tempfile.NamedTemporaryFile("w", suffix=".streams") as listed:
        listed.write("\n".join(
            f"http://127.0.0.1:{port}/{stream}.mjpg" for stream in range(settings["streams"])
        ))  # fmt: skip
        listed.flush()
        loader = LoadStreams(listed.name)
    seen: list[set[int]] = [set() for _ in range(settings["streams"])]
    batches = repeated = 0
    start.set()
    end = time.monotonic() + settings["seconds"] + 2.0
    stop = threading.Timer(settings["seconds"] + 2.0, loader.close)
    stop.start()
    try:
        for _, images, _ in loader:
            batches += 1
            for stream, image in enumerate(images):
                number = read_mark(image[:, :, 0])
                repeated += number in seen[stream]
                seen[stream].add(number)
            if model is not None:
                model.predict(list(images), imgsz=640, verbose=False)
            if time.monotonic() > end:
                break
    except StopIteration:
        pass
    stop.cancel()
    return seen, batches, repeated


def main() -> None:
    """Run both and count."""
    settings = json.loads(sys.argv[1])
    context = multiprocessing.get_context("spawn")
    port, start = context.Value("i", 0), context.Event()
    sent = context.Array("i", settings["streams"])
    sender = context.Process(target=send, args=(settings, port, start, sent), daemon=True)
    sender.start()
    while not port.value:
        time.sleep(0.1)
    seen, batches, repeated = consume(settings, port.value, start)
    total = sum(sent[:])
    num_seen = sum(len(numbers - {0}) for numbers in seen)
    sender.terminate()
    result = {
        "fps": settings["fps"],
        "sent": total,
        "seen": num_seen,
        "dropped_share": round(1 - num_seen / max(1, total), 5),
        "repeated": repeated,
        "batches": batches,
        # The loader has no way to say that a frame was replaced before anybody took it.
        "reported": 0,
    }
    print(json.dumps(result), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
