"""Rules of this code base that a machine can check: `check_style.py [ROOT]`, `check_style.py --self-test`.

Everything that people may want to change is in the tables below; exceptions carry their reason.
"""

import ast
import fnmatch
import os
import re
import subprocess
import sys

# Folder -> folders it may include from. Arrows point one way: model <- ingest <- daemon.
ARROWS = {
    "model": {"model"},
    "proto": {"proto"},
    "ingest": {"ingest", "model", "proto"},
    "daemon": {"daemon", "ingest", "model", "proto"},
    "tests": {"tests", "daemon", "ingest", "model", "proto"},
}
SOURCES = ("model", "ingest", "daemon", "proto")

# Third-party header -> the files behind which it stays. A header of ours may include none of them.
DOORS = {
    "librdkafka/*": ["ingest/kafka*.c", "tests/*"],
    "hiredis/*": ["ingest/redis*.c", "tests/*"],
    "protobuf-c/*": ["ingest/codec*.c"],
    "*.pb-c.h": ["ingest/codec*.c", "tests/*"],
    "cblas.h": ["model/network/blas.c"],
    "yaml.h": ["daemon/config_yaml.c"],
    "microhttpd.h": ["daemon/http.c"],
    "systemd/*": ["daemon/notify.c"],
    "jansson.h": ["model/files/json.c"],
    "jpeglib.h": ["daemon/pictures/decode_jpeg.c"],
    "jerror.h": ["daemon/pictures/decode_jpeg.c"],
    "png.h": ["daemon/pictures/decode_png.c"],
    "zlib.h": ["daemon/pictures/decode_png.c", "tests/*"],
    "webp/*": ["daemon/pictures/decode_webp.c"],
    "lmdb.h": ["daemon/features/kv.c"],
    "nettle/*": ["daemon/features/store_digest.c"],
    "seccomp.h": ["daemon/pictures/sandbox.c"],
    "unistr.h": ["model/files/utf8.c"],
    "utf8proc.h": ["model/text/unicode.c"],
    "uv.h": ["ingest/*.c", "daemon/*.c", "tests/*"],
    "xxhash.h": ["model/*.c", "ingest/*.c", "daemon/*.c", "tests/*"],
    "uthash.h": ["model/*.c", "ingest/*.c", "daemon/*.c"],
    "utlist.h": ["model/*.c", "ingest/*.c", "daemon/*.c"],
    "cmocka.h": ["tests/unit/*"],
}

# What is not third-party: C, POSIX, Linux and the compiler.
SYSTEM = set(
    """assert complex ctype errno fenv float inttypes limits locale math setjmp signal stdalign stdarg
    stdatomic stdbool stddef stdint stdio stdlib stdnoreturn string strings tgmath threads time uchar wchar
    wctype dirent dlfcn execinfo fcntl fnmatch ftw getopt glob grp libgen malloc netdb poll pthread pwd sched
    semaphore spawn sysexits syslog termios ucontext unistd byteswap endian
    immintrin cpuid x86intrin arm_neon""".split()
)
SYSTEM_FOLDERS = ("sys/", "linux/", "netinet/", "arpa/", "net/", "sanitizer/")

# model/ is mathematics: no thread, clock, socket or printing. What its file formats and programs need:
MODEL_BANNED = """pthread.h threads.h semaphore.h sched.h uv.h poll.h netdb.h sys/socket.h sys/epoll.h
    netinet/* arpa/* time.h sys/time.h signal.h syslog.h stdio.h unistd.h fcntl.h""".split()
MODEL_EXEMPT = {
    "model/error.c": ["stdio.h"],  # snprintf
    "model/network/*": ["stdio.h"],  # snprintf: the names of tensors
    "model/encoder/*": ["stdio.h"],  # snprintf: the names of tensors
    "model/files/*": ["stdio.h", "unistd.h", "fcntl.h"],  # files
    "model/vision/words.c": ["stdio.h"],  # snprintf, rename: the file that it keeps
    "model/tools/*": ["*"],  # command-line programs
}

