"""Write the docstrings of the Python standard library on this machine as a labelled table.

    python demo/docstrings.py OUT.csv

Columns: text (the first paragraph of a docstring), area (the label, by the table below), name, module. The rows are
those of public functions, classes and their public methods. Nothing is downloaded, and the order is always the same.
"""

from __future__ import annotations

import csv
import importlib
import inspect
import re
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from types import ModuleType

AREAS = {
    "files and paths": """
        os.path pathlib shutil tempfile glob fnmatch filecmp fileinput stat linecache io mmap zipfile tarfile gzip bz2 lzma
        zipapp
    """,
    "text": """
        string re textwrap difflib unicodedata stringprep gettext locale codecs html html.parser html.entities csv configparser
        readline rlcompleter shlex pprint reprlib optparse argparse getopt cmd encodings.idna encodings.utf_8 encodings.punycode
    """,
    "data formats and storage": """
        json json.decoder json.encoder pickle pickletools copyreg shelve marshal dbm dbm.dumb sqlite3 plistlib tomllib struct
        base64 binascii quopri uu xdrlib netrc zlib xml.dom xml.dom.minidom xml.dom.pulldom xml.dom.expatbuilder xml.sax
        xml.sax.handler xml.sax.saxutils xml.sax.xmlreader xml.sax.expatreader xml.etree.ElementTree xml.parsers.expat
    """,
    "data types": """
        builtins collections collections.abc array bisect heapq copy enum types weakref dataclasses graphlib functools itertools
        operator contextlib typing abc
    """,
    "numbers and maths": """
        math cmath decimal fractions random statistics numbers hashlib hmac secrets colorsys
    """,
    "dates and time": """
        datetime time calendar zoneinfo sched timeit
    """,
    "networking and web": """
        socket ssl select selectors socketserver http http.client http.server http.cookies http.cookiejar urllib.request
        urllib.parse urllib.error urllib.response urllib.robotparser ftplib smtplib imaplib poplib nntplib telnetlib
        xmlrpc.client xmlrpc.server ipaddress wsgiref.handlers wsgiref.headers wsgiref.simple_server wsgiref.util
        wsgiref.validate cgi webbrowser uuid asyncore asynchat smtpd
    """,
    "email": """
        email email.message email.parser email.feedparser email.generator email.policy email.header email.headerregistry
        email.contentmanager email.charset email.encoders email.errors email.utils email.iterators email.mime.base
        email.mime.text email.mime.image email.mime.audio email.mime.multipart email.mime.message email.mime.application mailbox
        mimetypes mailcap
    """,
    "concurrency": """
        threading queue multiprocessing multiprocessing.connection multiprocessing.context multiprocessing.managers
        multiprocessing.pool multiprocessing.process multiprocessing.queues multiprocessing.shared_memory
        multiprocessing.synchronize multiprocessing.heap multiprocessing.sharedctypes concurrent.futures
        concurrent.futures.thread concurrent.futures.process asyncio asyncio.base_events asyncio.events asyncio.futures
        asyncio.locks asyncio.queues asyncio.runners asyncio.streams asyncio.subprocess asyncio.tasks asyncio.taskgroups
        asyncio.timeouts asyncio.protocols asyncio.transports asyncio.selector_events asyncio.unix_events asyncio.coroutines
        asyncio.exceptions contextvars
    """,
    "testing and debugging": """
        unittest unittest.case unittest.suite unittest.loader unittest.main unittest.mock unittest.result unittest.runner
        unittest.async_case doctest pdb bdb trace traceback tracemalloc cProfile profile pstats faulthandler logging
        logging.handlers logging.config warnings
    """,
    "operating system": """
        os platform subprocess signal resource pwd grp fcntl termios tty pty errno ctypes ctypes.util getpass syslog curses
        curses.ascii curses.panel curses.textpad sysconfig atexit crypt spwd
    """,
    "language and import system": """
        ast dis inspect tokenize token keyword symtable code codeop compileall py_compile importlib importlib.abc
        importlib.machinery importlib.util importlib.metadata importlib.resources importlib.resources.abc
        importlib.resources.readers pkgutil modulefinder runpy site sys gc imp opcode pyclbr tabnanny venv ensurepip pydoc zipimport
    """,
}
FEWEST_WORDS = 3
SIGNATURE = re.compile(r"^[A-Za-z_][\w.]*\([^()]*(?:\([^()]*\)[^()]*)*\)[ \t]*(?:->|--|—|-|:|=>|$)[ \t]*")
PUBLISHED = {"posix": "os", "nt": "os", "posixpath": "os.path", "ntpath": "os.path", "genericpath": "os.path"}


