"""What keys a person presses on a US keyboard to type a text, in the numbers that clients send."""

SHIFT = 0xA0
ENTER = 0x0D
_PLAIN = {" ": 0x20, ";": 0xBA, "=": 0xBB, ",": 0xBC, "-": 0xBD, ".": 0xBE, "/": 0xBF, "`": 0xC0,
          "[": 0xDB, "\\": 0xDC, "]": 0xDD, "'": 0xDE, "\n": ENTER}
_SHIFTED = dict(zip('!@#$%^&*():+<_>?~{|}"', "1234567890;=,-./`[\\]'"))


def key_for(character):
    """(key, is Shift held) for one character."""
    if character in _SHIFTED:
        return key_for(_SHIFTED[character])[0], True
    if character in _PLAIN:
        return _PLAIN[character], False
    if character.isascii() and character.isalnum():
        return ord(character.upper()), character.isupper()
    raise ValueError(f"{character!r} is on no key of a US keyboard")
