"""What pages are looked at with, and what a stranger may have written on them."""

HOSTILE = '<script>alert(1)</script> "><img src=x onerror=alert(2)> &amp;'
PHONE, DESKTOP = {"width": 390, "height": 800}, {"width": 1400, "height": 900}