# Function -> (the better way, folders where it is allowed).
BANNED_CALLS = {
    "strcpy": ("memcpy with a checked length", []),
    "strcat": ("snprintf", []),
    "sprintf": ("snprintf", []),
    "vsprintf": ("vsnprintf", []),
    "gets": ("getline", []),
    "atoi": ("strtol with its errors checked", []),
    "atol": ("strtol with its errors checked", []),
    "atof": ("strtod with its errors checked", []),
    "strtok": ("strtok_r or strcspn", []),
    "alloca": ("a buffer of known size", []),
    "rand": ("the counter-based generator", []),
    "srand": ("the counter-based generator", []),
    "system": ("posix_spawn", ["tests/*"]),
    "popen": ("posix_spawn", ["tests/*"]),
}
# Only programs end the process or print; libraries return errors.
PRINTING = r"printf|fprintf|vprintf|vfprintf|puts|putchar|perror|exit|_exit|quick_exit"
PRINTING_ALLOWED = ["model/tools/*", "daemon/tools/*", "daemon/main.c", "daemon/pictures/main.c", "daemon/log*.c", "tests/*"]

FILE_LINES_MAX = 600
FUNCTION_LINES_MAX = 75
LINE_COLUMNS_MAX = 110
PYTHON_COLUMNS_MAX = 125  # no formatter breaks these lines
LONG_FILES = {}  # path -> why it is longer
LONG_FUNCTIONS = {}  # "path:function" -> why it is longer

# Written so that this file does not match itself.
PROMISES = re.compile(
    r"\b(TO[D]O|FIX[M]E|X[X]X|HA[C]K|TB[D])\b"
    r"|\b(?i:place[h]older|stu[b]s?|stu[b]bed|coming s[o]on|for n[o]w|(not yet|to be) imp[l]emented)\b"
)
MACHINE_PATHS = re.compile(r"(?<![\w.}/])/(wor[k]|roo[t]|home/\w[\w-]*|Use[r]s/\w+)/|(?<![\w}])/tm[p]/w\b")
REGISTRY_HOSTS = re.compile(
    r"pyp[i]\.org|pythonhoste[d]|repo1?\.mave[n]|deb\.debia[n]|crate[s]\.io|npmj[s]|prox[y]\.golang"
)

NOT_TEXT = ["tests/corpus/*", "tests/fixtures/*"]
C_SUFFIXES = (".c", ".h", ".inc")


def matches(path, patterns):
    return any(fnmatch.fnmatch(path, pattern) for pattern in patterns)


def line_of(text, match):
    return text.count("\n", 0, match.start()) + 1


