"""A photo and a size as the form that the LitServe server takes."""

BOUNDARY = "densevit-b8a1f0c2"
CONTENT_TYPE = f"multipart/form-data; boundary={BOUNDARY}"


def http_form(photo: bytes, height: int, width: int) -> bytes:
    """The body of a POST of `CONTENT_TYPE`."""
    fields = [("height", "", b"%d" % height), ("width", "", b"%d" % width), ("image", '; filename="photo"', photo)]
    part = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{{}}"{{}}\r\n\r\n'
    return b"".join(part.format(name, more).encode() + value + b"\r\n" for name, more, value in fields) + f"--{BOUNDARY}--\r\n".encode()