def main(target: str) -> int:
    """Write the table and say what was gathered and what was left out; the exit code."""
    warnings.simplefilter("ignore", DeprecationWarning)  # old modules are as good as new ones here
    table = {module: area for area, modules in AREAS.items() for module in modules.split()}
    modules, absent = {}, []
    for name in table:
        module = imported(name)
        if module is None:
            absent.append(name)
        else:
            modules[name] = module
    rows, left = [], Counter[str]()
    seen: set[int] = set()
    for name, module in modules.items():
        for qualified, found, inherited in documented(name, module, table, seen):
            text = first_paragraph(found)
            if inherited:
                left["inherited unchanged"] += 1
            elif len(text.split()) < FEWEST_WORDS:
                left[f"fewer than {FEWEST_WORDS} words"] += 1
            else:
                rows.append((text, table[name], qualified, name))
    with open(target, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("text", "area", "name", "module"))
        writer.writerows(rows)
    print(f"{len(rows)} docstrings of {len(modules)} modules written to {target}")
    for area, count in Counter(row[1] for row in rows).most_common():
        print(f"  {count:5} {area}")
    print("left out: " + ", ".join(f"{count} {reason}" for reason, count in left.items()))
    if absent:
        print(f"not on this machine: {', '.join(absent)}")
    return 0


def imported(name: str) -> ModuleType | None:
    """The module, or None where this Python or platform has none."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def documented(name: str, module: ModuleType, table: dict[str, str], seen: set[int]) -> Iterator[tuple[str, str, bool]]:
    """(name, docstring, is it inherited unchanged) of what the module defines; objects of other listed modules are left to them."""
    for public, value in sorted(vars(module).items()):
        if public.startswith("_") or id(value) in seen or not (inspect.isclass(value) or inspect.isroutine(value)):
            continue
        home = str(vars(value).get("__module__") if inspect.isclass(value) else value.__module__)
        home = PUBLISHED.get(home, home)
        if home != name and (home in table or not is_part(home, name)):
            continue
        seen.add(id(value))
        if isinstance(value.__doc__, str):
            yield public, value.__doc__, inspect.isclass(value) and is_inherited(value)
        if inspect.isclass(value):
            yield from methods(public, value)


def methods(owner: str, cls: type) -> Iterator[tuple[str, str, bool]]:
    """The same for public methods and properties that the class itself defines."""
    for public, value in sorted(vars(cls).items()):
        member = value.__func__ if isinstance(value, (classmethod, staticmethod)) else value
        if public.startswith("_") or not (inspect.isroutine(member) or isinstance(member, property)):
            continue
        text = member.__doc__
        if isinstance(text, str):
            above = [vars(base).get(public) for base in cls.__mro__[1:]]
            yield f"{owner}.{public}", text, any(base is not None and base.__doc__ == text for base in above)


def is_part(home: str, name: str) -> bool:
    """True when an object of module `home` is published by module `name`: its C or private half, or a submodule."""
    if home == "None":
        return True
    package = name.partition(".")[0]
    return home.partition(".")[0].lstrip("_") in (package, package + "module", "py" + package) or home.startswith("_")


def is_inherited(cls: type) -> bool:
    """True when the class has the docstring of a base class."""
    return any(base.__doc__ == cls.__doc__ for base in cls.__mro__[1:])


def first_paragraph(doc: str) -> str:
    """The first paragraph of prose, its line breaks kept; signatures before it ("name(a, b) -> c") are left out."""
    lines = inspect.cleandoc(doc).splitlines()
    while lines:
        rest = SIGNATURE.sub("", lines[0])
        if len(rest.split()) >= FEWEST_WORDS or rest == lines[0].strip() != "":
            lines[0] = rest
            break
        lines = lines[1:]
    end = next((number for number, line in enumerate(lines) if not line.strip()), len(lines))
    return "\n".join(line.strip() for line in lines[:end])


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(str(__doc__))
    sys.exit(main(sys.argv[1]))