def blank_comments_and_strings(text):
    """The same text, line for line, with comments and the inside of strings turned to blanks."""
    pattern = re.compile(r'//(?:\\\n|[^\n])*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.DOTALL)

    def blank(match):
        found = match.group()
        if found[0] in "\"'":
            return found[0] + " " * (len(found) - 2) + found[-1]
        return re.sub(r"[^\n]", " ", found)

    return pattern.sub(blank, text)


def c_functions(code):
    """(name, first line, last line) of each function; `code` as blank_comments_and_strings gives it."""
    directive = re.compile(r"^[ \t]*#(?:\\\n|[^\n])*", re.MULTILINE)
    code = directive.sub(lambda match: re.sub(r"[^\n]", " ", match.group()), code)
    depth, start, function = 0, 0, None
    for position in (m.start() for m in re.finditer(r"[{};]", code)):
        mark = code[position]
        if mark == "{":
            head = code[start:position]
            named = re.search(r"(\w+)\s*\(", head)
            if depth == 0 and named and "=" not in head:
                begin = start + len(head) - len(head.lstrip())
                function = (named.group(1), code.count("\n", 0, begin) + 1)
            depth += 1
        elif mark == "}":
            depth -= 1
            if depth == 0 and function:
                yield (*function, code.count("\n", 0, position) + 1)
                function = None
        if depth == 0:
            start = position + 1


class Checker:
    """Collects complaints about one tree of files: {path: text}."""

    def __init__(self, files):
        self.files = files
        self.complaints = []

    def complain(self, path, line, text):
        self.complaints.append(f"{path}:{line}: {text}")

    def check(self):
        for path, text in sorted(self.files.items()):
            self.check_text(path, text)
            if path.endswith(C_SUFFIXES):
                code = blank_comments_and_strings(text)
                self.check_includes(path, text)
                self.check_calls(path, code)
                for name, first, last in c_functions(code):
                    self.check_function(path, name, first, last)
            if path.endswith(".h") and not text.startswith(("/*", "//")):
                self.complain(path, 1, "a header starts with a comment that says what it is for")
            if path.endswith(".py"):
                for node in ast.walk(ast.parse(text, path)):
                    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                        self.check_function(path, node.name, node.lineno, node.end_lineno)
        self.check_readmes()
        return self.complaints

    def check_text(self, path, text):
        lines = text.split("\n")
        is_code = path.endswith((*C_SUFFIXES, ".py"))
        if is_code and len(lines) - 1 > FILE_LINES_MAX and path not in LONG_FILES:
            self.complain(path, len(lines), f"{len(lines) - 1} lines, more than {FILE_LINES_MAX}")
        if text and not text.endswith("\n"):
            self.complain(path, len(lines), "the last line has no end")
        for number, line in enumerate(lines, 1):
            if "\t" in line:
                self.complain(path, number, "a tab")
            if line.endswith((" ", "\r", "\t")):
                self.complain(path, number, "blanks at the end of the line")
            columns_max = PYTHON_COLUMNS_MAX if path.endswith(".py") else LINE_COLUMNS_MAX
            if is_code and len(line) > columns_max:
                self.complain(path, number, f"{len(line)} columns, more than {columns_max}")
            for found in (PROMISES.search(line), MACHINE_PATHS.search(line), REGISTRY_HOSTS.search(line)):
                if found:
                    what = "later work, a machine's path or a registry"
                    self.complain(path, number, f"'{found.group()}': {what}")

    def check_includes(self, path, text):
        room = path.split("/")[0]
        for match in re.finditer(r'^[ \t]*#[ \t]*include[ \t]*([<"])([^>"\n]+)[>"]', text, re.MULTILINE):
            line, name = line_of(text, match), match.group(2)
            target = self.own_header(path, name) if match.group(1) == '"' else None
            if target:
                if target.split("/")[0] not in ARROWS.get(room, ()):
                    self.complain(path, line, f"{room}/ must not include {target}")
                continue
            if room == "model" and matches(name, MODEL_BANNED):
                exempt = [headers for files, headers in MODEL_EXEMPT.items() if matches(path, [files])]
                if not any(matches(name, headers) for headers in exempt):
                    self.complain(path, line, f"model/ is mathematics: no {name} (see MODEL_EXEMPT)")
            if name.startswith(SYSTEM_FOLDERS) or name.removesuffix(".h") in SYSTEM:
                continue
            doors = [files for header, files in DOORS.items() if fnmatch.fnmatch(name, header)]
            if not doors:
                self.complain(path, line, f"{name}: neither a header of ours nor one of the table DOORS")
            elif path.endswith(".h") and room in SOURCES:
                self.complain(path, line, f"{name} in a header: third-party headers stay in .c files")
            elif not matches(path, doors[0]):
                self.complain(path, line, f"{name} belongs to {' '.join(doors[0])}")

    def own_header(self, path, name):
        beside = os.path.normpath(os.path.join(os.path.dirname(path), name))
        return next((candidate for candidate in (name, beside) if candidate in self.files), None)

    def check_calls(self, path, code):
        for name, (better, allowed) in BANNED_CALLS.items():
            if not matches(path, allowed):
                for match in re.finditer(rf"(?<![\w.>]){name}\s*\(", code):
                    self.complain(path, line_of(code, match), f"{name}: use {better}")
        if path.startswith(SOURCES) and not matches(path, PRINTING_ALLOWED):
            for match in re.finditer(rf"(?<![\w.>])({PRINTING})\s*\(", code):
                what = "libraries return errors, only programs print or exit"
                self.complain(path, line_of(code, match), f"{match.group(1)}: {what}")
        for match in re.finditer(r"\btypedef\s+(struct|union|enum)\b", code):
            self.complain(path, line_of(code, match), f"typedef {match.group(1)}: name the tag")

    def check_function(self, path, name, first, last):
        if last - first + 1 > FUNCTION_LINES_MAX and f"{path}:{name}" not in LONG_FUNCTIONS:
            length = f"{last - first + 1} lines, more than {FUNCTION_LINES_MAX}"
            self.complain(path, first, f"{name}: {length}")

    def check_readmes(self):
        folders = set()
        for path in self.files:
            parts = path.split("/")[:-1]
            if parts and not parts[0].startswith("."):
                folders.add(parts[0])
                if parts[0] in SOURCES and len(parts) > 1:
                    folders.add("/".join(parts[:2]))
        for folder in sorted(folders):
            if f"{folder}/README.md" not in self.files:
                self.complain(folder, 1, "no README.md: what lives here, includes, what to read first")


def read_tree(root):
    """The files that git tracks or would track; without git, all but hidden and build folders."""
    command = ["git", "-C", root, "ls-files", "-z", "-co", "--exclude-standard"]
    listed = subprocess.run(command, capture_output=True)
    if listed.returncode == 0:
        paths = [p for p in listed.stdout.decode().split("\0") if p]
    else:
        paths = []
        for folder, folders, names in os.walk(root):
            folders[:] = [f for f in folders if not f.startswith((".", "build")) and f != "__pycache__"]
            paths += [os.path.relpath(os.path.join(folder, n), root) for n in names if not n.endswith(".pyc")]
    files = {}
    for path in paths:
        full = os.path.join(root, path)
        if matches(path, NOT_TEXT) or not os.path.isfile(full):
            continue
        with open(full, "rb") as file:
            data = file.read()
        if b"\0" not in data:
            files[path] = data.decode("utf-8")
    return files


def sample(changes):
    """A tree that keeps every rule, with some files changed."""
    folders = ("model", "model/files", "ingest", "daemon", "tests")
    files = {f"{folder}/README.md": "Text.\n" for folder in folders}
    files |= {
        "model/a.h": "/* What it is for. */\nint m2se_a(void);\n",
        "model/a.c": '#include "model/a.h"\n\n#include <math.h>\n\nint m2se_a(void) {\n  return 1;\n}\n',
        "model/files/json.c": "#include <stdio.h>\n",
        "ingest/kafka.c": '#include <librdkafka/rdkafka.h>\n#include "model/a.h"\n',
        "daemon/main.c": '#include <stdio.h>\n#include <uv.h>\n\nint main(void) {\n  printf("exit(1)");\n}\n',
        "tests/a.py": '"""Text."""\n',
    }
    return files | changes


# What breaks one rule each, and a word of the complaint it must draw.
BREAKS = [
    ("model/b.c", '#include "../ingest/b.h"\n', "must not include"),
    ("model/b.c", '#include "daemon/b.h"\n', "must not include"),
    ("ingest/b.c", '#include "daemon/b.h"\n', "must not include"),
    ("model/b.c", "#include <pthread.h>\n", "mathematics"),
    ("model/b.c", "#include <netinet/in.h>\n", "mathematics"),
    ("model/files/b.c", "#include <time.h>\n", "mathematics"),
    ("ingest/b.c", "#include <librdkafka/rdkafka.h>\n", "belongs to"),
    ("daemon/b.c", "#include <hiredis/hiredis.h>\n", "belongs to"),
    ("daemon/b.c", '#include "m2se.pb-c.h"\n', "belongs to"),
    ("daemon/b.h", "/* Text. */\n#include <uv.h>\n", "in a header"),
    ("daemon/b.h", "/* Text. */\n#include <uthash.h>\n", "in a header"),
    ("daemon/b.c", "#include <curl/curl.h>\n", "neither a header of ours"),
    ("daemon/b.c", '#include "nowhere.h"\n', "neither a header of ours"),
    ("daemon/b.h", "#pragma once\n", "starts with a comment"),
    ("tests/b.c", "typedef struct {\n  int a;\n} b;\n", "typedef struct"),
    ("tests/b.c", "int b;\n" * (FILE_LINES_MAX + 1), f"more than {FILE_LINES_MAX}"),
    ("tests/b.c", "int b(int a) {\n" + "  a++;\n" * FUNCTION_LINES_MAX + "}\n", "b: 77 lines, more than"),
    ("tests/b.py", "def b():\n" + "    a = 1\n" * FUNCTION_LINES_MAX, "b: 76 lines, more than"),
    ("tests/b.c", "//" + "b" * LINE_COLUMNS_MAX + "\n", f"more than {LINE_COLUMNS_MAX}"),
    ("tests/b.c", "int b; \n", "blanks at the end"),
    ("tests/b.c", "int b;\r\n", "blanks at the end"),
    ("tests/b.c", "\tint b;\n", "a tab"),
    ("tests/b.c", "int b;", "no end"),
    ("tests/b.md", "TO" + "DO: b\n", "later work"),
    ("tests/b.md", "A Place" + "holder.\n", "later work"),
    ("tests/b.md", "Fine for " + "now.\n", "later work"),
    ("ops/README.md", "cd /wor" + "k/main\n", "later work, a machine's path"),
    ("ops/README.md", "cd /home/" + "anna/m\n", "later work, a machine's path"),
    ("ops/README.md", "see pyp" + "i.org\n", "a registry"),
    ("ops/b.sh", "true\n", "no README.md"),
    ("daemon/tools/b.c", "int b;\n", "no README.md"),
    ("ingest/b.c", "void b(void) {\n  exit(1);\n}\n", "only programs print"),
    ("daemon/b.c", 'void b(void) {\n  fprintf(stderr, "b");\n}\n', "only programs print"),
] + [("daemon/b.c", f"int b = {call}(a);\n", f"{call}: use") for call in BANNED_CALLS]

# What looks like a breach and is none.
FINE = [
    ("tests/b.c", '/* strcpy(a, b) */\nint b = a.rand(1), c = my_strcpy(a);\nchar d[] = "gets(1)";\n'),
    ("tests/b.c", "int b[] = {f(1), 2};\nstruct c {\n" + "  int a;\n" * FUNCTION_LINES_MAX + "};\n"),
    ("tests/b.md", "A folder like state/" + "work/ and mkstemp's XX" + "XXXX, stubborn, platform.\n"),
    ("daemon/b.c", "#include <sys/stat.h>\n#include <uthash.h>\n#include <linux/fs.h>\n"),
]


def self_test():
    failures = [f"the clean sample: {complaint}" for complaint in Checker(sample({})).check()]
    extra = {"ingest/b.h": "/* Text. */\n"}, {"daemon/b.h": "/* Text. */\n"}
    for path, text, expected in BREAKS:
        complaints = Checker(sample(extra[0] | extra[1] | {path: text})).check()
        if not any(expected in complaint for complaint in complaints):
            failures.append(f"not noticed in {path} ({expected}): {text[:60]!r}, only {complaints}")
    for path, text in FINE:
        failures += [f"wrongly noticed: {complaint}" for complaint in Checker(sample({path: text})).check()]
    print("\n".join(failures) or f"all {len(BREAKS)} breaches noticed")
    return 1 if failures else 0


def main(arguments):
    if arguments == ["--self-test"]:
        return self_test()
    root = arguments[0] if arguments else os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
    files = read_tree(root)
    complaints = Checker(files).check()
    print("\n".join(complaints) or f"{len(files)} files keep the rules")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
