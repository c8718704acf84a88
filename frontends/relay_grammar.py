"""The grammar of Relay's text format (0.0.4, 0.0.5 and unversioned), as a lark LALR grammar, and its syntax errors.

Comments never take part in the grammar. `/* ty=… */` comments are collected beside it: each belongs to the expression
whose last character comes right before the comment, wherever printers put it.
"""

from __future__ import annotations

from functools import lru_cache

from lark import Lark, Token, Tree
from lark.exceptions import UnexpectedCharacters, UnexpectedEOF, UnexpectedInput, UnexpectedToken

from costmodel.errors import ModelLoadError

GRAMMAR = r"""
program: VERSION? decl* (step* expr ";"?)?
decl: "def" GLOBAL generics? "(" (param ("," param)* ","?)? ")" ret? block             -> def_
    | "type" NAME generics? "{" (ctor ("," ctor)* ","?)? "}"                           -> adt
    | "extern" "type" NAME generics? (";" | ",")?                                      -> extern
    | "free_var" variable (":" type)? ";"                                              -> free_var
    | "import" STRING (";")?                                                           -> import_
ctor: NAME ("(" types ","? ")")?
generics: "[" NAME ("," NAME)* ","? "]"
ret: "->" type
block: "{" body "}"
body: step* expr
step: "let" variable (":" type)? "=" expr ";"                                          -> let
    | GRAPH "=" expr ";"                                                               -> bind
variable: LOCAL | GRAPH
param: variable fields? (":" type)?
     | NAME "=" value                                                                  -> attr

?expr: unary
     | unary ((OPERATOR | MINUS) unary)+                                               -> infix
?unary: postfix
      | MINUS unary                                                                    -> negate
?postfix: atom
        | postfix PROJECTION                                                           -> project
        | postfix "(" (arg ("," arg)* ","?)? ")"                                       -> call
?arg: expr
    | NAME "=" value                                                                   -> attr
?atom: LOCAL                                                                           -> local
     | GRAPH                                                                           -> graph
     | GLOBAL                                                                          -> global_
     | META                                                                            -> meta
     | NUMBER                                                                          -> number
     | STRING                                                                          -> string
     | NAME                                                                            -> name
     | TENSOR                                                                          -> tensor
     | "(" ")"                                                                         -> tuple
     | "(" step* expr ")"                                                              -> paren
     | "(" expr "," (expr ("," expr)* ","?)? ")"                                       -> tuple
     | "fn" generics? "(" (param ("," param)* ","?)? ")" ret? block                    -> fn
     | "if" expr block "else" else_                                                    -> if_
     | "match" "?"? expr "{" (clause ("," clause)* ","?)? "}"                          -> match
     | block
?else_: block | "if" expr block "else" else_                                           -> if_
clause: pattern "=>" expr
pattern: "_"                                                                           -> p_any
       | variable (":" type)?                                                          -> p_var
       | NAME ("(" (pattern ("," pattern)* ","?)? ")")?                                -> p_ctor
       | "(" (pattern ("," pattern)* ","?)? ")"                                        -> p_tuple

?value: expr | list | fields
list: "[" (value ("," value)* ","?)? "]"
fields: "{" (field ("," field)* ","?)? "}"
field: (NAME | STRING) ("=" | ":") value

?type: TENSOR                                                                          -> tensor
     | NAME                                                                            -> t_name
     | NAME "[" (types ","?)? "]"                                                      -> t_apply
     | NAME "(" type ")"                                                               -> t_apply1
     | "(" (types ","?)? ")"                                                           -> t_tuple
     | "fn" generics? "(" (types ","?)? ")" "->" type                                  -> t_fn
     | ("?" | "_")                                                                     -> t_any
types: type ("," type)*

VERSION: /#\[version\s*=\s*"[^"]*"\s*\]|v\d+\.\d+(\.\d+)?/
LOCAL: /%[A-Za-z_]\w*(?:(?:(?:::|[.\/])\w+)*(?:::|[.\/])[A-Za-z_]\w*)?/
GRAPH: /%\d+/
GLOBAL: /@[A-Za-z_][\w.:]*/
META.2: /meta\[[\w.]+\]\[\d+\]/
TENSOR.2: /Tensor\[\s*\([^()\[\]]*\)\s*,\s*[A-Za-z]\w*\s*\]/
NUMBER: /\d+(?:\.\d+)?(?:[eE][-+]?\d+)?(?:f\d*|[iu]\d+)?/
PROJECTION: /\.\d+/
STRING: /"(?:[^"\\]|\\.)*"/
NAME: /[A-Za-z_]\w*(?:(?:\.|::)[A-Za-z_]\w*)*/
OPERATOR: /==|!=|<=|>=|[+*\/<>]/
MINUS: "-"
COMMENT: /\/\*(?:[^*]|\*(?!\/))*\*\/|\/\/[^\n]*/
SPACE: /\s+/
%ignore COMMENT
%ignore SPACE
"""

