"""A QR code as the path of an SVG: the secret in it never leaves the page."""


def qr_code(text: str) -> tuple[str, int]:
    """The dark squares as path data (SVG 2 §9.3), and how many squares a side has, four of margin included."""
    # The library takes as long to load as all the rest, and nobody may ever ask for a picture.
    from reportlab.graphics.barcode.qrencoder import QRCode, QRErrorCorrectLevel

    code = QRCode(None, QRErrorCorrectLevel.M)
    code.addData(text)
    code.make()
    modules: list[list[bool]] = code.modules
    count, margin = len(modules), 4
    squares = [
        f"M{column + margin} {row + margin}h1v1h-1z"
        for row, line in enumerate(modules)
        for column, is_dark in enumerate(line)
        if is_dark
    ]
    return "".join(squares), count + 2 * margin
