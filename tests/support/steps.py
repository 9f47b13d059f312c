"""Reads steps of the migration: do they only add, or do they take away what the release before still uses?"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "src" / "chartwire" / "store" / "migrations" / "versions"

LAST_RELEASED: str | None = None
"""The last step of the release before this one; None before the first release: nobody runs anything older.

To release is to set this, and the commit of `code_before` in `tests/chaos/test_old_code.py`.
"""

_TAKE_AWAY = {
    "drop_table", "drop_column", "rename_table",
    "create_unique_constraint", "create_check_constraint", "create_foreign_key", "create_primary_key",
    "create_exclude_constraint",
}  # fmt: skip
_IN_SQL = re.compile(
    r"\b(DROP\s+(TABLE|COLUMN)|RENAME|SET\s+NOT\s+NULL|ADD\s+CONSTRAINT|ALTER\s+COLUMN)\b", re.IGNORECASE
)


def steps_since(released: str | None) -> list[Path]:
    """The steps that no release has yet; none before the first release, whose steps may do as they like."""
    if released is None:
        return []
    return [path for path in sorted(FOLDER.glob("[0-9]*.py")) if path.name[:4] > released]


def find_fault(source: str, released: str) -> list[str]:
    """What a step does that the code of the release before, which goes on serving meanwhile, cannot bear.

    A step may take away what that release does without already, if it names its last step: `FLOOR = "0012"`.
    """
    tree = ast.parse(source)
    floor = next(iter(_floors(tree)), None)
    faults = [f"line {call.lineno}: {fault}" for call in _calls(tree) if (fault := _fault(call, _made(tree)))]
    if floor is None or not faults:
        return faults
    return [] if floor <= released else [f"FLOOR is {floor}, and the release before ends with {released}"]


def _floors(tree: ast.Module) -> Iterator[str]:
    for each in tree.body:
        if isinstance(each, ast.Assign) and any(isinstance(it, ast.Name) and it.id == "FLOOR" for it in each.targets):
            yield str(ast.literal_eval(each.value))


def _calls(tree: ast.AST) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            yield node


def _name(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else ""


def _made(tree: ast.AST) -> set[str]:
    """Tables that the step itself makes: nobody uses them yet."""
    return {text for call in _calls(tree) if _name(call) == "create_table" for text in _texts(call)[:1]}


def _texts(call: ast.Call) -> list[str]:
    return [each.value for each in ast.walk(call) if isinstance(each, ast.Constant) and isinstance(each.value, str)]


def _fault(call: ast.Call, made: set[str]) -> str | None:
    name, keywords = _name(call), {each.arg: ast.unparse(each.value) for each in call.keywords}
    narrows = keywords.get("nullable") == "False" or {"new_column_name", "type_"} & keywords.keys()
    faults = {
        name: name in _TAKE_AWAY,
        "it narrows a column": name == "alter_column" and narrows,
        "a unique index": name == "create_index" and keywords.get("unique") == "True",
        "a column that rows of old code would lack": name == "add_column" and _is_demanding(call),
        "SQL that takes away": name == "execute" and any(_IN_SQL.search(text) for text in _texts(call)),
    }
    return None if made & set(_texts(call)) else next((fault for fault, there in faults.items() if there), None)


def _is_demanding(call: ast.Call) -> bool:
    columns = [each for each in _calls(call) if _name(each) == "Column"]
    keywords = [{each.arg: ast.unparse(each.value) for each in column.keywords} for column in columns]
    return any(each.get("nullable") == "False" and "server_default" not in each for each in keywords)