_WORDS = {
    "LOCAL": "a variable", "GRAPH": "a numbered value", "GLOBAL": "a global name", "META": "meta[…][…]",
    "NUMBER": "a number", "STRING": "a string", "NAME": "a name", "TENSOR": "a tensor type", "OPERATOR": "an operator",
    "PROJECTION": ".index", "VERSION": "a version line", "$END": "the end",
}  # fmt: skip


@lru_cache(maxsize=1)
def _parser() -> Lark:
    return Lark(GRAMMAR, parser="lalr", start=["program", "type"], propagate_positions=True, maybe_placeholders=False)


def parse_program(text: str) -> tuple[Tree[Token], dict[int, str]]:
    """Syntax tree of a program, and the text of each type comment by the offset where its expression ends.

    Raises ModelLoadError with line, column and what was expected.
    """
    try:
        tree = _parser().parse(text, start="program")
    except UnexpectedInput as error:
        raise ModelLoadError(_explain(error, text)) from None
    return tree, type_comments(text)


def parse_type(text: str) -> Tree[Token] | None:
    """Syntax tree of a type, None if it is not one."""
    try:
        return _parser().parse(text, start="type")
    except UnexpectedInput:
        return None


def type_comments(text: str) -> dict[int, str]:
    """Offset of the end of the code before each type comment → the type; blanks and other comments are skipped."""
    notes: dict[int, str] = {}
    start, code_end, after = text.find("/*"), 0, 0
    while start >= 0:
        stop = text.find("*/", start + 2)
        if stop < 0:
            break
        between = text[after:start].rstrip()
        if between:
            code_end = after + len(between)
        words = text[start + 2 : stop].strip()
        if words.startswith("ty="):
            words = words.removeprefix("ty=").partition(" span=")[0].partition(" en_id=")[0]
            notes.setdefault(code_end, words.strip())
        after = stop + 2
        start = text.find("/*", after)
    return notes


def _explain(error: UnexpectedInput, text: str) -> str:
    if isinstance(error, UnexpectedEOF) or (isinstance(error, UnexpectedToken) and error.token.type == "$END"):
        lines = text.splitlines() or [""]
        line, column, found = len(lines), len(lines[-1]) + 1, "the end of the text"
    else:
        line, column = error.line, error.column
        if isinstance(error, UnexpectedCharacters):
            found = repr(text[error.pos_in_stream or 0 :][:1])
        else:
            found = repr(str(getattr(error, "token", ""))[:24])
    expected = (
        getattr(error, "expected", None) or getattr(error, "accepts", None) or getattr(error, "allowed", None) or ()
    )
    names = sorted({_spell(name) for name in expected})
    shown = ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
    return (
        f"Relay text, line {line}, column {column}: found {found}, expected {shown or 'something else'};"
        " correct the text or print the module again with astext()"
    )


def _spell(terminal: str) -> str:
    if terminal in _WORDS:
        return _WORDS[terminal]
    for definition in _parser().terminals:
        if definition.name == terminal:
            return repr(definition.pattern.value)
    return terminal
