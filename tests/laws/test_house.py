"""The rooms of the package: what each may import, and what is public."""

import ast
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import tf_leaky

PACKAGE = Path(tf_leaky.__file__).parent
FILES = set(PACKAGE.rglob("*.py"))
# What each room may import, beside NumPy, TensorFlow and the standard library. Imports point up
# this table only.
BELOW = {"checks", "keras_compat"}
ROOMS = {
    "keras_compat": set(),
    "checks": set(),
    "xla": set(),
    "graph_defs": set(),
    "ops": {*BELOW, "xla"},
    "slopes": {*BELOW, "ops"},
    "layer": {*BELOW, "ops", "slopes"},
    "batch_norm_ops": {*BELOW, "ops"},
    "batch_norm": {*BELOW, "ops", "slopes", "batch_norm_ops"},
    "structure": {"keras_compat", "ops"},
    "conversion": {*BELOW, "ops", "slopes", "layer", "batch_norm", "structure", "graph_defs"},
    # activation_memory says what convert would make of a model, and asks it.
    "inspection": {
        *(*BELOW, "ops", "slopes", "layer", "batch_norm", "structure", "conversion", "matplotlib"),
    },
    "serving": {*BELOW, "graph_defs", "tensorflow_serving"},
}
ROOMS["__init__"] = {*ROOMS} - {"checks"}
EVERYWHERE = {"numpy", "tensorflow", *sys.stdlib_module_names}


def files(room):
    folder = PACKAGE / room
    paths = folder.rglob("*.py") if folder.is_dir() else [folder.with_suffix(".py")]
    return sorted(path for path in paths if path.exists())


def imports(node):
    """The rooms and packages that are imported in a node of Python's syntax."""
    found = set()
    for each in ast.walk(node):
        if isinstance(each, ast.Import):
            found |= {alias.name for alias in each.names}
        elif isinstance(each, ast.ImportFrom):
            assert each.level == 0, "imports are absolute"
            inside = each.module == "tf_leaky"
            found |= {alias.name for alias in each.names} if inside else {each.module}
    return {name.removeprefix("tf_leaky.").partition(".")[0] for name in found}


def test_every_file_is_in_a_room():
    assert {path for room in ROOMS for path in files(room)} == FILES


@pytest.mark.parametrize("room", ROOMS)
def test_room_imports_only_what_stands_below_it(room):
    for path in files(room):
        assert imports(ast.parse(path.read_text())) <= EVERYWHERE | ROOMS[room] | {room}, path


def test_no_two_files_import_each_other_even_by_way_of_others():
    paths = {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in FILES}
    graph = {}
    for name, path in paths.items():
        named = {
            f"{each.module}.{alias.name}".removeprefix("tf_leaky.")
            for each in ast.walk(ast.parse(path.read_text()))
            if isinstance(each, ast.ImportFrom)
            for alias in each.names
        }
        graph[name] = {each for full in named for each in (full, full.rpartition(".")[0])}
    TopologicalSorter(graph).prepare()  # raises CycleError


def test_extras_are_imported_within_the_functions_that_need_them():
    for path in FILES:
        for statement in ast.parse(path.read_text()).body:
            if isinstance(statement, ast.Import | ast.ImportFrom):
                assert not imports(statement) & {"matplotlib", "tensorflow_serving"}, path


@pytest.mark.parametrize("folder", ["conversion", "inspection", "serving"])
def test_folder_names_its_public_functions_and_nothing_else(folder):
    _, *statements, last = ast.parse((PACKAGE / folder / "__init__.py").read_text()).body
    assert all(isinstance(statement, ast.ImportFrom) for statement in statements)
    imported = {alias.name for statement in statements for alias in statement.names}
    assert imported == set(ast.literal_eval(last.value)) <= set(tf_leaky.__all__)


# What Keras has on no public side, and what stands where it does.
PRIVATE = {
    *("_callable_losses", "_compile_config", "_inbound_nodes", "_insert_layers", "_nodes_by_depth"),
    *("_output_shape", "_self_tracked_trackables", "_tracker", "_var_key"),
    *("_compiled_trainable_state", "_index_dict", "_slots", "_trainable_variables", "_unique_id"),
}


def private_names(tree):
    """The private attributes of others that a file uses, and those that it gives to its own."""
    used, own = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            mine = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
            (own if mine or isinstance(node.ctx, ast.Store) else used).add(node.attr)
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "").endswith("attr"):
            used |= {each.value for each in node.args[1:2] if isinstance(each, ast.Constant)}
        elif isinstance(node, ast.FunctionDef):
            own.add(node.name)
    return used, own


def test_private_attributes_of_keras_are_used_in_one_room():
    """Without a default, so that an error follows from a new name."""
    names = {path: private_names(ast.parse(path.read_text())) for path in FILES}
    ours = {"_fields", "_make"}.union(*(own for _, own in names.values()))  # of named tuples
    for path, (used, _) in names.items():
        found = {name for name in used - ours if name.startswith("_") and name[1] != "_"}
        assert found == (PRIVATE if path.stem == "keras_compat" else set()), path
