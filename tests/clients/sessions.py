"""Reads encrypted sessions with the functions of their source document and Python's cryptography. The arguments are the
keys, and each line of standard input is a stored value. Prints the content of each as a line of JSON."""

import json
import sys

import cryptography.fernet


def encrypt_session_data(data, key):
    f = cryptography.fernet.Fernet(key)
    return f.encrypt(json.dumps(data).encode())


def decrypt_session_data(encrypted_data, key):
    f = cryptography.fernet.Fernet(key)
    return json.loads(f.decrypt(encrypted_data).decode())


key, *others = sys.argv[1:]
for line in sys.stdin.buffer:
    token = line.rstrip(b"\n")
    for other in others:
        try:
            decrypt_session_data(token, other)
            sys.exit("another key opens it, too")
        except cryptography.fernet.InvalidToken:
            pass
    data = decrypt_session_data(token, key)
    made = cryptography.fernet.Fernet(key).extract_timestamp(token)
    print(json.dumps({"data": data, "made": made, "again": encrypt_session_data(data, key).decode()}))
