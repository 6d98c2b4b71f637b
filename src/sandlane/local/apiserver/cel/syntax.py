"""From the text of an expression to its tree. The grammar: https://github.com/google/cel-spec/blob/master/doc/langdef.md.

Macros are nodes of their own. Trees are never deeper than `MAX_DEPTH`, so that whoever walks them may recurse.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NoReturn

import msgspec

from sandlane.local.apiserver.cel.tree import Call, Ident, ListOf, Literal, Macro, MapOf, Node, Select
from sandlane.local.apiserver.cel.values import UInt

MAX_DEPTH = 100
MAX_LENGTH = 100_000
"""Characters of an expression."""


class CompileError(ValueError):
    """An expression that cannot be run; the text says where and why, one fault after the other."""


_TOKEN = re.compile(
    r"""(?P<space>[ \t\r\n\f]+|//[^\n]*)
    |(?P<float>[0-9]+\.[0-9]+(?:[eE][+-]?[0-9]+)?|[0-9]+[eE][+-]?[0-9]+|\.[0-9]+(?:[eE][+-]?[0-9]+)?)
    |(?P<uint>(?:0x[0-9a-fA-F]+|[0-9]+)[uU])
    |(?P<int>0x[0-9a-fA-F]+|[0-9]+)
    |(?P<text>(?P<prefix>[rR][bB]?|[bB][rR]?|)(?:
        (?P<three>\"\"\"|''')(?:\\.|(?!(?P=three)).)*(?P=three)|"(?:[^"\\\r\n]|\\.)*"|'(?:[^'\\\r\n]|\\.)*'))
    |(?P<name>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<sign>==|!=|<=|>=|&&|\|\||[-+*/%<>!?:.,()\[\]{}])""",
    re.VERBOSE | re.DOTALL,
)
_RAW = re.compile(
    r"""(?P<prefix>[rR][bB]?|[bB][rR]?|)(?:(?P<three>\"\"\"|''')(?P<long>.*?)(?P=three)|"(?P<double>[^"\r\n]*)"|'(?P<single>[^'\r\n]*)')""",
    re.DOTALL,
)
_ESCAPE = re.compile(
    r"\\(?:x([0-9a-fA-F]{2})|X([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-3][0-7]{2})|(.))", re.DOTALL
)
_SIMPLE = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\", "'": "'", '"': '"', "`": "`", "?": "?"}  # fmt: skip
RESERVED = frozenset(
    (
        "as",
        "break",
        "const",
        "continue",
        "else",
        "for",
        "function",
        "if",
        "import",
        "in",
        "let",
        "loop",
        "package",
        "namespace",
        "return",
        "var",
        "void",
        "while",
    )
)
"""Words that name no variable."""
_LEVELS = {"||": 1, "&&": 2, "<": 3, "<=": 3, ">": 3, ">=": 3, "==": 3, "!=": 3, "in": 3, "+": 4, "-": 4, "*": 5, "/": 5, "%": 5}  # fmt: skip
MACROS: dict[str, dict[int, int]] = {
    "all": {2: 1, 3: 2},
    "exists": {2: 1, 3: 2},
    "exists_one": {2: 1, 3: 2},
    "existsOne": {2: 1, 3: 2},
    "map": {2: 1, 3: 1},
    "filter": {2: 1},
    "sortBy": {2: 1},
    "transformList": {3: 2, 4: 2},
    "transformMap": {3: 2, 4: 2},
    "transformMapEntry": {3: 2, 4: 2},
    "optMap": {2: 1},
    "optFlatMap": {2: 1},
}
"""Macros that are methods: how many of so many arguments are names of variables."""


class _Token(msgspec.Struct, gc=False):
    kind: str
    text: str
    at: int


def located(source: str, at: int, message: str) -> str:
    """A fault with its place, as cel-go shows it."""
    before = source[:at]
    line, start = before.count("\n"), before.rfind("\n") + 1
    column = at - start
    shown = source.split("\n")[line] if source else ""
    return f"ERROR: <input>:{line + 1}:{column + 1}: {message}\n | {shown}\n | {'.' * column}^"


def parse(source: str) -> Node:
    """The tree of an expression. Raises `CompileError`."""
    if len(source) > MAX_LENGTH:
        raise CompileError(f"expression code point size exceeds limit: size: {len(source)}, limit {MAX_LENGTH}")
    return _Parser(source).whole()


class _Parser:
    def __init__(self, source: str) -> None:
        self._source = source
        self._tokens = list(self._split())
        self._index = 0
        self._open = 0

    def _split(self) -> Iterable[_Token]:
        at = 0
        while at < len(self._source):
            match = _TOKEN.match(self._source, at)
            if match is None:
                self._fail(at, f"Syntax error: token recognition error at: '{self._source[at]}'")
            kind = str(match.lastgroup)
            if "r" in (match["prefix"] or "").lower():  # a raw text ends at the next quote, whatever is before it
                raw = _RAW.match(self._source, at)
                assert raw is not None
                match = raw
                kind = "text"
            if kind in ("prefix", "three"):
                kind = "text"
            if kind != "space":
                yield _Token(kind, match[0], at)
            at = match.end()
        yield _Token("end", "<EOF>", at)

    def _fail(self, at: int, message: str) -> NoReturn:
        raise CompileError(located(self._source, at, message))

    # -- tokens -----------------------------------------------------------------------------------------

    @property
    def _next(self) -> _Token:
        return self._tokens[self._index]

    def _take(self) -> _Token:
        token = self._tokens[self._index]
        self._index += 1
        return token

    def _is(self, sign: str) -> bool:
        token = self._next
        return token.kind == "sign" and token.text == sign

    def _took(self, sign: str) -> bool:
        if self._is(sign):
            self._index += 1
            return True
        return False

    def _expect(self, sign: str) -> None:
        if not self._took(sign):
            self._unexpected(f"expecting '{sign}'")

    def _unexpected(self, wanted: str) -> NoReturn:
        token = self._next
        self._fail(token.at, f"Syntax error: mismatched input '{token.text}' {wanted}")

    # -- grammar ----------------------------------------------------------------------------------------

    def whole(self) -> Node:
        """The one expression that the text is."""
        node = self._expression()
        if self._next.kind != "end":
            self._unexpected("expecting <EOF>")
        return node

    def _expression(self) -> Node:
        self._open += 1
        if self._open > MAX_DEPTH:
            self._fail(self._next.at, f"expression recursion limit exceeded: {MAX_DEPTH}")
        node = self._binary(1)
        if self._is("?"):
            at = self._take().at
            then = self._binary(1)
            self._expect(":")
            node = self._call("_?_:_", [node, then, self._expression()], at)
        self._open -= 1
        return node

    def _binary(self, lowest: int) -> Node:
        left = self._unary()
        while True:
            token = self._next
            level = _LEVELS.get(token.text, 0) if token.kind == "sign" or token.text == "in" else 0
            if level < lowest:
                return left
            self._take()
            right = self._binary(level + 1)
            name = "@in" if token.text == "in" else f"_{token.text}_"
            if level <= 2 and isinstance(left, Call) and left.function == name and left.target is None:
                left.args.append(right)  # long chains stay flat
                left.depth = self._deep(max(left.depth, right.depth + 1), token.at)
            else:
                left = self._call(name, [left, right], token.at)

    def _unary(self) -> Node:
        signs: list[_Token] = []
        while self._is("!") or self._is("-"):
            if signs and signs[0].text != self._next.text:
                self._unexpected("expecting an operand")
            signs.append(self._take())
        if signs and signs[0].text == "-" and self._next.kind in ("int", "float"):
            node: Node = self._members(self._number(self._take(), negative=True))
            signs.pop()
        else:
            node = self._members(self._primary())
        if len(signs) % 2:
            node = self._call("!_" if signs[0].text == "!" else "-_", [node], signs[0].at)
        elif signs:  # twice is not at all, but for the type
            name = "!_" if signs[0].text == "!" else "-_"
            node = self._call(name, [self._call(name, [node], signs[0].at)], signs[0].at)
        return node

    def _members(self, node: Node) -> Node:
        while True:
            token = self._next
            if self._took("."):
                optional = self._took("?")
                name = self._name(member=True)
                if not optional and self._is("("):
                    node = self._method(node, name)
                else:
                    depth = self._deep(node.depth + 1, token.at)
                    node = Select(node, name, optional=optional, at=token.at, depth=depth)
            elif self._took("["):
                optional = self._took("?")
                key = self._expression()
                self._expect("]")
                node = self._call("_[?_]" if optional else "_[_]", [node, key], token.at)
            elif self._is("{"):
                self._fail(token.at, "message construction is not supported")
            else:
                return node

    def _name(self, *, member: bool = False) -> str:
        token = self._next
        if token.kind != "name" or token.text in ("true", "false", "null", "in"):
            self._unexpected("expecting IDENTIFIER")
        if token.text in RESERVED and not member:
            self._fail(token.at, f"reserved identifier: {token.text}")
        return self._take().text

    def _arguments(self, close: str) -> list[Node]:
        args: list[Node] = []
        while not self._is(close):
            args.append(self._expression())
            if not self._took(","):
                break
        self._expect(close)
        return args

    def _method(self, target: Node, name: str) -> Node:
        at = self._take().at
        args = self._arguments(")")
        wanted = MACROS.get(name, {}).get(len(args))
        if wanted is None:
            return self._call(name, args, at, target)
        variables: list[str] = []
        for arg in args[:wanted]:
            if not isinstance(arg, Ident):
                self._fail(arg.at, "argument must be a simple name")
            if arg.name in variables:
                self._fail(arg.at, f"duplicate variable name: {arg.name}")
            variables.append(arg.name)
        body = args[wanted:]
        depth = self._deep(max(target.depth, *(each.depth for each in body)) + 1, at)
        return Macro(name, target, variables, body, at=at, depth=depth)

    def _primary(self) -> Node:
        token = self._next
        match token.kind:
            case "int" | "uint" | "float":
                return self._number(self._take())
            case "text":
                return Literal(self._text(self._take()), at=token.at)
            case "name":
                if token.text in ("true", "false", "null"):
                    self._take()
                    return Literal({"true": True, "false": False, "null": None}[token.text], at=token.at)
                return self._identifier()
        if self._took("."):
            return self._identifier()
        if self._took("("):
            node = self._expression()
            self._expect(")")
            return node
        if self._took("["):
            return self._list(token.at)
        if self._took("{"):
            return self._map(token.at)
        self._unexpected("expecting an expression")

    def _identifier(self) -> Node:
        at = self._next.at
        name = self._name()
        if not self._is("("):
            return Ident(name, at=at)
        at = self._take().at
        args = self._arguments(")")
        if name != "has":
            return self._call(name, args, at)
        if len(args) != 1 or not isinstance(args[0], Select) or args[0].optional:
            self._fail(at, "invalid argument to has() macro")
        args[0].test = True
        return args[0]

    def _list(self, at: int) -> Node:
        items, optional = [], []
        while not self._is("]"):
            optional.append(self._took("?"))
            items.append(self._expression())
            if not self._took(","):
                break
        self._expect("]")
        depth = self._deep(1 + max((each.depth for each in items), default=0), at)
        return ListOf(items, optional, at=at, depth=depth)

    def _map(self, at: int) -> Node:
        keys, values, optional = [], [], []
        while not self._is("}"):
            optional.append(self._took("?"))
            keys.append(self._expression())
            self._expect(":")
            values.append(self._expression())
            if not self._took(","):
                break
        self._expect("}")
        depth = self._deep(1 + max((each.depth for each in (*keys, *values)), default=0), at)
        return MapOf(keys, values, optional, at=at, depth=depth)

    def _call(self, function: str, args: list[Node], at: int, target: Node | None = None) -> Call:
        parts = args if target is None else [target, *args]
        depth = self._deep(1 + max((each.depth for each in parts), default=0), at)
        return Call(function, target, args, at=at, depth=depth)

    def _deep(self, depth: int, at: int) -> int:
        if depth > MAX_DEPTH:
            self._fail(at, f"expression recursion limit exceeded: {MAX_DEPTH}")
        return depth

    # -- literals ---------------------------------------------------------------------------------------

    def _number(self, token: _Token, *, negative: bool = False) -> Literal:
        sign = -1 if negative else 1
        if token.kind == "float":
            return Literal(sign * float(token.text), at=token.at)
        text = token.text.rstrip("uU")
        if len(text) > 40:
            self._fail(token.at, f"invalid {token.kind} literal")
        value = sign * (int(text[2:], 16) if text.startswith("0x") else int(text))
        if token.kind == "uint":
            if value >= 2**64:
                self._fail(token.at, "invalid uint literal")
            return Literal(UInt(value), at=token.at)
        if not -(2**63) <= value < 2**63:
            self._fail(token.at, "invalid int literal")
        return Literal(value, at=token.at)

    def _text(self, token: _Token) -> str | bytes:
        prefix = re.match(r"[rRbB]*", token.text)[0].lower()  # type: ignore[index]
        quoted = token.text[len(prefix) :]
        size = 3 if quoted[:3] in ('"""', "'''") and len(quoted) >= 6 else 1
        content = quoted[size:-size]
        if "b" not in prefix:
            return content if "r" in prefix else self._unescaped(content, token.at)
        if "r" in prefix:
            return content.encode()
        made = b""
        at = 0
        for match in _ESCAPE.finditer(content):
            made += content[at : match.start()].encode() + self._escaped(match, token.at, octets=True)
            at = match.end()
        return made + content[at:].encode()

    def _unescaped(self, content: str, at: int) -> str:
        if "\\" not in content:
            return content
        return _ESCAPE.sub(lambda match: self._escaped(match, at).decode(), content)

    def _escaped(self, match: re.Match[str], at: int, *, octets: bool = False) -> bytes:
        small, large, four, eight, octal, simple = match.groups()
        if simple is not None:
            if simple not in _SIMPLE:
                self._fail(at, f"Syntax error: token recognition error at: '\\{simple}'")
            return _SIMPLE[simple].encode()
        code = int(octal, 8) if octal is not None else int(small or large or four or eight, 16)
        if octets and (octal or small or large):
            return bytes([code])
        if code > 0x10FFFF or 0xD800 <= code < 0xE000:
            self._fail(at, "unable to unescape string")
        return chr(code).encode()
