"""Which settings the sources read: attributes of what is a `Config` or one of its sections, found by following names.

What a name is follows from annotations, from what is assigned to it and from what functions return. Where several
classes have an attribute of one name, it may be what it is in any of them.
"""

from __future__ import annotations

import ast
import dataclasses
from collections import defaultdict
from collections.abc import Iterable

from albef.config import Config

SECTIONS = {section.name: section.default_factory.__name__ for section in dataclasses.fields(Config)}
KINDS = {"Config", *SECTIONS.values()}
Found = frozenset[str]  # names of the classes that an expression may be one of
Names = dict[str, Found]
NOTHING: Found = frozenset()


def settings_read(sources: Iterable[str]) -> set[tuple[str, str]]:
    """(class, setting) of every setting that is read somewhere in these modules."""
    trees = [ast.parse(source) for source in sources]
    reading = Reading()
    while True:  # until following names tells nothing new: a name may come from one that is understood later
        known = reading.size()
        for tree in trees:
            reading.block(tree, {})
        if reading.size() == known:
            return {(kind, name) for kind, name in reading.read if kind != "Config"}


class Reading:
    """What is known of attributes and functions of all modules, by their names, and what was read."""

    def __init__(self) -> None:
        self.attributes: defaultdict[str, Found] = defaultdict(frozenset)
        self.returned: defaultdict[str, Found] = defaultdict(frozenset)
        self.read: set[tuple[str, str]] = set()

    def size(self) -> int:
        return len(self.read) + sum(map(len, [*self.attributes.values(), *self.returned.values()]))

    def block(self, node: ast.AST, names: Names) -> None:
        """Follows the statements below a node; `names` are the ones around it, and get what is assigned."""
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                self.function(child, dict(names))
            elif isinstance(child, ast.ClassDef):
                self.block(child, dict(names))
            else:
                self.block(child, names)  # what stands on the right first
                if isinstance(child, ast.Assign):
                    for target in child.targets:
                        self.assign(target, child.value, names)
                elif isinstance(child, ast.AnnAssign | ast.NamedExpr):
                    self.assign(child.target, child.value, names, getattr(child, "annotation", None))
                elif isinstance(child, ast.Attribute) and isinstance(child.ctx, ast.Load):
                    self.read |= {(kind, child.attr) for kind in self.kinds(child.value, names)}

    def function(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda, names: Names) -> None:
        arguments = node.args
        for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
            names[argument.arg] = named(argument.annotation)
        self.block(node, names)
        if not isinstance(node, ast.Lambda):
            self.returned[node.name] |= named(node.returns)
            if any(isinstance(one, ast.Name) and "property" in one.id for one in node.decorator_list):
                self.attributes[node.name] |= named(node.returns)

    def assign(
        self, target: ast.expr, value: ast.expr | None, names: Names, annotation: ast.expr | None = None
    ) -> None:
        if isinstance(target, ast.Tuple):
            parts = value.elts if isinstance(value, ast.Tuple) else [value] * len(target.elts)
            for one, part in zip(target.elts, parts, strict=False):
                self.assign(one, part, names)
            return
        kinds = named(annotation) | (self.kinds(value, names) if value else NOTHING)
        if isinstance(target, ast.Name):
            names[target.id] = names.get(target.id, NOTHING) | kinds
            if annotation is not None:  # a field of a class
                self.attributes[target.id] |= kinds
        elif isinstance(target, ast.Attribute):
            self.attributes[target.attr] |= kinds

    def kinds(self, node: ast.expr, names: Names) -> Found:
        """Which of `KINDS` an expression may be."""
        match node:
            case ast.Name():
                return names.get(node.id, NOTHING)
            case ast.Attribute():
                section = SECTIONS.get(node.attr)
                own = {section} if section and "Config" in self.kinds(node.value, names) else set()
                return self.attributes[node.attr] | own
            case ast.Call():
                return self.called(node, names)
            case ast.BoolOp():
                return NOTHING.union(*(self.kinds(value, names) for value in node.values))
            case ast.IfExp():
                return self.kinds(node.body, names) | self.kinds(node.orelse, names)
            case ast.Subscript(slice=ast.Constant(value=str(key))):  # settings by section
                return frozenset({SECTIONS[key]}) if key in SECTIONS else NOTHING
            case ast.NamedExpr() | ast.Subscript():
                return self.kinds(node.value, names)
        return NOTHING

    def called(self, node: ast.Call, names: Names) -> Found:
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name == "replace" and node.args:  # dataclasses.replace
            return self.kinds(node.args[0], names)
        return frozenset({name} & KINDS) | self.returned[name]


def named(annotation: ast.expr | None) -> Found:
    """The classes of `KINDS` that an annotation names, be it within a tuple or beside None."""
    if annotation is None:
        return NOTHING
    return frozenset(node.id for node in ast.walk(annotation) if isinstance(node, ast.Name)) & KINDS
